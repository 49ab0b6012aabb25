"""Pages of a machine's network cards and CD drives, and the limits of its disks. Each calls a service."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from networks.models import Port
from portal.core.web.htmx import attempt, denied_at, go_to
from portal.hosts.models import Image
from portal.operations.models import Operation
from vms import live, noted, power
from vms.changes.devices import buses, cardmodels, drives, nics, rewiring
from vms.changes.devices import limits as service
from vms.changes.devices import media as cds
from vms.changes.devices.forms import CardForm, LimitsForm
from vms.changes.views import disk_page
from vms.editing import Clash
from vms.models import VirtualMachine

_FORMS = ["GET", "HEAD", "POST"]


@require_http_methods(_FORMS)
def cards(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a machine's network cards, and give it another."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    form = CardForm(request.POST or None, networks=nics.networks_for(request.user, vm))
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            network = form.cleaned_data["network"]
            begun = nics.add_card(actor=request.user, machine=vm, network=network)
            return go_to(request, "operations:detail", begun.pk)
    context = {
        "vm": vm,
        "cards": nics.cards_of(vm),
        "form": form,
        "denied": power.why_not(request.user, vm, "edit") or nics.why_no_more(vm),
    }
    return render(request, "vms/cards.html", context, status=422 if form.errors else 200)


@require_safe
def card(request: HttpRequest, pk: int, mac: str) -> HttpResponse:
    """Show one network card."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    return _card_page(request, vm, mac)


def _card_page(
    request: HttpRequest, vm: VirtualMachine, mac: str, form: CardForm | None = None
) -> HttpResponse:
    """Show one network card, with the `form` of its network where somebody filled that in."""
    found = nics.cards_of(vm)
    shown, port = _card_of(found, mac)
    denied, seen = power.why_not(request.user, vm, "edit"), noted.of(vm)
    networks = rewiring.networks_for(request.user, vm, port)
    context = {
        "vm": vm,
        "card": shown,
        "last": len(found) == 1,
        "denied": denied or nics.why_fixed(port),
        "link_denied": denied or nics.why_link_stays(port, seen),
        "form": form or CardForm(networks=networks),
        "offered": networks.exists(),
        "stays": denied or rewiring.why_not(vm, port, seen),
        "model": cardmodels.model_of(port, seen),
        "models": cardmodels.choices(port, seen),
        "model_waits": cardmodels.waits(port, seen),
        "model_fixed": denied or cardmodels.why_fixed(vm, port, seen),
    }
    return render(request, "vms/card.html", context, status=422 if form else 200)


def _card_of(found: list[nics.Card], mac: str) -> tuple[nics.Card, Port]:
    """Return the card of the portal's that has this MAC, and its row. Raises Http404."""
    for one in found:
        if one.mac == mac and one.port is not None:
            return one, one.port
    raise Http404


@require_POST
def card_network(request: HttpRequest, pk: int, mac: str) -> HttpResponse:
    """Bring a card to another network."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    _card, port = _card_of(nics.cards_of(vm), mac)
    form = CardForm(request.POST, networks=rewiring.networks_for(request.user, vm, port))
    if form.is_valid():
        with denied_at(form):
            network = form.cleaned_data["network"]
            begun = rewiring.rewire_card(actor=request.user, machine=vm, mac=mac, network=network)
            return go_to(request, "operations:detail", begun.pk)
    return _card_page(request, vm, mac, form)


@require_POST
def card_link(request: HttpRequest, pk: int, mac: str) -> HttpResponse:
    """Plug the cable of a card in or out."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    up = request.POST.get("up") == "1"
    with attempt(request):
        begun = nics.set_link(actor=request.user, machine=vm, mac=mac, up=up)
        return go_to(request, "operations:detail", begun.pk)
    return go_to(request, "vms:cards", pk)


@require_POST
def card_model(request: HttpRequest, pk: int, mac: str) -> HttpResponse:
    """Let a card be of another model."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    model = request.POST.get("model", "")
    with attempt(request):
        begun = cardmodels.set_model(actor=request.user, machine=vm, mac=mac, model=model)
        return go_to(request, "operations:detail", begun.pk)
    return go_to(request, "vms:card", pk, mac)


@require_POST
def card_remove(request: HttpRequest, pk: int, mac: str) -> HttpResponse:
    """Take a card from a machine."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    with attempt(request):
        begun = nics.remove_card(actor=request.user, machine=vm, mac=mac)
        return go_to(request, "operations:detail", begun.pk)
    return go_to(request, "vms:cards", pk)


@require_safe
def media(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a machine's CD drives."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    found, there = noted.of(vm), cds.drives_of(vm)
    denied = power.why_not(request.user, vm, "edit")
    context = {
        "vm": vm,
        "drives": [(drive, denied or drives.why_stays(found, drive.target)) for drive in there or ()],
        "known": there is not None,
        "leaving": drives.leaving(vm),
        "buses": drives.buses_of(vm, found),
        "full": denied or drives.why_no_more(vm, found),
        "images": cds.images_for(request.user, vm),
        "denied": denied,
    }
    return render(request, "vms/media.html", context)


@require_POST
def drive_add(request: HttpRequest, pk: int) -> HttpResponse:
    """Give a machine another drive for CDs."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    with attempt(request):
        begun = drives.add_drive(actor=request.user, machine=vm, bus=request.POST.get("bus", ""))
        return go_to(request, "operations:detail", begun.pk)
    return go_to(request, "vms:media", pk)


@require_POST
def drive_remove(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Take a drive for CDs from a machine."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    with attempt(request):
        begun = drives.remove_drive(actor=request.user, machine=vm, target=target)
        return go_to(request, "operations:detail", begun.pk)
    return go_to(request, "vms:media", pk)


@require_POST
def media_change(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Put an image or the machine's seed into a drive, or take out what is in it."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    medium, force = request.POST.get("medium", ""), request.POST.get("force") == "1"
    doing: dict[str, Any] = {"actor": request.user, "machine": vm, "target": target, "force": force}
    with attempt(request):
        if medium.isdecimal():
            image = get_object_or_404(Image.objects.restrict(request.user, "view"), pk=medium)
            begun = cds.insert_image(**doing, image=image)
        else:
            begun = cds.change_media(**doing, seed=medium == "seed")
        return _begun_or(request, begun, "vms:media", pk)
    return go_to(request, "vms:media", pk)


@require_POST
def disk_bus(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Let a machine have a disk on another bus."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    disk = get_object_or_404(vm.disks.select_related("machine__host"), target=target)
    with attempt(request):
        begun = buses.set_bus(actor=request.user, disk=disk, bus=request.POST.get("bus", ""))
        return go_to(request, "operations:detail", begun.pk)
    return go_to(request, "vms:disk", pk, target)


@require_POST
def limits(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Limit what a disk reads and writes."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    disk = get_object_or_404(vm.disks.select_related("pool__pool", "machine__host"), target=target)
    now = service.limits_of(disk) or {}
    form = LimitsForm(request.POST, now=now)
    context: dict[str, Any] = {}
    if form.is_valid():
        with denied_at(form):
            try:
                begun = service.limit_disk(
                    actor=request.user, disk=disk, limits=form.limits, seen=form.seen_limits
                )
            except Clash:
                context["limit_changes"] = service.differences(form.seen_limits, now)
                form.show(now)
                raise
            return _begun_or(request, begun, "vms:disk", pk, target)
    context = disk_page(request, disk) | context | {"limits": form}
    return render(request, "vms/disk.html", context, status=422)


def _begun_or(request: HttpRequest, begun: Operation | None, to: str, *args: Any) -> HttpResponse:
    """Go to what was begun; where all of it is so already, say that and go back."""
    if begun is not None:
        return go_to(request, "operations:detail", begun.pk)
    messages.info(request, _("Nothing was changed: it is so already."))
    return go_to(request, to, *args)
