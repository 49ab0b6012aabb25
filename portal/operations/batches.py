"""Operations that were begun together: one request divided into them, and how far all of them are.

Not for: what each of them does, nor who may begin it.
"""

import uuid
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from portal.audit import services as audit
from portal.operations import ledger
from portal.operations.messages import sentence
from portal.operations.models import Operation, StepRecord
from portal.operations.placing import place
from portal.operations.registry import kind_of
from portal.operations.spec import RequestSpec
from portal.operations.states import FINAL, NOTHING_LEFT, WORKING, State


@dataclass(frozen=True)
class Part:
    """One operation that a request is divided into, and what it takes of quotas."""

    spec: RequestSpec
    title: str
    amounts: ledger.Amounts


def divide(operation: Operation, parts: Sequence[Part]) -> list[Operation]:
    """Begin `parts` in the place of an approved request, which holds nothing any more: all or none.

    Called by the `place` of the request's kind, in the transaction of its approval. Each is placed and
    queued. Raises Denied when one of them finds no room; the caller's transaction must then end.
    """
    with transaction.atomic():
        ledger.lock_ahead(operation)
        ledger.rehold(operation, {})
        return [_begin(operation, part) for part in parts]


def _begin(operation: Operation, part: Part) -> Operation:
    made = Operation.objects.create(
        token=uuid.uuid4(),
        batch=operation.token,
        kind=part.spec.kind,
        project=operation.project,
        requester=operation.requester,
        state=State.QUEUED,
        spec=part.spec.text(),
        spec_hash=part.spec.hash(),
        title=Operation.cut(part.title),
    )
    after = {**part.spec.as_dict(), "part_of": operation.pk}
    audit.record(actor=operation.requester, verb="operation.begun", target=made, after=after)
    ledger.hold(made, part.amounts)
    place(made)
    return made


def batch_of(operation: Operation) -> uuid.UUID | None:
    """Return the batch that an operation belongs to, or that it was divided into; None for neither."""
    if operation.batch:
        return operation.batch
    divided = kind_of(operation.kind).parts and operation.state not in {
        State.AWAITING_APPROVAL,
        *NOTHING_LEFT,
    }
    return operation.token if divided else None


@dataclass(frozen=True)
class Row:
    """One operation of a batch: how far it is in percent, what it does now, and what went wrong."""

    operation: Operation
    percent: int
    step: str
    error: str
    #: Where it can be asked for or tried again, '' while it is under way or done.
    again: str


@dataclass(frozen=True)
class Overview:
    """How far a batch is: its rows, and of all of them the percent and how many are where."""

    batch: str
    rows: Sequence[Row]
    percent: int
    done: int
    failed: int
    under_way: int
    waiting: int

    @property
    def over(self) -> bool:
        return not self.under_way and not self.waiting


def overview(batch: Any, operations: Sequence[Operation]) -> Overview:
    """Return how far `operations` are, fetched with their steps, in their order."""
    rows = [_row(operation) for operation in operations]
    states = Tally(_where(State(operation.state)) for operation in operations)
    return Overview(
        batch=str(batch),
        rows=rows,
        percent=sum(row.percent for row in rows) // max(len(rows), 1),
        done=states["done"],
        failed=states["failed"],
        under_way=states["under_way"],
        waiting=states["waiting"],
    )


def _where(state: State) -> str:
    if state == State.SUCCEEDED:
        return "done"
    if state in FINAL:
        return "failed"
    return "under_way" if state in WORKING or state == State.LOST else "waiting"


def _row(operation: Operation) -> Row:
    kind, records = kind_of(operation.kind), list(operation.steps.all())
    titles = {step.name: str(step.title) for step in kind.steps}
    done = sum(record.stage == StepRecord.Stage.DONE for record in records)
    now = [titles.get(one.name, one.name) for one in records if one.stage == StepRecord.Stage.INTENDED]
    failed = [one for one in records if one.error_code]
    over = operation.state in FINAL
    ended_badly = operation.state in NOTHING_LEFT
    return Row(
        operation=operation,
        percent=100 if over else round(100 * done / max(len(kind.steps), 1)),
        step=now[-1] if now and not over else "",
        error=sentence(failed[-1].error_code, failed[-1].error_raw) if failed else "",
        again=_again(operation) if ended_badly else "",
    )


def _again(operation: Operation) -> str:
    kind = kind_of(operation.kind)
    return kind.asking.copy_url(operation) if kind.asking is not None else kind.page(operation)
