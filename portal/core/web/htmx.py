"""Answers to htmx, and refusals of services at the form that asked."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.contrib import messages
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.utils.cache import patch_vary_headers
from django_htmx.http import HttpResponseClientRedirect

from portal.core.errors import Denied


def is_htmx(request: HttpRequest) -> bool:
    """Tell whether htmx asks for a piece of a page (not a boosted link, and not a restored page)."""
    htmx = getattr(request, "htmx", None)
    return bool(htmx and not htmx.boosted and not htmx.history_restore_request)


def render_page(
    request: HttpRequest,
    page: str,
    context: Mapping[str, Any] | None = None,
    *,
    partial: str | None = None,
    status: int = 200,
) -> HttpResponse:
    """Render `partial` for htmx and `page` for everybody else; a page includes its own partial.

    Without `partial` the page is sent to both, and htmx picks with hx-select.
    """
    template = partial if partial and is_htmx(request) else page
    response = render(request, template, dict(context or {}), status=status)
    patch_vary_headers(response, ["HX-Request"])
    return response


def go_to(request: HttpRequest, to: Any, *args: Any, **kwargs: Any) -> HttpResponse:
    """Send the browser to `to` (anything `redirect` takes): the whole page, also when htmx asked."""
    url = resolve_url(to, *args, **kwargs)
    return HttpResponseClientRedirect(url) if getattr(request, "htmx", None) else HttpResponseRedirect(url)


@contextmanager
def denied_at(form: BaseForm, fields: Mapping[str, str] | None = None) -> Iterator[None]:
    """Show a service's refusal at the field it names, else above the fields; check `form.errors` afterwards.

    `fields` tells the form's names of what the service calls otherwise.
    """
    try:
        yield
    except Denied as denied:
        field = (fields or {}).get(denied.field, denied.field)
        form.add_error(field if field in form.fields else None, denied.reason)


@contextmanager
def attempt(request: HttpRequest, done: str = "") -> Iterator[None]:
    """Turn what a button without a form did into a message: the service's refusal, or `done`.

    Nothing is said of what was done where the page that the block answers with shows it.
    """
    try:
        yield
    except Denied as denied:
        messages.error(request, denied.reason)
    else:
        if done:
            messages.success(request, done)
