"""Ask for a machine's file, and take it. Not for: making it."""

from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from portal.core.web.htmx import attempt, go_to
from portal.core.web.streaming import stream
from vms import live
from vms.exports import services
from vms.models import Export

#: Bytes that are read and sent at a time.
PIECE = 1 << 20


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
    return stream(request, _pieces(file), content_type=kind, name=name, length=found.size)


def _pieces(file: Any) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece


@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete the file before its time."""
    found = _seen(request, pk)
    with attempt(request, _("The file is deleted.")):
        services.delete_export(actor=request.user, export=found)
    return go_to(request, "vms:detail", found.operation.subject.rpartition(":")[2])


def _seen(request: HttpRequest, pk: int) -> Export:
    export: Export = get_object_or_404(Export.objects.restrict(request.user, "view"), pk=pk)
    return export
