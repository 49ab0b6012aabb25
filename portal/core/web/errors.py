"""The page for a form that did not come from one of our pages, or came too late."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django_htmx.http import reswap, retarget


@login_not_required
def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Explain what to do; `reason` is for developers and not shown."""
    sentence = _(
        "The page was open for too long, or it was not ours. Nothing was changed. Reload it and try again."
    )
    # Asked before django_htmx's middleware ran, so by the header.
    if request.headers.get("HX-Request"):
        page = render(request, "partials/refused.html", {"reason": sentence}, status=403)
        return reswap(retarget(page, "#messages"), "innerHTML")
    return render(request, "403.html", {"reason": sentence}, status=403)
