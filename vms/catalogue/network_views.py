"""Pages on which admins allow networks to fetch images from. Each parses, calls a service, renders."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from portal.core.web.forms import ConfirmForm
from portal.core.web.htmx import denied_at
from portal.hosts.images import allowing
from portal.hosts.models import ImportNetwork
from vms.catalogue.image_forms import NetworkForm
from vms.catalogue.views import for_admins


@require_safe
def networks(request: HttpRequest) -> HttpResponse:
    """List the networks that are allowed, by admins and by the installation."""
    for_admins(request)
    rows = ImportNetwork.objects.restrict(request.user, "administer").select_related("person")
    context = {"networks": rows, "installed": allowing.installed()}
    return render(request, "vms/admin/import_networks.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def network_add(request: HttpRequest) -> HttpResponse:
    """Allow another network, once it was shown what follows."""
    for_admins(request)
    form = NetworkForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and _allowed(request, form):
        return redirect("vms:import_networks")
    # What follows is a question, and nothing that was wrong.
    status = 422 if form.errors else 200
    return render(request, "vms/admin/import_network_add.html", {"form": form}, status=status)


def _allowed(request: HttpRequest, form: NetworkForm) -> bool:
    """Allow what was typed, or put what stands in its way at the form."""
    with denied_at(form):
        try:
            made = allowing.allow(actor=request.user, **form.cleaned_data)
        except allowing.Unconfirmed as asked:
            form.tell(asked.network, asked.effects)
            return False
        messages.success(request, _("Images can be fetched from %(network)s.") % {"network": made})
    return not form.errors


@require_http_methods(["GET", "HEAD", "POST"])
def network(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a network that an admin allowed, and take it back."""
    for_admins(request)
    found = get_object_or_404(
        ImportNetwork.objects.restrict(request.user, "administer").select_related("person"), pk=pk
    )
    form = ConfirmForm(request.POST or None, name=found.network)
    if request.method == "POST" and form.is_valid():
        typed = form.cleaned_data["confirm_name"]
        with denied_at(form):
            allowing.take_back(actor=request.user, network=found, confirm_name=typed)
            messages.success(request, _("Nothing is fetched from %(network)s.") % {"network": found})
            return redirect("vms:import_networks")
    context = {"network": found, "form": form, "still": allowing.still_allowed(found)}
    return render(request, "vms/admin/import_network.html", context, status=422 if form.errors else 200)
