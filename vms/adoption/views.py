"""Pages of domains that nobody manages or that were adopted, for those who operate the whole estate."""

from typing import Any

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts.backends import may
from portal.core.errors import Denied
from portal.core.web.htmx import attempt, denied_at, go_to, render_page
from portal.core.web.lists import ordering, search_of
from vms import noted
from vms.adoption import again, found, services
from vms.adoption.forms import AdoptForm
from vms.models import Definition, VirtualMachine

PAGE_SIZE = 25
ORDER = {
    "name": ["observed_name", "pk"],
    "host": ["host__name", "observed_name", "pk"],
    "kept": ["observed_kept", "observed_name", "pk"],
}


def _strangers(request: HttpRequest) -> Any:
    # They belong to no project; for anybody else their pages are not there.
    if not may(request.user, "operate", None):
        raise Http404
    return found.strangers(Definition.objects.restrict(request.user, "operate"))


@require_safe
def found_list(request: HttpRequest) -> HttpResponse:
    """List the domains of all hosts that are no machines of the portal."""
    strangers, search = _strangers(request), search_of(request)
    if search:
        strangers = strangers.filter(observed_name__icontains=search)
    sort, columns = ordering(request, ORDER, default="name")
    page = Paginator(strangers.order_by(*columns), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "rows": [found.row(definition) for definition in page],
        "search": search,
        "sort": sort,
    }
    return render_page(request, "vms/found.html", context, partial="vms/found_table.html")


@require_http_methods(["GET", "HEAD", "POST"])
def adopt(request: HttpRequest, pk: int) -> HttpResponse:
    """Show what a domain is and what it would take, and adopt it."""
    definition = get_object_or_404(_strangers(request), pk=pk)
    form = AdoptForm(request.POST or None, actor=request.user, definition=definition)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            begun = services.adopt_machine(actor=request.user, definition=definition, **form.cleaned_data)
            return go_to(request, "operations:detail", begun.pk)
    context = {
        "found": definition,
        "row": found.row(definition),
        "disks": found.disks_with_places(definition),
        "form": form,
    }
    return render(request, "vms/adopt.html", context, status=422 if form.errors else 200)


@require_POST
def release(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget an adopted machine; it goes on as it is on its host."""
    vm = get_object_or_404(VirtualMachine.objects.restrict(request.user, "view"), pk=pk)
    released = False
    with attempt(request, _("The portal forgot the machine; on its host nothing was changed.")):
        typed = request.POST.get("confirm_name", "")
        services.release_machine(actor=request.user, machine=vm, confirm_name=typed)
        released = True
    return go_to(request, "vms:found") if released else go_to(request, "vms:detail", pk)


@require_http_methods(["GET", "HEAD", "POST"])
def look_again(request: HttpRequest, pk: int) -> HttpResponse:
    """Show what an adopted machine has become on its host, and write it down."""
    if not may(request.user, "operate", None):
        raise Http404
    every = VirtualMachine.objects.restrict(request.user, "view").filter(adopted=True)
    vm = get_object_or_404(every.select_related("host", "owner", "project"), pk=pk)
    context: dict[str, Any] = {"vm": vm, "denied": again.why_not(vm)}
    if request.method == "POST":
        try:
            begun = again.look_again(actor=request.user, machine=vm, digest=request.POST.get("digest", ""))
            return go_to(request, "operations:detail", begun.pk)
        except Denied as refused:
            context["refused"] = refused.reason
    definition = noted.of(vm)
    if definition is not None:
        try:
            context["seen"] = again.outlook(vm, definition)
        except Denied as refused:
            context["denied"] = refused.reason
    return render(request, "vms/look_again.html", context, status=422 if request.method == "POST" else 200)
