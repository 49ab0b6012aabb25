"""The settings that come from the environment, as a backup keeps them. Not for: reading them.

The file has the format of systemd's EnvironmentFile, which scripts/backup and scripts/restore read as well.
"""

import os
import re

#: Every setting of docs/install.md and portal/settings/web.py; those of the process alone are none.
NAMES = (
    *("BIND", "PORT", "ALLOWED_HOSTS", "TLS_CERT", "TLS_KEY", "GATEHOUSE_TLS", "GATEHOUSE_TRUST_PROXY"),
    *("TRUSTED_ORIGINS", "PUBLIC_URL", "GATEHOUSE_STATE", "GATEHOUSE_POOL", "GATEHOUSE_DEBIAN_MIRROR"),
    *("GATEHOUSE_IMAGES", "DATABASE_URL", "DATABASE_POOL", "REDIS_URL", "BROKER_URL", "CACHE_URL"),
    *("GATEHOUSE_UPLOAD_LIMIT", "GATEHOUSE_DISK_LIMIT", "GATEHOUSE_UPLOAD_DAYS"),
    *("GATEHOUSE_IMPORT_NETWORKS", "GATEHOUSE_IMPORT_HOURS", "GATEHOUSE_IMPORT_CA"),
    *("SECRET_KEY", "ENCRYPTION_KEYS", "DEFAULT_FROM_EMAIL", "GATEHOUSE_BATCH_CAP"),
    *("EMAIL_HOST", "EMAIL_PORT", "EMAIL_HOST_USER", "EMAIL_HOST_PASSWORD", "EMAIL_USE_TLS"),
)
FILE = "settings.env"
_MEANING = re.compile(r'[\\"$`]')


def text() -> str:
    """Return the settings that are set now, a line each; a value of several lines has no place there."""
    lines = ["# Settings of the portal when the backup was made. Secrets are among them."]
    for name in NAMES:
        value = os.environ.get(name)
        if value is None:
            continue
        if "\n" in value:
            lines.append(f"# {name} had several lines and is left out.")
        else:
            lines.append(f'{name}="{_MEANING.sub(lambda found: chr(92) + found[0], value)}"')
    return "\n".join(lines) + "\n"
