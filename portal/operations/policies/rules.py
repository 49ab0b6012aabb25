"""What a policy says, as values: which requests it speaks about and what it demands. Asks no database."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any

from django.db import models
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.core.canonical import digest
from portal.operations.registry import judged_kind
from portal.operations.spec import RequestSpec

#: What a database column of these values can hold.
LARGEST = (1 << 63) - 1
MOST_LEVELS = 3
MOST_NEEDED = 20
LONGEST_EXPIRY = 3650  # days


class Measure(models.TextChoices):
    """What a request is measured by, each in its smallest unit."""

    VCPU = "vcpu", gettext_lazy("vCPUs")
    MEMORY = "memory", gettext_lazy("Memory")  # bytes
    DISK = "disk", gettext_lazy("Disk")  # bytes
    MACHINES = "machines", gettext_lazy("Machines the person has or has asked for")
    COST = "cost", gettext_lazy("Cost a month")  # hundredths
    LEASE = "lease", gettext_lazy("Lease")  # seconds


class Effect(models.TextChoices):
    """What becomes of a request that a policy speaks about."""

    LEVELS = "levels", gettext_lazy("People decide")
    AUTO = "auto", gettext_lazy("Approved at once, by nobody")
    REFUSE = "refuse", gettext_lazy("Refused at once")


class Who(models.TextChoices):
    """Whose consent a level asks for."""

    PROJECT_APPROVERS = "project_approvers", gettext_lazy("Approvers of the project")
    APPROVERS = "approvers", gettext_lazy("Approvers of every project")
    PROJECT_ADMINS = "project_admins", gettext_lazy("Admins of the project")
    ADMINS = "admins", gettext_lazy("Admins of every project")
    PEOPLE = "people", gettext_lazy("Named people")


@dataclass(frozen=True)
class Case:
    """A request as policies see it. A measure that the request does not have is missing."""

    kind: str
    project: int
    person: int
    item: str
    measures: Mapping[str, int]


@dataclass(frozen=True)
class Level:
    """How many of whom must agree; `people` are keys, for named people alone."""

    who: str = Who.PROJECT_APPROVERS
    needed: int = 1
    people: tuple[int, ...] = ()


#: What is demanded when no policy speaks.
DEFAULT_LEVELS = (Level(),)
#: The least and the most that still match, None for no bound.
Range = tuple[int | None, int | None]


@dataclass(frozen=True)
class Rule:
    """A policy by value. An empty condition matches everything; all that are there must match."""

    name: str
    description: str = ""
    enabled: bool = True
    kinds: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    projects: tuple[int, ...] = ()
    people: tuple[int, ...] = ()
    ranges: Mapping[str, Range] = field(default_factory=dict)
    effect: str = Effect.LEVELS
    levels: tuple[Level, ...] = DEFAULT_LEVELS
    refusal: str = ""
    expires_days: int | None = None

    def matches(self, case: Case) -> bool:
        """Tell whether every condition matches. A measure that the request lacks matches no bound."""
        return (
            (not self.kinds or case.kind in self.kinds)
            and (not self.items or case.item in self.items)
            and (not self.projects or case.project in self.projects)
            and (not self.people or case.person in self.people)
            and all(_within(bounds, case.measures.get(name)) for name, bounds in self.ranges.items())
        )

    def demand(self) -> dict[str, Any]:
        """Return the conditions and what is demanded as JSON: all that decides, without words."""
        return {
            "kinds": sorted(self.kinds),
            "items": sorted(self.items),
            "projects": sorted(self.projects),
            "people": sorted(self.people),
            "ranges": {name: list(bounds) for name, bounds in self.ranges.items()},
            "effect": str(self.effect),
            "levels": [[str(level.who), level.needed, sorted(level.people)] for level in self.levels],
            "refusal": self.refusal,
            "expires_days": self.expires_days,
        }

    def digest(self) -> str:
        """Return the hash by which a request knows whether its policy changed meanwhile."""
        return digest(self.demand())

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (field, sentence) for each thing that cannot be meant."""
        if not self.name.strip() or len(self.name) > 80:
            yield "name", _("A policy has a name of 1 to 80 characters.")
        if len(self.description) > 500:
            yield "description", _("The description has at most 500 characters.")
        for name, bounds in self.ranges.items():
            yield from _problems_of_range(name, bounds)
        if self.expires_days is not None and not 1 <= self.expires_days <= LONGEST_EXPIRY:
            yield "expires_days", _("A request expires after 1 to %d days, or never.") % LONGEST_EXPIRY
        if self.effect not in Effect.values:
            yield "effect", _("Say what becomes of the request: people decide, approved, or refused.")
        if self.effect == Effect.REFUSE and not self.refusal.strip():
            yield "refusal", _("Say why it is refused: the person who asks reads this sentence.")
        if len(self.refusal) > 300:
            yield "refusal", _("The sentence has at most 300 characters.")
        if self.effect == Effect.LEVELS:
            yield from self._problems_of_levels()

    def _problems_of_levels(self) -> Iterator[tuple[str, str]]:
        if not 1 <= len(self.levels) <= MOST_LEVELS:
            yield "levels", _("There are 1 to %d levels.") % MOST_LEVELS
        for number, level in enumerate(self.levels, 1):
            where = {"number": number, "most": MOST_NEEDED}
            if level.who not in Who.values:
                yield "levels", _("Level %(number)d: say who decides.") % where
            if not 1 <= level.needed <= MOST_NEEDED:
                yield "levels", _("Level %(number)d: 1 to %(most)d people must agree.") % where
            elif level.who == Who.PEOPLE and not level.people:
                yield "levels", _("Level %(number)d: name the people who may decide.") % where
            elif level.who == Who.PEOPLE and level.needed > len(level.people):
                yield "levels", _("Level %(number)d: more must agree than people are named.") % where


def _within(bounds: Range, value: int | None) -> bool:
    least, most = bounds
    return value is not None and (least is None or value >= least) and (most is None or value <= most)


def _problems_of_range(name: str, bounds: Range) -> Iterator[tuple[str, str]]:
    if name not in Measure.values:
        yield "ranges", _("%(name)s is nothing that a request is measured by.") % {"name": name}
        return
    what = {"what": Measure(name).label}
    least, most = bounds
    if least is None and most is None:
        yield name, _("%(what)s: give a least or a most, or leave the condition out.") % what
    if any(value is not None and not 0 <= value <= LARGEST for value in bounds):
        yield name, _("%(what)s: this number is below zero or larger than anything there is.") % what
    elif least is not None and most is not None and least > most:
        yield name, _("%(what)s: the least is more than the most, so nothing would match.") % what


def case_of(spec: RequestSpec, *, project: int, person: int, machines: int) -> Case:
    """Return the request `spec` of `person` for `project` as policies see it."""
    measures = {name: value for name, value in spec.sizes.items() if name in Measure.values}
    measures[Measure.MACHINES.value] = machines
    cost = cost_of(spec.pinned.get("cost_month"))
    if cost is not None:
        measures[Measure.COST.value] = cost
    return Case(judged_kind(spec.kind), project, person, str(spec.pinned.get("item", "")), measures)


def cost_of(text: Any) -> int | None:
    """Return a frozen cost in hundredths, rounded up; None for what is no finite number."""
    try:
        cost = Decimal(str(text))
    except InvalidOperation:
        return None
    return int((cost * 100).to_integral_value(ROUND_CEILING)) if cost.is_finite() else None
