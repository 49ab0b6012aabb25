"""Ask for a machine's file, and take it. Not for: making it."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from portal.core.web.htmx import attempt, go_to, render_page
from portal.core.web.lists import KeyedPaginator
from portal.core.web.streaming import pieces_of, stream
from vms import live
from vms.exports import services
from vms.models import Export

PAGE_SIZE = 50


@require_safe
def exports(request: HttpRequest) -> HttpResponse:
    """List the files that the person may have: they outlive their machines."""
    found = services.exports_for(request.user).select_related("owner", "project")
    page = KeyedPaginator(found.order_by("-made_at", "-pk"), PAGE_SIZE).get_page(request.GET.get("page"))
    return render_page(request, "vms/exported.html", {"page": page}, partial="vms/exported_table.html")


@require_POST
def export(request: HttpRequest, pk: int) -> HttpResponse:
    """Begin the export of a machine."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    with attempt(request, _("The machine is being exported; the file will be on its page.")):
        services.export_machine(actor=request.user, machine=vm)
    return go_to(request, "vms:detail", vm.pk)


@require_POST
def take(request: HttpRequest, pk: int) -> Any:
    """Send the file."""
    found = _seen(request, pk)
    file = services.open_export(actor=request.user, export=found)
    kind, name = "application/x-tar", f"{found.machine_name}.ova"
    return stream(request, pieces_of(file), content_type=kind, name=name, length=found.size)


@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete the file before its time."""
    found = _seen(request, pk)
    with attempt(request, _("The file is deleted.")):
        services.delete_export(actor=request.user, export=found)
    if request.POST.get("back") == "exports":
        return go_to(request, "vms:exports")
    return go_to(request, "vms:detail", found.operation.subject.rpartition(":")[2])


def _seen(request: HttpRequest, pk: int) -> Export:
    export: Export = get_object_or_404(Export.objects.restrict(request.user, "view"), pk=pk)
    return export
