"""Pages of requests and operations: my requests, the inbox, one operation with its steps."""

import uuid
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.forms import BaseForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST, require_safe

from portal.core.web.htmx import attempt, denied_at, go_to, is_htmx, render_page
from portal.core.web.lists import search_of
from portal.operations import discussion, inbox, live, revisions, services, words
from portal.operations.forms import CommentForm, DecideForm, LowerForm
from portal.operations.models import Operation
from portal.operations.policies import deciders, demands
from portal.operations.registry import kind_of

PAGE_SIZE = 25


@require_safe
def operations(request: HttpRequest) -> HttpResponse:
    """List the operations that the person may see, the newest first."""
    search = search_of(request)
    found = Operation.objects.restrict(request.user, "view").select_related("requester", "project")
    if search:
        found = found.filter(title__icontains=search)
    page = Paginator(found.order_by("-pk"), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {"page": page, "search": search}
    return render_page(request, "operations/list.html", context, partial="operations/table.html")


@require_safe
def waiting(request: HttpRequest) -> HttpResponse:
    """List what waits for this person, each with its what-if; nobody's own."""
    found = deciders.waiting_for(request.user).select_related("requester", "project").order_by("pk")
    page = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    newest = found.values_list("pk", flat=True).last() or 0
    context = {
        "page": page,
        "waiting": page.paginator.count,
        "cards": inbox.cards(request.user, list(page)),
        "why_label": words.why_label(),
        "newest": newest,
    }
    return render(request, "operations/inbox.html", context)


@require_safe
def card(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one request of the inbox as it is now."""
    return _card(request, get_object_or_404(live.visible(request.user), pk=pk))


@require_safe
def operation(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one operation: what was asked, who decided, what was said, how far it is."""
    found = get_object_or_404(live.visible(request.user), pk=pk)
    asked = kind_of(found.kind).asking is not None
    context = {
        "progress": live.progress(found, request.user),
        "consent": demands.summary(found),
        "raw": Operation.objects.restrict(request.user, "operate").filter(pk=pk).exists(),
        "actions": live.actions(request.user, found),
        "discussed": asked,
        **live.asked(found),
        **live.comments(found),
    }
    if asked:
        context |= {"form": CommentForm(), "silence": discussion.silence(request.user, found)}
    if deciders.in_whose_name(request.user, found) is not None:
        context |= live.card_context(inbox.cards(request.user, [found])[0])
    return render(request, "operations/detail.html", context)


@require_safe
def together(request: HttpRequest, batch: uuid.UUID) -> HttpResponse:
    """Show how far those operations are that were begun together."""
    overview = live.together(request.user, batch)
    if overview is None:
        raise Http404
    count = len(overview.rows)
    of_all = live.visible(request.user).filter(token=batch).first()
    title = ngettext("%(count)d change", "%(count)d changes together", count) % {"count": count}
    context = {"overview": overview, "request_of_all": of_all, "title": of_all or title}
    return render(request, "operations/together.html", context)


@require_POST
def comment(request: HttpRequest, pk: int) -> HttpResponse:
    """Say something about a request."""
    found = get_object_or_404(live.visible(request.user), pk=pk)
    form = CommentForm(request.POST)
    if form.is_valid():
        with denied_at(form):
            discussion.comment(actor=request.user, operation=found, text=form.cleaned_data["text"])
    if not is_htmx(request):
        _tell(request, form)
        return go_to(request, "operations:detail", pk)
    fresh = {"form": form} if form.errors else {"form": CommentForm(), "oob": True, **live.comments(found)}
    return render(
        request,
        "operations/comment_form.html",
        {"operation": found, **fresh},
        status=422 if form.errors else 200,
    )


#: What may be decided, and what is said when it is done.
DECISIONS = {
    "approve": gettext_lazy("Approved."),
    "reject": gettext_lazy("Rejected."),
    "lower": gettext_lazy("Lowered; it still waits for a decision."),
    "lower_approve": gettext_lazy("Lowered and approved."),
}


@require_POST
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve, reject or lower exactly what was shown."""
    found = get_object_or_404(Operation.objects.restrict(request.user, "approve"), pk=pk)
    decision = request.POST.get("decision", "")
    if decision not in DECISIONS:
        return HttpResponseBadRequest(_("Approve, reject or lower: nothing else can be decided."))
    form: DecideForm | LowerForm
    if decision.startswith("lower"):
        form = LowerForm(request.POST, operation=found)
    else:
        form = DecideForm(request.POST, operation=found, approved=decision == "approve")
    if form.is_valid():
        with denied_at(form):
            _decide(request.user, found, decision, form)
    if not is_htmx(request) or (request.POST.get("where") == "page" and not form.errors):
        _tell(request, form, DECISIONS[decision])
        return go_to(request, "operations:detail", pk)
    return _card(request, found, form)


def _decide(actor: Any, found: Operation, decision: str, form: DecideForm | LowerForm) -> None:
    seen = {"actor": actor, "operation": found, "spec_hash": form.cleaned_data["spec_hash"]}
    if isinstance(form, DecideForm):
        services.decide(**seen, approved=form.approved, reason=form.cleaned_data["reason"])
    elif decision == "lower":
        revisions.lower(**seen, sizes=form.sizes(), note=form.cleaned_data["note"])
    else:
        revisions.lower_and_approve(**seen, sizes=form.sizes(), reason=form.cleaned_data["note"])


def _tell(request: HttpRequest, form: BaseForm, done: Any = "") -> None:
    """Put what is wrong with `form`, or that it is done, into the messages of the next page."""
    for errors in form.errors.values():
        for error in errors:
            messages.error(request, str(error))
    if not form.errors and done:
        messages.success(request, str(done))


def _card(
    request: HttpRequest, found: Operation, form: DecideForm | LowerForm | None = None
) -> HttpResponse:
    """Answer with the request's piece of page as it is now, with `form` when that was refused."""
    present = get_object_or_404(live.visible(request.user), pk=found.pk)
    [shown] = inbox.cards(request.user, [present])
    wrong = form is not None and bool(form.errors)
    if wrong and shown.form is not None:
        # Refused for a request that changed: what is shown now is what the next click is about.
        data: Any = form.data.copy()  # type: ignore[union-attr]
        data["spec_hash"] = present.spec_hash
        form.data = data  # type: ignore[union-attr]
        if isinstance(form, LowerForm):
            shown.lower, shown.lowering = form, True
        elif form is not None:
            shown.form = form
    template = "deciding_card" if request.POST.get("where") == "page" else "waiting"
    context = live.card_context(shown)
    status = 422 if wrong else 200
    return render(request, f"operations/{template}.html", context, status=status)


@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """End what waits for a worker; stop what runs and take back what was made."""
    found = get_object_or_404(Operation.objects.restrict(request.user, "view"), pk=pk)
    with attempt(request, _("It is cancelled; what was made is taken back.")):
        services.cancel(actor=request.user, operation=found)
    return go_to(request, "operations:detail", pk)


@require_POST
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """Take one's own request back."""
    found = get_object_or_404(Operation.objects.restrict(request.user, "view"), pk=pk)
    with attempt(request, _("The request is withdrawn.")):
        services.withdraw(actor=request.user, operation=found)
    return go_to(request, "operations:detail", pk)
