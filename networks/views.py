"""Pages of networks, for those who operate the whole estate."""

from django.core.paginator import Paginator
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from networks.models import Network
from portal.accounts.backends import may
from portal.core.web.htmx import render_page
from portal.core.web.lists import ordering

PAGE_SIZE = 50
ORDER = {"name": ["title", "pk"], "kind": ["kind", "title", "pk"], "ports": ["ports_count", "title", "pk"]}


@require_safe
def network_list(request: HttpRequest) -> HttpResponse:
    """List the networks with their addresses and how many cards are on each."""
    if not may(request.user, "operate", None):
        raise Http404
    search = request.GET.get("q", "").strip()
    found = Network.objects.restrict(request.user, "operate").annotate(ports_count=Count("ports"))
    if search:
        found = found.filter(title__icontains=search)
    sort, columns = ordering(request, ORDER, default="name")
    page = Paginator(found.order_by(*columns), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {"page": page, "search": search, "sort": sort}
    return render_page(request, "networks/list.html", context, partial="networks/table.html")
