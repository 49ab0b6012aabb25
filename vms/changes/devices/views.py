"""Pages of a machine's network cards and CD drives, and the limits of its disks. Each calls a service."""

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from networks.models import Port
from portal.core.numbers import number_of
from portal.core.stale import Snapshot
from portal.core.web.htmx import attempt, denied_at, go_to
from portal.hosts.models import Image
from portal.operations.models import Operation
from portal.operations.words import Difference
from vms import live, noted, power
from vms.changes.devices import bandwidth, buses, cardmodels, drives, nics, rewiring, showing
from vms.changes.devices import limits as service
from vms.changes.devices import media as cds
from vms.changes.devices.forms import BandwidthForm, CardForm, LimitsForm, ShownForm
from vms.changes.views import disk_of, disk_page
from vms.models import VirtualMachine

_FORMS = ["GET", "HEAD", "POST"]


@require_http_methods(_FORMS)
def cards(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a machine's network cards, and give it another."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    form = CardForm(request.POST or None, networks=nics.networks_for(request.user, vm))
    changes: list[Difference] = []
    if request.method == "POST" and form.is_valid():
        with denied_at(form), showing.note(changes, nics.differences):
            doing: dict[str, Any] = {"machine": vm, "network": form.cleaned_data["network"]}
            begun = nics.add_card(actor=request.user, **doing, seen=ShownForm.posted(request.POST))
            return go_to(request, "operations:detail", begun.pk)
    there = nics.cards_of(vm)
    context = {
        "vm": vm,
        "cards": there,
        "form": form,
        "carried": ShownForm(now=nics.shown_all(there)).initial["seen"],
        "changes": changes,
        "denied": power.why_not(request.user, vm, "edit") or nics.why_no_more(vm),
    }
    return render(request, "vms/cards.html", context, status=422 if form.errors else 200)


@require_safe
def card(request: HttpRequest, pk: int, mac: str) -> HttpResponse:
    """Show one network card."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    return _card_page(request, vm, mac)


def _card_page(
    request: HttpRequest,
    vm: VirtualMachine,
    mac: str,
    *,
    form: CardForm | None = None,
    changes: Sequence[Difference] = (),
    model: str = "",
    limits: BandwidthForm | None = None,
    limit_changes: Sequence[Difference] = (),
) -> HttpResponse:
    """Show one network card, and the `changes` by others that kept somebody from changing it.

    The `form` of its network, the other `model`, and its `limits` are what somebody filled in.
    """
    found = nics.cards_of(vm)
    shown, port = _card_of(found, mac)
    denied, seen = power.why_not(request.user, vm, "edit"), noted.of(vm)
    networks = rewiring.networks_for(request.user, vm, port)
    if form is not None:
        form.offer(networks)
    limited = bandwidth.limits_of(seen, mac)
    if limits is None and limited is not None:
        limits = BandwidthForm(now=limited)
    now = {
        **nics.shown(port, seen),
        **rewiring.shown(port),
        **cardmodels.shown(port, seen),
        **nics.shown_last(found),
    }
    context = {
        "vm": vm,
        "card": shown,
        "last": nics.is_last(found),
        "denied": denied or nics.why_fixed(port),
        "link_denied": denied or nics.why_link_stays(port, seen),
        "form": form or CardForm(networks=networks),
        "offered": networks.exists(),
        "stays": denied or rewiring.why_not(vm, port, seen),
        "model": cardmodels.model_of(port, seen),
        "models": cardmodels.choices(port, seen),
        "model_wanted": model,
        "model_waits": cardmodels.waits(port, seen),
        "model_fixed": denied or cardmodels.why_fixed(vm, port, seen),
        "limits": limits,
        "limit_changes": limit_changes,
        "limits_denied": denied or bandwidth.why_not(port, seen),
        "carried": ShownForm(now=now).initial["seen"],
        "changes": changes,
    }
    refused = form or changes or (limits is not None and limits.is_bound)
    return render(request, "vms/card.html", context, status=422 if refused else 200)


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
    if not nics.has_card(vm, mac):
        messages.error(request, _("The machine has this card no more."))
        return go_to(request, "vms:cards", pk)
    # With its own, which somebody may have chosen for it meanwhile.
    form = CardForm(request.POST, networks=nics.networks_for(request.user, vm))
    changes: list[Difference] = []
    if form.is_valid():
        doing: dict[str, Any] = {"machine": vm, "mac": mac, "network": form.cleaned_data["network"]}
        with denied_at(form), showing.note(changes):
            begun = rewiring.rewire_card(actor=request.user, **doing, seen=ShownForm.posted(request.POST))
            return _begun_or(request, begun, "vms:card", pk, mac)
    return _card_page(request, vm, mac, form=form, changes=changes)


@require_POST
def card_link(request: HttpRequest, pk: int, mac: str) -> HttpResponse:
    """Plug the cable of a card in or out."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    up = request.POST.get("up") == "1"
    changes: list[Difference] = []
    with attempt(request), showing.note(changes):
        doing: dict[str, Any] = {"machine": vm, "mac": mac, "up": up}
        begun = nics.set_link(actor=request.user, **doing, seen=ShownForm.posted(request.POST))
        return go_to(request, "operations:detail", begun.pk)
    return _card_page(request, vm, mac, changes=changes) if changes else go_to(request, "vms:cards", pk)


@require_POST
def card_model(request: HttpRequest, pk: int, mac: str) -> HttpResponse:
    """Let a card be of another model."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    model = request.POST.get("model", "")
    changes: list[Difference] = []
    with attempt(request), showing.note(changes):
        doing: dict[str, Any] = {"machine": vm, "mac": mac, "model": model}
        begun = cardmodels.set_model(actor=request.user, **doing, seen=ShownForm.posted(request.POST))
        return _begun_or(request, begun, "vms:card", pk, mac)
    if changes:
        return _card_page(request, vm, mac, changes=changes, model=model)
    return go_to(request, "vms:card", pk, mac)


@require_POST
def card_limits(request: HttpRequest, pk: int, mac: str) -> HttpResponse:
    """Limit what a card receives and sends."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    if not nics.has_card(vm, mac):
        messages.error(request, _("The machine has this card no more."))
        return go_to(request, "vms:cards", pk)
    form = BandwidthForm(request.POST, now={})
    changes: list[Difference] = []
    if form.is_valid():
        with denied_at(form), showing.note(changes, bandwidth.differences):
            doing: dict[str, Any] = {"machine": vm, "mac": mac, "limits": form.limits}
            begun = bandwidth.limit_card(actor=request.user, **doing, seen=form.seen_limits)
            return _begun_or(request, begun, "vms:card", pk, mac)
    if changes:
        form.show(bandwidth.limits_of(noted.of(vm), mac) or {})
    return _card_page(request, vm, mac, limits=form, limit_changes=changes)


@require_POST
def card_remove(request: HttpRequest, pk: int, mac: str) -> HttpResponse:
    """Take a card from a machine."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    changes: list[Difference] = []
    with attempt(request), showing.note(changes):
        doing: dict[str, Any] = {"machine": vm, "mac": mac}
        begun = nics.remove_card(actor=request.user, **doing, seen=ShownForm.posted(request.POST))
        return go_to(request, "operations:detail", begun.pk)
    return _card_page(request, vm, mac, changes=changes) if changes else go_to(request, "vms:cards", pk)


@require_safe
def media(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a machine's CD drives."""
    return _drives_page(request, get_object_or_404(live.visible(request.user), pk=pk))


def _drives_page(
    request: HttpRequest, vm: VirtualMachine, changes: Sequence[Difference] = ()
) -> HttpResponse:
    """Show a machine's CD drives, and the `changes` by others that kept somebody from changing them."""
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
        "carried": ShownForm(now=cds.shown(there)).initial["seen"],
        "changes": changes,
    }
    return render(request, "vms/media.html", context, status=422 if changes else 200)


def _change_drives(
    request: HttpRequest, vm: VirtualMachine, begin: Callable[[Snapshot], Operation | None]
) -> HttpResponse:
    """Begin a change of drives as they were seen, or show the page again with what others changed."""
    changes: list[Difference] = []
    with attempt(request), showing.note(changes, cds.differences):
        return _begun_or(request, begin(ShownForm.posted(request.POST)), "vms:media", vm.pk)
    return _drives_page(request, vm, changes) if changes else go_to(request, "vms:media", vm.pk)


@require_POST
def drive_add(request: HttpRequest, pk: int) -> HttpResponse:
    """Give a machine another drive for CDs."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    doing: dict[str, Any] = {"actor": request.user, "machine": vm, "bus": request.POST.get("bus", "")}
    return _change_drives(request, vm, lambda seen: drives.add_drive(**doing, seen=seen))


@require_POST
def drive_remove(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Take a drive for CDs from a machine."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    doing: dict[str, Any] = {"actor": request.user, "machine": vm, "target": target}
    return _change_drives(request, vm, lambda seen: drives.remove_drive(**doing, seen=seen))


@require_POST
def media_change(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Put an image or the machine's seed into a drive, or take out what is in it."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    medium, force = request.POST.get("medium", ""), request.POST.get("force") == "1"
    doing: dict[str, Any] = {"actor": request.user, "machine": vm, "target": target, "force": force}
    if medium in {"", "seed"}:
        seed = medium == "seed"
        return _change_drives(request, vm, lambda seen: cds.change_media(**doing, seed=seed, seen=seen))
    images = Image.objects.restrict(request.user, "view")
    image = get_object_or_404(images, pk=number_of(medium))
    return _change_drives(request, vm, lambda seen: cds.insert_image(**doing, image=image, seen=seen))


@require_POST
def disk_bus(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Let a machine have a disk on another bus."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    disk = disk_of(request, vm, target)
    if disk is None:
        return go_to(request, "vms:detail", pk)
    bus = request.POST.get("bus", "")
    changes: list[Difference] = []
    with attempt(request), showing.note(changes):
        begun = buses.set_bus(actor=request.user, disk=disk, bus=bus, seen=ShownForm.posted(request.POST))
        return _begun_or(request, begun, "vms:disk", pk, target)
    if not changes:
        return go_to(request, "vms:disk", pk, target)
    context = disk_page(request, disk) | {"bus_changes": changes, "bus_wanted": bus}
    return render(request, "vms/disk.html", context, status=422)


@require_POST
def limits(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Limit what a disk reads and writes."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    disk = disk_of(request, vm, target)
    if disk is None:
        return go_to(request, "vms:detail", pk)
    now = service.limits_of(disk) or {}
    form = LimitsForm(request.POST, now=now)
    changes: list[Difference] = []
    if form.is_valid():
        with denied_at(form), showing.note(changes, service.differences):
            doing: dict[str, Any] = {"disk": disk, "limits": form.limits, "seen": form.seen_limits}
            begun = service.limit_disk(actor=request.user, **doing)
            return _begun_or(request, begun, "vms:disk", pk, target)
    if changes:
        form.show(service.limits_of(disk) or {})
    context = disk_page(request, disk) | {"limit_changes": changes, "limits": form}
    return render(request, "vms/disk.html", context, status=422)


def _begun_or(request: HttpRequest, begun: Operation | None, to: str, *args: Any) -> HttpResponse:
    """Go to what was begun; where all of it is so already, say that and go back."""
    if begun is not None:
        return go_to(request, "operations:detail", begun.pk)
    messages.info(request, _("Nothing was changed: it is so already."))
    return go_to(request, to, *args)
