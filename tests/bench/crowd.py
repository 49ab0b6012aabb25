"""A host with a thousand domains that change at once: libvirt's test driver in a real libvirtd of its own.

The daemon runs unprivileged beside the machine's, with its own sockets, and is ended or frozen by its
process id alone. Every connection to it sees the same domains and hears of their changes, so what the
portal's watcher sees came over a real wire from a real libvirtd. Not for: what needs a guest.
"""

import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt

CONF = 'auth_unix_rw = "none"\nunix_sock_rw_perms = "0777"\nmax_clients = 200\nmax_client_requests = 100\n'
DOMAIN = (
    "<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>1024</memory><vcpu>1</vcpu>"
    "<os><type>hvm</type></os></domain>"
)
START_SECONDS = 10.0
NOBODY = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]


class Crowd:
    """The daemon, its address for the portal, and its domains in the order of `uuids`."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], count: int) -> None:
        self._process = process
        self.uri = f"test+unix:///default?socket={folder}/run/libvirt/libvirt-sock"
        self.uuids = [str(uuid.uuid4()) for _ in range(count)]
        self._paused: set[int] = set()
        self._connection = _opened(self.uri)
        self._domains = [
            self._connection.createXML(DOMAIN.format(name=f"crowd-{number:05}", uuid=key))
            for number, key in enumerate(self.uuids)
        ]

    def pause(self, number: int) -> None:
        """Pause a domain. Idempotent."""
        if number not in self._paused:
            self._domains[number].suspend()
            self._paused.add(number)

    def go_on(self, number: int) -> None:
        """Let a domain run. Idempotent."""
        if number in self._paused:
            self._domains[number].resume()
            self._paused.discard(number)

    def toggle(self, number: int) -> None:
        """Change a domain's state."""
        (self.go_on if number in self._paused else self.pause)(number)

    def freeze(self) -> None:
        """Stop the daemon: it takes calls and answers none."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


def _opened(uri: str) -> libvirt.virConnect:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            return libvirt.open(uri)
        except libvirt.libvirtError:
            if time.monotonic() > end:
                raise
        time.sleep(0.1)


@contextmanager
def crowd(count: int) -> Iterator[Crowd]:
    """Run a daemon with `count` running domains until the block ends."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    with tempfile.TemporaryDirectory(prefix="gttest-crowd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "conf").write_text(CONF)
        for inner in ("run", "home"):
            (folder / inner).mkdir(mode=0o777)
            (folder / inner).chmod(0o777)
        env = {"PATH": os.environ["PATH"], "HOME": f"{folder}/home", "XDG_RUNTIME_DIR": f"{folder}/run"}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*NOBODY, "libvirtd", "--config", f"{folder}/conf"],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield Crowd(folder, process, count)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
