"""The browser's end of sockets, as the ASGI server hands it on."""

from importlib import import_module

from asgiref.testing import ApplicationCommunicator
from django.conf import settings

from portal.live.consumer import LiveConsumer
from vms.console.consumer import ConsoleConsumer

LIMIT = 20  # seconds; what is awaited takes far less
SOCKETS = {"live": LiveConsumer, "console": ConsoleConsumer}


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
