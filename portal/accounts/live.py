"""Live pieces of what is one's own: the bell, and that there are newer notices than those on the page."""

from collections.abc import Sequence
from typing import Any

from django.template.loader import render_to_string

from portal.accounts import notices
from portal.live.panels import Panel, register, row_keys


def _bell(user: Any, ids: Sequence[str]) -> dict[str, str]:
    """Render the bell of `user`; nobody is sent another's."""
    if user.pk not in row_keys(ids):
        return {}
    context = {"user": user, "unread": notices.unread(user)}
    return {str(user.pk): render_to_string("partials/bell.html", context)}


def newer(user: Any, identity: str) -> dict[str, Any]:
    """Return what a page says of notices that came after it; `identity` is `<person>.<newest shown>`."""
    person, _, newest = identity.partition(".")
    known = row_keys([person, newest])
    count = notices.of(user).filter(pk__gt=known[1]).count() if len(known) == 2 else 0
    return {"identity": identity, "count": count}


def _newer(user: Any, ids: Sequence[str]) -> dict[str, str]:
    mine = [identity for identity in ids if identity.partition(".")[0] == str(user.pk)][:1]
    return {
        identity: render_to_string("accounts/notices_newer.html", {"newer": newer(user, identity)})
        for identity in mine
    }


def register_panels() -> None:
    """Make the panels known to the live socket."""
    register(Panel("accounts.bell", _bell, lambda identity: [notices.topic(identity)]))
    register(Panel("accounts.newer", _newer, lambda identity: [notices.topic(identity.partition(".")[0])]))
