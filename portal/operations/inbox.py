"""What waits for somebody, each with its what-if. Not for: who may decide; `policies.deciders` knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, QuerySet

from portal.accounts.models import User
from portal.operations import words
from portal.operations.forms import DecideForm, LowerForm
from portal.operations.models import Operation, RequestRevision
from portal.operations.policies import deciders
from portal.operations.policies.models import Demand
from portal.operations.registry import Outlook, kind_of


@dataclass
class Card:
    """One request before somebody who may decide on it, or who just did."""

    operation: Operation
    facts: Sequence[words.Fact]
    #: The revision that the page shows; another than the present one is not decided on unseen.
    shown: int
    outlook: Outlook | None = None
    demand: Demand | None = None
    levels: int = 0
    may_decide: bool = False
    #: Whom the person stands in for, '' for themselves.
    decides_for: str = ""
    comments: int = 0
    changes: Sequence[words.Difference] = ()
    changed_by: RequestRevision | None = None
    form: DecideForm | None = None
    lower: LowerForm | None = None
    #: Whether the sizes are being lowered, so that they show.
    lowering: bool = False
    forms: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The id of its live panel: a page that shows another revision is told so."""
        return f"{self.operation.pk}-{self.shown}"

    @property
    def stale(self) -> bool:
        """Whether the request is another than the page shows."""
        return self.shown != self.operation.revision

    @property
    def why(self) -> str:
        return str(self.operation.frozen["pinned"].get("why", ""))


def cards(
    user: Any,
    operations: Sequence[Operation],
    *,
    shown: Mapping[int, int] | None = None,
) -> list[Card]:
    """Return a card for each of `operations`, in their order, in a constant number of queries.

    `shown` are the revisions that the page holds, by the key of the request; the present ones otherwise.
    """
    keys = [operation.pk for operation in operations]
    mine: Any = deciders.waiting_for(user).filter(pk__in=keys)
    waiting: dict[int, int] = {operation.pk: operation.decides_for for operation in mine}
    names = dict(User.objects.filter(pk__in={*waiting.values()}).values_list("pk", "username"))
    demands = {demand.operation_id: demand for demand in _demands(keys)}
    comments = _comments(keys)
    rows: dict[int, list[RequestRevision]] = {}
    for row in RequestRevision.objects.filter(operation__in=keys).select_related("author"):
        rows.setdefault(row.operation_id, []).append(row)
    outlooks = _outlooks([operation for operation in operations if operation.pk in waiting])
    found = []
    for operation in operations:
        card = Card(
            operation=operation,
            facts=words.facts(operation.frozen),
            shown=(shown or {}).get(operation.pk) or operation.revision,
            outlook=outlooks.get(operation.pk),
            demand=demands.get(operation.pk),
            levels=getattr(demands.get(operation.pk), "level_count", 0),
            may_decide=operation.pk in waiting,
            comments=comments.get(operation.pk, 0),
        )
        person = waiting.get(operation.pk, user.pk)
        card.decides_for = names.get(person, "") if person != user.pk else ""
        _compare(card, rows.get(operation.pk, []))
        if card.may_decide and not card.stale:
            card.form, card.lower = DecideForm(operation=operation), LowerForm(operation=operation)
        found.append(card)
    return found


def _compare(card: Card, rows: Sequence[RequestRevision]) -> None:
    """Note what the request was changed in: since the page showed it, else by its last revision."""
    if len(rows) < 2:
        return
    by_number = {row.number: row for row in rows}
    last = rows[-1]
    base = by_number.get(card.shown if card.stale else last.number - 1)
    if base is not None:
        card.changes = words.differences(base.frozen, last.frozen)
        card.changed_by = last


def _demands(keys: Sequence[int]) -> QuerySet[Demand]:
    return Demand.objects.filter(operation__in=keys).annotate(level_count=Count("levels"))


def _comments(keys: Sequence[int]) -> dict[int, int]:
    counted = Operation.objects.filter(pk__in=keys).order_by().annotate(count=Count("comments"))
    return dict(counted.values_list("pk", "count"))


def _outlooks(operations: Sequence[Operation]) -> dict[int, Outlook]:
    """Return the what-if of each, asking each kind once."""
    found: dict[int, Outlook] = {}
    by_kind: dict[str, list[Operation]] = {}
    for operation in operations:
        by_kind.setdefault(operation.kind, []).append(operation)
    for kind, of_kind in by_kind.items():
        asking = kind_of(kind).asking
        if asking is not None:
            found |= asking.outlooks(of_kind)
    return found
