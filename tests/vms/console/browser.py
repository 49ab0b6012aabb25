"""The browser's end of a console's socket, and a broker for it."""

import json
from contextlib import asynccontextmanager

from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from channels.routing import URLRouter

from portal.audit.models import AuditEntry
from vms.console import services
from vms.console.broker import Broker
from vms.console.urls import websocket_urlpatterns

LIMIT = 30  # seconds; what is awaited takes far less, and a hang must not last


def issue(user, machine, kind="serial"):
    return services.issue_ticket(actor=user, machine=machine, kind=kind)


def entries(verb):
    return list(AuditEntry.objects.filter(verb=verb).order_by("pk"))


@asynccontextmanager
async def serving(path):
    broker = Broker(path)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


class Browser(ApplicationCommunicator):
    """The browser's end of a console's socket, as the ASGI server hands it on."""

    def __init__(self, user, machine, kind="serial"):
        path = f"/machines/{machine.pk}/console/{kind}/"
        scope = {"type": "websocket", "path": path, "headers": [], "subprotocols": [], "user": user}
        super().__init__(URLRouter(websocket_urlpatterns), scope)

    async def connect(self):
        await self.send_input({"type": "websocket.connect"})
        assert (await self.receive_output(LIMIT))["type"] == "websocket.accept"

    async def type(self, **message):
        await self.send_input({"type": "websocket.receive", **message})

    async def disconnect(self):
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(LIMIT)


@asynccontextmanager
async def opened(user, machine, kind="serial", secret=None):
    secret = secret or await database_sync_to_async(issue)(user, machine, kind)
    socket = Browser(user, machine, kind)
    await socket.connect()
    await socket.type(text=secret)
    try:
        yield socket
    finally:
        await socket.disconnect()


async def told(socket):
    """Return the next text, skipping what the guest says."""
    while True:
        message = await socket.receive_output(LIMIT)
        assert message["type"] == "websocket.send", message
        if message.get("text"):
            return json.loads(message["text"])


async def ended(socket):
    fields = await told(socket)
    assert fields["type"] == "ended" and fields["text"] == services.sentence(fields["code"])
    assert (await socket.receive_output(LIMIT))["type"] == "websocket.close"
    return fields["code"]


async def hear(socket, size):
    heard = b""
    while len(heard) < size:
        message = await socket.receive_output(LIMIT)
        assert message.get("bytes"), message
        heard += message["bytes"]
    return heard
