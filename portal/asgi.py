"""The web process: pages over HTTP and sockets on the same port. Wiring only."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
os.environ.setdefault("PGAPPNAME", "gatehouse-web")

import django

django.setup()  # what follows imports models

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path

import portal.celery  # noqa: F401 (services queue work through the current app)
from portal.core.web.arriving import keep_freed_memory
from portal.core.web.handler import PagesHandler
from portal.core.web.origins import OriginCheck
from portal.live.consumer import LiveConsumer
from vms.console.urls import websocket_urlpatterns as consoles

keep_freed_memory()
sockets = URLRouter([path("live/", LiveConsumer.as_asgi()), *consoles])
application = ProtocolTypeRouter(
    {"http": PagesHandler(), "websocket": OriginCheck(AuthMiddlewareStack(sockets))}
)
