"""`python -m tests.secondhost [COUNT] [PUBLIC_KEY_FILE]`: hosts to try things on, until Ctrl-C."""

import signal
import sys
from pathlib import Path

from tests.secondhost.lab import Lab

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    with Lab() as lab:
        for _ in range(count):
            host = lab.host()
            if len(sys.argv) > 2:
                host.authorize(Path(sys.argv[2]).read_text())
            print(host.uri(), host.fingerprint, host.local_uri, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("ending")
