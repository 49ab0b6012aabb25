"""Carry an operation out, step by step, so that a worker may die at any instant.

Each step's intent is committed before it acts, so whatever exists on a host has a row here. A worker that
finds an operation half done (after `take_over_lapsed`) calls `carry_on` with it and goes on from the rows.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from portal.live.publish import publish
from portal.operations.heartbeat import Heartbeat
from portal.operations.models import Operation, StepRecord
from portal.operations.registry import Kind, Step, StepContext, StepFailed, kind_of
from portal.operations.services import beat, rest
from portal.operations.states import WORKING, State
from portal.operations.transitions import CancelAsked, StaleAttempt, move

Stage = StepRecord.Stage
#: Seconds for which a step that failed for now (a host that restarts) is tried again.
PATIENCE = 20.0
PAUSE = 0.5
#: What a step may raise that says nothing about the step: somebody else has the operation or wants it taken
#: back, or the portal's database is away, and then the next worker goes on where this one stopped.
PASSES = (StaleAttempt, CancelAsked, OperationalError, InterfaceError)
_log = logging.getLogger(__name__)


def carry_on(operation: Operation, *, worker: str) -> None:
    """Bring a running or undoing operation to its end.

    Raises StaleAttempt as soon as somebody else has the operation, before the next step acts. When a step
    cannot be undone now, the operation stays `undoing` and its rows list what is left; the reaper comes back
    to it, ever less often unless it may pass by itself. When its host is away, it is `lost` until `find_lost`
    of the services brings it back. Idempotent.
    """
    failure = None
    kind = kind_of(operation.kind)
    context = StepContext(
        spec=json.loads(operation.spec),
        identifiers=operation.identifiers,
        check=partial(_check, operation),
    )
    with Heartbeat(operation):
        if operation.state == State.RUNNING:
            try:
                _do_all(operation, kind, context, worker)
            except CancelAsked:
                operation.state = State.CANCELLING
        if operation.state in {State.UNDOING, State.CANCELLING}:
            failure = _undo_all(operation, kind, context, worker)
    # Not before the heartbeat is over, which would say that it is being worked on.
    if failure and not failure.retryable and operation.state in WORKING:
        rest(operation)


def _check(operation: Operation) -> None:
    """Beat. Raises StaleAttempt when somebody else has the operation, CancelAsked when it is to be undone."""
    if beat(operation) == State.CANCELLING != operation.state:
        raise CancelAsked(f"{operation} is to be taken back")


def leftovers(operation: Operation) -> list[str]:
    """Return the names of steps whose work may still be on the host, in the order they were done."""
    rows = operation.steps.exclude(stage=Stage.UNDONE).order_by("index")
    return list(rows.values_list("name", flat=True))


def _patiently(
    act: Callable[[StepContext], str | None], context: StepContext, record: StepRecord
) -> str | None:
    """Act, and again while the failure is one that may pass; return its remark. Raises the last StepFailed.

    An error that no step should raise is one too: retried for ever it would hold what was reserved.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return act(context)
        except StepFailed as failure:
            if failure.away or not failure.retryable or time.monotonic() > end:
                raise
        except PASSES:
            raise
        except Exception as error:
            _log.exception("%s failed with an error of the portal's own", record)
            raise StepFailed("internal", repr(error)) from error
        time.sleep(PAUSE)
        context.check()


def _do_all(operation: Operation, kind: Kind, context: StepContext, worker: str) -> None:
    records = {record.name: record for record in operation.steps.all()}
    acted: StepRecord | None = None
    for index, step in enumerate(kind.steps):
        record = records.get(step.name)
        if record is not None and record.stage == Stage.DONE:
            continue
        record = _intend(operation, record or StepRecord(index=index, name=step.name), acted)
        try:
            telling = replace(context, progress=partial(_tell, operation, record))
            record.remark = _patiently(step.do, telling, record) or ""
        except StepFailed as failure:
            _note(operation, record, record.stage, failure)
            _move_on(operation, kind, failure, worker)
            return
        acted = record
    if acted is not None:
        _note(operation, acted, Stage.DONE)
    _turn(operation, State.SUCCEEDED, worker)


def _tell(operation: Operation, record: StepRecord, percent: int) -> None:
    """Write how far a step is, and ring for pages that show it. Nothing depends on it."""
    if record.percent == percent:
        return
    record.percent = percent
    with transaction.atomic():
        StepRecord.objects.filter(pk=record.pk).update(percent=percent)
        publish(operation.topic)


def _move_on(operation: Operation, kind: Kind, failure: StepFailed, worker: str) -> None:
    """Leave a step that failed: begin to undo, or wait for a host that is away.

    Nobody wants some things done later; what was done of them is taken back later all the same.
    """
    if failure.away and (kind.waits_for_host or operation.state != State.RUNNING):
        _turn(operation, State.LOST, worker, lost_from=operation.state)
    elif operation.state == State.RUNNING:
        _turn(operation, State.UNDOING, worker)


def _turn(operation: Operation, state: State, worker: str, **changes: str) -> None:
    """Move an operation on. Raises CancelAsked when somebody asked for that at the same moment."""
    try:
        move(operation, state, actor=worker, **changes)
    except StaleAttempt:
        _check(operation)
        raise


def _undo_all(operation: Operation, kind: Kind, context: StepContext, worker: str) -> StepFailed | None:
    """Undo what was at least intended, the last first; return what stopped it, None at its end."""
    steps = {step.name: step for step in kind.steps}
    for record in operation.steps.exclude(stage=Stage.UNDONE).order_by("-index"):
        beat(operation)
        try:
            _patiently(partial(_undo, steps, record.name), context, record)
        except StepFailed as failure:
            _note(operation, record, record.stage, failure)
            _move_on(operation, kind, failure, worker)
            return failure
        _note(operation, record, Stage.UNDONE)
    end = State.CANCELLED if operation.state == State.CANCELLING else State.FAILED
    move(operation, end, actor=worker)
    return None


def _undo(steps: Mapping[str, Step], name: str, context: StepContext) -> None:
    """Undo the step called `name`. Raises KeyError for one that this version of the portal has no more."""
    steps[name].undo(context)


def _intend(operation: Operation, record: StepRecord, acted: StepRecord | None) -> StepRecord:
    """Write that a step is about to act, and that the one before it, `acted`, is done.

    One commit for both: each costs the road milliseconds. Raises StaleAttempt, and CancelAsked, with which
    `acted` stays as it was intended and is undone like the others.
    """
    with transaction.atomic():
        _check(operation)
        if acted is not None:
            _mark(acted, Stage.DONE)
        if record.pk is None:
            record.operation, record.started_at = operation, timezone.now()
            record.save(force_insert=True)
        publish(*operation.topics)
    return record


def _note(operation: Operation, record: StepRecord, stage: str, failure: StepFailed | None = None) -> None:
    with transaction.atomic():
        beat(operation)
        _mark(record, stage, failure)
        publish(*operation.topics)


def _mark(record: StepRecord, stage: str, failure: StepFailed | None = None) -> None:
    record.stage = stage
    record.finished_at = timezone.now()
    # What failed stays readable after it was undone, until it was done after all.
    if failure or stage == Stage.DONE:
        record.error_code = failure.code if failure else ""
        record.error_raw = failure.raw if failure else ""
    record.save()
