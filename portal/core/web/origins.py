"""Which pages may open a socket. Not for: who may see what through it."""

import logging
from io import BytesIO
from typing import Any

from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from django.middleware.csrf import CsrfViewMiddleware

_log = logging.getLogger(__name__)
_AS_PAGE = {"ws": "http", "wss": "https"}


class _Forms(CsrfViewMiddleware):
    """Django's own rule for forms, so that a page never may the one without the other."""

    def takes(self, request: ASGIRequest) -> bool:
        """Tell whether a form with the request's Origin, which must be there, would be taken."""
        return bool(self._origin_verified(request))  # type: ignore[attr-defined]  # not in the stubs


class OriginCheck:
    """Let a socket through when a form of the page that opens it would be taken; refuse any other with 403.

    A browser sends cookies to every port of a name, whatever the page comes from, and asks nobody before it
    opens a socket: the Origin alone tells the portal's own pages from those of another program there.
    """

    def __init__(self, application: Any) -> None:
        self.application = application
        self._forms = _Forms(lambda _request: HttpResponse())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one socket. Raises ValueError for what is none."""
        if scope["type"] != "websocket":
            raise ValueError(f"only sockets are looked at here, not {scope['type']}")
        if self._is_ours(_page_request(scope)):
            await self.application(scope, receive, send)
        else:
            await send({"type": "websocket.close"})  # Channels' own denier would ask the broker first

    def _is_ours(self, request: ASGIRequest) -> bool:
        """Tell whether the origin is the request's own scheme, host and port, or one of TRUSTED_ORIGINS.

        Without an Origin the answer is no: every browser sends one with a socket, and nothing but our pages
        opens any. Who leaves it out is no browser, or behind a proxy that takes away what protects them.
        """
        try:
            # A name that leads here without being ours (DNS rebinding) has no pages either.
            host = request.get_host()
        except DisallowedHost:
            return False
        origin = request.META.get("HTTP_ORIGIN")
        if origin is not None and self._forms.takes(request):
            return True
        _log.warning("a socket was refused: opened by %r at %r", origin, host)
        return False


def _page_request(scope: Any) -> ASGIRequest:
    """Return the opening of a socket as if it were a request for a page of the same address."""
    # Some proxies say wss of a socket where they say https of a page.
    said_wss = (b"x-forwarded-proto", b"wss")
    headers = [(name, b"https" if (name, value) == said_wss else value) for name, value in scope["headers"]]
    scheme = _AS_PAGE.get(scope.get("scheme", "ws"), "http")
    return ASGIRequest({**scope, "method": "GET", "scheme": scheme, "headers": headers}, BytesIO())
