"""Bodies that are read while they arrive. Not for: forms, which are read as a whole before a page is made."""

import asyncio
import ctypes
import queue
from collections import deque
from typing import Any

#: Bytes that may have arrived and not been read; the client waits then.
AHEAD = 1 << 20
#: Bytes that are handed to the thread at once; each time costs it a wait for the loop.
PIECE = 256 << 10


#: Of malloc.h: what they are called there, and the bytes of memory to which they are set.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = (-3, 4 << 20), (-1, 16 << 20)


def keep_freed_memory() -> None:
    """Let this process keep some memory that it freed. Idempotent; does nothing where libc is not glibc.

    Else glibc gives back to the kernel what one piece of a body took before it takes it again for the next,
    and each of its pages is cleared once more: more than half of the web process's time with a file.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            set_option(*option)


class ArrivingBody:
    """The body of one request: the loop receives it, the request's thread reads it.

    Called, it waits for what follows the body, as Django waits for the client to leave.
    """

    def __init__(self, receive: Any) -> None:
        self._receive, self._loop = receive, asyncio.get_running_loop()
        #: What arrived; at last None, with `_whole` saying how it ended.
        self._pieces: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._rest: deque[bytes] = deque()
        self._whole = self._over = False
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
                    self._hand_over(gathered)
                    gathered = []
                    await self._until_room()
                if not more:
                    self._whole = True
                    return
        finally:
            # What came of a part is good: the sender goes on after it.
            self._hand_over(gathered)
            self._pieces.put(None)
            self._ended.set()

    def _hand_over(self, pieces: list[bytes]) -> None:
        self._arrived += sum(map(len, pieces))
        self._pieces.put([piece for piece in pieces if piece])

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
        while size and (piece := self._next()):
            if 0 < size < len(piece):
                self._rest.appendleft(piece[size:])
                piece = piece[:size]
            found.append(piece)
            # Below zero it stays below.
            size -= len(piece)
            self._make_room(len(piece))
        return found[0] if len(found) == 1 else b"".join(found)

    def _next(self) -> bytes:
        """Return some bytes, b'' at the end."""
        while not self._rest:
            pieces = None if self._over else self._pieces.get()
            if pieces is None:
                self._over = True
                if not self._whole:
                    raise ConnectionAbortedError("the client left before all of it was sent")
                return b""
            self._rest.extend(pieces)
        return self._rest.popleft()

    def _make_room(self, length: int) -> None:
        self._read += length
        if self._waiting and self._arrived - self._read <= AHEAD // 2:
            self._loop.call_soon_threadsafe(self._room.set)

    def close(self) -> None:
        """Receive no more. Idempotent; from any thread."""
        if not self._ended.is_set():
            self._loop.call_soon_threadsafe(self._task.cancel)
