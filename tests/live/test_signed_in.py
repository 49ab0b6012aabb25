"""A socket lasts no longer than the session of the browser that opened it."""

import asyncio
import secrets
from importlib import import_module

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from channels.layers import channel_layers
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.test import Client

from portal.accounts import services
from portal.accounts.models import Membership, Role, User
from portal.live import consumer as live
from vms.console import consumer as console

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("trail_that_can_be_flushed")]
SIGNED_OUT = 4401
LIMIT = 20  # seconds; what is awaited takes far less
SOCKETS = {"live": live.LiveConsumer, "console": console.ConsoleConsumer}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Look at sessions all the time, and carry bells within this process."""
    monkeypatch.setattr(live, "RECHECK", 0.05)
    monkeypatch.setattr(console, "RECHECK", 0.05)
    layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    monkeypatch.setattr(settings, "CHANNEL_LAYERS", layers)
    channel_layers.backends.clear()
    yield
    channel_layers.backends.clear()


@pytest.fixture
def browser(cast):
    """The requester's browser, signed in."""
    client = Client()
    client.force_login(cast.requester, "allauth.account.auth_backends.AuthenticationBackend")
    client.person = cast.requester
    return client


def scope_of(client):
    """Return the scope of a socket that this browser opens, as Channels' middleware fills it."""
    store = import_module(settings.SESSION_ENGINE).SessionStore(client.session.session_key)
    return {"type": "websocket", "path": "/", "headers": [], "user": client.person, "session": store}


async def opened(kind, scope):
    socket = ApplicationCommunicator(SOCKETS[kind].as_asgi(), scope)
    await socket.send_input({"type": "websocket.connect"})
    assert (await socket.receive_output(LIMIT))["type"] == "websocket.accept"
    return socket


async def closing(socket):
    """Return the code by which the server closes the socket."""
    while True:
        message = await socket.receive_output(LIMIT)
        if message["type"] == "websocket.close":
            return message["code"]


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
def test_the_end_of_the_session_is_the_end_of_the_socket(browser, kind, end):
    """Red when SignedIn.holds looks only at the person, or only at the session."""
    scope = scope_of(browser)

    async def scenario():
        socket = await opened(kind, scope)
        await asyncio.sleep(0.2)
        assert socket.output_queue.empty()
        await database_sync_to_async(end)(browser)
        assert await closing(socket) == SIGNED_OUT

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_socket_without_a_session_is_closed_at_once(kind):
    """Red when SignedIn.of takes an anonymous person."""

    async def scenario():
        scope = {"type": "websocket", "path": "/", "headers": [], "user": AnonymousUser()}
        assert await closing(await opened(kind, scope)) == SIGNED_OUT

    asyncio.run(scenario())
