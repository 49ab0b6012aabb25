"""The socket of open pages: what it sends, when it says that it cannot, and what it leaves behind."""

import asyncio
import json

import pytest
from django.db import OperationalError

from portal.live import consumer, panels
from portal.live.panels import Panel
from portal.live.publish import group_of
from tests.live.sockets import LIMIT, closing, opened, scope_of

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("trail_that_can_be_flushed")]


@pytest.fixture
def panel(monkeypatch):
    """A panel of things, rung by other names than its own; returns how often it was drawn."""
    drawn = []

    def render(user, ids):
        drawn.append(list(ids))
        return {identity: f"<p>{identity} for {user.username}</p>" for identity in ids if identity != "0"}

    made = Panel("test.row", render, lambda pk: [f"test.thing:{pk}"])
    monkeypatch.setitem(panels._panels, made.name, made)
    return drawn


async def watching(scope, *keys):
    socket = await opened("live", scope)
    await socket.send_input({"type": "websocket.receive", "text": json.dumps({"watch": list(keys)})})
    return socket


async def told(socket):
    message = await socket.receive_output(LIMIT)
    return json.loads(message["text"])


def test_a_page_is_sent_what_it_shows_and_what_is_gone(layer, panel, browser):
    scope = scope_of(browser)

    async def scenario():
        socket = await watching(scope, "test.row:1", "test.row:0", "no.such:1")
        answer = await told(socket)
        assert answer["fragments"] == [{"panel": "test.row:1", "html": "<p>1 for requester</p>"}]
        assert sorted(answer["gone"]) == ["no.such:1", "test.row:0"]

    asyncio.run(scenario())


def test_a_burst_is_one_message(layer, panel, browser):
    """Red when _flush does not gather."""
    scope = scope_of(browser)

    async def scenario():
        socket = await watching(scope, "test.row:1", "test.row:2")
        await told(socket)
        for topic in ["test.thing:1", "test.thing:2"] * 20:
            await layer.group_send(group_of(topic), {"type": "live.changed", "topic": topic})
        assert len((await told(socket))["fragments"]) == 2
        await asyncio.sleep(3 * consumer.GATHER)
        assert socket.output_queue.empty()

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_storm_is_told_in_few_messages_and_whole(layer, panel, browser):
    """Red when the time from one message to the next is left out (`soonest` stays 0)."""
    scope, keys = scope_of(browser), [f"test.row:{pk}" for pk in range(1, 51)]

    async def scenario():
        socket = await watching(scope, *keys)
        await told(socket)
        for pk in range(1, 51):
            topic = f"test.thing:{pk}"
            await layer.group_send(group_of(topic), {"type": "live.changed", "topic": topic})
            await asyncio.sleep(2 * consumer.GATHER)
        heard, messages = set(), 0
        while heard != set(keys):
            heard |= {fragment["panel"] for fragment in (await told(socket))["fragments"]}
            messages += 1
        return messages

    assert asyncio.run(scenario()) <= 12


def test_a_socket_that_cannot_draw_is_closed_and_the_page_asks_again(layer, panel, browser, monkeypatch):
    """Red when guarded() is left out: the page would be told that all is well, and nothing else any more."""

    def fail(user, ids):
        raise OperationalError("the database is away")

    broken = Panel("test.row", fail, lambda pk: [f"test.thing:{pk}"])
    monkeypatch.setitem(panels._panels, broken.name, broken)
    scope = scope_of(browser)

    async def scenario():
        socket = await watching(scope, "test.row:1")
        assert await asyncio.wait_for(closing(socket), LIMIT) == consumer.BROKEN

    asyncio.run(scenario())


def test_a_closed_page_leaves_no_group_behind(layer, panel, browser):
    """Red when disconnect() leaves the names of panels instead of their topics."""
    scope = scope_of(browser)

    async def scenario():
        socket = await watching(scope, "test.row:1")
        await told(socket)
        assert set(layer.groups) == {"test.thing.1"}
        await socket.send_input({"type": "websocket.disconnect", "code": 1000})
        await socket.wait(LIMIT)

    asyncio.run(scenario())
    assert not any(layer.groups.values())


def test_a_page_is_told_when_no_bell_rings(layer, panel, browser, monkeypatch):
    """Red when _listen_for_bell is no task, or a broker that is away does not refuse the socket."""
    monkeypatch.setattr(consumer, "LOOK", 0.02)
    scope = scope_of(browser)

    async def scenario():
        socket = await watching(scope, "test.row:1")
        await told(socket)
        layer.away = True
        assert await closing(socket) == consumer.BELL_LOST
        with pytest.raises(AssertionError):
            await opened("live", scope)
        layer.away = False
        assert (await told(await watching(scope, "test.row:1")))["fragments"]

    asyncio.run(scenario())


def test_what_was_rung_while_the_broker_was_away_is_sent_in_the_end(layer, panel, browser, monkeypatch):
    """Red when _recheck looks at the session alone."""
    monkeypatch.setattr(consumer, "RECHECK", 0.05)
    scope = scope_of(browser)

    async def scenario():
        socket = await watching(scope, "test.row:1")
        assert (await told(socket)) == (await told(socket))

    asyncio.run(scenario())


def test_a_page_hears_something_all_the_time(layer, panel, browser, monkeypatch):
    """Red when _say_something is no task: live.js would take the silence for a cut."""
    monkeypatch.setattr(consumer, "WORD", 0.05)
    scope = scope_of(browser)

    async def scenario():
        socket = await opened("live", scope)
        assert await told(socket) == await told(socket) == {}

    asyncio.run(scenario())
