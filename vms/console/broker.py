"""The one process of a site that opens consoles on hypervisors. Not for: browsers, which the web serves.

Whoever may write to its socket still needs a ticket; every open and every close goes on record.
"""

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channels.db import database_sync_to_async

from portal.drivers.console import ConsoleKind, ConsoleStream, EndReason, open_console
from portal.drivers.errors import DriverError
from portal.hosts.connections import connection_uri
from vms.console import services, wire
from vms.models import VirtualMachine

_log = logging.getLogger(__name__)
OPEN_LIMIT = 10.0  # seconds for a host to open a console
HELLO_LIMIT = 10.0
#: Seconds between looks whether the right still stands.
RECHECK = 5.0
#: Each console is a process.
MOST = 200


async def _database(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run `function` in a thread of its own: one slow query must not hold up the other consoles."""
    return await database_sync_to_async(function, thread_sensitive=False)(*args, **kwargs)


def _address(machine_id: int) -> tuple[str, str]:
    machine = VirtualMachine.objects.select_related("host").get(pk=machine_id)
    return connection_uri(machine.host), str(machine.uuid)


@dataclass(frozen=True, slots=True)
class Hello:
    """Who wants which console, by which ticket. The web process vouches for the person."""

    secret: str
    user: int
    machine: int
    kind: ConsoleKind

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> "Hello":
        """Read a hello. Raises ValueError."""
        try:
            kind = ConsoleKind(fields["kind"])
            return cls(str(fields["secret"]), int(fields["user"]), int(fields["machine"]), kind)
        except (KeyError, TypeError) as error:
            raise ValueError("a hello that lacks something") from error


class Carrier:
    """One open console: carries bytes until either side ends it or the right is gone."""

    def __init__(
        self,
        hello: Hello,
        stream: ConsoleStream,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.typed = self.shown = 0
        #: Set to end it because the broker stops.
        self.stop = asyncio.Event()
        self._hello, self._stream, self._reader, self._writer = hello, stream, reader, writer

    async def carry(self) -> str:
        """Return the code of why it ended."""
        ways = (self._guest_to_web(), self._web_to_guest(), self._watch_right(), self._stopping())
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # In this order: the guest's own end says more than the silence that follows it.
            return next(task.result() for task in tasks if task in done)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _guest_to_web(self) -> str:
        while data := await self._stream.read(wire.CHUNK):
            self._writer.write(wire.pack(wire.DATA, data))
            try:
                await self._writer.drain()  # a slow browser slows the guest
            except ConnectionError:
                return "left"
            self.shown += len(data)
        end = self._stream.end
        return str(end.reason) if end else str(EndReason.FAILED)

    async def _web_to_guest(self) -> str:
        try:
            while data := await self._reader.read(wire.CHUNK):
                async with asyncio.timeout(wire.PATIENCE):
                    await self._stream.write(data)
                self.typed += len(data)
        except TimeoutError:
            return "stuck"
        except ConnectionError:
            return "left"
        except DriverError:
            return str(self._stream.end.reason) if self._stream.end else str(EndReason.FAILED)
        return "left"

    async def _watch_right(self) -> str:
        # At once too: the right may have been taken away while the host was opening.
        while not (code := await _database(services.standing, self._hello.user, self._hello.machine)):
            await asyncio.sleep(RECHECK)
        return str(code)

    async def _stopping(self) -> str:
        await self.stop.wait()
        return "stopping"


class Broker:
    """Listens on a Unix socket (mode 0660) and serves each connection one console."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Names this broker in the record, also after it was killed and started again.
        self.name = f"{socket.gethostname()}:{path}"[:255]
        self._carriers: set[Carrier] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self._lock: int

    async def start(self) -> None:
        """Listen, and settle what an earlier broker left open. Raises BlockingIOError when one runs."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise
        await _database(services.settle_sessions, self.name)
        self.path.unlink(missing_ok=True)
        link = socket.socket(socket.AF_UNIX)
        link.bind(str(self.path))
        self.path.chmod(0o660)  # before anybody can connect: nobody listens yet
        self._server = await asyncio.start_unix_server(self._accept, sock=link, limit=wire.CHUNK)

    async def stop(self) -> None:
        """End all consoles with a reason, on record."""
        self._server.close()
        for carrier in self._carriers:
            carrier.stop.set()
        await asyncio.gather(*self._serving, return_exceptions=True)
        self.path.unlink(missing_ok=True)
        os.close(self._lock)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (asyncio runs it as one)
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        except wire.Broken as error:
            _log.warning("a connection was dropped: %s", error)
        finally:
            self._serving.discard(task)
            await _hang_up(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HELLO_LIMIT):
                kind, body = await wire.read_frame(reader)
        except TimeoutError:
            return  # it never said what it wants
        if kind != wire.HELLO:
            raise ValueError(f"{kind!r} in place of a hello")
        hello = Hello.parse(wire.read_fields(body))
        opened = await self._open(hello)
        if isinstance(opened, str):
            writer.write(wire.pack_json(wire.STATUS, {"code": opened}))
            return
        async with opened as stream:
            code = await self._carry(Carrier(hello, stream, reader, writer), hello, writer)
        writer.write(wire.pack_json(wire.END, {"code": code}))

    async def _open(self, hello: Hello) -> ConsoleStream | str:
        """Return the console, or the code of what keeps it shut."""
        if len(self._carriers) >= MOST:
            return "busy"
        named = hello.secret, hello.user, hello.machine, str(hello.kind)
        if not await _database(services.redeem_ticket, *named):
            return "ticket"
        if code := await _database(services.standing, hello.user, hello.machine):
            return str(code)
        uuid = ""
        try:
            uri, uuid = await _database(_address, hello.machine)
            return await open_console(uri, uuid, hello.kind, timeout=OPEN_LIMIT)
        except DriverError as error:
            _log.info("no console of %s: %s %s", uuid, error.code, error.raw)
            return error.code

    async def _carry(self, carrier: Carrier, hello: Hello, writer: asyncio.StreamWriter) -> str:
        session = await _database(
            services.begin_session,
            user_id=hello.user,
            machine_id=hello.machine,
            kind=str(hello.kind),
            broker=self.name,
        )
        self._carriers.add(carrier)
        code = "failed"
        try:
            writer.write(wire.pack_json(wire.STATUS, {"code": ""}))
            code = await carrier.carry()
        finally:
            self._carriers.discard(carrier)
            await _database(
                services.end_session, session.pk, reason=code, typed=carrier.typed, shown=carrier.shown
            )
        return code


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Send what is left to send, but wait only a moment for who does not read."""
    writer.close()
    try:
        async with asyncio.timeout(2):
            await writer.wait_closed()
    except (TimeoutError, ConnectionError):
        writer.transport.abort()
