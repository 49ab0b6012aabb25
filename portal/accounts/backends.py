"""Roles as an authentication backend, so that `portal.core` needs to know none of them."""

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.db import models

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


def _memberships(user: Any, action: str) -> models.QuerySet[Membership]:
    return Membership.objects.filter(user=user, role__in=ACTIONS[action])


def may(user: Any, action: str, project: Project | None) -> bool:
    """Tell whether a role of `user` in `project`, or in every project, holds `action`.

    None stands for the estate (hosts, networks), which asks for a role in every project.
    """
    if not getattr(user, "is_active", False) or not user.pk:
        return False
    return (
        _memberships(user, action)
        .filter(models.Q(project=None) | models.Q(project__isnull=False, project=project))
        .exists()
    )


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
        held = list(_memberships(user, action).values_list("role", "project"))
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
