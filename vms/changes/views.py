"""Pages that change a machine's size and disks. Each parses, calls a service, renders."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from portal.accounts import public_keys
from portal.accounts.backends import may
from portal.core.web.forms import ConfirmForm
from portal.core.web.htmx import attempt, denied_at, go_to
from portal.live.panels import row_keys
from portal.operations import words
from portal.operations.models import Operation
from vms import live, noted, power
from vms.changes import attaching, cloning, disks, memory, moving, resizing, templates, twins
from vms.changes.devices import buses, limits, showing
from vms.changes.devices.forms import LimitsForm, ShownForm
from vms.changes.forms import AttachForm, ChangeForm, CloneForm, DiskForm, MoveForm, ResizeForm, TemplateForm
from vms.editing import Clash
from vms.models import Disk, VirtualMachine

_FORMS = ["GET", "HEAD", "POST"]


def _shown(request: HttpRequest, machine: VirtualMachine, kind: str) -> dict[str, Operation | None]:
    """Return the request that the page edits, or that its form is filled in like."""
    found = Operation.objects.restrict(request.user, "view").filter(
        kind=kind, spec__contains=str(machine.uuid)
    )
    return {
        "edited": found.filter(
            requester=request.user.pk, pk__in=row_keys([request.GET.get("edit", "")])
        ).first(),
        "like": found.filter(pk__in=row_keys([request.GET.get("like", "")])).first(),
    }


def _send(form: ChangeForm, send: Callable[[], Operation]) -> tuple[Operation | None, list[Any]]:
    """Call the service; return the operation, or what changed since the page was opened."""
    changes: list[Any] = []
    with denied_at(form):
        try:
            return send(), changes
        except Clash:
            old = {fact.label: fact.value for fact in words.size_facts(form.seen_sizes)}
            new = words.size_facts(form.now)
            changes = [
                words.Difference(fact.label, old.get(fact.label, ""), fact.value)
                for fact in new
                if fact.value != old.get(fact.label)
            ]
            form.show(form.now)
            raise
    return None, changes


@require_http_methods(_FORMS)
def clone(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for a machine like this one."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    shown = _shown(request, vm, cloning.KIND)
    edited = shown["edited"]
    keys = public_keys.of(request.user) if cloning.takes_keys(vm) else None
    form = CloneForm(request.POST or None, days=min(90, cloning.longest_lease(vm)), keys=keys, **shown)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            if edited is not None:
                seen = form.cleaned_data["spec_hash"]
                begun = cloning.edit_clone(
                    actor=request.user, operation=edited, spec_hash=seen, **form.values
                )
            else:
                token = form.cleaned_data["token"]
                begun = cloning.request_clone(actor=request.user, machine=vm, token=token, **form.values)
            return go_to(request, "operations:detail", begun.pk)
    context = {
        "vm": vm,
        "form": form,
        "edited": edited,
        "disk": twins.size_of(vm).get("disk", 0),
        "never": twins.why_no_twin(vm),
        "may_template": not templates.right_lacks(request.user, vm),
    }
    return _page(request, "vms/clone.html", context, verb="clone")


@require_http_methods(_FORMS)
def template(request: HttpRequest, pk: int) -> HttpResponse:
    """Make an image of a machine's disks."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    further = templates.further_disks(vm)
    form = TemplateForm(request.POST or None, disks=1 + len(further))
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            begun = templates.make_template(actor=request.user, machine=vm, **form.cleaned_data)
            return go_to(request, "operations:detail", begun.pk)
    context = {
        "vm": vm,
        "form": form,
        "disk": templates.boot_disk(vm),
        "further": further,
        "cloud_init": bool(vm.image and vm.image.cloud_init),
        "denied": templates.right_lacks(request.user, vm) or power.why_not(request.user, vm, "template"),
    }
    return render(request, "vms/template.html", context, status=422 if form.errors else 200)


@require_http_methods(_FORMS)
def size(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a machine's size, and ask for another."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    shown = _shown(request, vm, resizing.KIND)
    edited = shown["edited"]
    form = ResizeForm(request.POST or None, now=resizing.sizes_of(vm), **shown)
    ceiling, cold = resizing.hot_ceiling(vm)
    context: dict[str, Any] = {
        "vm": vm,
        "form": form,
        "edited": edited,
        "ceiling": ceiling,
        "cold": cold,
        "memory": memory.sights([vm])[vm.pk],
    }
    if request.method == "POST" and form.is_valid():
        why = form.cleaned_data["why"]

        def send() -> Operation:
            if edited is not None:
                return resizing.edit_resize(
                    actor=request.user,
                    operation=edited,
                    sizes=form.sizes,
                    why=why,
                    spec_hash=form.cleaned_data["spec_hash"],
                )
            return resizing.request_resize(
                actor=request.user,
                machine=vm,
                sizes=form.sizes,
                seen=form.seen_sizes,
                why=why,
                token=form.cleaned_data["token"],
            )

        begun, context["changes"] = _send(form, send)
        if begun is not None:
            return go_to(request, "operations:detail", begun.pk)
    return _page(request, "vms/size.html", context)


@require_http_methods(_FORMS)
def disk_add(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for another disk of a machine."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    shown = _shown(request, vm, disks.ADD)
    edited = shown["edited"]
    form = DiskForm(request.POST or None, now={}, **shown)
    if request.method == "POST" and form.is_valid():
        values = {"capacity": form.sizes["disk"], "why": form.cleaned_data["why"]}

        def send() -> Operation:
            if edited is not None:
                seen = form.cleaned_data["spec_hash"]
                return disks.edit_request(actor=request.user, operation=edited, spec_hash=seen, **values)
            token = form.cleaned_data["token"]
            return disks.request_disk(actor=request.user, machine=vm, token=token, **values)

        begun, _changes = _send(form, send)
        if begun is not None:
            return go_to(request, "operations:detail", begun.pk)
    context = {"vm": vm, "form": form, "edited": edited}
    context["may_attach"] = not attaching.right_lacks(request.user)
    context["never"] = disks.why_no_more(noted.of(vm))
    return _page(request, "vms/disk_add.html", context)


@require_http_methods(_FORMS)
def disk_attach(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for a volume of a pool as a disk of a machine."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    denied = attaching.right_lacks(request.user)
    shown = _shown(request, vm, attaching.ATTACH)
    edited = shown["edited"]
    # What lies in pools is for operators alone to see.
    volumes = [] if denied else attaching.volumes_for(vm)
    form = AttachForm(request.POST or None, volumes=volumes, **shown)
    if request.method == "POST" and form.is_valid():
        values = {"volume": form.cleaned_data["volume"], "why": form.cleaned_data["why"]}
        with denied_at(form):
            if edited is not None:
                seen = form.cleaned_data["spec_hash"]
                begun = attaching.edit_request(
                    actor=request.user, operation=edited, spec_hash=seen, **values
                )
            else:
                token = form.cleaned_data["token"]
                begun = attaching.request_attachment(actor=request.user, machine=vm, token=token, **values)
            return go_to(request, "operations:detail", begun.pk)
    context = {
        "vm": vm,
        "form": form,
        "edited": edited,
        "denied": denied or power.why_not(request.user, vm, "edit") or disks.why_no_more(noted.of(vm)),
        "none": not volumes,
    }
    return render(request, "vms/disk_attach.html", context, status=422 if form.errors else 200)


@require_POST
def disk_detach(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Take a disk from a machine and keep its volume."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    told = _("The disk is being detached; the page shows when it is done.")
    return _take(request, vm, target, told, attaching.detach)


@require_http_methods(_FORMS)
def disk(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Show one disk of a machine, and ask for it to grow."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    found = get_object_or_404(vm.disks.select_related("pool__pool"), target=target)
    shown = _shown(request, vm, disks.GROW)
    edited = shown["edited"]
    form = DiskForm(request.POST or None, now={"disk": found.capacity}, **shown)
    context = disk_page(request, found) | {"vm": vm, "form": form, "edited": edited}
    if request.method == "POST" and form.is_valid():
        values = {"capacity": form.sizes["disk"], "why": form.cleaned_data["why"]}

        def send() -> Operation:
            if edited is not None:
                seen = form.cleaned_data["spec_hash"]
                return disks.edit_request(actor=request.user, operation=edited, spec_hash=seen, **values)
            return disks.request_growth(
                actor=request.user,
                disk=found,
                seen=form.seen_sizes.get("disk", 0),
                token=form.cleaned_data["token"],
                **values,
            )

        begun, context["changes"] = _send(form, send)
        if begun is not None:
            return go_to(request, "operations:detail", begun.pk)
    return _page(request, "vms/disk.html", context)


@require_POST
def disk_move(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Move a disk to another pool of its host."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    found = disk_of(request, vm, target)
    if found is None:
        return go_to(request, "vms:detail", pk)
    places = moving.places(found)
    # With its own, to which somebody may have moved it meanwhile.
    form = MoveForm(request.POST, places=[*places, moving.Place(found.pool, 0)])
    changes: list[words.Difference] = []
    if form.is_valid():
        with denied_at(form), showing.note(changes):
            doing: dict[str, Any] = {"disk": found, "to": form.cleaned_data["pool"]}
            begun = moving.move_disk(actor=request.user, **doing, seen=ShownForm.posted(request.POST))
            return go_to(request, "operations:detail", begun.pk)
    form.offer(places)
    context = disk_page(request, found) | {"move": form, "move_changes": changes}
    return render(request, "vms/disk.html", context, status=422)


def disk_page(request: HttpRequest, found: Disk) -> dict[str, Any]:
    """Return what a disk's page shows, with forms that nobody filled in."""
    now, places, seen = limits.limits_of(found), moving.places(found), noted.of(found.machine)
    denied = power.why_not(request.user, found.machine, "edit")
    return {
        "disk": found,
        "vm": found.machine,
        "form": DiskForm(now={"disk": found.capacity}),
        "delete": ConfirmForm(name=found.target),
        "kept": power.right_lacks(request.user, found.machine) or disks.why_kept(found.machine, found),
        "limits": LimitsForm(now=now) if now is not None else None,
        "move": MoveForm(places=places) if places else None,
        "may_move": may(request.user, "operate", found.machine.project),
        "may_detach": not attaching.right_lacks(request.user),
        "linked": moving.is_linked(found.machine, found),
        "bus": buses.bus_of(found, seen),
        "buses": buses.choices(found.machine, found, seen),
        "bus_waits": buses.waits(found, seen),
        "carried": ShownForm(now={**buses.shown(found, seen), **disks.shown(found)}).initial["seen"],
        "bus_fixed": denied or buses.why_fixed(found.machine, found, seen),
        "denied": denied,
        "limits_denied": denied or limits.why_not(seen),
        "grow_denied": denied or disks.why_not_grown(seen),
        "move_denied": denied or moving.why_stays(seen),
    }


@require_POST
def disk_delete(request: HttpRequest, pk: int, target: str) -> HttpResponse:
    """Detach a disk and delete it."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    told = _("The disk is being deleted; the page shows when it is done.")
    typed = request.POST.get("confirm_name", "")
    return _take(request, vm, target, told, partial(disks.remove_disk, confirm_name=typed))


def _take(
    request: HttpRequest, vm: VirtualMachine, target: str, told: str, take: Callable[..., Operation]
) -> HttpResponse:
    """Take a disk from a machine as it was seen, or show its page again with what others changed."""
    found = disk_of(request, vm, target)
    changes: list[words.Difference] = []
    if found is not None:
        with attempt(request, told), showing.note(changes):
            take(actor=request.user, disk=found, seen=ShownForm.posted(request.POST))
    if found is None or not changes:
        return go_to(request, "vms:detail", vm.pk)
    return render(request, "vms/disk.html", disk_page(request, found) | {"changes": changes}, status=422)


def disk_of(request: HttpRequest, vm: VirtualMachine, target: str) -> Disk | None:
    """Return a disk that somebody pressed a button of; None, and say so, where it is gone by now."""
    found = vm.disks.select_related("pool__pool", "machine__host").filter(target=target).first()
    if found is None:
        messages.error(request, _("The machine has this disk no more."))
    return found


def _page(
    request: HttpRequest, template: str, context: dict[str, Any], verb: str = "edit"
) -> HttpResponse:
    context["denied"] = power.why_not(request.user, context["vm"], verb) or context.get("never", "")
    return render(request, template, context, status=422 if context["form"].errors else 200)
