"""The two console pages, and tickets for them."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from portal.core.errors import Denied
from vms.console import services
from vms.console.models import Kind
from vms.models import Observed, VirtualMachine

_TONES = {
    Observed.RUNNING: "good",
    Observed.PAUSED: "waiting",
    Observed.SHUTTING_DOWN: "busy",
    Observed.SHUTOFF: "off",
    Observed.SAVED: "off",
    Observed.CRASHED: "bad",
    Observed.MISSING: "bad",
}


def _machine(request: HttpRequest, pk: int) -> VirtualMachine:
    usable = VirtualMachine.objects.restrict(request.user, "use").select_related("host")
    return get_object_or_404(usable, pk=pk)


def _page(request: HttpRequest, pk: int, kind: Kind) -> HttpResponse:
    machine = _machine(request, pk)
    code = services.obstacle(machine)
    context: dict[str, Any] = {
        "machine": machine,
        "kind": kind.value,
        "tone": _TONES.get(Observed(machine.observed_state), "unknown"),
        "obstacle": services.sentence(code) if code else "",
    }
    return render(request, "vms/console.html", context)


@require_GET
def vnc(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a machine's screen."""
    return _page(request, pk, Kind.VNC)


@require_GET
def serial(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a machine's serial line."""
    return _page(request, pk, Kind.SERIAL)


@require_POST
def ticket(request: HttpRequest, pk: int) -> JsonResponse:
    """Answer {ticket, url}, or 409 {reason} with a plain sentence."""
    machine, kind = _machine(request, pk), request.POST.get("kind", "")
    try:
        secret = services.issue_ticket(actor=request.user, machine=machine, kind=kind)
    except Denied as denied:
        return JsonResponse({"reason": str(denied.reason)}, status=409)
    # The socket has the page's address: one path to a machine's console, by either protocol.
    return JsonResponse({"ticket": secret, "url": reverse(f"console:{kind}", args=[machine.pk])})
