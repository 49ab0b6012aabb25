"""Who gets what answer: the words in which `table.py` is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.permissions.world import ANONYMOUS, PEOPLE

# Who
ALL = frozenset(PEOPLE)
NONE: frozenset[str] = frozenset()
EVERY_ADMIN = frozenset({"admin_everywhere"})
ADMINS = EVERY_ADMIN | {"admin"}
#: An admin of any project: lists that hold what they administer.
ADMINS_ANYWHERE = ADMINS | {"stranger"}
ESTATE = frozenset({"operator_everywhere", "admin_everywhere"})
TRAIL = frozenset({"auditor_everywhere", "admin_everywhere"})
#: Requesters see their own; every other role of the project sees the project's.
SEE = frozenset({"owner", "approver", "operator", "auditor"}) | ADMINS
SEE |= {"approver_everywhere", "operator_everywhere", "auditor_everywhere"}
USE = frozenset({"owner", "operator", "operator_everywhere"}) | ADMINS
APPROVE = frozenset({"approver", "approver_everywhere"}) | ADMINS
OWNER = frozenset({"owner"})
#: Who decides on something anywhere, and so has something to hand over.
APPROVERS = APPROVE | {"stranger"}
#: Who stands in for the approver of the world.
DEPUTY = frozenset({"auditor"})
REQUEST = frozenset({"owner", "colleague", "requester_everywhere"}) | ADMINS
ASK = REQUEST | {"stranger"}

LOGIN, CHANGED, REFUSED = "sign-in", "changed", "refused"
Answers = Mapping[str, Any]


def answers(by_person: Mapping[str, Any], others: Any = 404) -> Answers:
    return {name: by_person.get(name, others) for name in PEOPLE} | {ANONYMOUS: LOGIN}


def page(sees: frozenset[str], status: int = 200) -> Answers:
    """A page for some; for others it is not there."""
    return answers(dict.fromkeys(sees, status))


def change(
    may: frozenset[str], *, told: frozenset[str] = NONE, status: int = 302, refusal: int = 302
) -> Answers:
    """A change that some may make; some are told why not; for others the address is not there."""
    refused = dict.fromkeys(told - may, (refusal, REFUSED))
    return answers(refused | dict.fromkeys(may, (status, CHANGED)))


def public(status: int, signed_in: int | None = None) -> Answers:
    """The same for everybody, also signed out."""
    return {name: signed_in or status for name in PEOPLE} | {ANONYMOUS: status}


#: There is no such method here, whoever asks.
NO = answers({}, 405)


@dataclass(frozen=True)
class Line:
    """One address."""

    url: str
    get: Answers
    post: Answers
    row: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    data: Callable[[Any], Mapping[str, Any]] = lambda world: {}
    #: Why a change here leaves no entry in the trail.
    silent: str = ""
