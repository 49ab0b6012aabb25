"""Machines on pages of lower rooms."""

from typing import Any

from django.http import HttpRequest
from django.template.loader import render_to_string

from portal.core.web.slots import PagePanel, register
from vms.live import visible

MOST = 200


def _on_host(request: HttpRequest, host: Any) -> str:
    machines = visible(request.user).filter(host=host).order_by("name")
    context = {"machines": machines[:MOST], "total": machines.count(), "most": MOST}
    return render_to_string("hosts/machines.html", context, request)


def register_panels() -> None:
    """Put the machines of a host on its page."""
    register(PagePanel("hosts.detail", _on_host))
