"""Pages under ASGI: which thread they run in, and what becomes of bodies and clients that leave."""

import asyncio
import threading
import time
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from portal.core.web.handler import KEPT, PagesHandler

SCOPE = {"type": "http", "http_version": "1.1", "method": "GET", "query_string": b"", "headers": []}
together = threading.Barrier(3, timeout=5)
entered, left = threading.Event(), threading.Event()


def thread(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(threading.get_ident()))


def three(request: HttpRequest) -> HttpResponse:
    together.wait()
    return thread(request)


def slow(request: HttpRequest) -> HttpResponse:
    entered.set()
    time.sleep(0.3)
    left.set()
    return thread(request)


@csrf_exempt
def body(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body)


urlpatterns = [path(f"{view.__name__}/", view) for view in (thread, three, slow, body)]


@pytest.fixture
def handler(settings):
    settings.ROOT_URLCONF, settings.MIDDLEWARE = __name__, []
    settings.ALLOWED_HOSTS = ["testserver"]
    return PagesHandler()


async def ask(handler: PagesHandler, view: str, *parts: bytes, leave: bool = False) -> bytes:
    """Send one request and return the body of its answer; a client that leaves does while the view works."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    answer = bytearray()

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        if leave:
            await asyncio.to_thread(entered.wait, 5)
            return {"type": "http.disconnect"}
        return await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        answer.extend(message.get("body", b""))

    headers = [(b"host", b"testserver"), (b"content-length", str(sum(map(len, parts))).encode())]
    method = "POST" if parts else "GET"
    await handler({**SCOPE, "path": f"/{view}/", "headers": headers, "method": method}, receive, send)
    return bytes(answer)


def test_one_request_after_another_runs_in_one_thread(handler):
    """Red when a context is not kept: each page would open a connection to the database."""

    async def some() -> set[bytes]:
        return {await ask(handler, "thread") for _ in range(10)}

    assert len(asyncio.run(some())) == 1


def test_requests_at_a_time_have_a_thread_each(handler):
    """Red when two requests get one context: the barrier would wait in vain."""

    async def at_once() -> list[bytes]:
        return await asyncio.gather(*(ask(handler, "three") for _ in range(3)))

    assert len(set(asyncio.run(at_once()))) == 3


def test_no_more_threads_are_kept_than_said(handler):
    async def many() -> None:
        await asyncio.gather(*(ask(handler, "thread") for _ in range(KEPT + 10)))

    asyncio.run(many())
    assert len(handler._idle) == KEPT


def test_a_body_in_parts_arrives_whole(handler):
    assert asyncio.run(ask(handler, "body", b"one ", b"two ", b"three")) == b"one two three"


def test_the_thread_of_a_client_that_left_is_kept_when_its_work_has_ended(handler):
    """Red when a context is given back while its thread still works: the next page would wait for that."""

    async def leave() -> None:
        await ask(handler, "slow", leave=True)
        assert left.is_set() and len(handler._idle) == 1

    asyncio.run(leave())


def test_what_is_not_http_is_refused(handler):
    async def ask_for_a_socket() -> None:
        await handler({"type": "websocket"}, None, None)

    with pytest.raises(ValueError, match="not websocket"):
        asyncio.run(ask_for_a_socket())
