"""Consoles for an asyncio program: each is a child process that can be killed. Not for permissions.

A console holds a bounded number of bytes on its way in each direction; who reads or writes slowly slows the
other end, and nothing is lost.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

from portal.drivers.console_wire import (
    CHUNK,
    DATA,
    END,
    HEADER,
    STATUS,
    ConsoleEnd,
    ConsoleKind,
    EndReason,
    unpack_end,
    unpack_error,
)
from portal.drivers.errors import CallTimeout, HostUnreachable, InvalidState
from portal.drivers.validation import check_uuid

__all__ = ["ConsoleEnd", "ConsoleKind", "ConsoleStream", "EndReason", "open_console"]


class ConsoleStream:
    """An open console. One task may read while another writes; `close` may come from a third.

    `end` is None while the console is open, then says why it ended. Whoever opened it must close it.
    """

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket) -> None:
        self.end: ConsoleEnd | None = None
        self._process = process
        self._link = link
        self._killed = False
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._left = 0  # bytes of the present DATA frame that were not read yet

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _frame(self) -> tuple[bytes, int]:
        kind, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
        if length > CHUNK:
            raise ValueError(f"a frame of {length} bytes")
        return kind, length

    async def confirm(self) -> None:
        """Wait for the child's word that the console is open. Raises what kept it shut."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._link, limit=CHUNK)
        try:
            kind, length = await self._frame()
            error = unpack_error(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as broken:
            raise HostUnreachable("the child of the console died") from broken
        if kind != STATUS:
            raise ValueError(f"{kind!r} in place of a status")
        if error is not None:
            raise error

    async def read(self, size: int = CHUNK) -> bytes:
        """Return 1 to `size` bytes from the guest, or none once the console ended (see `end`).

        Cancelling it loses no bytes.
        """
        if self.end is None:
            try:
                return await self._read(size)
            except (asyncio.IncompleteReadError, ConnectionError):
                self._ended(ConsoleEnd(EndReason.FAILED, "the child of the console died"))
        return b""

    async def _read(self, size: int) -> bytes:
        while not self._left:
            kind, length = await self._frame()
            if kind == END:
                self._ended(unpack_end(await self._reader.readexactly(length)))
                return b""
            if kind != DATA:
                raise ValueError(f"{kind!r} in place of data")
            self._left = length
        data = await self._reader.read(min(size, self._left))
        if not data:
            raise ConnectionResetError("the child of the console died")
        self._left -= len(data)
        return data

    def _ended(self, end: ConsoleEnd) -> None:
        if self.end is None:
            self.end = end

    async def write(self, data: bytes) -> None:
        """Give bytes to the guest, waiting while it is slow. Raises InvalidState once the console ended."""
        try:
            if self.end is None and self._writer is not None:
                self._writer.write(data)
                await self._writer.drain()
                return
        except ConnectionError as error:
            raise InvalidState("the console has ended") from error
        raise InvalidState("the console has ended")

    async def close(self) -> None:
        """Kill the child and end a read or write that waits. Idempotent; leaves no process behind."""
        await self.close_as(ConsoleEnd(EndReason.CLOSED))

    async def close_as(self, end: ConsoleEnd) -> None:
        """Close, and name another end than CLOSED unless it ended before."""
        self._ended(end)
        if not self._killed:
            self._killed = True
            # Not reaped yet, so the group is still ours. The whole group: libvirt's ssh goes with the child.
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._writer is None:
            self._link.close()
        else:
            self._writer.transport.abort()
        # A thread reaps it even when this task is cancelled meanwhile.
        await asyncio.to_thread(self._process.wait)


# The newest viewer of each serial line. libvirt tells the viewer it replaces, but misses one in a
# hundred, and with LXC it would let two viewers take each other's bytes.
_newest: WeakValueDictionary[tuple[str, str], ConsoleStream] = WeakValueDictionary()


async def _replace(uri: str, uuid: str, stream: ConsoleStream) -> None:
    earlier = _newest.get((uri, uuid))
    _newest[uri, uuid] = stream
    if earlier is not None:
        await earlier.close_as(ConsoleEnd(EndReason.REPLACED, "opened again"))


def _spawn(uri: str, uuid: str, kind: ConsoleKind) -> ConsoleStream:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(  # noqa: S603 (a list, our own interpreter, no shell)
            [sys.executable, "-m", "portal.drivers.console_child", str(theirs.fileno()), uri, uuid, kind],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return ConsoleStream(process, ours)


async def open_console(uri: str, uuid: str, kind: ConsoleKind, *, timeout: float) -> ConsoleStream:
    """Open a running domain's console within `timeout` seconds.

    The newest viewer of a serial line wins: an earlier stream ends with REPLACED.
    Raises InvalidSpec (a bad UUID), DomainNotFound, InvalidState (off), NotSupported, HostUnreachable, and
    CallTimeout when the host did not answer in time; no child is left then.
    """
    stream = _spawn(uri, check_uuid(uuid), kind)
    try:
        async with asyncio.timeout(timeout):
            await stream.confirm()
        if kind is ConsoleKind.SERIAL:
            await _replace(uri, uuid, stream)
    except TimeoutError as error:
        await stream.close()
        raise CallTimeout(f"the console did not open in {timeout:g} s") from error
    except BaseException:
        await stream.close()
        raise
    return stream
