"""Whether bells reach this process: the broker that carries them may be away. Not for: ringing them."""

import asyncio
import logging
import time
from typing import Any

from redis.exceptions import RedisError

_log = logging.getLogger(__name__)
#: What a channel layer raises when its broker is away or does not answer.
AWAY = (RedisError, OSError, TimeoutError)
#: Seconds for which an answer is taken to hold, for all sockets of the process together.
HOLDS = 2.0
#: Seconds that the broker gets to answer.
PATIENCE = 2.0


class Bell:
    """Asks the broker now and then. One for all sockets of a process, on their event loop."""

    def __init__(self) -> None:
        self._asked_at = float("-inf")
        self._rings = True

    async def rings(self, layer: Any) -> bool:
        """Tell whether `layer` carries messages; asks at most once in HOLDS seconds. Never raises."""
        now = time.monotonic()
        if now - self._asked_at < HOLDS:
            return self._rings
        self._asked_at = now
        try:
            async with asyncio.timeout(PATIENCE):
                # To a group that nobody is in: that the broker takes it is all that is asked.
                await layer.group_send("live.nobody", {"type": "live.nothing"})
        except AWAY as error:
            if self._rings:
                _log.warning("pages are not told of changes now: %s", error)
            self._rings = False
        else:
            self._rings = True
        return self._rings
