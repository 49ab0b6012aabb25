"""The socket of open pages: renders again what changed, as the person who looks. Not for: consoles."""

import asyncio
import json
from collections import defaultdict
from contextlib import suppress
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from django.contrib.auth import get_user_model

from portal.live.bell import AWAY, Bell
from portal.live.guarded import guarded
from portal.live.panels import find
from portal.live.publish import group_of
from portal.live.signed_in import SignedIn

#: Seconds in which the bells of one change are gathered into one message.
GATHER = 0.01
#: Seconds from one message to the next at least, and as many times what rendering took, up to LONGEST: the
#: first change after a quiet time shows at once, but in a storm a page is rendered seldom and whole.
REST, GENTLE, LONGEST = 0.3, 4, 1.0
#: Panels that one page may watch; a browser that asks for more is not ours.
MOST = 300
SIGNED_OUT = 4401
#: Close code: the bell does not ring, so the page must not believe that it is up to date.
BELL_LOST = 4503
#: Close code: something of the socket's own broke off (RFC 6455, 7.4.1: an unexpected condition).
BROKEN = 1011
#: Seconds between looks whether the bell still rings.
LOOK = 3.0
#: Seconds between words to the page when there is nothing to tell; live.js takes 25 of silence for a cut.
WORD = 10.0
#: Seconds between looks whether the session still holds; then everything is sent again, since a broker that
#: was away for a moment has lost what was rung meanwhile.
RECHECK = 30.0
_bell = Bell()


def _render(user_id: Any, wanted: list[str]) -> tuple[list[dict[str, str]], list[str]] | None:
    """Return fragments and what is gone, None when the person may not sign in any more."""
    user = get_user_model().objects.filter(pk=user_id, is_active=True).first()
    if user is None:
        return None
    by_panel: dict[str, list[str]] = defaultdict(list)
    for key in wanted:
        name, _, identity = key.partition(":")
        by_panel[name].append(identity)
    fragments, gone = [], []
    for name, identities in by_panel.items():
        panel = find(name)
        found = panel.render(user, identities) if panel else {}
        for identity in identities:
            key = f"{name}:{identity}"
            if identity in found:
                fragments.append({"panel": key, "html": found[identity]})
            else:
                gone.append(key)
    return fragments, gone


class LiveConsumer(AsyncWebsocketConsumer):
    """Speaks the protocol that static/js/live.js describes."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the socket, or refuse it while no bell rings: the page says so and tries again."""
        if await _bell.rings(get_channel_layer()):
            await super().__call__(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def connect(self) -> None:
        self.watched: dict[str, set[str]] = {}
        self.dirty: set[str] = set()
        self.wake = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        await self.accept()
        who = SignedIn.of(self.scope)
        if who is None:
            await self.close(SIGNED_OUT)
            return
        self.who = who
        ways = (self._flush(), self._recheck(), self._listen_for_bell(), self._say_something())
        self.tasks = [asyncio.create_task(guarded(way, self._broke)) for way in ways]

    async def disconnect(self, code: int) -> None:
        for task in self.tasks:
            task.cancel()
        with suppress(*AWAY):  # a broker that is away keeps no groups either
            await self._leave({topic for topics in self.watched.values() for topic in topics})

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take the list of panels that the page shows now, and answer with the state of the new ones."""
        try:
            wanted = json.loads(text_data or "")["watch"]
            keys = {key for key in wanted if isinstance(key, str) and 0 < len(key) <= 100}
        except (ValueError, TypeError, KeyError):
            await self.close(4400)
            return
        if len(keys) > MOST:
            await self.close(4400)
            return
        try:
            await self._watch(keys)
        except AWAY:
            await self.close(BELL_LOST)
            return
        # All of them: between the page and this message something may have changed.
        self.dirty |= keys
        self.wake.set()

    async def _watch(self, keys: set[str]) -> None:
        """Listen to the bells of `keys` and to no others."""
        topics = {topic for group in self.watched.values() for topic in group}
        self.watched = {key: set(self._topics(key)) for key in sorted(keys)}
        now = {topic for group in self.watched.values() for topic in group}
        for topic in now - topics:
            await self.channel_layer.group_add(group_of(topic), self.channel_name)
        await self._leave(topics - now)

    @staticmethod
    def _topics(key: str) -> list[str]:
        name, _, identity = key.partition(":")
        panel = find(name)
        return list(panel.topics(identity)) if panel else []

    async def _leave(self, topics: set[str]) -> None:
        for topic in topics:
            await self.channel_layer.group_discard(group_of(topic), self.channel_name)

    async def live_changed(self, event: dict[str, Any]) -> None:
        """Note what a bell concerns; the flush sends it with whatever else rings meanwhile."""
        concerned = {key for key, topics in self.watched.items() if event["topic"] in topics}
        if concerned:
            self.dirty |= concerned
            self.wake.set()

    async def _broke(self) -> None:
        await self.close(BROKEN)  # the page asks again

    async def _flush(self) -> None:
        now, soonest = asyncio.get_running_loop().time, 0.0
        while True:
            await self.wake.wait()
            await asyncio.sleep(max(GATHER, soonest - now()))
            self.wake.clear()
            wanted, self.dirty = sorted(self.dirty & set(self.watched)), set()
            if not wanted:
                continue
            began = now()
            rendered = await database_sync_to_async(_render)(self.who.user_id, wanted)
            soonest = now() + min(LONGEST, max(REST, GENTLE * (now() - began)))
            if rendered is None:
                await self.close(SIGNED_OUT)
                return
            fragments, gone = rendered
            await self.send(json.dumps({"fragments": fragments, "gone": gone}))

    async def _recheck(self) -> None:
        while True:
            await asyncio.sleep(RECHECK)
            if not await database_sync_to_async(self.who.holds)():
                await self.close(SIGNED_OUT)
                return
            self.dirty |= set(self.watched)
            self.wake.set()

    async def _listen_for_bell(self) -> None:
        while await _bell.rings(self.channel_layer):
            await asyncio.sleep(LOOK)
        await self.close(BELL_LOST)

    async def _say_something(self) -> None:
        while True:
            await asyncio.sleep(WORD)
            await self.send("{}")
