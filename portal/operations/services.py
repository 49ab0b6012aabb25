"""Ask, decide, claim, keep alive, take over.

Not for: what an operation does, which its kind knows, nor who must agree to it, which the policies say.
"""

import uuid
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.accounts.models import Project
from portal.audit import services as audit
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.live.publish import publish
from portal.operations import ledger
from portal.operations.dispatch import CARRY_OUT, dispatch, dispatch_resume, send
from portal.operations.models import Operation
from portal.operations.policies import consent
from portal.operations.registry import kind_of, may_ask, slow_kinds
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED, WORKING, State
from portal.operations.transitions import StaleAttempt, move

# Services as the others here; they have a module of their own because of the policies.
decide, check_decider = consent.decide, consent.check_decider

#: A worker beats more often than this; one that does not is taken for dead.
HEARTBEAT_LAPSE = timedelta(seconds=15)
#: What cannot be undone is tried again at the latest after this.
LONGEST_REST = timedelta(minutes=10)
TAKEN_OVER = "operation.taken_over"
#: Operations carried out at a time in one lane.
LANE_CAP = 8
#: Of these, the slow ones at most: the others wait in the queue, where they can be withdrawn at once.
SLOW_CAP = 3


def request_operation(
    *,
    actor: Any,
    project: Project,
    spec: RequestSpec,
    amounts: ledger.Amounts,
    token: uuid.UUID,
    identifiers: Mapping[str, Any] | None = None,
    title: str = "",
) -> Operation:
    """Freeze `spec`, hold its quota and let the policies say who must agree, in one transaction.

    A policy may approve it by itself: then it is placed and queued when this returns.

    `identifiers` are the names fixed before anything is created (UUID, MAC, volume names).
    Idempotent by `token` (one a form): a doubled submit returns the first operation. Raises Denied.
    """
    if not may_ask(actor, spec.kind, project):
        raise Denied(_("You may not ask for anything in %(project)s.") % {"project": project})
    with transaction.atomic():
        operation, created = Operation.objects.get_or_create(
            token=token,
            defaults={
                "kind": spec.kind,
                "project": project,
                "requester": actor,
                "state": State.AWAITING_APPROVAL,
                "spec": spec.text(),
                "spec_hash": spec.hash(),
                "identifiers": dict(identifiers or {}),
                "title": Operation.cut(title),
            },
        )
        if not created:
            if operation.requester_id != actor.pk or operation.spec_hash != spec.hash():
                raise Denied(_("This form was already used for another request; open it again."))
            return operation
        audit.record(actor=actor, verb="operation.requested", target=operation, after=spec.as_dict())
        consent.ask(operation, actor=actor, amounts=amounts)
    return operation


def begin_operation(
    *,
    actor: Any,
    project: Project | None,
    spec: RequestSpec,
    subject: str,
    title: str,
    identifiers: Mapping[str, Any],
    lane: str,
    begun_by: str = "",
    batch: uuid.UUID | None = None,
) -> Operation:
    """Queue an operation that needs nobody's consent; the calling service has checked the verb.

    `batch` is shared by those that are begun together: of them BATCH_CAP are carried out at a time in a lane.
    `begun_by` names the part of the portal that begins it by itself: the trail says that, not `actor`. Raises
    Denied when another operation on `subject` is not finished.
    """
    # Looked for without waiting: whoever ends it may need what the caller holds locked.
    if subject and Operation.objects.filter(subject=subject, state__in=UNFINISHED).exists():
        raise _unfinished(project)
    try:
        with transaction.atomic():
            operation = Operation.objects.create(
                token=uuid.uuid4(),
                batch=batch,
                kind=spec.kind,
                project=project,
                requester=actor,
                state=State.QUEUED,
                spec=spec.text(),
                spec_hash=spec.hash(),
                identifiers=dict(identifiers),
                subject=subject,
                title=Operation.cut(title),
                lane=lane,
            )
            audit.record(
                actor=begun_by or actor, verb="operation.begun", target=operation, after=spec.as_dict()
            )
            dispatch(operation.pk)
            publish(*operation.topics, subject)
    except IntegrityError as error:
        raise _unfinished(project) from error
    return operation


def _unfinished(project: Project | None) -> Denied:
    if project is None:
        # A host, a pool, a volume or an image: what belongs to no project.
        return Denied(_("Other work on this is not finished yet; wait for it."))
    return Denied(_("Another change to this machine is not finished yet; wait for it."))


def withdraw(*, actor: Any, operation: Operation) -> Operation:
    """Take one's own request back before a worker has it. Raises Denied when it is too late."""
    if operation.requester_id != actor.pk:
        raise Denied(_("Only the requester can withdraw a request."))
    current = Operation.objects.get(pk=operation.pk)
    if reason := why_not_withdraw(current):
        raise Denied(reason)
    try:
        move(current, State.CANCELLED, actor=actor)
    except StaleAttempt as late:
        raise Denied(_("It is too late to withdraw this request.")) from late
    return current


def why_not_withdraw(operation: Operation) -> str:
    """Return why its requester cannot take a request back now, '' when they can."""
    if operation.state not in {State.AWAITING_APPROVAL, State.QUEUED}:
        return _("It is too late to withdraw this request.")
    return _divided(operation)


def _divided(operation: Operation) -> str:
    """Return that an approved request is carried out by its parts, which would go on without it; else ''."""
    if operation.state == State.QUEUED and kind_of(operation.kind).parts:
        return _("It was divided into one operation for each machine; cancel or delete those instead.")
    return ""


def cancel(*, actor: Any, operation: Operation) -> Operation:
    """Ask the worker to stop and take back what was made. Raises Denied when it is too late or not possible.

    The worker itself turns round at its next look, so that nothing is undone while it is still being made.
    What no worker has yet is cancelled at once, and gives back what it held.
    """
    current = Operation.objects.get(pk=operation.pk)
    if reason := why_not_cancel(actor, current):
        raise Denied(reason)
    if current.state == State.LOST:
        return _cancel_lost(actor, current)
    if current.state == State.QUEUED:
        return _cancel_queued(actor, current)
    try:
        move(current, State.CANCELLING, actor=actor)
    except (StaleAttempt, ValueError) as late:
        raise Denied(_("It is too late to cancel this.")) from late
    return current


def _cancel_queued(actor: Any, operation: Operation) -> Operation:
    """End an operation that no worker has. Raises Denied when one claims it, or it ends, at this moment."""
    try:
        move(operation, State.CANCELLED, actor=actor)
    except StaleAttempt as late:
        raise Denied(_("A worker began with it at this moment; look at it again.")) from late
    return operation


def _cancel_lost(actor: Any, operation: Operation) -> Operation:
    """Let a lost operation be taken back, not finished, once its host returns."""
    with transaction.atomic():
        changed = Operation.objects.filter(
            pk=operation.pk, state=State.LOST, lost_from=State.RUNNING
        ).update(lost_from=State.CANCELLING)
        if not changed:
            raise Denied(_("It is being taken back already."))
        audit.record(actor=actor, verb="operation.cancel_when_found", target=operation)
        publish(operation.topic)
    operation.lost_from = State.CANCELLING
    return operation


def why_not_cancel(actor: Any, operation: Operation) -> str:
    """Return why `actor` cannot cancel `operation` now, '' when they can."""
    if operation.requester_id != actor.pk and not may(actor, "operate", operation.project):
        return _("Only the requester or an operator may cancel this.")
    if operation.state == State.QUEUED:
        return _divided(operation)
    if operation.state not in {State.RUNNING, State.LOST}:
        return _("Only what is queued or running can be cancelled.")
    if not kind_of(operation.kind).cancellable:
        return _("This cannot be cancelled while it is carried out.")
    return ""


def claim(operation_id: int, *, worker: str) -> Operation | None:
    """Take a queued operation for `worker`; None when it is not to be had. Of racing claims one wins.

    A lane that is busy to its cap gives nothing: a frozen host must not eat the workers. Whoever ends an
    operation there calls `next_in_lane`.
    """
    operation = Operation.objects.filter(pk=operation_id, state=State.QUEUED).first()
    if operation is None or (operation.lane and not _room(operation.lane)):
        return None
    if operation.lane and not _room_beside_others(operation):
        return None
    try:
        move(
            operation,
            State.RUNNING,
            actor=worker,
            attempt=operation.attempt + 1,
            heartbeat_at=timezone.now(),
        )
    except StaleAttempt:
        return None
    return operation


def _room(lane: str) -> int:
    """Return how many more operations `lane` takes now."""
    return max(0, LANE_CAP - Operation.objects.filter(lane=lane, state__in=WORKING).count())


def _room_beside_others(operation: Operation) -> bool:
    """Tell whether the lane takes one more slow one, or one more of its batch, where it is such a one."""
    if operation.batch and not _room_in_batch(operation):
        return False
    return operation.kind not in slow_kinds() or _room_among_slow(operation.lane) > 0


def _room_among_slow(lane: str) -> int:
    """Return how many more slow operations `lane` takes now."""
    working = Operation.objects.filter(lane=lane, kind__in=slow_kinds(), state__in=WORKING)
    return max(0, SLOW_CAP - working.count())


def _room_in_batch(operation: Operation) -> bool:
    """Tell whether the lane takes one more of what was begun together with `operation` now.

    What people asked for and was approved is not held back: the lane's own cap is enough for it.
    """
    if kind_of(operation.kind).asking is not None:
        return True
    working = Operation.objects.filter(lane=operation.lane, batch=operation.batch, state__in=WORKING)
    return working.count() < settings.BATCH_CAP


def next_in_lane(lane: str) -> None:
    """Send the operations that wait longest for `lane`, as many as it has room for. Idempotent."""
    room, full, slow = _room(lane), set[uuid.UUID](), slow_kinds()
    queued = Operation.objects.filter(lane=lane, state=State.QUEUED).order_by("pk")
    found = list(queued.only("pk", "kind", "lane", "batch")) if room else []
    among_slow = _room_among_slow(lane) if any(one.kind in slow for one in found) else 0
    for waiting in found:
        is_slow = waiting.kind in slow
        if waiting.batch in full or (is_slow and not among_slow):
            continue
        if waiting.batch and not _room_in_batch(waiting):
            # Those of other batches, and of none, do not wait behind it.
            full.add(waiting.batch)
            continue
        send(CARRY_OUT, waiting.pk)
        room, among_slow = room - 1, among_slow - is_slow
        if not room:
            return


def sweep() -> int:
    """Send queued operations that no message reached; return how many. Idempotent."""
    lanes = Operation.objects.filter(state=State.QUEUED).values_list("lane", flat=True).distinct()
    for lane in lanes:
        next_in_lane(lane)
    return len(lanes)


def beat(operation: Operation) -> State:
    """Say that the worker lives and return the state, which may be `cancelling` by now.

    Called before each step acts. Raises StaleAttempt when taken over.
    """
    mine = Operation.objects.filter(pk=operation.pk, attempt=operation.attempt)
    for state in (State(operation.state), State.CANCELLING):
        if state in WORKING and mine.filter(state=state).update(heartbeat_at=timezone.now()):
            return state
    raise StaleAttempt(f"{operation} was taken over")


def rest(operation: Operation) -> None:
    """Keep the reaper off an operation that cannot be undone now, twice as long with each attempt.

    Called when its worker has stopped. Its heartbeat lies in the future then; nobody else is kept off it.
    """
    doubled = 2 ** min(max(operation.attempt - 1, 0), 10) - 1
    until = timezone.now() + min(doubled * HEARTBEAT_LAPSE, LONGEST_REST)
    Operation.objects.filter(
        pk=operation.pk, attempt=operation.attempt, state=operation.state
    ).update(heartbeat_at=until)


def find_lost(*, lanes: Collection[str], worker: str) -> int:
    """Let the lost operations of `lanes`, whose hosts are back, go on where they were; return how many.

    Idempotent. A message that does not reach a worker is made up for by the reaper.
    """
    found = 0
    for operation in Operation.objects.filter(state=State.LOST, lane__in=lanes).order_by("pk"):
        try:
            with transaction.atomic():
                move(
                    operation,
                    State(operation.lost_from),
                    actor=worker,
                    attempt=operation.attempt + 1,
                    heartbeat_at=timezone.now(),
                    lost_from="",
                )
                dispatch_resume(operation.pk, operation.attempt)
        except StaleAttempt:
            continue
        found += 1
    return found


def take_over_lapsed(*, worker: str) -> list[Operation]:
    """Take every operation whose worker went silent, under a new attempt number.

    The old worker's next `beat` raises. The state stays: a running one is resumed, an undoing one goes on
    undoing. Of racing reapers one gets each operation. The trail tells the first takeover in each state.
    """
    limit = timezone.now() - HEARTBEAT_LAPSE
    taken = []
    for operation in Operation.objects.filter(state__in=WORKING, heartbeat_at__lt=limit):
        with transaction.atomic():
            won = Operation.objects.filter(
                pk=operation.pk, attempt=operation.attempt, state=operation.state, heartbeat_at__lt=limit
            ).update(attempt=F("attempt") + 1, heartbeat_at=timezone.now())
            if not won:
                continue
            _record_takeover(operation, worker)
        operation.attempt += 1
        taken.append(operation)
    return taken


def _record_takeover(operation: Operation, worker: str) -> None:
    """Record that a silent worker's operation was taken over, once in a state.

    What cannot be undone is taken over again and again, and would fill the trail with it.
    """
    kept = AuditEntry.objects.filter(
        verb=TAKEN_OVER,
        target_type=operation._meta.label_lower,
        target_id=str(operation.pk),
        after__state=operation.state,
    )
    if kept.exists():
        return
    audit.record(
        actor=worker,
        verb=TAKEN_OVER,
        target=operation,
        before={"attempt": operation.attempt},
        after={"attempt": operation.attempt + 1, "state": operation.state},
    )
