"""Pages of machines: the catalogue, asking, the list, one machine. Each parses, calls a service, renders."""

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts import public_keys
from portal.accounts.backends import may
from portal.accounts.models import Project
from portal.core.web.forms import ConfirmForm
from portal.core.web.htmx import attempt, denied_at, go_to, render_page
from portal.core.web.lists import KeyedPaginator, ordering, search_of
from portal.core.web.slots import pieces
from portal.live.panels import row_keys
from portal.operations import revisions, words
from portal.operations.models import Operation
from vms import (
    asking,
    bulk,
    editing,
    extending,
    hostdevices,
    install_templates,
    installing,
    live,
    noted,
    offers,
    pending,
    pending_page,
    power,
    prefill,
    reach,
    services,
    starting,
)
from vms import settings as sets
from vms.adoption import services as adoption
from vms.cards import cards
from vms.changes import memory, templates
from vms.changes.asking import waiting_for
from vms.exports import services as exports
from vms.forms import BulkForm, EditForm, ExtensionEditForm, ExtensionForm, RequestForm, SeenRequest
from vms.models import CatalogueItem, Status, VirtualMachine
from vms.settings_form import SettingsForm

PAGE_SIZE = 25
ORDER = {
    "name": ["name"],
    "state": ["observed_state", "name"],
    "host": ["host__name", "name"],
    "size": ["memory", "name"],
    "owner": ["owner__username", "name"],
    "lease": ["lease_until", "name"],
}


@require_safe
def machines(request: HttpRequest) -> HttpResponse:
    """List the machines that the person may see; the bin behind a switch."""
    search = search_of(request)
    binned = request.GET.get("bin") == "1"
    found = live.visible(request.user)
    found = found.filter(status=Status.BINNED) if binned else found.exclude(status=Status.BINNED)
    if search:
        named = Q(name__icontains=search) | Q(labels__icontains=search)
        found = found.filter(named | Q(observed_address__startswith=search))
    sort, columns = ordering(request, ORDER, default="name")
    page = KeyedPaginator(found.order_by(*columns), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "search": search,
        "sort": sort,
        "binned": binned,
        "verbs": bulk.VERBS,
        # Asked for by the whole page alone.
        "pieces": lambda: pieces("vms.list", request, None),
    }
    return render_page(request, "vms/list.html", context, partial="vms/table.html")


@require_safe
def machine(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one machine."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    stranger = power.right_lacks(request.user, vm)
    ports, seen = reach.ports_of([vm])[vm.uuid], noted.of(vm)
    context = {
        "vm": vm,
        "power_buttons": live.actions_for(vm, stranger, seen),
        "ways": reach.ways(vm, ports),
        "memory": memory.sights([vm])[vm.pk],
        "pending": pending.look(vm, seen),
        "ports": ports,
        "host_devices": hostdevices.matters(vm, seen),
        "disks": vm.disks.select_related("pool__pool"),
        "operations": Operation.objects.restrict(request.user, "view").filter(
            Q(subject=vm.topic) | Q(pk=vm.built_by_id) | Q(pk__in=waiting_for(vm).values("pk"))
        ).select_related("requester").order_by("-pk")[:10],
        "may_use": not stranger,
        "exports": exports.exports_of(vm, request.user),
        "no_export": stranger or power.state_forbids(vm, "export"),
        "may_template": not templates.right_lacks(request.user, vm),
        "no_change": stranger or power.state_forbids(vm, "edit"),
        "delete": ConfirmForm(name=vm.name),
        "no_delete": stranger or power.state_forbids(vm, "bin"),
        "no_purge": stranger or (power.why_not_purged(vm) if vm.status == Status.BINNED else ""),
        "no_restore": stranger or (power.why_not_restored(vm) if vm.status == Status.BINNED else ""),
        "installer": installing.told_of(vm),
        **_extension(request, vm),
        **(_of_adopted(request, vm) if vm.adopted else {}),
    }
    return render(request, "vms/detail.html", context)


def _of_adopted(request: HttpRequest, vm: VirtualMachine) -> dict[str, Any]:
    """Return what the page of a machine says that somebody made elsewhere."""
    return {
        "lost": adoption.lost_with(vm),
        "may_release": may(request.user, "operate", None),
        "release": ConfirmForm(name=vm.name, auto_id="release_%s"),
        "no_release": adoption.why_not_released(vm),
    }


@require_http_methods(["GET", "HEAD", "POST"])
def settings(request: HttpRequest, pk: int) -> HttpResponse:
    """Show what a machine is set to, and change it."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    context: dict[str, Any] = {"vm": vm, "denied": power.why_not(request.user, vm, "edit")}
    found = noted.of(vm)
    if found is None or found.observed_persistent is None:
        return render(request, "vms/settings.html", context)
    form = SettingsForm(request.POST or None, found=found)
    if request.method == "POST" and form.is_valid():
        with denied_at(form, form.FIELDS):
            try:
                begun = editing.edit_machine(
                    actor=request.user,
                    machine=vm,
                    values=form.values(),
                    digest=form.seen_digest,
                    seen=form.seen_values,
                )
            except editing.Clash:
                context["changes"] = sets.differences(form.seen_values, sets.values(form.defined))
                form.look_at(found)
                raise
            if begun is None:
                messages.info(request, _("Nothing was changed: it is set so already."))
                return go_to(request, "vms:settings", pk)
            return go_to(request, "operations:detail", begun.pk)
    context |= {"form": form, "found": found, **pending_page.context_of(vm, found)}
    verb = "no_autostart" if found.observed_autostart else "autostart"
    context["autostart_denied"] = power.why_not(request.user, vm, verb)
    return render(request, "vms/settings.html", context, status=422 if form.errors else 200)


@require_POST
def autostart(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a machine start with its host, or not."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    with attempt(request):
        begun = starting.set_autostart(actor=request.user, machine=vm, on=request.POST.get("on") == "1")
        if begun is not None:
            return go_to(request, "operations:detail", begun.pk)
        messages.info(request, _("Nothing was changed: it is set so already."))
    return go_to(request, "vms:settings", pk)


@require_http_methods(["GET", "HEAD", "POST"])
def lease(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for a longer lease of a machine."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    form = ExtensionForm(request.POST or None, most=extending.most_days(vm))
    if request.method == "POST" and form.is_valid():
        with denied_at(form, form.FIELDS):
            begun = extending.request_extension(actor=request.user, machine=vm, **form.cleaned_data)
            return go_to(request, "operations:detail", begun.pk)
    return _lease_page(request, vm, form)


@require_safe
def lease_copy(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the form filled in like an earlier request for a longer lease."""
    earlier = get_object_or_404(_requests(request, extending.KIND), pk=pk)
    vm = _leased(request, earlier)
    if vm is None:
        return go_to(request, "operations:detail", pk)
    form = ExtensionForm(most=extending.most_days(vm), filled=ExtensionForm.like(earlier))
    return _lease_page(request, vm, form)


@require_http_methods(["GET", "HEAD", "POST"])
def lease_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Change one's own request for a longer lease while it waits."""
    operation = get_object_or_404(_requests(request, extending.KIND), pk=pk)
    if refusal := revisions.edit_forbidden(request.user, operation):
        messages.error(request, refusal)
        return go_to(request, "operations:detail", pk)
    vm = _leased(request, operation)
    if vm is None:
        return go_to(request, "operations:detail", pk)
    form = ExtensionEditForm(request.POST or None, operation=operation, most=extending.most_days(vm))
    if request.method == "POST" and form.is_valid():
        with denied_at(form, form.FIELDS):
            extending.edit_extension(actor=request.user, operation=operation, **form.cleaned_data)
            return go_to(request, "operations:detail", pk)
    changes = _changed_meanwhile(form, operation)
    return _lease_page(request, vm, form, edited=operation, changes=changes)


def _leased(request: HttpRequest, operation: Operation) -> VirtualMachine | None:
    """Return the machine of a request for a longer lease; say so when it is gone."""
    vm = live.visible(request.user).filter(uuid=operation.identifiers["uuid"]).first()
    if vm is None:
        messages.error(request, _("The machine is gone."))
    return vm


def _extension(request: HttpRequest, vm: VirtualMachine) -> dict[str, Any]:
    """Return the request for a longer lease that waits, and whether the person may look at it."""
    found = extending.waiting(vm).first()
    seen = found and Operation.objects.restrict(request.user, "view").filter(pk=found.pk).exists()
    return {"extension": found, "extension_seen": bool(seen)}


def _lease_page(request: HttpRequest, vm: VirtualMachine, form: Any, **context: Any) -> HttpResponse:
    denied = extending.why_not(request.user, vm, besides=context.get("edited"))
    context |= {"vm": vm, "form": form, "denied": denied, **_extension(request, vm)}
    return render(request, "vms/lease.html", context, status=422 if form.errors else 200)


@require_POST
def act(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    """Start, stop, pause and so on."""
    vm = get_object_or_404(VirtualMachine.objects.restrict(request.user, "view"), pk=pk)
    with attempt(request, _("Asked the host; the page shows when it is done.")):
        power.act(actor=request.user, machine=vm, verb=verb)
    return go_to(request, "vms:detail", vm.pk)


@require_POST
def many(request: HttpRequest) -> HttpResponse:
    """Ask whether something is to be done to many machines, and begin it once that was confirmed."""
    keys = row_keys(request.POST.getlist("machine"))
    # With those in the bin: a deletion that was cut off is completed by the form that counted them.
    machines = list(live.visible(request.user).filter(pk__in=keys))
    verb = request.POST.get("verb", "")
    if verb not in bulk.VERBS:
        return HttpResponseBadRequest(_("This cannot be done to many machines."))
    if not machines:
        if keys:
            raise Http404
        messages.error(request, _("Choose machines first."))
        return go_to(request, "vms:list")
    form = BulkForm(request.POST if request.POST.get("sure") else None, count=len(machines), verb=verb)
    if form.is_valid():
        with denied_at(form):
            begun = bulk.begin(actor=request.user, machines=machines, verb=verb, **form.cleaned_data)
            for refusal in begun.refused:
                messages.warning(request, f"{refusal.machine.name}: {refusal.reason}")
            return go_to(request, "operations:together", begun.batch)
    able, refused = bulk.sort_out(request.user, machines, verb)
    context = {"form": form, "verb": verb, "label": bulk.VERBS[verb], "machines": machines}
    context |= {"able": able, "refused": refused, "losing": verb in bulk.LOSING}
    return render(request, "vms/many.html", context, status=422 if form.errors else 200)


@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Put a machine into the bin; one in the bin goes for good."""
    vm = get_object_or_404(VirtualMachine.objects.restrict(request.user, "view"), pk=pk)
    typed = request.POST.get("confirm_name", "")
    service = power.purge_machine if vm.status == Status.BINNED else power.bin_machine
    with attempt(request, _("The machine is being deleted.")):
        service(actor=request.user, machine=vm, confirm_name=typed)
    return go_to(request, "vms:detail", vm.pk)


@require_POST
def restore(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a machine out of the bin."""
    vm = get_object_or_404(VirtualMachine.objects.restrict(request.user, "view"), pk=pk)
    with attempt(request, _("The machine is back, switched off.")):
        if power.restore_machine(actor=request.user, machine=vm):
            messages.info(request, _("Its host is told to start it by itself again, as before."))
    return go_to(request, "vms:detail", vm.pk)


@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    """Show what can be asked for."""
    items = offers.asked_for_by(request.user).select_related("image").prefetch_related("flavours", "networks")
    context = {"rows": cards(items), "keeps_templates": install_templates.may_edit(request.user)}
    return render(request, "vms/catalogue.html", context)


def _projects(request: HttpRequest, item: CatalogueItem) -> QuerySet[Project]:
    """Return the projects in which the person may ask for the item."""
    found = Project.objects.restrict(request.user, "request").order_by("name")
    if not item.image.every_project:
        found = found.filter(images=item.image)
    return found if item.every_project else found.filter(items=item)


@require_http_methods(["GET", "HEAD", "POST"])
def ask(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for a machine of a catalogue item."""
    item = get_object_or_404(_offered(request), pk=pk)
    keys = public_keys.of(request.user)
    form = RequestForm(request.POST or None, item=item, projects=_projects(request, item), keys=keys)
    if request.method == "POST" and form.is_valid():
        with denied_at(form, form.FIELDS):
            operation = services.request_machine(
                actor=request.user,
                project=form.cleaned_data["project"],
                wish=form.wish(),
                token=form.cleaned_data["token"],
                chosen_keys=form.cleaned_data.get("own_keys"),
            )
            return go_to(request, "operations:detail", operation.pk)
    return _form_page(request, form)


@require_safe
def copy(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the form filled in like an earlier request, whatever became of it."""
    earlier = get_object_or_404(_requests(request), pk=pk)
    filled = prefill.like(earlier)
    if filled.item is None or not _offered(request).filter(pk=filled.item.pk).exists():
        return render(request, "vms/gone.html", {"operation": earlier, "notes": filled.notes})
    filled.values["name"] = prefill.free_name(filled.values["name"])
    projects, keys = _projects(request, filled.item), public_keys.of(request.user)
    form = RequestForm(item=filled.item, projects=projects, keys=keys, filled=filled.values)
    return _form_page(request, form, copied=earlier, notes=filled.notes)


@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Change one's own request while it waits."""
    operation = get_object_or_404(_requests(request), pk=pk)
    filled = prefill.like(operation)
    if refusal := revisions.edit_forbidden(request.user, operation):
        messages.error(request, refusal)
        return go_to(request, "operations:detail", pk)
    if filled.item is None:
        return render(request, "vms/gone.html", {"operation": operation, "notes": filled.notes})
    keys = public_keys.of(request.user)
    form = EditForm(
        request.POST or None, operation=operation, item=filled.item, filled=filled.values, keys=keys
    )
    if request.method == "POST" and form.is_valid():
        with denied_at(form, form.FIELDS):
            services.edit_machine_request(
                actor=request.user,
                operation=operation,
                wish=form.wish(),
                spec_hash=form.cleaned_data["spec_hash"],
            )
            return go_to(request, "operations:detail", pk)
    changes = _changed_meanwhile(form, operation)
    return _form_page(request, form, edited=operation, notes=filled.notes, changes=changes)


def _changed_meanwhile(form: SeenRequest, operation: Operation) -> Sequence[words.Difference]:
    """Return what changed since the refused `form` was opened; it is then about the request as it is now."""
    seen = form.data.get("spec_hash", "") if form.errors else operation.spec_hash
    if seen == operation.spec_hash:
        return []
    form.see(operation)
    earlier = operation.revisions.filter(spec_hash=seen).last()
    return words.differences(earlier.frozen, operation.frozen) if earlier else []


@require_POST
def what_if(request: HttpRequest, pk: int) -> HttpResponse:
    """Say what the form would ask for, while the person types. Changes nothing; a POST, for its length."""
    item = get_object_or_404(_offered(request), pk=pk)
    edited, keys = _edited(request), public_keys.of(request.user)
    if edited is None:
        form = RequestForm(request.POST, item=item, projects=_projects(request, item), keys=keys)
    else:
        form = EditForm(request.POST, operation=edited, item=item, filled={}, keys=keys)
    sight = asking.look(request.user, form, edited)
    return render(request, "vms/what_if.html", {"sight": sight, "form": form, "oob": True})


def _offered(request: HttpRequest) -> QuerySet[CatalogueItem]:
    """Return what the person may ask for now."""
    return offers.asked_for_by(request.user).select_related("image")


def _requests(request: HttpRequest, *kinds: str) -> QuerySet[Operation]:
    """Return the requests of `kinds`, without any those for new machines, that the person may see."""
    wanted = kinds or (*services.BUILDS, services.DEPLOY)
    found = Operation.objects.restrict(request.user, "view").filter(kind__in=wanted)
    return found.exclude(project=None).select_related("project", "requester")


def _edited(request: HttpRequest) -> Operation | None:
    """Return the request that the form edits, None for a new one."""
    typed = request.POST.get("operation", "")
    mine = _requests(request).filter(requester=request.user.pk)
    return mine.filter(pk__in=row_keys([typed])).first()


def _form_page(request: HttpRequest, form: RequestForm, **context: Any) -> HttpResponse:
    status = 422 if form.errors else 200
    return render(request, "vms/ask.html", {"form": form, "item": form.item, **context}, status=status)
