"""`python -m tests.e2e`: a portal to write tests against. Ctrl-C ends it and removes what it built.

Run the tests with GATEHOUSE_E2E_PORTAL=FOLDER, which it prints: they start at once.
"""

import json
import signal
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.e2e.conftest import PLENTY
from tests.e2e.portals import running


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, _stop)
with tempfile.TemporaryDirectory(prefix="gttest-portal-") as folder, running(Path(folder)) as portal:
    Path(folder, "portal.json").write_text(json.dumps(asdict(portal) | {"state": folder}))
    portal.shell(PLENTY)
    print(f"{portal.url}  GATEHOUSE_E2E_PORTAL={folder}", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("stopping", flush=True)
