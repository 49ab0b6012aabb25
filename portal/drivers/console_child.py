"""One console in a process of its own, which its parent can kill. Not to be imported.

Run as `python -m portal.drivers.console_child FD URI UUID serial|vnc`. Two threads carry the bytes, one each
way, and each holds one chunk at most: while the browser is slow nothing is read from the guest, and while
the guest is slow nothing is read from the browser. A third thread waits for the parent to go away.
"""

import os
import resource
import select
import signal
import socket
import sys
import threading
from typing import NoReturn, Protocol
from urllib.parse import parse_qs, urlsplit

from portal.drivers import errors
from portal.drivers.console_wire import (
    CHUNK,
    DATA,
    END,
    STATUS,
    ConsoleEnd,
    ConsoleKind,
    EndReason,
    pack_end,
    pack_error,
    send_frame,
)

# While a send waits for a guest that reads nothing, libvirt's library queues what that guest prints. A guest
# and a viewer who both mean harm get this far; then the library aborts, and the console has FAILED.
MEMORY_LIMIT = 128 * 1024 * 1024


class Console(Protocol):
    """An open console; both calls wait, and may run at the same time in two threads."""

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes from the guest, none at the end. Raises DriverError."""

    def send(self, data: bytes) -> None:
        """Give all bytes to the guest. Raises DriverError."""

    def end(self, error: errors.DriverError | None) -> ConsoleEnd:
        """Return why it ended, with an error or without."""


class FakeConsole:
    """A guest for tests: it echoes. Ctrl-D powers it off, and a screen first says its RFB version.

    `?console=` in the URI makes opening fail: `off`, `missing`, `unreachable`, or `hang` for a frozen host.
    """

    FAILURES: dict[str, type[errors.DriverError]] = {
        "off": errors.InvalidState,
        "missing": errors.DomainNotFound,
        "unreachable": errors.HostUnreachable,
    }

    def __init__(self, uri: str, kind: ConsoleKind) -> None:
        wish = parse_qs(urlsplit(uri).query).get("console", [""])[0]
        if wish == "hang":
            threading.Event().wait()
        if wish in self.FAILURES:
            raise self.FAILURES[wish](f"the fake was asked for {wish}")
        self._guest, self._ours = socket.socketpair()
        if kind is ConsoleKind.VNC:
            self._guest.sendall(b"RFB 003.008\n")

    def recv(self, size: int) -> bytes:
        return self._ours.recv(size)

    def send(self, data: bytes) -> None:
        typed, off, _rest = data.partition(b"\x04")
        self._guest.sendall(typed)
        if off:
            self._guest.shutdown(socket.SHUT_WR)

    def end(self, error: errors.DriverError | None) -> ConsoleEnd:
        return ConsoleEnd(EndReason.OFF)


def open_console(uri: str, uuid: str, kind: ConsoleKind) -> Console:
    """Open a console by the URI's scheme. Raises DriverError."""
    if urlsplit(uri).scheme == "fake":
        return FakeConsole(uri, kind)
    # Imported late: the fake needs no libvirt library.
    from portal.drivers.libvirt import console

    return console.open_console(uri, uuid, kind)


def _vanish() -> NoReturn:
    """End at once, even from the middle of a hanging call, and take libvirt's ssh along."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _watch_parent(link: socket.socket) -> None:
    """Vanish when the parent is gone, whatever the other threads wait for."""
    poll = select.poll()
    poll.register(link, select.POLLRDHUP)
    poll.poll()
    _vanish()


class Shovel:
    """Carry the bytes between the parent and an open console."""

    def __init__(self, link: socket.socket, console: Console) -> None:
        self._link = link
        self._console = console
        self._sending = threading.Lock()

    def _finish(self, error: errors.DriverError | None) -> NoReturn:
        end = self._console.end(error)
        with self._sending:
            send_frame(self._link, END, pack_end(end))
            _vanish()

    def guest_to_parent(self) -> NoReturn:
        """Carry what the guest prints until the console ends."""
        try:
            while data := self._console.recv(CHUNK):
                with self._sending:
                    send_frame(self._link, DATA, data)
        except errors.DriverError as error:
            self._finish(error)
        self._finish(None)

    def parent_to_guest(self) -> None:
        """Carry what was typed until the parent closes or the console ends."""
        try:
            while data := self._link.recv(CHUNK):
                self._console.send(data)
        except errors.DriverError as error:
            self._finish(error)


def main(link: socket.socket, uri: str, uuid: str, kind: ConsoleKind) -> None:
    """Open the console, tell the parent how that went, and serve it until either side ends it."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_watch_parent, args=(link,), daemon=True).start()
    try:
        console = open_console(uri, uuid, kind)
    except errors.DriverError as error:
        send_frame(link, STATUS, pack_error(error))
        _vanish()
    send_frame(link, STATUS, b"{}")
    shovel = Shovel(link, console)
    threading.Thread(target=shovel.parent_to_guest, daemon=True).start()
    shovel.guest_to_parent()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3], ConsoleKind(sys.argv[4]))
