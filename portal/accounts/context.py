"""What a person holds anywhere, for menus and buttons of a page. Not for: deciding; services ask `may`."""

from typing import Any

from portal.accounts.backends import ACTIONS
from portal.accounts.models import Membership, Role

#: A key of `abilities` for what asks for the role in every project.
EVERYWHERE = "administer_everywhere"


def abilities(user: Any) -> dict[str, Any]:
    """Return for each action whether a role of `user` holds it anywhere, and their names as `roles`.

    One query.
    """
    held: list[tuple[str, int | None]] = []
    if getattr(user, "is_active", False):
        held = list(Membership.objects.filter(user=user).values_list("role", "project"))
    roles = {role for role, _project in held}
    can: dict[str, Any] = {action: bool(roles & holders) for action, holders in ACTIONS.items()}
    everywhere = {role for role, project in held if project is None}
    can |= {f"{action}_everywhere": bool(everywhere & holders) for action, holders in ACTIONS.items()}
    can["roles"] = [role.label for role in Role if role in roles]
    return can
