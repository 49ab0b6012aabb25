"""A socket opens for the portal's own pages and for no others, whatever cookies come with it."""

import asyncio

import pytest
from asgiref.testing import ApplicationCommunicator

from portal.core.web.origins import OriginCheck

OWN = "http://portal.example.org:8000"
HOST = "portal.example.org:8000"
ELSEWHERE = "https://front.example.com"


@pytest.fixture(autouse=True)
def at_the_portal(settings):
    settings.ALLOWED_HOSTS = ["portal.example.org", "127.0.0.1", "[::1]"]
    settings.CSRF_TRUSTED_ORIGINS = [ELSEWHERE]
    settings.SECURE_PROXY_SSL_HEADER = None


def answer_of(application, origin, *, host=HOST, scheme="ws", **headers):
    """Return the first word of the server to a browser that opens a socket."""
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if origin is not None:
        named["origin"] = origin
    scope = {
        "type": "websocket",
        "scheme": scheme,
        "path": "/machines/1/console/serial/",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }

    async def scenario():
        socket = ApplicationCommunicator(application, scope)
        await socket.send_input({"type": "websocket.connect"})
        return (await socket.receive_output(5))["type"]

    return asyncio.run(scenario())


async def accepting(scope, receive, send):
    await send({"type": "websocket.accept"})


def opens(origin, **fields):
    return answer_of(OriginCheck(accepting), origin, **fields) == "websocket.accept"


@pytest.mark.parametrize(
    ("origin", "fields"),
    [
        (OWN, {}),
        ("http://portal.example.org", {"host": "portal.example.org"}),
        ("https://portal.example.org:8443", {"host": "portal.example.org:8443", "scheme": "wss"}),
        ("http://[::1]:8000", {"host": "[::1]:8000"}),
        (ELSEWHERE, {"host": "127.0.0.1:8000"}),
    ],
)
def test_own_pages_and_trusted_origins_open_sockets(origin, fields):
    """Red when the scheme of a socket is taken for the one of its page, or TRUSTED_ORIGINS are not asked."""
    assert opens(origin, **fields)


@pytest.mark.parametrize(
    ("origin", "fields"),
    [
        ("http://portal.example.org:3000", {}),
        ("http://portal.example.org", {}),
        ("https://portal.example.org:8000", {}),
        ("http://127.0.0.1:8000", {}),
        ("http://portal.example.org:8000.example.com", {}),
        ("http://front.example.com", {}),
        ("null", {}),
        ("", {}),
        ("http://rebound.example.com:8000", {"host": "rebound.example.com:8000"}),
        # Trusted, at a name at which the portal has no pages.
        (ELSEWHERE, {"host": "rebound.example.com"}),
    ],
)
def test_other_pages_open_none(origin, fields):
    """Red when only names are compared (Channels' AllowedHostsOriginValidator), or any Host is taken."""
    assert not opens(origin, **fields)


def test_without_an_origin_there_is_no_socket(settings):
    """Red when a missing Origin is let through. Any name does not mean any page."""
    assert not opens(None)
    settings.ALLOWED_HOSTS = ["*"]
    assert not opens(None)
    assert not opens("http://portal.example.org:3000")
    assert opens(OWN)


@pytest.mark.parametrize("said", ["https", "wss"])
def test_behind_a_proxy_the_scheme_is_what_it_says(settings, said):
    """Red when X-Forwarded-Proto is believed without GATEHOUSE_TRUST_PROXY, or wss is not taken for https."""
    secure = "https://portal.example.org:8000"
    assert not opens(secure, x_forwarded_proto=said)
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert opens(secure, x_forwarded_proto=said)
    assert not opens(OWN, x_forwarded_proto=said)


@pytest.mark.database
@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_the_portal_looks_at_the_origin_of_its_sockets():
    """Red when portal.asgi routes sockets past OriginCheck, or looks at names alone."""
    from portal.asgi import application

    assert answer_of(application, "http://portal.example.org:3000") == "websocket.close"
    assert answer_of(application, OWN) == "websocket.accept"
