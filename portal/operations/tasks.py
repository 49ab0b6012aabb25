"""What workers and the scheduler run. Not for: deciding anything; services and the runner do that."""

import os
import socket

from celery import shared_task

from portal.operations import dispatch, runner, services
from portal.operations.models import Operation
from portal.operations.policies import demands
from portal.operations.transitions import StaleAttempt


def _worker() -> str:
    return f"worker {socket.gethostname()}:{os.getpid()}"


@shared_task(name=dispatch.CARRY_OUT)
def carry_out(operation_id: int) -> None:
    """Claim a queued operation and bring it to its end. Idempotent: a second message finds it taken."""
    operation = services.claim(operation_id, worker=_worker())
    if operation is not None:
        _run(operation)


@shared_task(name=dispatch.RESUME)
def resume(operation_id: int, attempt: int) -> None:
    """Go on with an operation that was taken over under `attempt`. Idempotent."""
    operation = Operation.objects.filter(pk=operation_id, attempt=attempt).first()
    if operation is not None:
        _run(operation)


def _run(operation: Operation) -> None:
    try:
        runner.carry_on(operation, worker=_worker())
    except StaleAttempt:
        # Somebody else has it and brings it to its end.
        return
    services.next_in_lane(operation.lane)


@shared_task(name="operations.reap")
def reap() -> None:
    """Take over what silent workers left and hand each to a worker."""
    for operation in services.take_over_lapsed(worker=_worker()):
        dispatch.send(dispatch.RESUME, operation.pk, operation.attempt)


@shared_task(name="operations.sweep")
def sweep() -> None:
    """Send queued operations that no message reached."""
    services.sweep()


@shared_task(name="operations.expire")
def expire() -> None:
    """Let undecided requests past their time expire."""
    demands.expire_due()
