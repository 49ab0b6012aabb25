"""The page that discards what was saved of a machine. Not for: saving it and starting it, which are verbs."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_http_methods

from portal.core.web.forms import ConfirmForm
from portal.core.web.htmx import denied_at, go_to
from vms import live, power


@require_http_methods(["GET", "HEAD", "POST"])
def discard(request: HttpRequest, pk: int) -> HttpResponse:
    """Say what is lost with what was saved of a machine, and discard it."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    form = ConfirmForm(request.POST or None, name=vm.name)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            begun = power.discard_saved(actor=request.user, machine=vm, **form.cleaned_data)
            return go_to(request, "operations:detail", begun.pk)
    context = {"vm": vm, "form": form, "denied": power.why_not(request.user, vm, "discard")}
    return render(request, "vms/discard.html", context, status=422 if form.errors else 200)
