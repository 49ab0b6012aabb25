"""The one transition table of operations. Not for: setting a state, which `transitions.move` does."""

from django.db import models


class State(models.TextChoices):
    """Where an operation stands."""

    AWAITING_APPROVAL = "awaiting_approval", "Awaiting approval"
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    UNDOING = "undoing", "Undoing"
    FAILED = "failed", "Failed"
    CANCELLING = "cancelling", "Cancelling"
    CANCELLED = "cancelled", "Cancelled"
    REJECTED = "rejected", "Rejected"
    EXPIRED = "expired", "Expired"
    LOST = "lost", "Lost"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.AWAITING_APPROVAL: frozenset({State.QUEUED, State.REJECTED, State.EXPIRED, State.CANCELLED}),
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.UNDOING, State.CANCELLING, State.LOST}),
    State.UNDOING: frozenset({State.FAILED, State.LOST}),
    State.CANCELLING: frozenset({State.CANCELLED, State.LOST}),
    State.LOST: frozenset({State.RUNNING, State.UNDOING, State.CANCELLING}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.REJECTED: frozenset(),
    State.EXPIRED: frozenset(),
}

#: States in which a worker holds the operation and must keep its heartbeat.
WORKING = frozenset({State.RUNNING, State.UNDOING, State.CANCELLING})
#: States between the decision and the end: something may exist or be about to.
UNFINISHED = WORKING | {State.QUEUED, State.LOST}
FINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)
#: Final states in which nothing exists, so that the reservation goes back.
NOTHING_LEFT = FINAL - {State.SUCCEEDED}
#: How a state is drawn; what is not here was given up by people.
TONES = {
    State.AWAITING_APPROVAL: "waiting",
    State.QUEUED: "waiting",
    State.RUNNING: "busy",
    State.SUCCEEDED: "good",
    State.UNDOING: "warn",
    State.CANCELLING: "warn",
    State.FAILED: "bad",
    State.LOST: "bad",
    State.REJECTED: "bad",
}
