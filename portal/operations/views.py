"""Pages of requests and operations: my requests, the inbox, one operation with its steps."""

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from portal.core.web.htmx import attempt, go_to, render_page
from portal.operations import live, services
from portal.operations.models import Operation
from portal.operations.policies import deciders, demands
from portal.operations.states import State

PAGE_SIZE = 25


@require_safe
def operations(request: HttpRequest) -> HttpResponse:
    """List the operations that the person may see, the newest first."""
    search = request.GET.get("q", "").strip()
    found = Operation.objects.restrict(request.user, "view").select_related("requester", "project")
    if search:
        found = found.filter(title__icontains=search)
    page = Paginator(found.order_by("-pk"), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {"page": page, "search": search}
    return render_page(request, "operations/list.html", context, partial="operations/table.html")


@require_safe
def inbox(request: HttpRequest) -> HttpResponse:
    """List what waits for this approver; nobody's own."""
    waiting = deciders.waiting_for(request.user).select_related("requester", "project")
    page = Paginator(waiting.order_by("pk"), PAGE_SIZE).get_page(request.GET.get("page"))
    return render(request, "operations/inbox.html", {"page": page})


@require_safe
def operation(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one operation: what was asked, who decided, how far it is."""
    found = get_object_or_404(
        Operation.objects.restrict(request.user, "view").select_related("requester", "project"), pk=pk
    )
    may_decide, decides_for = deciders.stands_in_for(request.user, found)
    context = {
        "operation": found,
        "progress": live.progress(found),
        "facts": live.facts(found),
        "consent": demands.summary(found),
        "may_decide": may_decide,
        "decides_for": decides_for,
        "may_withdraw": found.state in {State.AWAITING_APPROVAL, State.QUEUED}
        and found.requester_id == request.user.pk,
        "no_cancel": services.why_not_cancel(request.user, found),
        "raw": Operation.objects.restrict(request.user, "operate").filter(pk=pk).exists(),
    }
    return render(request, "operations/detail.html", context)


@require_POST
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve or reject exactly what was shown."""
    found = get_object_or_404(Operation.objects.restrict(request.user, "approve"), pk=pk)
    approved = request.POST.get("decision") == "approve"
    with attempt(request, _("Approved.") if approved else _("Rejected.")):
        services.decide(
            actor=request.user,
            operation=found,
            spec_hash=request.POST.get("spec_hash", ""),
            approved=approved,
            reason=request.POST.get("reason", ""),
        )
    return go_to(request, "operations:detail", pk)


@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop what runs and take back what was made."""
    found = get_object_or_404(Operation.objects.restrict(request.user, "view"), pk=pk)
    with attempt(request, _("It is being taken back.")):
        services.cancel(actor=request.user, operation=found)
    return go_to(request, "operations:detail", pk)


@require_POST
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """Take one's own request back."""
    found = get_object_or_404(Operation.objects.restrict(request.user, "view"), pk=pk)
    with attempt(request, _("The request is withdrawn.")):
        services.withdraw(actor=request.user, operation=found)
    return go_to(request, "operations:detail", pk)
