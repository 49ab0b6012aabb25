"""The trail as a page and as downloads, for those who audit every project."""

from dataclasses import dataclass
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from portal.audit import export, paper, report, services
from portal.audit.forms import FilterForm
from portal.audit.models import AuditEntry
from portal.audit.querysets import COUNT_LIMIT
from portal.core.errors import Denied
from portal.core.numbers import number_of
from portal.core.web.htmx import attempt, render_page
from portal.core.web.streaming import stream

PAGE_SIZE = 50


def _entries(request: HttpRequest) -> Any:
    """Return the trail; for anybody who may not audit every project the page is not there."""
    if not AuditEntry.objects.allowed(request.user, "audit"):
        raise Http404
    return AuditEntry.objects.all()


@require_safe
def trail(request: HttpRequest) -> HttpResponse:
    """List the trail, newest first, filtered and cut by the server."""
    return _page(request, _entries(request), FilterForm(request.GET))


def _page(request: HttpRequest, entries: Any, form: FilterForm) -> HttpResponse:
    valid = form.is_valid()
    found = entries.filter(form.condition()) if valid else entries.none()
    cut = found.slice(
        before=number_of(request.GET.get("before")), after=number_of(request.GET.get("after")), size=PAGE_SIZE
    )
    count = found.capped_count()
    context = {
        "form": form,
        "cut": cut,
        "rows": [(entry, report.difference(entry)) for entry in cut.entries],
        "count": min(count, COUNT_LIMIT),
        "more": count > COUNT_LIMIT,
        "pdf_limit": report.ENTRIES_LIMIT,
        "words": form.words() if valid else [],
        "last": services.last_verification(),
        "unsealed": services.unsealed(),
    }
    return render_page(
        request, "audit/trail.html", context, partial="audit/entries.html", status=200 if valid else 422
    )


@require_POST
def verify(request: HttpRequest) -> HttpResponse:
    """Verify the end of the chain and record what was found."""
    _entries(request)
    with attempt(request, _("The chain was verified; the result is below and in the trail.")):
        services.verify_now(actor=request.user)
    return redirect("audit:trail")


@dataclass(frozen=True)
class _Export:
    entries: Any
    filters: list[str]
    head: services.Head
    name: str


def _export(request: HttpRequest, kind: str) -> _Export | HttpResponse:
    """Record a download and return what it holds, or the page with what is wrong with the filters."""
    entries = _entries(request)
    form = FilterForm(request.POST)
    if not form.is_valid():
        return _page(request, entries, form)
    # Up to now: the entry of this download and what comes while it is written are not in it. The head first,
    # so that no entry it seals is left out.
    head = services.chain_head()
    newest = entries.order_by("-pk").values_list("pk", flat=True).first() or 0
    services.record_export(actor=request.user, form=kind, filters=form.words(), newest=newest, head=head.seal)
    name = f"gatehouse-audit-{timezone.now():%Y%m%d-%H%M%S}.{kind}"
    return _Export(entries.filter(form.condition(), pk__lte=newest), form.words(), head, name)


@require_POST
def download_csv(request: HttpRequest) -> Any:
    """Send the filtered trail as CSV."""
    made = _export(request, "csv")
    if isinstance(made, HttpResponse):
        return made
    lines = export.csv_lines(made.entries, head=made.head)
    return stream(request, lines, content_type="text/csv; charset=utf-8", name=made.name)


@require_POST
def download_json(request: HttpRequest) -> Any:
    """Send the filtered trail as JSON lines that can be verified elsewhere."""
    made = _export(request, "jsonl")
    if isinstance(made, HttpResponse):
        return made
    who = request.user.get_username()
    lines = export.json_lines(made.entries, made_by=who, filters=made.filters, head=made.head)
    return stream(request, lines, content_type="application/jsonl; charset=utf-8", name=made.name)


@require_POST
def download_pdf(request: HttpRequest) -> HttpResponse:
    """Send the filtered trail as a report to read and to sign."""
    made = _export(request, "pdf")
    if isinstance(made, HttpResponse):
        return made
    html = report.report_html(
        made.entries, actor=request.user, filters=made.filters, verification=services.verify_bounded()
    )
    try:
        pdf = paper.pdf_of(html)
    except paper.Busy as busy:
        raise Denied(_("Other reports are being made just now. Try again in a minute.")) from busy
    except paper.TooLong as late:
        raise Denied(_("This report took too long. Choose a shorter period, and try again.")) from late
    headers = {"Content-Disposition": f'attachment; filename="{made.name}"', "Cache-Control": "no-store"}
    return HttpResponse(pdf, content_type="application/pdf", headers=headers)
