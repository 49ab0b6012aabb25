"""Pages of one's own notices, and of the mails one wants."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts import live, notices
from portal.accounts.forms import MailsForm
from portal.core.numbers import number_of
from portal.core.web.htmx import go_to, render_page

PAGE_SIZE = 25


@require_safe
def notice_list(request: HttpRequest) -> HttpResponse:
    """List one's own notices, the newest first; `?unread=1` leaves out what was read."""
    found = notices.of(request.user)
    newest = found.values_list("pk", flat=True).first() or 0
    only_unread = request.GET.get("unread") == "1"
    if only_unread:
        found = found.filter(read_at=None)
    context: dict[str, Any] = {
        "page": Paginator(found, PAGE_SIZE).get_page(request.GET.get("page")),
        "only_unread": only_unread,
        "newest": newest,
        "newer": live.newer(request.user, f"{request.user.pk}.{newest}"),
    }
    return render_page(request, "accounts/notices.html", context, partial="accounts/notices_table.html")


@require_POST
def follow(request: HttpRequest, pk: int) -> HttpResponse:
    """Mark one's own notice read and go where it leads."""
    notice = get_object_or_404(notices.of(request.user), pk=pk)
    notices.mark_read(actor=request.user, notice=notice)
    return go_to(request, notice.link or "accounts:notices")


@require_POST
def read_all(request: HttpRequest) -> HttpResponse:
    """Mark read what the page knew of; what came since stays unread."""
    up_to = number_of(request.POST.get("up_to"))
    if up_to is not None:
        notices.mark_read(actor=request.user, up_to=up_to)
    return redirect("accounts:notices")


@require_http_methods(["GET", "HEAD", "POST"])
def mails(request: HttpRequest) -> HttpResponse:
    """Choose which notices also come by mail."""
    chosen = [name for name, wanted in notices.mail_choices(request.user).items() if wanted]
    form = MailsForm(initial={"wanted": chosen})
    if request.method == "POST":
        # Bound whatever was posted: no box at all is a choice too.
        form = MailsForm(request.POST)
        if form.is_valid():
            notices.choose_mails(actor=request.user, **form.cleaned_data)  # type: ignore[arg-type]
            messages.success(request, _("Saved."))
            return redirect("accounts:notice_mails")
    status = 422 if form.errors else 200
    return render(request, "accounts/notice_mails.html", {"form": form}, status=status)
