"""The way to a remote machine's screen: a Unix socket of its host, forwarded by SSH. Not for: local hosts.

libvirt hands a screen over as a file descriptor, which only a local host can do. So machines listen on a
socket in the folder that libvirt makes for each, which no port leads to and only root and QEMU's own group
may open; the portal's ssh forwards one connection to it, with no shell and no program on the host.
"""

import os
import re
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree as ET

from portal.drivers import ssh
from portal.drivers.errors import CallTimeout, DriverError, HostUnreachable, NotSupported, ScreenRefused
from portal.drivers.libvirt.xml.build import parse

#: What may stand in a forwarding without meaning something to ssh; libvirt's own paths hold no more.
_PATH = re.compile(r"/[A-Za-z0-9/._-]+")
_OPEN_SECONDS = 10.0
_NAME = "screen-"
#: What ssh says when the host will not open the socket.
_SHUT = re.compile(r"open failed: (.*)")


def socket_of(xml: str) -> str:
    """Return where a running domain's screen listens. Raises NotSupported when on no socket."""
    graphics = parse(xml).find("devices/graphics[@type='vnc']")
    listen = None if graphics is None else graphics.find("listen[@type='socket']")
    path = _path(listen) or _path(graphics)
    if not _PATH.fullmatch(path):
        raise NotSupported("this machine's screen listens on no socket; it does so after its next start")
    return path


def _path(element: ET.Element | None) -> str:
    return "" if element is None else element.get("socket") or ""


class Tunnel:
    """One connection to a socket on the host. The ssh that carries it ends with this process's group."""

    def __init__(self, uri: str, remote: str) -> None:
        program, target, folder = ssh.command(uri)
        # A short name relative to the folder: the path of a socket has 107 characters at most.
        os.chdir(folder)
        _sweep(folder)
        local = Path(f"{_NAME}{os.getpid()}")
        self._ssh = subprocess.Popen(  # noqa: S603 (a list, no shell; both paths were looked at)
            # At this level ssh says why the other side did not open the socket.
            [*program, "-N", "-o", "LogLevel=INFO", "-o", "ExitOnForwardFailure=yes",
             "-o", "StreamLocalBindMask=0177", "-L", f"./{local}:{remote}", *target],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            self.socket = self._connect(str(local))
        finally:
            local.unlink(missing_ok=True)

    def _connect(self, local: str) -> socket.socket:
        end = time.monotonic() + _OPEN_SECONDS
        link = socket.socket(socket.AF_UNIX)
        while True:
            with suppress(FileNotFoundError, ConnectionRefusedError):
                link.connect(local)
                return link
            if self._ssh.poll() is not None:
                raise self.trouble()
            if time.monotonic() > end:
                raise CallTimeout(f"ssh did not forward the screen in {_OPEN_SECONDS:g} s")
            time.sleep(0.02)

    def trouble(self) -> DriverError:
        """Return why nothing comes any more, and end the ssh."""
        self._ssh.terminate()
        said = self._ssh.communicate(timeout=5)[1].decode(errors="replace").strip()
        shut = _SHUT.search(said)
        if shut:
            return ScreenRefused(f"the host does not open the screen's socket: {shut[1]}")
        return (ssh.meaning(said) or HostUnreachable)(said or "ssh ended")


def _sweep(folder: Path) -> None:
    """Remove the sockets of consoles that were killed while they opened."""
    for left in folder.glob(f"{_NAME}*"):
        if not Path("/proc", left.name.removeprefix(_NAME)).exists():
            left.unlink(missing_ok=True)
