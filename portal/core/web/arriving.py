"""Bodies that are read while they arrive. Not for: forms, which are read as a whole before a page is made."""

import asyncio
import queue
from typing import Any

#: Bytes that may have arrived and not been read; the client waits then.
AHEAD = 2 << 20
#: Bytes that are handed to the thread at once; each time costs it a wait for the loop.
PIECE = 512 << 10


class ArrivingBody:
    """The body of one request: the loop receives it, the request's thread reads it.

    Called, it waits for what follows the body, as Django waits for the client to leave.
    """

    def __init__(self, receive: Any) -> None:
        self._receive, self._loop = receive, asyncio.get_running_loop()
        #: What arrived; at last None, with `_whole` saying how it ended.
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._rest, self._whole, self._over = b"", False, False
        # Each is counted by one side alone.
        self._arrived = self._read = 0
        self._waiting, self._room, self._ended = False, asyncio.Event(), asyncio.Event()
        self._task = self._loop.create_task(self._pump())

    async def __call__(self) -> Any:
        await self._ended.wait()
        return await self._receive() if self._whole else {"type": "http.disconnect"}

    async def _pump(self) -> None:
        gathered: list[bytes] = []
        try:
            while (message := await self._receive())["type"] == "http.request":
                gathered.append(message.get("body", b""))
                more = message.get("more_body", False)
                if not more or sum(map(len, gathered)) >= PIECE:
                    self._hand_over(b"".join(gathered))
                    gathered = []
                    await self._until_room()
                if not more:
                    self._whole = True
                    return
        finally:
            # What came of a part is good: the sender goes on after it.
            self._hand_over(b"".join(gathered))
            self._pieces.put(None)
            self._ended.set()

    def _hand_over(self, piece: bytes) -> None:
        if piece:
            self._arrived += len(piece)
            self._pieces.put(piece)

    async def _until_room(self) -> None:
        while self._arrived - self._read > AHEAD:
            self._room.clear()
            self._waiting = True
            # Looked at again: the thread may have read it all before it saw that somebody waits.
            if self._arrived - self._read > AHEAD:
                await self._room.wait()
            self._waiting = False

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, fewer at the end alone; all that is left without a size.

        Waits for them. Raises ConnectionAbortedError when the client left before the end.
        """
        found: list[bytes] = []
        while size and (piece := self._next(size)):
            found.append(piece)
            # Below zero it stays below.
            size -= len(piece)
        return found[0] if len(found) == 1 else b"".join(found)

    def _next(self, most: int) -> bytes:
        """Return some bytes, of which there are at most `most` when that is above zero; b'' at the end."""
        if not self._rest and not self._over:
            piece = self._pieces.get()
            self._over, self._rest = piece is None, piece or b""
        if self._over and not self._whole:
            raise ConnectionAbortedError("the client left before all of it was sent")
        most = len(self._rest) if most < 0 else most
        taken, self._rest = self._rest[:most], self._rest[most:]
        self._read += len(taken)
        if self._waiting and self._arrived - self._read <= AHEAD // 2:
            self._loop.call_soon_threadsafe(self._room.set)
        return taken

    def close(self) -> None:
        """Receive no more. Idempotent; from any thread."""
        if not self._ended.is_set():
            self._loop.call_soon_threadsafe(self._task.cancel)
