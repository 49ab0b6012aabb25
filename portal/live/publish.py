"""Ring the bell: tell open pages that something changed. Not for: what changed; the database is the truth."""

import asyncio
import atexit
import contextlib
import logging
import os
import threading

from channels.layers import get_channel_layer
from django.db import transaction
from redis.exceptions import RedisError

_log = logging.getLogger(__name__)
#: Seconds that the end of a process waits for its last bells.
PATIENCE = 2.0


def group_of(topic: str) -> str:
    """Return the channel group of `topic`, such as `vms.machine:12`; groups allow no colon."""
    return topic.replace(":", ".")


def publish(*topics: str) -> None:
    """Tell every page that shows one of `topics`, once the present transaction is committed.

    A topic is `room.thing:id`. Returns at once and never raises for a broker that is away: pages poll
    slowly then.
    """
    transaction.on_commit(lambda: _ringer().ring(topics), robust=True)


class _Ringer:
    """One event loop a process keeps one connection to the broker, whichever thread publishes."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._pending: dict[str, None] = {}
        self._ending = False
        self._wake = asyncio.Event()
        self._task = self._loop.create_task(self._send_all())
        self._thread = threading.Thread(target=self._run, name="live-publisher", daemon=True)
        self._thread.start()
        atexit.register(self._close)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)

    def _close(self) -> None:
        """End the thread before the interpreter tears down what it stands on; what was rung is sent first."""
        if self.process != os.getpid():
            return
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(PATIENCE)

    def _end(self) -> None:
        self._ending = True
        self._wake.set()

    def ring(self, topics: tuple[str, ...]) -> None:
        """Queue `topics`; one that waits already is sent once."""
        self._loop.call_soon_threadsafe(self._add, topics)

    def _add(self, topics: tuple[str, ...]) -> None:
        self._pending.update(dict.fromkeys(topics))
        self._wake.set()

    async def _send_all(self) -> None:
        layer = get_channel_layer()
        while self._pending or not self._ending:
            await self._wake.wait()
            self._wake.clear()
            topics, self._pending = self._pending, {}
            for topic in topics:
                try:
                    await layer.group_send(group_of(topic), {"type": "live.changed", "topic": topic})
                except (RedisError, OSError, RuntimeError) as error:
                    # A RuntimeError: the interpreter ends, and no name of a host can be looked up any more.
                    _log.warning("nobody was told of %s: %s", topic, error)


_lock = threading.Lock()
_the_ringer: _Ringer | None = None


def _ringer() -> _Ringer:
    global _the_ringer
    with _lock:
        # A forked child has none of its parent's threads.
        if _the_ringer is None or _the_ringer.process != os.getpid():
            _the_ringer = _Ringer()
        return _the_ringer
