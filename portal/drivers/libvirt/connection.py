"""Open libvirt connections; not for keeping or sharing them between processes.

Opening is not covered by keepalive and may hang on a stopped daemon: the caller runs it in a
process that can be killed.
"""

import threading

import libvirt

from portal.drivers.libvirt.errors import translated

KEEPALIVE_SECONDS = 2
KEEPALIVE_COUNT = 3
_lock = threading.Lock()
_loop: threading.Thread | None = None


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


@translated()
def open_connection(uri: str) -> libvirt.virConnect:
    """Open a connection with keepalive. Raises HostUnreachable."""
    _ensure_loop()
    connection = libvirt.open(uri)
    connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
    return connection
