"""What of quotas is taken and left, as pages say it. Not for: taking, nor for setting limits."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from portal.accounts.models import Project, Role
from portal.operations import counters, scopes
from portal.operations.ledger import amount_text
from portal.operations.models import Counter
from portal.operations.quotas import RESOURCES

#: Percent from which a quota is called nearly full.
NEARLY = 80


@dataclass(frozen=True)
class Bar:
    """One counter as a bar with its numbers in words."""

    counter: Counter

    @property
    def label(self) -> str:
        """The resource."""
        return str(self.counter.get_resource_display())

    @property
    def limited(self) -> bool:
        """Tell whether there is a limit at all."""
        return self.counter.limit is not None

    @property
    def percent(self) -> int:
        """The share that is taken, at most 100; 0 without a limit."""
        taken, limit = self.counter.taken, self.counter.limit
        if limit is None:
            return 0
        return min(100, round(100 * taken / limit)) if limit else 100

    @property
    def tone(self) -> str:
        """The tone of the bar: `good`, `warn` when nearly full, `bad` when beyond, `off` without a limit."""
        if self.counter.limit is None:
            return "off"
        if self.counter.taken > self.counter.limit:
            return "bad"
        return "warn" if self.percent >= NEARLY else "good"

    @property
    def taken(self) -> str:
        """What is taken and how much there is: `6 of 20`."""
        taken = self._text(self.counter.taken)
        if self.counter.limit is None:
            return taken
        return _("%(taken)s of %(limit)s") % {"taken": taken, "limit": self._text(self.counter.limit)}

    @property
    def left(self) -> str:
        """What is left, in words."""
        limit, taken = self.counter.limit, self.counter.taken
        if limit is None:
            return _("no limit")
        if taken > limit:
            return _("%(amount)s over the limit") % {"amount": self._text(taken - limit)}
        return _("%(amount)s left") % {"amount": self._text(limit - taken)}

    @property
    def waiting(self) -> str:
        """How much of what is taken is asked for and not built yet, '' for nothing."""
        return self._text(self.counter.held) if self.counter.held else ""

    def _text(self, amount: int) -> str:
        return amount_text(self.counter.resource, amount)


def bars(wanted: Collection[str]) -> dict[str, list[Bar]]:
    """Return the bars of each scope in the order of the resources. At most two queries."""
    keys = [(scope, resource) for scope in wanted for resource in RESOURCES]
    found: dict[str, list[Bar]] = {scope: [] for scope in wanted}
    for counter in counters.look(keys):
        found[counter.scope].append(Bar(counter))
    return found


@dataclass(frozen=True)
class Left:
    """What one person can still take in one project: of each resource the bar that is the narrowest."""

    project: Project
    narrowest: Sequence[tuple[Bar, str]]


def left_for(person: Any, projects: Iterable[Project]) -> list[Left]:
    """Return what `person` has left in those of `projects` that limit them. At most two queries."""
    of_each = {
        project: {
            scopes.of_project(project): "",
            scopes.of_member(project, person): _("your share"),
            scopes.of_person(person): _("you, in all projects"),
        }
        for project in projects
    }
    known = bars({scope for named in of_each.values() for scope in named})
    found = []
    for project, named in of_each.items():
        narrowest = []
        for index in range(len(RESOURCES)):
            limited = [(known[scope][index], note) for scope, note in named.items()]
            limited = [(bar, note) for bar, note in limited if bar.limited]
            if limited:
                narrowest.append(min(limited, key=lambda pair: pair[0].counter.left or 0))
        if narrowest:
            found.append(Left(project, narrowest))
    return found


def projects_asked_in(person: Any, most: int) -> list[Project]:
    """Return the first `most` projects in which `person` is a requester. One query."""
    found = Project.objects.filter(memberships__user=person, memberships__role=Role.REQUESTER)
    return list(found.order_by("name")[:most])
