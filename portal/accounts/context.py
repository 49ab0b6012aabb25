"""What a person holds anywhere, for menus and buttons of a page. Not for: deciding; services ask `may`."""

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet

from portal.accounts.backends import ACTIONS, roles_held
from portal.accounts.models import Role

#: A key of `abilities` for what asks for the role in every project.
EVERYWHERE = "administer_everywhere"

#: The ability to decide on requests: of who holds `approve`, and of whoever a room above adds.
DECIDE = "decide"
_sources: list[Callable[[Any], QuerySet[Any, Any]]] = []


def add_source(source: Callable[[Any], QuerySet[Any, Any]]) -> None:
    """Let `source(user)` say what abilities a person has beside their roles: pairs of a word and None.

    Every page makes its query, but for those who hold `approve`.
    """
    _sources.append(source)


def abilities(user: Any) -> dict[str, Any]:
    """Return for each action whether a role of `user` holds it anywhere, and their names as `roles`.

    One query beside that of `roles_held`, none for who may decide by a role.
    """
    active = getattr(user, "is_active", False)
    held = list(roles_held(user)) if active else []
    if active and not any(role in ACTIONS["approve"] for role, _project in held):
        held += [pair for source in _sources for pair in source(user)]
    roles = {role for role, _project in held}
    can: dict[str, Any] = {action: bool(roles & holders) for action, holders in ACTIONS.items()}
    everywhere = {role for role, project in held if project is None}
    can |= {f"{action}_everywhere": bool(everywhere & holders) for action, holders in ACTIONS.items()}
    can[DECIDE] = can["approve"] or DECIDE in roles
    can["roles"] = [role.label for role in Role if role in roles]
    return can
