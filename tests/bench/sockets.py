"""Open lists without browsers: real sockets of signed-in people who watch what a page of the list shows."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.bench.portal import Person, Portal, watched

PATIENCE = 60.0  # seconds
OPENING = 20  # sockets that open at a time


@dataclass
class OpenList:
    """One socket: what its page watches and how each piece looks now."""

    cookie: str
    keys: Sequence[str]
    shown: dict[str, str] = field(default_factory=dict)

    def all_show(self, word: str, *, but: str = "") -> bool:
        """Tell whether every row holds `word`, the row `but` left aside."""
        rows = [key for key in self.keys if key.startswith("vms.row:") and key != but]
        return all(word in self.shown.get(key, "") for key in rows)


def lists(people: Sequence[Person], count: int) -> list[OpenList]:
    """Return `count` lists, of the people in turn and of their pages in turn."""
    pages: dict[int, list[list[str]]] = {}
    made = []
    for number in range(count):
        person = people[number % len(people)]
        if id(person) not in pages:
            pages[id(person)] = _pages(person)
        own = pages[id(person)]
        keys = own[number // len(people) % len(own)]
        made.append(OpenList(person.cookie, keys))
    return made


def _pages(person: Person) -> list[list[str]]:
    found: list[list[str]] = []
    while True:
        keys = watched(person.get(f"/machines/?page={len(found) + 1}"))
        # A page beyond the last is the last.
        if found and keys == found[-1]:
            return found
        found.append(keys)


class Sockets:
    """Sockets on a loop in a thread of its own; open while the block lasts."""

    def __init__(self, portal: Portal, opened: Sequence[OpenList]) -> None:
        self.opened = opened
        self._url = portal.url.replace("http", "ws", 1) + "/live/"
        self._origin = portal.url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._links: dict[int, ClientConnection] = {}
        self._over = False
        #: How often the server closed one of them.
        self.reopened = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._changed: asyncio.Condition

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open()).result(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close()).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait(self, holds: Callable[[OpenList], bool], patience: float = PATIENCE) -> None:
        """Wait until `holds` is true of every list. Raises TimeoutError."""
        self._run(self._wait(holds, patience)).result(patience + 5)

    def _run(self, coroutine: Any) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _open(self) -> None:
        self._changed = asyncio.Condition()
        gate = asyncio.Semaphore(OPENING)
        await asyncio.gather(*(self._open_one(gate, each) for each in self.opened))
        await self._wait(lambda each: len(each.shown) == len(each.keys), PATIENCE)

    async def _open_one(self, gate: asyncio.Semaphore, each: OpenList) -> None:
        async with gate:
            link = await self._link(each)
        self._tasks.append(asyncio.create_task(self._stay(link, each)))

    async def _link(self, each: OpenList) -> ClientConnection:
        link = await connect(
            self._url, additional_headers={"Cookie": each.cookie}, origin=self._origin, compression=None
        )
        await link.send(json.dumps({"watch": list(each.keys)}))
        return link

    async def _stay(self, link: ClientConnection, each: OpenList) -> None:
        """Listen; come back as the page's script does when the server closes the socket."""
        while True:
            self._links[id(each)] = link
            with suppress(ConnectionClosed):
                await self._listen(link, each)
            if self._over:
                return
            self.reopened += 1
            await asyncio.sleep(0.5)
            link = await self._link(each)

    async def _listen(self, link: ClientConnection, each: OpenList) -> None:
        async for message in link:
            for fragment in json.loads(message).get("fragments", ()):
                each.shown[fragment["panel"]] = fragment["html"]
            async with self._changed:
                self._changed.notify_all()

    async def _wait(self, holds: Callable[[OpenList], bool], patience: float) -> None:
        async with asyncio.timeout(patience), self._changed:
            await self._changed.wait_for(lambda: all(holds(each) for each in self.opened))

    async def _close(self) -> None:
        self._over = True
        for link in self._links.values():
            await link.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
