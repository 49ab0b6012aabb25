"""The menu as data, and what the frame of every page needs. A room that is not there yet has no entry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import NoReverseMatch, reverse
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from portal.accounts.context import EVERYWHERE, abilities
from portal.accounts.notices import unread


@dataclass(frozen=True)
class Entry:
    """A line of the menu; `action` is what somebody must hold anywhere to see it."""

    label: Any
    url_name: str
    icon: str
    action: str
    group: Any


_WORK, _ESTATE, _RULES = _("Work"), _("Estate"), _("Administration")

ENTRIES: Sequence[Entry] = (
    Entry(_("My machines"), "vms:list", "device-desktop", "view", _WORK),
    Entry(_("Ask for a machine"), "vms:catalogue", "plus", "request", _WORK),
    Entry(_("Requests"), "operations:list", "list-check", "view", _WORK),
    Entry(_("Inbox"), "operations:inbox", "inbox", "decide", _WORK),
    Entry(_("Hosts"), "hosts:list", "server-2", "operate_everywhere", _ESTATE),
    Entry(_("Storage"), "hosts:pools", "database", "operate_everywhere", _ESTATE),
    Entry(_("Networks"), "networks:list", "network", "operate_everywhere", _ESTATE),
    Entry(_("Catalogue"), "vms:catalogue_admin", "layout-grid", EVERYWHERE, _RULES),
    Entry(_("Policies"), "operations:policies", "gavel", EVERYWHERE, _RULES),
    Entry(_("People"), "accounts:people", "users", EVERYWHERE, _RULES),
    Entry(_("Projects"), "accounts:projects", "folders", "administer", _RULES),
    Entry(_("Quotas"), "quotas:overview", "gauge", EVERYWHERE, _RULES),
    Entry(_("Audit trail"), "audit:trail", "shield-check", "audit_everywhere", _RULES),
)

#: What each sees first, by the first of these that they hold and that is there.
FIRST_PAGES = (
    ("approve", "operations:inbox"),
    ("operate_everywhere", "hosts:list"),
    ("audit_everywhere", "audit:trail"),
    ("view", "vms:list"),
)


def _address(url_name: str) -> str | None:
    try:
        return reverse(url_name)
    except NoReverseMatch:
        return None


def menu(can: Mapping[str, Any], path: str) -> list[dict[str, Any]]:
    """Return the groups of entries that somebody who `can` may use, the one of `path` marked current."""
    held = [entry for entry in ENTRIES if can.get(entry.action)]
    shown = [(entry, url) for entry in held if (url := _address(entry.url_name))]
    # Of two entries that `path` lies under, the longer address is the nearer one.
    under = [url for _entry, url in shown if path.startswith(url)]
    current = max(under, key=len, default=None)
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry, url in shown:
        line = {"label": entry.label, "url": url, "icon": entry.icon, "current": url == current}
        groups.setdefault(str(entry.group), []).append(line)
    return [{"label": label, "entries": entries} for label, entries in groups.items()]


def shell(request: HttpRequest) -> dict[str, Any]:
    """Give templates `can`, `navigation`, `theme` and `unread`; a query is made only when a template asks."""
    user = getattr(request, "user", None)
    can = SimpleLazyObject(lambda: abilities(user))
    return {
        "can": can,
        "navigation": SimpleLazyObject(lambda: menu(cast(Mapping[str, Any], can), request.path)),
        "theme": getattr(user, "theme", ""),
        "unread": SimpleLazyObject(lambda: unread(user)),
    }


@require_safe
def first_page(request: HttpRequest) -> HttpResponse:
    """Send people to the page they came for, by their role."""
    can = abilities(request.user)
    for action, url_name in FIRST_PAGES:
        if can[action] and (url := _address(url_name)):
            return redirect(url)
    return redirect("accounts:profile")
