"""Headers, sign-in for htmx, the reader's time zone, and refusals that nobody caught."""

import secrets
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import render, resolve_url
from django.utils import timezone
from django.utils.cache import patch_cache_control
from django_htmx.http import HttpResponseClientRedirect, reswap, retarget

from portal.core.errors import Denied

GetResponse = Callable[[HttpRequest], HttpResponseBase]

#: Nothing comes from another origin, and no script or style stands in a page.
CONTENT_SECURITY_POLICY: Mapping[str, str] = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "object-src": "'none'",
    "frame-src": "'none'",
    "frame-ancestors": "'none'",
    "form-action": "'self'",
    "base-uri": "'none'",
}
_UNUSED = ("camera", "microphone", "geolocation", "payment", "usb", "serial", "midi", "display-capture")
PERMISSIONS_POLICY = ", ".join(f"{feature}=()" for feature in _UNUSED)
ZONE_COOKIE = "zone"


class Nonce:
    """A nonce made when a template first asks for it; only then the policy names it."""

    def __init__(self) -> None:
        self.value = ""

    def __str__(self) -> str:
        self.value = self.value or secrets.token_urlsafe(16)
        return self.value


def page_headers(get_response: GetResponse) -> GetResponse:
    """Send the content security policy with every answer, and keep pages out of shared caches.

    `request.csp_nonce` in a template allows one <style> made by a script (xterm.js makes its own).
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        nonce = Nonce()
        request.csp_nonce = nonce  # type: ignore[attr-defined]
        response = get_response(request)
        policy = dict(CONTENT_SECURITY_POLICY)
        if nonce.value:
            policy["style-src"] += f" 'nonce-{nonce.value}'"
        response.headers.setdefault(
            "Content-Security-Policy", "; ".join(f"{name} {value}" for name, value in policy.items())
        )
        response.headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        if not response.has_header("Cache-Control"):
            patch_cache_control(response, private=True, no_cache=True)
        return response

    return middleware


def ask_htmx_to_sign_in(get_response: GetResponse) -> GetResponse:
    """Send the whole browser to the sign-in page when htmx asked and the session is over.

    Without this the sign-in page would be swapped into the piece of page that asked.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if not getattr(request, "htmx", None) or response.status_code != 302:
            return response
        login = resolve_url(settings.LOGIN_URL)
        if urlsplit(response.headers["Location"]).path != login:
            return response
        here = request.htmx.current_url_abs_path or "/"  # type: ignore[attr-defined]
        return HttpResponseClientRedirect(sign_in_and_return(login, here))

    return middleware


def sign_in_and_return(login: str, here: str) -> str:
    """Return the sign-in address that leads back to `here`, a path of this site."""
    query = QueryDict(mutable=True)
    query["next"] = here
    return f"{login}?{query.urlencode(safe='/')}"


@cache
def _known_zones() -> frozenset[str]:
    # Reads the whole zone database: tens of milliseconds, so once a process.
    return frozenset(available_timezones())


@cache
def zone_names() -> list[str]:
    """Return the names of places, sorted, without the abbreviations and aliases that confuse a reader."""
    return sorted(name for name in _known_zones() if "/" in name and not name.startswith("Etc/")) + ["UTC"]


def zone_named(name: str) -> ZoneInfo | None:
    """Return the time zone called `name`, None for a name that the zone database does not hold."""
    return ZoneInfo(name) if name in _known_zones() else None


def zone_of(user: Any, cookies: Mapping[str, str]) -> ZoneInfo:
    """Return the reader's zone: the one in the profile, else the browser's (a cookie), else UTC."""
    chosen = zone_named(getattr(user, "time_zone", "")) or zone_named(cookies.get(ZONE_COOKIE, ""))
    return chosen or ZoneInfo("UTC")


def reader_zone(get_response: GetResponse) -> GetResponse:
    """Show times in the reader's zone while the request lasts."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        # Health must be answered without the database, so do not ask who reads it.
        if request.path.startswith("/healthz/"):
            return get_response(request)
        with timezone.override(zone_of(request.user, request.COOKIES)):
            return get_response(request)

    return middleware


class DeniedMiddleware:
    """Shows a service's refusal that no view caught, so that a refusal is never a server error."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer 403 with the reason: in the messages of the page when htmx asked, else as a page."""
        if not isinstance(exception, Denied):
            return None
        if getattr(request, "htmx", None):
            page = render(request, "partials/refused.html", {"reason": exception.reason}, status=403)
            return reswap(retarget(page, "#messages"), "innerHTML")
        return render(request, "403.html", {"reason": exception.reason}, status=403)
