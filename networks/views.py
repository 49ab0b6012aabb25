"""Pages of networks, for those who operate the whole estate."""

from django.core.paginator import Paginator
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from networks import services
from networks.forms import NetworkForm, TitleForm
from networks.models import Network
from portal.accounts.backends import may
from portal.core.web.forms import ConfirmForm
from portal.core.web.htmx import attempt, denied_at, go_to, render_page
from portal.core.web.lists import ordering, search_of

PAGE_SIZE = 50
ORDER = {"name": ["title", "pk"], "kind": ["kind", "title", "pk"], "ports": ["ports_count", "title", "pk"]}


def _for(request: HttpRequest, action: str) -> None:
    # Networks belong to no project; for anybody else their pages are not there.
    if not may(request.user, action, None):
        raise Http404


@require_safe
def network_list(request: HttpRequest) -> HttpResponse:
    """List the networks with their addresses and how many cards are on each."""
    _for(request, "operate")
    search = search_of(request)
    found = Network.objects.restrict(request.user, "operate").annotate(ports_count=Count("ports"))
    if search:
        found = found.filter(title__icontains=search)
    sort, columns = ordering(request, ORDER, default="name")
    page = Paginator(found.order_by(*columns), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {"page": page, "search": search, "sort": sort, "may_add": may(request.user, "administer", None)}
    return render_page(request, "networks/list.html", context, partial="networks/table.html")


def _network(request: HttpRequest, pk: int) -> Network:
    network: Network = get_object_or_404(Network.objects.restrict(request.user, "operate"), pk=pk)
    return network


@require_http_methods(["GET", "HEAD", "POST"])
def add(request: HttpRequest) -> HttpResponse:
    """Make a network known."""
    _for(request, "administer")
    form = NetworkForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with denied_at(form):
            network = services.add_network(actor=request.user, wanted=form.wanted())
            return redirect("networks:detail", network.pk)
    return render(request, "networks/add.html", {"form": form}, status=422 if form.errors else 200)


@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one network, and to admins what can be done to it."""
    _for(request, "operate")
    network = _network(request, pk)
    return _page(request, network, TitleForm(initial={"title": network.title}))


def _page(request: HttpRequest, network: Network, form: TitleForm) -> HttpResponse:
    context = {
        "network": network,
        "form": form,
        "cards": network.ports.count(),
        "may_administer": may(request.user, "administer", None),
        "no_removal": services.why_not_removed(network),
        "removal": ConfirmForm(name=network.name),
    }
    return render(request, "networks/detail.html", context, status=422 if form.errors else 200)


@require_POST
def rename(request: HttpRequest, pk: int) -> HttpResponse:
    """Change what people read."""
    _for(request, "administer")
    network, form = _network(request, pk), TitleForm(request.POST)
    if form.is_valid():
        with denied_at(form):
            services.rename_network(actor=request.user, network=network, title=form.cleaned_data["title"])
            return redirect("networks:detail", pk)
    return _page(request, network, form)


@require_POST
def remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget a network that no machine is on."""
    _for(request, "administer")
    network = _network(request, pk)
    with attempt(request, _("The network is removed; hosts that made it take it down.")):
        typed = request.POST.get("confirm_name", "")
        services.remove_network(actor=request.user, network=network, confirm_name=typed)
        return go_to(request, "networks:list")
    return go_to(request, "networks:detail", pk)
