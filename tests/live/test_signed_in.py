"""A socket lasts no longer than the session of the browser that opened it."""

import asyncio
import json
import secrets

import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.db import OperationalError

from portal.accounts import services
from portal.accounts.models import Membership, Role, User
from portal.live import consumer as live
from portal.live.signed_in import SignedIn
from tests.live.sockets import SOCKETS, closing, opened, scope_of
from vms.console import consumer as console
from vms.console.services import sentence

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("trail_that_can_be_flushed")]
SIGNED_OUT = 4401
QUICKLY = 5  # seconds; less than what a page is told when nothing happens


@pytest.fixture
def quick(layer, monkeypatch):
    """Look at sessions all the time."""
    monkeypatch.setattr(live, "RECHECK", 0.05)
    monkeypatch.setattr(console, "RECHECK", 0.05)


def sign_out(client):
    client.post("/accounts/logout/")


def end_all_sessions(client):
    User.objects.filter(pk=client.person.pk).update(session_stamp=secrets.token_hex(16))


def deactivate(client):
    chief = User.objects.create(username="chief")
    Membership.objects.create(user=chief, role=Role.ADMIN)
    services.set_active(actor=chief, person=client.person, active=False)


@pytest.mark.parametrize("end", [sign_out, end_all_sessions, deactivate])
@pytest.mark.parametrize("kind", SOCKETS)
def test_the_end_of_the_session_is_the_end_of_the_socket(quick, browser, kind, end):
    """Red when SignedIn.holds looks only at the person, or only at the session."""
    scope = scope_of(browser)

    async def scenario():
        socket = await opened(kind, scope)
        await asyncio.sleep(0.2)
        assert socket.output_queue.empty()
        await database_sync_to_async(end)(browser)
        assert await closing(socket) == SIGNED_OUT

    asyncio.run(scenario())


def unanswered(who):
    raise OperationalError("the database is away")


@pytest.mark.parametrize(("kind", "number"), [("live", live.BROKEN), ("console", console.ENDED)])
def test_a_socket_whose_session_cannot_be_looked_at_ends(quick, browser, monkeypatch, kind, number):
    """Red when guarded() calls nothing after an exception, or the consumer makes its tasks without it."""
    scope = scope_of(browser)
    monkeypatch.setattr(SignedIn, "holds", unanswered)

    async def scenario():
        assert await asyncio.wait_for(closing(await opened(kind, scope)), QUICKLY) == number

    asyncio.run(scenario())


def test_the_end_of_a_console_that_could_not_be_looked_at_is_said(quick, browser, monkeypatch):
    """Red when `unchecked` has no sentence of its own."""
    scope = scope_of(browser)
    monkeypatch.setattr(SignedIn, "holds", unanswered)

    async def scenario():
        message = await (await opened("console", scope)).receive_output(QUICKLY)
        assert json.loads(message["text"])["text"] == sentence("unchecked") != sentence("failed")

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_socket_without_a_session_is_closed_at_once(layer, kind):
    """Red when SignedIn.of takes an anonymous person."""

    async def scenario():
        scope = {"type": "websocket", "path": "/", "headers": [], "user": AnonymousUser()}
        assert await closing(await opened(kind, scope)) == SIGNED_OUT

    asyncio.run(scenario())
