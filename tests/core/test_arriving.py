"""Bodies of plain bytes are read while they arrive, a little at a time."""

import asyncio
import subprocess
import sys
import threading
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from portal.core.web.arriving import AHEAD, PIECE
from portal.core.web.handler import PagesHandler

SCOPE = {"type": "http", "http_version": "1.1", "query_string": b"", "method": "POST"}
began, begin, broke = (threading.Event() for _ in range(3))


@csrf_exempt
def body(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body)


@csrf_exempt
def slowly(request: HttpRequest) -> HttpResponse:
    begin.wait(5)
    return HttpResponse(str(len(request.body)))


@csrf_exempt
def pieces(request: HttpRequest) -> HttpResponse:
    """Read a little, let the client send the rest, and answer with the lengths of what was read."""
    first = request.read(1000)
    began.set()
    try:
        lengths = [len(first), *map(len, iter(lambda: request.read(1 << 20), b""))]
    except UnreadablePostError:
        broke.set()
        raise
    return HttpResponse(f"{sum(lengths)} {max(lengths)}")


@csrf_exempt
def unread(request: HttpRequest) -> HttpResponse:
    return HttpResponse("refused", status=403)


urlpatterns = [path(f"{view.__name__}/", view) for view in (body, slowly, pieces, unread)]


@pytest.fixture
def handler(settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 30_000_000
    settings.ROOT_URLCONF, settings.MIDDLEWARE = __name__, []
    settings.ALLOWED_HOSTS = ["testserver"]
    return PagesHandler()


class Client:
    """Somebody who sends bytes: `most` is the most that was taken of them before the view read any."""

    def __init__(self, *parts: bytes, whole: bool = True, first: int = 0) -> None:
        self.messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        if whole:
            self.messages.append({"type": "http.request", "body": b"", "more_body": False})
        else:
            self.messages.append({"type": "http.disconnect"})
        #: After so many the view must have begun.
        self.first, self.sent, self.status, self.answer = first, 0, 0, bytearray()

    async def receive(self) -> dict[str, Any]:
        if self.first and self.sent >= self.first:
            assert await asyncio.to_thread(began.wait, 5), "the view reads nothing before all has arrived"
        await asyncio.sleep(0)
        if not self.messages:
            return await asyncio.Future()
        self.sent += 1
        return self.messages.pop(0)

    async def send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)
        self.answer.extend(message.get("body", b""))

    async def ask(self, handler: PagesHandler, view: str, kind: bytes = b"application/octet-stream") -> bytes:
        headers = [(b"host", b"testserver"), (b"content-type", kind)]
        scope = {**SCOPE, "path": f"/{view}/", "headers": headers, "method": "POST"}
        async with asyncio.timeout(10):
            await handler(scope, self.receive, self.send)
        return bytes(self.answer)


@pytest.fixture
def fresh():
    for event in (began, begin, broke):
        event.clear()


def test_bytes_are_read_while_they_arrive(handler, fresh):
    """Red when the whole body is received before the view has a thread, or a part of it is lost."""
    parts = [bytes([number]) * 100_000 for number in range(60)]
    client = Client(*parts, first=AHEAD // 100_000)
    assert asyncio.run(client.ask(handler, "pieces")) == b"6000000 %d" % (1 << 20)
    assert asyncio.run(Client(*parts).ask(handler, "body")) == b"".join(parts)
    assert asyncio.run(Client().ask(handler, "body")) == b""


def test_a_form_still_arrives_as_a_whole(handler, fresh):
    kind = b"application/x-www-form-urlencoded"
    assert asyncio.run(Client(b"a=", b"b").ask(handler, "body", kind)) == b"a=b"


def test_no_more_than_a_little_arrives_ahead_of_who_reads_it(handler, fresh):
    """Red when nobody waits for the view: a file would lie in memory."""
    part = bytes(100_000)
    client = Client(*[part] * 200)

    async def scenario() -> bytes:
        asking = asyncio.create_task(client.ask(handler, "slowly"))
        for _ in range(2000):
            await asyncio.sleep(0)
        assert client.sent * len(part) <= AHEAD + PIECE + 2 * len(part)
        begin.set()
        return await asking

    assert asyncio.run(scenario()) == b"20000000"


def test_a_client_that_leaves_in_the_midst_is_told_to_the_view(handler, fresh):
    """Red when what came counts as all of it."""
    client = Client(bytes(PIECE), bytes(5000), whole=False, first=1)
    assert asyncio.run(client.ask(handler, "pieces")) == b""
    assert broke.is_set()
    assert asyncio.run(Client(b"next").ask(handler, "body")) == b"next"


def test_who_is_refused_before_any_of_it_was_read_is_answered(handler, fresh):
    """Red when the answer waits for the end of what nobody reads."""
    client = Client(*[bytes(100_000)] * 200)
    assert asyncio.run(client.ask(handler, "unread")) == b"refused"
    assert client.status == 403 and client.sent * 100_000 <= 2 * AHEAD


IN_TURNS = """
import resource
import portal.asgi
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def turn():
    return [bytes(200_000 + number) for number in range(10)]
turn()
before = faults()
for _ in range(50):
    turn()
print(faults() - before)
"""


@pytest.mark.slow
def test_the_web_process_keeps_what_it_freed():
    """Red when each piece's memory goes back to the kernel: these would be 24000 pages."""
    done = subprocess.run([sys.executable, "-c", IN_TURNS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 3000
