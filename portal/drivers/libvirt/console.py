"""Consoles of libvirt domains, for the process that holds one console; not for the broker or the web.

No event loop runs here, on purpose: with one, libvirt's library reads ahead without limit while the browser
is slow. Without one it reads the socket only inside our calls, and the host waits. The price is that there
is no keepalive: a host that freezes later is silent, and the parent kills this process.
"""

import socket
import time

import libvirt

from portal.drivers.console_wire import ConsoleEnd, ConsoleKind, EndReason
from portal.drivers.errors import DomainNotFound, DriverError, HostUnreachable, InvalidState
from portal.drivers.libvirt.connection import is_local, open_plainly
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.screen import Tunnel, socket_of
from portal.drivers.validation import check_uuid

# A console ends up to 1.5 s before libvirt knows that its domain went off.
SETTLE_SECONDS = 5.0
SETTLE_BROKEN_SECONDS = 1.0  # a broken stream is seldom a guest that went off: tell the viewer sooner
SETTLE_STEP = 0.05


def _silent(_context: object, _error: object) -> None:
    """Keep libvirt from printing errors; they are raised as well."""


class _Domain:
    """A running domain whose console is open."""

    def __init__(self, uri: str, uuid: str) -> None:
        libvirt.registerErrorHandler(_silent, None)
        self.connection = open_plainly(uri)
        self._uuid = check_uuid(uuid)
        self.domain = self.connection.lookupByUUIDString(uuid)
        self._run = self.domain.ID()
        if not self.domain.isActive():
            raise InvalidState("the domain is off")

    @translated()
    def _runs_on(self) -> bool:
        """Say whether the domain runs and did not start anew since the console was opened."""
        return self.connection.lookupByUUIDString(self._uuid).ID() == self._run

    def why(self, error: DriverError | None, still_running: EndReason, settle: float) -> ConsoleEnd:
        """Return why a console ended: `still_running` when after `settle` seconds the domain still ran."""
        raw = error.raw if error else ""
        until = time.monotonic() + settle
        try:
            while self._runs_on():
                if time.monotonic() > until:
                    return ConsoleEnd(still_running, raw)
                time.sleep(SETTLE_STEP)
        except DomainNotFound:
            return ConsoleEnd(EndReason.OFF, raw)
        except HostUnreachable as lost:
            return ConsoleEnd(EndReason.HOST_LOST, raw or lost.raw)
        return ConsoleEnd(EndReason.OFF, raw)


class SerialConsole:
    """The serial line, as a libvirt stream. The newest viewer wins; LXC knows no force and lets both in."""

    @translated()
    def __init__(self, uri: str, uuid: str) -> None:
        self._domain = _Domain(uri, uuid)
        connection = self._domain.connection
        flags = 0 if connection.getType() == "LXC" else libvirt.VIR_DOMAIN_CONSOLE_FORCE
        self._stream = connection.newStream(0)
        self._domain.domain.openConsole(None, self._stream, flags)

    @translated()
    def recv(self, size: int) -> bytes:
        data: bytes = self._stream.recv(size)
        return data

    @translated()
    def send(self, data: bytes) -> None:
        while data:
            data = data[self._stream.send(data) :]

    def end(self, error: DriverError | None) -> ConsoleEnd:
        # libvirt breaks the stream of a viewer it replaces, and only ends the one of a guest that went off.
        if error is not None:
            return self._domain.why(error, EndReason.REPLACED, SETTLE_BROKEN_SECONDS)
        return self._domain.why(None, EndReason.CLOSED, SETTLE_SECONDS)


class VncConsole:
    """The screen: of a local host a socket that libvirt hands over, of a remote one through the portal's ssh.

    No port is open either way, and no password is needed.
    """

    @translated()
    def __init__(self, uri: str, uuid: str) -> None:
        self._domain = _Domain(uri, uuid)
        self._tunnel: Tunnel | None = None
        if is_local(uri):
            descriptor = self._domain.domain.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
            self._screen = socket.socket(fileno=descriptor)
        else:
            self._tunnel = Tunnel(uri, socket_of(self._domain.domain.XMLDesc()))
            self._screen = self._tunnel.socket
            self._await_greeting(self._tunnel)

    def _await_greeting(self, tunnel: Tunnel) -> None:
        """Wait for the server's first byte: ssh takes our connection before it tries the socket there.

        Raises ScreenRefused when the host does not open it.
        """
        if not self._screen.recv(1, socket.MSG_PEEK):
            raise tunnel.trouble()

    def recv(self, size: int) -> bytes:
        try:
            return self._screen.recv(size)
        except OSError as error:
            raise DriverError(str(error)) from error

    def send(self, data: bytes) -> None:
        try:
            self._screen.sendall(data)
        except OSError as error:
            raise DriverError(str(error)) from error

    def end(self, error: DriverError | None) -> ConsoleEnd:
        return self._domain.why(error, EndReason.CLOSED, SETTLE_SECONDS)


def open_console(uri: str, uuid: str, kind: ConsoleKind) -> SerialConsole | VncConsole:
    """Open a running domain's console.

    Raises HostUnreachable, DomainNotFound, InvalidState (off), NotSupported (no such console) and
    ScreenRefused (a remote host that does not open its screens to the portal's user).
    """
    return SerialConsole(uri, uuid) if kind is ConsoleKind.SERIAL else VncConsole(uri, uuid)
