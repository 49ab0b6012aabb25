"""Downloads of any length, in constant memory. Not for: what is in them."""

from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

#: Bytes that are read of a file and sent at a time.
PIECE = 1 << 20


def pieces_of(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what is left of a file, which is closed then."""
    with file:
        while piece := file.read(PIECE):
            yield piece


def stream(
    request: HttpRequest, pieces: Iterator[Any], *, content_type: str, name: str, length: int | None = None
) -> Any:
    """Return `pieces` (text or bytes) as a download of `length` bytes, None for nobody knows.

    Under ASGI Django would read a plain iterator to its end first.
    """
    content: Any = _one_by_one(pieces) if isinstance(request, ASGIRequest) else pieces
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    if length is not None:
        headers["Content-Length"] = str(length)
    return StreamingHttpResponse(content, content_type=content_type, headers=headers)


async def _one_by_one(pieces: Iterator[Any]) -> AsyncIterator[Any]:
    step = sync_to_async(_next)
    while (piece := await step(pieces)) is not None:
        yield piece


def _next(pieces: Iterator[Any]) -> Any:
    # StopIteration cannot cross a coroutine.
    return next(pieces, None)
