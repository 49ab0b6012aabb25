"""What a socket does side by side, none of which may fail unnoticed. Not for: what it does."""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

_log = logging.getLogger(__name__)


async def guarded(way: Coroutine[Any, Any, None], broke: Callable[[], Awaitable[None]]) -> None:
    """Await `way`; when it raises, log that and await `broke`, which is to end the socket.

    Nobody awaits a task of a socket, and what it was there for must not just stop: a page would take half a
    socket for a whole one, and a console would outlive the session that opened it.
    """
    try:
        await way
    except Exception:
        _log.exception("a part of a socket broke off, so the socket is closed")
        await broke()
