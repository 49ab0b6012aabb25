"""Serve pages under ASGI, all of which are synchronous, each in one thread. Not for: sockets."""

from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from portal.core.web.arriving import ArrivingBody

#: Threads kept for the next requests; more at a time are made, and end with their request.
KEPT = 32


class PagesHandler(ASGIHandler):
    """Django's handler, with each request in one thread that others used before.

    Django's own gives each request a new thread, hence a new connection to the database, and goes to that
    thread and back for each middleware. That was half of the time of a list of machines. What is sent as
    plain bytes, a part of a file, is read while it arrives, so that it lies nowhere as a whole; nothing of
    it is read for who may not send it. Everything else (other bodies are read before a thread is taken,
    clients that leave) is Django's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._idle: list[ThreadSensitiveContext] = []

    def load_middleware(self, is_async: bool = False) -> None:
        """Chain the middleware for one thread, whatever of it could be awaited."""
        super().load_middleware(is_async=False)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request. Raises ValueError for what is not HTTP."""
        if scope["type"] != "http":
            raise ValueError(f"pages are served over HTTP, not {scope['type']}")
        # What is run by sync_to_async() in one such context is run in one thread, which lives as long.
        context = self._idle.pop() if self._idle else ThreadSensitiveContext()
        token = SyncToAsync.thread_sensitive_context.set(context)
        try:
            await self.handle(scope, ArrivingBody(receive) if _is_bytes(scope) else receive, send)
        finally:
            SyncToAsync.thread_sensitive_context.reset(token)
        # Not after an error: its thread may still be at work.
        if len(self._idle) < KEPT:
            self._idle.append(context)

    async def read_body(self, receive: Any) -> Any:
        """Return the body: as a whole, or as it arrives."""
        return receive if isinstance(receive, ArrivingBody) else await super().read_body(receive)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """Run middleware and view in the request's thread."""
        return await sync_to_async(self.get_response, thread_sensitive=True)(request)


def _is_bytes(scope: Any) -> bool:
    return (b"content-type", b"application/octet-stream") in map(tuple, scope["headers"])
