"""Who may decide on what now: the one query behind the inbox, the buttons and the service.

Not for: what they decide. A deputy has the rights of the person who is away, never of that person's
deputies, and nobody decides twice on one request, in whosever name.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.db import models
from django.db.models import Case, Exists, F, OuterRef, Q, QuerySet, Value, When
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.accounts.backends import ACTIONS, may
from portal.accounts.context import DECIDE
from portal.accounts.models import Membership, Project, User
from portal.operations.models import Decision, Operation
from portal.operations.policies.models import Delegation, DemandLevel
from portal.operations.policies.rules import Level, Who
from portal.operations.states import State

#: Names shown of those who could decide.
NAMES = 3
_APPROVE, _ADMINISTER = "approve", "administer"
#: Who -> the action they must hold, and whether in every project.
_HELD = {
    Who.PROJECT_APPROVERS: (_APPROVE, False),
    Who.APPROVERS: (_APPROVE, True),
    Who.PROJECT_ADMINS: (_ADMINISTER, False),
    Who.ADMINS: (_ADMINISTER, True),
}


@dataclass
class _Rights:
    """What one person holds in their own name: action -> projects, None among them for every project."""

    person: int
    held: dict[str, set[int | None]] = field(default_factory=lambda: {_APPROVE: set(), _ADMINISTER: set()})

    def level(self) -> Exists:
        """Return the condition that the level now open of an operation asks for this person."""
        who = Q(who=Who.PEOPLE, people=self.person)
        for name, (action, everywhere) in _HELD.items():
            projects = self.held[action]
            if None in projects:
                who |= Q(who=name)
            elif projects and not everywhere:
                who |= Q(who=name, demand__operation__project__in=projects)
        open_levels = DemandLevel.objects.filter(
            demand__operation=OuterRef("pk"), number=F("demand__level")
        )
        return Exists(open_levels.filter(who))

    def condition(self) -> Q:
        """Return the condition that an operation may be decided in this person's name."""
        return Q(self.level()) & ~Q(requester=self.person) & ~Q(_served(self.person))


def counting() -> Q:
    """Return the condition that a decision counts: an approval of what the requester last asked for."""
    return Q(approved=True, revision__gte=F("operation__asked_revision"))


def _served(person: int) -> Exists:
    """Return the condition that `person`, or a deputy in their name, approved an operation already."""
    theirs = Decision.objects.filter(counting(), operation=OuterRef("pk"))
    return Exists(theirs.filter(Q(approver=person) | Q(on_behalf_of=person)))


def away(user: Any) -> list[int]:
    """Return the keys of the active people whom `user` stands in for now."""
    running = _running().filter(deputy=user.pk).order_by("pk")
    return list(running.values_list("person", flat=True))


def _running() -> QuerySet[Delegation]:
    """Return the delegations that count now."""
    now = timezone.now()
    return Delegation.objects.filter(person__is_active=True, starts_at__lte=now, ends_at__gt=now)


def _rights_of(people: Sequence[int]) -> list[_Rights]:
    """Return the rights of `people`, in their order. One query."""
    found = {person: _Rights(person) for person in people}
    roles = ACTIONS[_APPROVE] | ACTIONS[_ADMINISTER]
    memberships = Membership.objects.filter(user__in=people, role__in=roles)
    for person, role, project in memberships.values_list("user", "role", "project"):
        for action, projects in found[person].held.items():
            if role in ACTIONS[action]:
                projects.add(project)
    return list(found.values())


def waiting_for(user: Any) -> QuerySet[Operation]:
    """Return what waits for `user` now: the open level asks for them, or for somebody they stand in for.

    Each row has `decides_for`, the key of the person in whose name they would decide (their own where
    they can). Never their own request. Two queries beside the one that is returned.
    """
    if not getattr(user, "is_active", False):
        return Operation.objects.none()
    rights = _rights_of([user.pk, *away(user)])
    cases = [When(held.condition(), then=Value(held.person)) for held in rights]
    now = timezone.now()
    waiting = Operation.objects.filter(
        Q(demand__expires_at=None) | Q(demand__expires_at__gt=now), state=State.AWAITING_APPROVAL
    )
    waiting = waiting.exclude(requester=user.pk).exclude(_served(user.pk))
    decides_for = Case(*cases, default=None, output_field=models.BigIntegerField())
    return waiting.annotate(decides_for=decides_for).filter(decides_for__isnull=False)


def in_whose_name(actor: Any, operation: Operation) -> int | None:
    """Return whose name `actor` decides in on `operation` now, as a key; their own where they can."""
    mine: Any = waiting_for(actor).filter(pk=operation.pk)
    found: int | None = mine.values_list("decides_for", flat=True).first()
    return found


def why_not(actor: Any, operation: Operation) -> str:
    """Return why `actor` cannot decide on `operation` now; for whom `waiting_for` does not hold it."""
    # As it is now, not as it was when the caller read it.
    operation = Operation.objects.select_related("project", "demand").get(pk=operation.pk)
    if operation.requester_id == actor.pk:
        return _("Nobody decides on their own request.")
    if operation.state != State.AWAITING_APPROVAL:
        return _("This request is already %s.") % State(operation.state).label.lower()
    if operation.decisions.filter(counting()).filter(Q(approver=actor) | Q(on_behalf_of=actor)).exists():
        return _("You approved this request already; the next to decide must be somebody else.")
    expires_at = operation.demand.expires_at
    if expires_at is not None and expires_at <= timezone.now():
        return _("This request has expired; it must be asked again.")
    if may(actor, _APPROVE, operation.project):
        return _("This request waits for others now: the page says whom.")
    return _("You may not decide for %s.") % operation.project


def can_decide(level: Level, project: Project | None, never: Collection[int]) -> QuerySet[User]:
    """Return the active people who could decide on `level` in their own name, but for those in `never`."""
    people = User.objects.filter(is_active=True).exclude(pk__in=never)
    if level.who == Who.PEOPLE:
        return people.filter(pk__in=level.people).order_by("username")
    action, everywhere = _HELD[Who(level.who)]
    where = Q(project=None) if everywhere else Q(project=None) | Q(project=project)
    holders = Membership.objects.filter(where, role__in=ACTIONS[action])
    return people.filter(pk__in=holders.values("user")).order_by("username")


def by_project(level: Level, projects: Collection[int]) -> dict[int | None, dict[int, str]]:
    """Return whom `can_decide` finds in each of `projects` as key -> name, None for all. One query."""
    if level.who == Who.PEOPLE:
        named = User.objects.filter(is_active=True, pk__in=level.people)
        return {None: dict(named.values_list("pk", "username"))}
    action, everywhere = _HELD[Who(level.who)]
    where = Q(project=None) if everywhere else Q(project=None) | Q(project__in=projects)
    holders = Membership.objects.filter(where, role__in=ACTIONS[action], user__is_active=True)
    found: dict[int | None, dict[int, str]] = {}
    for person, name, project in holders.values_list("user", "user__username", "project"):
        found.setdefault(project, {})[person] = name
    return found


def concerned(operation: Operation) -> QuerySet[User]:
    """Return the active people for whom `operation` waits now, those who stand in for somebody among them."""
    demand = operation.demand
    open_level = demand.levels.get(number=demand.level)
    level = Level(open_level.who, open_level.needed, tuple(person.pk for person in open_level.people.all()))
    never = served(operation) | {operation.requester_id}
    mine = can_decide(level, operation.project, never).values("pk")
    deputies = _running().filter(person__in=mine)
    people = User.objects.filter(Q(pk__in=mine) | Q(pk__in=deputies.values("deputy")), is_active=True)
    return people.exclude(pk__in=never).order_by("pk")


def served(operation: Operation) -> set[int]:
    """Return the keys of the people in whose names, or by whom, `operation` was approved already."""
    approvals = operation.decisions.filter(counting()).values_list("approver", "on_behalf_of")
    return {person for pair in approvals for person in pair if person is not None}


def some_names(
    level: Level, project: Project | None, never: Collection[int]
) -> tuple[tuple[str, ...], int]:
    """Return a few names of those who could decide on `level`, and how many they are."""
    found = can_decide(level, project, never)
    names = tuple(found.values_list("username", flat=True)[: NAMES + 1])
    return names[:NAMES], len(names) if len(names) <= NAMES else found.count()


def part_in_decisions(user: Any) -> QuerySet[Any, Any]:
    """Return a row (ability, None) for who needs no role to decide: named people, deputies. Not evaluated."""
    waiting = DemandLevel.objects.filter(demand__operation__state=State.AWAITING_APPROVAL)
    named = waiting.filter(people=OuterRef("pk"))
    deputy = _running().filter(deputy=OuterRef("pk"))
    has_part = User.objects.filter(Exists(named) | Exists(deputy), pk=user.pk)
    ability = Value(DECIDE, output_field=models.CharField())
    nowhere = Value(None, output_field=models.BigIntegerField())
    return has_part.annotate(ability=ability, nowhere=nowhere).values_list("ability", "nowhere")


class DecidersBackend(BaseBackend):
    """Grants rows to those without a role in the project (named people, deputies), and one's delegations."""

    def rows_for(self, user: Any, action: str, model: type[models.Model]) -> Q | None:
        """Return the condition on rows of `model` for `action`, None where this has no say."""
        if model is Delegation:
            return _delegations(user, action)
        if model is not Operation or action not in {"view", _APPROVE}:
            return None
        if action == _APPROVE:
            return Q(pk__in=waiting_for(user).values("pk"))
        named = DemandLevel.objects.filter(people=user).values("demand__operation")
        decided = Decision.objects.filter(approver=user).values("operation")
        return Q(pk__in=named) | Q(pk__in=decided) | _seen_by_deputy(user)


def _seen_by_deputy(user: Any) -> Q:
    """Return the condition on what waits where somebody may decide whom `user` stands in for; no query."""
    people = _running().filter(deputy=user.pk).values("person")
    named = DemandLevel.objects.filter(people__in=people).values("demand__operation")
    roles = Membership.objects.filter(user__in=people, role__in=ACTIONS[_APPROVE] | ACTIONS[_ADMINISTER])
    where = Q(project__in=roles.values("project")) | Exists(roles.filter(project=None))
    return Q(state=State.AWAITING_APPROVAL) & (where | Q(pk__in=named))


def _delegations(user: Any, action: str) -> Q:
    if may(user, _ADMINISTER, None):
        return Q(pk__isnull=False)
    own = Q(person=user)
    return own | Q(deputy=user) if action == "view" else own
