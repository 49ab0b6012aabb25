"""What waits for a machine's next start, on its pages, and the button that sets settings back."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_POST

from portal.core.web.htmx import attempt, go_to
from vms import live, pending, setting_back
from vms.models import Definition, VirtualMachine
from vms.settings_form import BackForm


def context_of(machine: VirtualMachine, found: Definition) -> dict[str, Any]:
    """Return what the page of settings says of what waits."""
    waits = pending.look(machine, found, pending.names_for(machine))
    form = BackForm()
    form.look_at(found, waits)
    return {"pending": waits, "back": form}


@require_POST
def set_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Set the settings that wait for the next start back to what runs."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    form = BackForm(request.POST)
    form.is_valid()
    with attempt(request):
        begun = setting_back.set_back(
            actor=request.user, machine=vm, digest=form.seen_digest, seen=form.seen_values
        )
        return go_to(request, "operations:detail", begun.pk)
    return go_to(request, "vms:settings", pk)
