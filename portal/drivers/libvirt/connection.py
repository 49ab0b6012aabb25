"""Open libvirt connections; not for keeping or sharing them between processes.

Opening is not covered by keepalive and may hang on a stopped daemon: the caller runs it in a
process that can be killed.
"""

import threading
from urllib.parse import urlsplit

import libvirt

from portal.drivers import ssh
from portal.drivers.libvirt.errors import translate

KEEPALIVE_SECONDS = 2
KEEPALIVE_COUNT = 3
_lock = threading.Lock()
_loop: threading.Thread | None = None


def is_local(uri: str) -> bool:
    """Tell whether the daemon at `uri` is reached on this machine."""
    parts = urlsplit(uri)
    return not parts.hostname and parts.scheme.partition("+")[2] in {"", "unix"}


def _silent(_context: object, _error: object) -> None:
    """Keep libvirt from printing errors; they are raised as well."""


def _run_loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _ensure_loop() -> None:
    """Start the event loop that keepalive needs, once a process."""
    global _loop
    with _lock:
        if _loop is None:
            libvirt.registerErrorHandler(_silent, None)
            libvirt.virEventRegisterDefaultImpl()
            _loop = threading.Thread(target=_run_loop, name="libvirt-events", daemon=True)
            _loop.start()


def open_connection(uri: str) -> libvirt.virConnect:
    """Open a connection with keepalive. Raises HostUnreachable or one of its kinds."""
    _ensure_loop()
    connection = open_plainly(uri)
    connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
    return connection


def open_plainly(uri: str) -> libvirt.virConnect:
    """Open a connection without keepalive or event loop. Raises HostUnreachable or one of its kinds."""
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        problem = translate(error)
        # libvirt passes on what ssh wrote; its own code is the same for all of it.
        kind = ssh.meaning(problem.raw) if ssh.SshAddress.of(uri) else None
        raise (kind(problem.raw) if kind else problem) from error
