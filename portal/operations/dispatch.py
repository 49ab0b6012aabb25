"""Hand queued operations to Celery. Not for: carrying them out.

A message is only a hint: what must be done is in the database, and a sweep finds what no message reached.
"""

from django.db import transaction

from portal.core import queue

CARRY_OUT = "operations.carry_out"
RESUME = "operations.resume"
#: The topic of inboxes: a request came to somebody new, or waits no more.
ARRIVALS = "operations.inbox:all"


def dispatch(operation_id: int) -> None:
    """Queue the operation by name once the present transaction is committed. Never raises."""
    transaction.on_commit(lambda: send(CARRY_OUT, operation_id), robust=True)


def dispatch_resume(operation_id: int, attempt: int) -> None:
    """Queue that the operation goes on under `attempt` once the transaction is committed. Never raises."""
    transaction.on_commit(lambda: send(RESUME, operation_id, attempt), robust=True)


def send(task: str, *args: int) -> None:
    """Send `task` now; a broker that is away is logged, and the sweep sends again. Never raises."""
    queue.send(task, *args, queue="provision")
