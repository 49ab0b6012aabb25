"""Machines on pages of lower rooms, and what those rooms ask of them."""

from typing import Any

from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.core.web.slots import PagePanel, register
from portal.hosts import removal
from vms.live import visible
from vms.models import Status, VirtualMachine

MOST = 200


def _on_host(request: HttpRequest, host: Any) -> str:
    machines = visible(request.user).filter(host=host).order_by("name")
    context = {"machines": machines[:MOST], "total": machines.count(), "most": MOST}
    return render_to_string("hosts/machines.html", context, request)


def machines_on(host: Any) -> str:
    """Return how many machines are on `host`, also in the bin, in a sentence; '' for none."""
    states = list(VirtualMachine.objects.filter(host=host).values_list("status", flat=True))
    binned = states.count(Status.BINNED)
    if not states:
        return ""
    words = ngettext("%(count)d machine is on it", "%(count)d machines are on it", len(states))
    found = words % {"count": len(states)}
    if binned:
        return _("%(found)s, %(binned)d of them in the bin.") % {"found": found, "binned": binned}
    return f"{found}."


def register_panels() -> None:
    """Put the machines of a host on its page, and let them keep it from being removed."""
    register(PagePanel("hosts.detail", _on_host))
    removal.register(machines_on)
