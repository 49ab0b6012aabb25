"""The page of a machine's name and labels. Calls one service."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from portal.core.web.forms import SeenForm
from portal.core.web.htmx import denied_at, go_to
from vms import live, naming, power
from vms.editing import Clash
from vms.models import VirtualMachine


class NameForm(SeenForm):
    """What a machine is called."""

    salt = "vms.naming.seen"

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=63,
        help_text=gettext_lazy(
            "Counts at once in the portal, and as the title on the host. The guest keeps its own host name, "
            "by which networks may know it; change that in the guest."
        ),
    )
    labels = forms.CharField(
        label=gettext_lazy("Labels"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text=gettext_lazy("One a line: a word, or a word and a value as in role=web. Counts at once."),
    )

    def __init__(self, data: Any = None, *, machine: VirtualMachine) -> None:
        super().__init__(data, initial=naming.named(machine))
        if not self.is_bound:
            self.show(naming.named(machine))


@require_http_methods(["GET", "HEAD", "POST"])
def naming_page(request: HttpRequest, pk: int) -> HttpResponse:
    """Show what a machine is called, and change it."""
    vm = get_object_or_404(live.visible(request.user), pk=pk)
    form = NameForm(request.POST or None, machine=vm)
    context: dict[str, Any] = {"vm": vm, "denied": power.why_not(request.user, vm, "name")}
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            try:
                naming.rename_machine(
                    actor=request.user,
                    machine=vm,
                    name=form.cleaned_data["name"],
                    labels=form.cleaned_data["labels"],
                    seen=form.cleaned_data["seen"],
                )
            except Clash:
                # As it is by now: it may have changed since this request began.
                vm.refresh_from_db(fields=["name", "labels"])
                context["changes"] = naming.differences(form.cleaned_data["seen"], naming.named(vm))
                form.show(naming.named(vm))
                raise
            messages.success(request, _("The name and the labels are set."))
            return go_to(request, "vms:detail", pk)
    return render(request, "vms/name.html", context | {"form": form}, status=422 if form.errors else 200)
