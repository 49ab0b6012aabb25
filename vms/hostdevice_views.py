"""The page of a machine's devices of its host. Each view calls a service."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from portal.accounts.backends import may
from portal.core.web.htmx import attempt, go_to
from vms import hostdevices, live, power


@require_safe
def host_devices(request: HttpRequest, pk: int) -> HttpResponse:
    """Show which devices of its host a machine has, and what else it could have."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    context = {
        "vm": vm,
        "given": hostdevices.of(vm),
        "offers": hostdevices.offers(request.user, vm),
        "may_give": may(request.user, "operate", None),
        "denied": power.why_not(request.user, vm, "edit"),
    }
    return render(request, "vms/host_devices.html", context)


def _act(request: HttpRequest, pk: int, service: Callable[..., Any]) -> HttpResponse:
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    with attempt(request):
        begun = service(actor=request.user, machine=vm, key=request.POST.get("key", ""))
        return go_to(request, "operations:detail", begun.pk)
    return redirect("vms:host_devices", pk)


@require_POST
def give(request: HttpRequest, pk: int) -> HttpResponse:
    """Give a machine a device of its host."""
    return _act(request, pk, hostdevices.attach)


@require_POST
def take(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a device of its host from a machine."""
    return _act(request, pk, hostdevices.detach)
