"""Settings of images that people hand in.

GATEHOUSE_UPLOAD_LIMIT     GiB of the largest file that is taken; default 64
GATEHOUSE_DISK_LIMIT       GiB of the largest disk that may be in it; default 2048
GATEHOUSE_UPLOAD_DAYS      days after which an upload that nobody goes on with is thrown away; default 3
GATEHOUSE_IMPORT_NETWORKS  networks that files may be fetched from though they are not public, comma separated
                           (10.0.0.0/8, fd00::/8), beside what admins allow in the browser; default: none
GATEHOUSE_IMPORT_HOURS     hours that fetching one file may take; default 6
GATEHOUSE_IMPORT_CA        a file of certificates to trust when fetching by https instead of the system's
"""

import ipaddress
import os

from portal.settings.paths import STATE_DIR
from portal.settings.web import listed

_GIB = 1 << 30
#: What people hand in: `parts` is written by the web process, `sent` by the keeper, `images` by the worker.
UPLOADS = STATE_DIR / "uploads"
#: Where the keeper listens.
UPLOADS_SOCKET = STATE_DIR / "run" / "uploads.sock"
UPLOAD_MOST_BYTES = int(float(os.environ.get("GATEHOUSE_UPLOAD_LIMIT") or 64) * _GIB)
UPLOAD_MOST_CAPACITY = int(float(os.environ.get("GATEHOUSE_DISK_LIMIT") or 2048) * _GIB)
UPLOAD_DAYS = int(os.environ.get("GATEHOUSE_UPLOAD_DAYS") or 3)
IMPORT_NETWORKS = [ipaddress.ip_network(text) for text in listed("GATEHOUSE_IMPORT_NETWORKS")]
IMPORT_SECONDS = float(os.environ.get("GATEHOUSE_IMPORT_HOURS") or 6) * 3600
IMPORT_CA = os.environ.get("GATEHOUSE_IMPORT_CA", "")
