"""Addresses of consoles: pages by HTTP, and under the same addresses their sockets."""

from django.urls import path, re_path

from vms.console import views
from vms.console.consumer import ConsoleConsumer

app_name = "console"
urlpatterns = [
    path("<int:pk>/console/vnc/", views.vnc, name="vnc"),
    path("<int:pk>/console/serial/", views.serial, name="serial"),
    path("<int:pk>/console/ticket/", views.ticket, name="ticket"),
]
websocket_urlpatterns = [
    re_path(r"^machines/(?P<pk>[0-9]{1,18})/console/(?P<kind>vnc|serial)/$", ConsoleConsumer.as_asgi()),
]
