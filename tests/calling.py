"""Somebody at a computer, who runs the ssh command that a page shows. Not for: the portal's own ssh."""

import html
import re
import shlex
import subprocess
import time
from pathlib import Path

CONFIG = """\
IdentityFile {folder}/key
UserKnownHostsFile {folder}/known_hosts
IdentitiesOnly yes
BatchMode yes
StrictHostKeyChecking accept-new
ConnectTimeout 5
LogLevel ERROR
"""


def shown(page: str) -> list[str]:
    """Return the commands that a machine's page holds."""
    return [html.unescape(text) for text in re.findall(r"<code[^>]*>(ssh [^<]*)</code>", page)]


class Caller:
    """A key, hosts that are known, and nothing of the account that runs the tests."""

    def __init__(self, folder: Path) -> None:
        # A file, because ssh does not take options of its command line to the host that it jumps from.
        self._config, self._known = folder / "config", folder / "known_hosts"
        self._config.write_text(CONFIG.format(folder=folder))
        key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
        self.public_key = key.with_suffix(".pub").read_text().strip()

    def knows(self, address: str, host_key: str) -> None:
        """Take `host_key`, and no other, for that of the host at `address`."""
        with self._known.open("a") as known:
            known.write(f"{address} {host_key}\n")

    def call(self, command: str, order: str) -> subprocess.CompletedProcess[str]:
        """Run the shown `command` as it is, and `order` where it leads; never raises for the result."""
        ssh, *words = shlex.split(command)
        return subprocess.run(
            [ssh, "-F", self._config, *words, order], capture_output=True, text=True, timeout=30
        )

    def reach(self, command: str, limit: float = 60.0) -> None:
        """Return once `command` leads somewhere. Raises AssertionError after `limit` seconds."""
        end = time.monotonic() + limit
        while (done := self.call(command, "true")).returncode:
            assert time.monotonic() < end, done.stderr
            time.sleep(0.5)
