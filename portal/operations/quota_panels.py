"""Quotas on pages of other rooms: what a project has left, on a requester's first page and on its own."""

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest
from django.template.loader import render_to_string

from portal.accounts.models import Project
from portal.core.web.slots import PagePanel
from portal.core.web.slots import register as register_piece
from portal.live.panels import Panel, register, row_keys
from portal.operations import scopes, usage

#: Projects shown on a first page; a link leads to the others.
MOST = 3


def _what_is_left(request: HttpRequest, subject: Any) -> str:
    """Render what the person has left in the projects in which they ask for machines."""
    projects = usage.projects_asked_in(request.user, MOST + 1)
    shown = usage.left_for(request.user, projects[:MOST]) if projects else []
    context = {"shown": shown, "more": len(projects) > MOST}
    return render_to_string("quotas/left_list.html", context, request) if shown else ""


def _left(user: Any, ids: Sequence[str]) -> dict[str, str]:
    """Render again what `user` has left in each project in which they may ask."""
    projects = list(Project.objects.restrict(user, "request").filter(pk__in=row_keys(ids)))
    return {
        str(left.project.pk): render_to_string("quotas/left.html", {"left": left})
        for left in usage.left_for(user, projects)
    }


def _of_project(request: HttpRequest, project: Any) -> str:
    return _card(request, scopes.of_project(project), {"project": project})


def _of_person(request: HttpRequest, person: Any) -> str:
    return _card(request, scopes.of_person(person), {"person": person})


def _card(request: HttpRequest, scope: str, context: dict[str, Any]) -> str:
    return render_to_string("quotas/card.html", context | {"bars": usage.bars([scope])[scope]}, request)


def register_panels() -> None:
    """Put quotas where they belong."""
    register_piece(PagePanel("vms.list", _what_is_left))
    register_piece(PagePanel("accounts.project", _of_project))
    register_piece(PagePanel("accounts.person", _of_person))
    register(Panel("operations.left", _left, lambda identity: [scopes.topic(f"project:{identity}")]))
