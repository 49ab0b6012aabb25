"""Pages of machines: the catalogue, asking, the list, one machine. Each parses, calls a service, renders."""

from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts.models import Project
from portal.core.web.forms import ConfirmForm
from portal.core.web.htmx import attempt, denied_at, go_to, render_page
from portal.core.web.lists import KeyedPaginator, ordering
from portal.core.web.slots import pieces
from portal.operations.models import Operation
from vms import live, power, reach, services
from vms.cards import cards
from vms.forms import RequestForm
from vms.models import CatalogueItem, Status, VirtualMachine

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
    search = request.GET.get("q", "").strip()
    binned = request.GET.get("bin") == "1"
    found = live.visible(request.user)
    found = found.filter(status=Status.BINNED) if binned else found.exclude(status=Status.BINNED)
    if search:
        found = found.filter(Q(name__icontains=search) | Q(observed_address__startswith=search))
    sort, columns = ordering(request, ORDER, default="name")
    page = KeyedPaginator(found.order_by(*columns), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "search": search,
        "sort": sort,
        "binned": binned,
        # Asked for by the whole page alone.
        "pieces": lambda: pieces("vms.list", request, None),
    }
    return render_page(request, "vms/list.html", context, partial="vms/table.html")


@require_safe
def machine(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one machine."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    stranger = power.right_lacks(request.user, vm)
    context = {
        "vm": vm,
        "power_buttons": live.actions_for(vm, stranger),
        "ways": reach.ways(vm, reach.ports_of([vm])[vm.uuid]),
        "disks": vm.disks.select_related("pool__pool"),
        "operations": Operation.objects.restrict(request.user, "view").filter(
            Q(subject=vm.topic) | Q(pk=vm.built_by_id)
        ).select_related("requester").order_by("-pk")[:10],
        "may_use": not stranger,
        "delete": ConfirmForm(name=vm.name),
        "no_delete": stranger or power.state_forbids(vm, "bin"),
    }
    return render(request, "vms/detail.html", context)


@require_POST
def act(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    """Start, stop, pause and so on."""
    vm = get_object_or_404(VirtualMachine.objects.restrict(request.user, "view"), pk=pk)
    with attempt(request, _("Asked the host; the page shows when it is done.")):
        power.act(actor=request.user, machine=vm, verb=verb)
    return go_to(request, "vms:detail", vm.pk)


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
        power.restore_machine(actor=request.user, machine=vm)
    return go_to(request, "vms:detail", vm.pk)


@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    """Show what can be asked for."""
    items = CatalogueItem.objects.restrict(request.user, "request").filter(offered=True)
    items = items.select_related("image").prefetch_related("flavours", "networks")
    return render(request, "vms/catalogue.html", {"rows": cards(items)})


def _projects(request: HttpRequest, item: CatalogueItem) -> QuerySet[Project]:
    """Return the projects in which the person may ask for the item."""
    found = Project.objects.restrict(request.user, "request")
    return found if item.every_project else found.filter(items=item)


@require_http_methods(["GET", "HEAD", "POST"])
def ask(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for a machine of a catalogue item."""
    offered = CatalogueItem.objects.restrict(request.user, "request").filter(offered=True)
    item = get_object_or_404(offered.select_related("image"), pk=pk)
    projects = _projects(request, item)
    form = RequestForm(request.POST or None, item=item, projects=projects)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            operation = services.request_machine(
                actor=request.user,
                project=form.cleaned_data["project"],
                wish=form.wish(),
                token=form.cleaned_data["token"],
            )
            return go_to(request, "operations:detail", operation.pk)
    return render(
        request, "vms/ask.html", {"form": form, "item": item}, status=422 if form.errors else 200
    )


@require_safe
def what_if(request: HttpRequest, pk: int) -> HttpResponse:
    """Say what the request would take, while the person types."""
    offered = CatalogueItem.objects.restrict(request.user, "request").filter(offered=True)
    item = get_object_or_404(offered.select_related("image"), pk=pk)
    projects = _projects(request, item)
    form = RequestForm(request.GET, item=item, projects=projects)
    form.is_valid()  # the rest of the form is not filled yet; two fields are enough
    project, flavour = form.cleaned_data.get("project"), form.cleaned_data.get("flavour")
    more: dict[str, Any] = {name: form.cleaned_data.get(name) for name in ("disk", "network")}
    more |= {name: form.cleaned_data.get(name) or "" for name in ("devices", "accelerator")}
    outlook = None
    if project and flavour:
        outlook = services.outlook(request.user, project, item, flavour, **more)
    return render(request, "vms/what_if.html", {"outlook": outlook, "item": item})
