"""A browser that is signed in, and a channel layer whose broker can be made to be away."""

import pytest
from channels.layers import InMemoryChannelLayer, channel_layers
from django.test import Client
from redis.exceptions import ConnectionError as RedisAway

from portal.live import consumer
from portal.live.bell import Bell


class Layer(InMemoryChannelLayer):
    """Raises what Redis raises while `away`."""

    away = False

    async def group_send(self, group, message):
        self._look()
        await super().group_send(group, message)

    async def group_add(self, group, channel):
        self._look()
        await super().group_add(group, channel)

    def _look(self):
        if self.away:
            raise RedisAway("Error 2 connecting to redis.sock. No such file or directory.")


@pytest.fixture
def layer(monkeypatch):
    """The only channel layer, empty."""
    made = Layer()
    monkeypatch.setattr(channel_layers, "backends", {"default": made})
    monkeypatch.setattr(consumer, "_bell", Bell())
    monkeypatch.setattr("portal.live.bell.HOLDS", 0.0)
    return made


@pytest.fixture
def browser(cast):
    """The requester's browser, signed in."""
    client = Client()
    client.force_login(cast.requester, "allauth.account.auth_backends.AuthenticationBackend")
    client.person = cast.requester
    return client
