"""Pages of hosts, for those who operate the whole estate."""

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts.backends import may
from portal.core.web.forms import ConfirmForm
from portal.core.web.htmx import attempt, denied_at, go_to, render_page
from portal.core.web.lists import ordering, search_of
from portal.core.web.slots import pieces
from portal.hosts import joining, removal, services
from portal.hosts.forms import HostForm, JumpForm, MaintenanceForm
from portal.hosts.keys import authorized_line, current_key
from portal.hosts.live import rows, visible
from portal.hosts.models import Host
from portal.hosts.readiness import report
from portal.hosts.storage import taking_over
from portal.hosts.storage.room import room_of, with_promised
from portal.operations.models import Operation

PAGE_SIZE = 50
RECENT = 10
ORDER = {
    "name": ["name"],
    "health": ["observed_health", "name"],
    "accelerator": ["accelerator", "name"],
}


def _for(request: HttpRequest, action: str) -> None:
    # Hosts belong to no project; for anybody else their pages are not there.
    if not may(request.user, action, None):
        raise Http404


@require_safe
def host_list(request: HttpRequest) -> HttpResponse:
    """List the hosts, searched, sorted and paginated by the server."""
    _for(request, "operate")
    search = search_of(request)
    found = visible(request.user).prefetch_related("pools__pool")
    if search:
        found = found.filter(name__icontains=search)
    sort, columns = ordering(request, ORDER, default="name")
    page = Paginator(found.order_by(*columns), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "rows": rows(list(page.object_list)),
        "search": search,
        "sort": sort,
        "may_add": may(request.user, "administer", None),
    }
    return render_page(request, "hosts/list.html", context, partial="hosts/table.html")


@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """Show what a host is fit for, what runs there and what was done to it."""
    return _page(request, _host(request, pk))


def _host(request: HttpRequest, pk: int) -> Host:
    host: Host = get_object_or_404(visible(request.user).prefetch_related("pools__pool"), pk=pk)
    return host


def _page(
    request: HttpRequest, host: Host, form: MaintenanceForm | None = None, jump: JumpForm | None = None
) -> HttpResponse:
    form, jump = form or MaintenanceForm(), jump or JumpForm(initial={"jump": host.jump})
    admin = may(request.user, "administer", None)
    operations = Operation.objects.restrict(request.user, "view").filter(lane=host.scope)
    context = {
        "host": host,
        "row": rows([host])[0],
        "findings": report(host),
        "rooms": [room_of(pool) for pool in with_promised(host.pools.select_related("pool").order_by("pk"))],
        "others": taking_over.rows(host),
        "others_left_out": taking_over.left_out(host),
        "operations": operations.select_related("requester").order_by("-pk")[:RECENT],
        "pieces": pieces("hosts.detail", request, host),
        "form": form,
        "jump": jump,
        "may_administer": admin,
        "cannot_prove": "" if admin else _("Only an admin proves a host."),
        "removal": ConfirmForm(name=host.name),
        "no_removal": removal.why_not_removed(host) if admin else "",
        "no_giving_up": removal.why_not_given_up(host) if admin else "",
    }
    return render(request, "hosts/detail.html", context, status=422 if form.errors or jump.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def add(request: HttpRequest) -> HttpResponse:
    """Enrol a host."""
    _for(request, "administer")
    form = HostForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            operation = services.enrol_host(actor=request.user, **form.cleaned_data)
            return redirect("hosts:join", operation.identifiers["host"])
    key = current_key()
    context = {"form": form, "line": authorized_line(key) if key else ""}
    return render(request, "hosts/add.html", context, status=422 if form.errors else 200)


@require_safe
def join(request: HttpRequest, pk: int) -> HttpResponse:
    """Show how far a host is on its way: its key to confirm, then its enrolment."""
    host = get_object_or_404(joining.visible(request.user), pk=pk)
    return render(request, "hosts/join.html", {"joining": joining.joinings([host])[0]})


@require_POST
def greet(request: HttpRequest, pk: int) -> HttpResponse:
    """Fetch the host's key again."""
    host = _host(request, pk)
    with attempt(request, _("%(host)s is being asked for its key.") % {"host": host}):
        services.greet_host(actor=request.user, host=host)
    return _after(request, host)


@require_POST
def confirm(request: HttpRequest, pk: int) -> HttpResponse:
    """Trust the host key whose fingerprint the person saw."""
    host = _host(request, pk)
    with attempt(request, _("The key of %(host)s is confirmed.") % {"host": host}):
        services.confirm_host_key(
            actor=request.user, host=host, fingerprint=request.POST.get("fingerprint", "")
        )
    return _after(request, host)


def _after(request: HttpRequest, host: Host) -> HttpResponse:
    """Go to where the host's joining is shown, or for whom it is not, to the host."""
    shown = joining.visible(request.user).filter(pk=host.pk).exists()
    return go_to(request, "hosts:join" if shown else "hosts:detail", host.pk)


@require_POST
def maintenance(request: HttpRequest, pk: int) -> HttpResponse:
    """Keep new machines off a host, with a reason, or let them on again."""
    host = _host(request, pk)
    if request.POST.get("on") != "1":
        with attempt(request, _("%(host)s takes new machines again.") % {"host": host}):
            services.set_maintenance(actor=request.user, host=host, on=False)
        return redirect("hosts:detail", pk)
    form = MaintenanceForm(request.POST)
    if form.is_valid():
        with denied_at(form):
            services.set_maintenance(
                actor=request.user, host=host, on=True, reason=form.cleaned_data["reason"]
            )
            return redirect("hosts:detail", pk)
    return _page(request, host, form)


@require_POST
def jump(request: HttpRequest, pk: int) -> HttpResponse:
    """Say where people come to by ssh before they jump to machines of a host."""
    _for(request, "administer")
    host, form = _host(request, pk), JumpForm(request.POST)
    if form.is_valid():
        with denied_at(form):
            services.set_jump(actor=request.user, host=host, jump=form.cleaned_data["jump"])
            return redirect("hosts:detail", pk)
    return _page(request, host, jump=form)


@require_POST
def remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget a host that nothing of the portal is on."""
    return _remove(request, pk, give_up=False)


@require_POST
def give_up(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget a host that is lost, with what is on it."""
    return _remove(request, pk, give_up=True)


def _remove(request: HttpRequest, pk: int, *, give_up: bool) -> HttpResponse:
    _for(request, "administer")
    host = _host(request, pk)
    typed = request.POST.get("confirm_name", "")
    with attempt(request, _("%(host)s is removed. Nothing was changed on the host itself.") % {"host": host}):
        removal.remove_host(actor=request.user, host=host, confirm_name=typed, give_up=give_up)
        return go_to(request, "hosts:list")
    return go_to(request, "hosts:detail", pk)


@require_POST
def prove(request: HttpRequest, pk: int) -> HttpResponse:
    """Boot a test guest again and bring images that are new."""
    host = _host(request, pk)
    with attempt(request, _("%(host)s is being proven again.") % {"host": host}):
        services.enrol_again(actor=request.user, host=host)
    return _after(request, host)
