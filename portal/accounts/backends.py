"""Roles as an authentication backend, so that `portal.core` needs to know none of them."""

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.db import models
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from portal.accounts.models import Membership, Project, Role
from portal.core.querysets import EVERY_ROW

#: Action -> roles that hold it in their project.
ACTIONS: dict[str, frozenset[str]] = {
    "view": frozenset(Role.values),
    "request": frozenset({Role.REQUESTER, Role.ADMIN}),
    "approve": frozenset({Role.APPROVER, Role.ADMIN}),
    "use": frozenset({Role.REQUESTER, Role.OPERATOR, Role.ADMIN}),
    "operate": frozenset({Role.OPERATOR, Role.ADMIN}),
    "audit": frozenset({Role.AUDITOR, Role.ADMIN}),
    "administer": frozenset({Role.ADMIN}),
}


#: While a page is read: the roles of those who were asked for, by their key. None at any other time.
_read: ContextVar[dict[int, list[tuple[str, int | None]]] | None] = ContextVar("roles_read", default=None)


def read_once(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: while a page is only read (GET, HEAD), read the roles of whoever looks once.

    Menus, rows and buttons of one page ask for them again and again. Whatever changes something, sockets
    and workers read them anew each time.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.method not in {"GET", "HEAD"}:
            return get_response(request)
        token = _read.set({})
        try:
            return get_response(request)
        finally:
            _read.reset(token)

    return middleware


def roles_held(user: Any) -> list[tuple[str, int | None]]:
    """Return the roles of `user`, each with its project's key, None for every project. At most one query."""
    known = _read.get()
    if known is not None and user.pk in known:
        return known[user.pk]
    rows = Membership.objects.filter(user=user.pk).values_list("role", "project")
    held: list[tuple[str, int | None]] = list(rows)
    if known is not None:
        known[user.pk] = held
    return held


def _holding(user: Any, action: str) -> list[tuple[str, int | None]]:
    """Return those roles of `user` that hold `action`. Raises KeyError for an action nobody defined."""
    holders = ACTIONS[action]
    return [(role, project) for role, project in roles_held(user) if role in holders]


def may(user: Any, action: str, project: Project | None) -> bool:
    """Tell whether a role of `user` in `project`, or in every project, holds `action`.

    None stands for the estate (hosts, networks), which asks for a role in every project.
    """
    if not getattr(user, "is_active", False) or not user.pk:
        return False
    wanted = {None, project.pk if project else None}
    return any(where in wanted for _role, where in _holding(user, action))


class RoleBackend(BaseBackend):
    """Grants rows by the roles a person holds in the row's project.

    A model with `estate = True` belongs to no project: anybody with a role may see it, and only roles held
    in every project may do more. Where such a model names projects in `shared_with`, and a row says that it
    is not for `every_project`, people of other projects neither see it nor ask for it; to ask for a row, one
    holds that in a project that it is shared with. A model with an `owner_field` shows a mere requester
    their own rows alone.
    """

    def rows_for(self, user: Any, action: str, model: type[models.Model]) -> models.Q | None:
        """Return the condition on rows of `model` for `action`, None where roles grant nothing. One query.

        Raises KeyError for an action nobody defined: a misspelt action must not pass as 'no'.
        """
        held = _holding(user, action)
        everywhere = [role for role, project in held if project is None]
        if getattr(model, "estate", False):
            shared = getattr(model, "shared_with", None)
            if shared and held and not everywhere and action in {"view", "request"}:
                return models.Q(every_project=True) | _in(shared, (project for _role, project in held))
            return EVERY_ROW if (held if action == "view" else everywhere) else None
        path = "pk" if model is Project else getattr(model, "project_field", "project")
        if path == "project" and not any(field.name == "project" for field in model._meta.get_fields()):
            return None
        owner_field = getattr(model, "owner_field", None)
        in_projects = _in(path, (project for _role, project in held))
        if owner_field is None:
            return in_projects
        of_others = _in(path, (project for role, project in held if role != Role.REQUESTER))
        if of_others == EVERY_ROW:
            return EVERY_ROW
        return (models.Q(**{owner_field: user}) & in_projects) | of_others


def _in(path: str, projects: Iterable[int | None]) -> models.Q:
    """Return the condition on rows of `projects`, None among them standing for every one."""
    wanted = set(projects)
    return EVERY_ROW if None in wanted else models.Q(**{f"{path}__in": wanted})
