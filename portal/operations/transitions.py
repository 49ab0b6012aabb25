"""The only code that sets an operation's state."""

from typing import Any

from django.db import transaction
from django.utils import timezone

from portal.audit import services as audit
from portal.live.publish import publish
from portal.operations import ledger, notifying
from portal.operations.dispatch import ARRIVALS
from portal.operations.models import Operation
from portal.operations.registry import kind_of
from portal.operations.states import FINAL, NOTHING_LEFT, TRANSITIONS, State


class StaleAttempt(Exception):
    """Someone else moved the operation, or took it over; the caller must stop at once."""


class CancelAsked(Exception):
    """Somebody asked to take the operation back; its worker stops doing and begins to undo."""


def move(operation: Operation, to: State, *, actor: Any, **changes: Any) -> None:
    """Move `operation` from the state and attempt that the caller saw to `to`, and record it.

    Final states settle the ledger and let the operation's kind settle its models. Raises ValueError for a
    transition that the table does not hold and StaleAttempt when the row changed since it was read. One
    transaction; `changes` are further fields.
    """
    seen = State(operation.state)
    if to not in TRANSITIONS[seen]:
        raise ValueError(f"an operation cannot go from {seen} to {to}")
    if to in FINAL:
        changes["finished_at"] = timezone.now()
    with transaction.atomic():
        moved = Operation.objects.filter(
            pk=operation.pk,
            state=seen,
            attempt=operation.attempt,
            revision=operation.revision,
            spec_hash=operation.spec_hash,
        ).update(state=to, **changes)
        if not moved:
            raise StaleAttempt(f"{operation} changed since it was read")
        if to in FINAL:
            ledger.lock_to_end(operation)
        if to == State.SUCCEEDED:
            ledger.use(operation)
        elif to in NOTHING_LEFT:
            ledger.release(operation)
        if to in FINAL:
            kind_of(operation.kind).settle(operation, to)
        audit.record(
            actor=actor,
            verb=f"operation.{to}",
            target=operation,
            before={"state": seen, "attempt": operation.attempt},
            after={"state": to, "spec_hash": operation.spec_hash},
        )
        notifying.moved(operation, to, by=actor)
        waited = [ARRIVALS] if seen == State.AWAITING_APPROVAL else []
        publish(*operation.topics, *waited)
    operation.state = to
    for name, value in changes.items():
        setattr(operation, name, value)
