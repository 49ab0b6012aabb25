"""The browser's socket of one console: shovels bytes to and from the broker. Not for: hypervisors.

The browser sends the ticket as its first message (text), then what is typed (binary). It is sent what the
guest says (binary), and JSON texts: {"type": "open"} and {"type": "ended", "code", "text"}.
"""

import asyncio
import json
from functools import partial

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from portal.live.guarded import guarded
from portal.live.signed_in import SignedIn
from vms.console import services, wire

SIGNED_OUT, ENDED = 4401, 4000
TICKET_LIMIT = 10.0  # seconds for the browser to send its ticket
#: Seconds between looks whether the session still holds.
RECHECK = 5.0
LONGEST_TICKET = 100


class ConsoleConsumer(AsyncWebsocketConsumer):
    """One console of one machine for the person who is signed in."""

    #: No such layer: a console needs no Redis, and goes on when Redis is away.
    channel_layer_alias = "none"

    async def connect(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.writer: asyncio.StreamWriter | None = None
        self.ended = False
        await self.accept()
        who = SignedIn.of(self.scope)
        if who is None:
            await self._end("signed_out", SIGNED_OUT)
            return
        self.who = who
        self.ticket: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        ways = ((self._run(), "failed"), (self._recheck(), "unchecked"))
        self.tasks = [asyncio.create_task(guarded(way, partial(self._end, code))) for way, code in ways]

    async def disconnect(self, code: int) -> None:
        self.ended = True
        for task in self.tasks:
            task.cancel()
        if self.writer is not None:
            self.writer.close()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take the ticket, then what is typed; a guest that is slow to read slows the browser."""
        if self.ended:
            return
        if text_data is not None:
            if not self.ticket.done() and len(text_data) <= LONGEST_TICKET:
                self.ticket.set_result(text_data)
            else:
                await self._end("failed")
        elif bytes_data and self.writer is not None:
            self.writer.write(bytes_data)
            try:
                async with asyncio.timeout(wire.PATIENCE):
                    await self.writer.drain()
            except TimeoutError:
                await self._end("stuck")
            except ConnectionError:
                await self._end("broker_lost")

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(TICKET_LIMIT):
                secret = await self.ticket
        except TimeoutError:
            await self._end("ticket")
            return
        try:
            reader, writer = await asyncio.open_unix_connection(str(wire.socket_path()), limit=wire.CHUNK)
        except OSError:
            await self._end("broker_away")
            return
        try:
            code = await self._shovel(secret, reader, writer)
        except wire.Broken:
            code = "broker_lost"
        finally:
            writer.close()
        await self._end(code)

    async def _shovel(self, secret: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Return the code of why the console did not open or ended."""
        named = self.scope["url_route"]["kwargs"]
        hello = {"secret": secret, "user": self.who.user_id, "machine": named["pk"], "kind": named["kind"]}
        writer.write(wire.pack_json(wire.HELLO, hello))
        kind, body = await wire.read_frame(reader)
        code = str(wire.read_fields(body).get("code", "failed"))
        if kind != wire.STATUS or code:
            return code or "failed"
        self.writer = writer
        await self.send(json.dumps({"type": "open"}))
        while True:
            kind, body = await wire.read_frame(reader)
            if kind != wire.DATA:
                return str(wire.read_fields(body).get("code", "failed"))
            # The next frame is read when this one was taken: a slow browser slows the guest.
            await self.send(bytes_data=body)

    async def _end(self, code: str, number: int = ENDED) -> None:
        """Tell the browser why, in words, and close. Idempotent."""
        if self.ended:
            return
        self.ended = True
        await self.send(json.dumps({"type": "ended", "code": code, "text": services.sentence(code)}))
        await self.close(number)

    async def _recheck(self) -> None:
        while True:
            await asyncio.sleep(RECHECK)
            if not await database_sync_to_async(self.who.holds)():
                await self._end("signed_out", SIGNED_OUT)
                return
