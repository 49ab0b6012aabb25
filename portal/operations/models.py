"""Operations, their frozen requests, and the ledger. Not for: machines, which the rooms above own."""

import json
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from portal.accounts.models import Project
from portal.core.querysets import RestrictedQuerySet
from portal.operations.states import TONES, UNFINISHED, WORKING, State


class Operation(models.Model):
    """A change that a worker carries out, from the request to the end.

    awaiting_approval -> queued | rejected | expired | cancelled
    queued            -> running | cancelled
    running           -> succeeded | undoing | cancelling | lost
    undoing           -> failed | lost
    cancelling        -> cancelled | lost
    lost              -> running | undoing | cancelling
    """

    kind = models.CharField(max_length=64)
    #: Empty for what is about the estate, such as a host.
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True)
    requester = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="operations"
    )
    state = models.CharField(max_length=24, choices=State.choices, db_index=True)
    spec = models.TextField()
    spec_hash = models.CharField(max_length=64)
    # Names fixed before anything is created on a host (UUID, MAC, volume names).
    identifiers = models.JSONField(default=dict)
    #: What it is about, such as `vms.machine:12`, once that exists.
    subject = models.CharField(max_length=64, blank=True, db_index=True)
    #: Whoever makes one cuts it by `cut`: names of others are in it.
    TITLE_LONGEST = 250
    title = models.CharField(max_length=TITLE_LONGEST, blank=True)
    #: Where it is carried out, such as `host:2`; one lane holds a limited number at a time.
    lane = models.CharField(max_length=64, blank=True)
    revision = models.PositiveIntegerField(default=1)
    #: The revision that the requester last asked for: decisions on an earlier one count no more. A lowering
    #: makes a new revision and leaves this, since it is nowhere larger than what was approved.
    asked_revision = models.PositiveIntegerField(default=1)
    token = models.UUIDField(unique=True)
    #: Shared by those that were begun together and are looked at on one page.
    batch = models.UUIDField(null=True, db_index=True)
    attempt = models.PositiveIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)
    #: The state that one whose host went away goes on in; empty otherwise.
    lost_from = models.CharField(
        max_length=24, blank=True, choices=[(state.value, state.label) for state in sorted(WORKING)]
    )

    objects = RestrictedQuerySet.as_manager()
    #: A requester sees what is their own, other roles what is their project's.
    owner_field = "requester"

    class Meta:
        constraints = [
            # Two clicks, two people: one change at a time to one machine.
            models.UniqueConstraint(
                fields=["subject"],
                condition=~Q(subject="") & Q(state__in=sorted(UNFINISHED)),
                name="one_operation_a_subject",
            ),
        ]
        indexes = [models.Index(fields=["lane", "state"])]

    def __str__(self) -> str:
        return self.title or f"{self.kind} {self.pk}"

    @classmethod
    def cut(cls, title: str) -> str:
        """Return a title as one is kept."""
        return title[: cls.TITLE_LONGEST]

    @property
    def frozen(self) -> dict[str, Any]:
        """The request as it was frozen: `sizes` and `pinned`."""
        return json.loads(self.spec)

    @property
    def tone(self) -> str:
        """How the state is drawn."""
        return TONES.get(State(self.state), "off")

    @property
    def topic(self) -> str:
        """The topic of live pages that show this operation."""
        return f"operations.operation:{self.pk}"

    @property
    def topics(self) -> list[str]:
        """The topics of all live pages that show how far it is."""
        return [self.topic, batch_topic(self.batch)] if self.batch else [self.topic]


def batch_topic(batch: Any) -> str:
    """Return the topic of live pages that show the operations of one batch."""
    return f"operations.batch:{batch}"


class Decision(models.Model):
    """What an approver said about exactly one revision of a request."""

    operation = models.ForeignKey(Operation, on_delete=models.PROTECT, related_name="decisions")
    approver = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    #: Whom the approver stood in for while they were away.
    on_behalf_of = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+"
    )
    #: The level of the policy that it serves, counted from 1, and the revision that was looked at.
    level = models.PositiveSmallIntegerField(default=1)
    revision = models.PositiveIntegerField(default=1)
    spec_hash = models.CharField(max_length=64)
    approved = models.BooleanField()
    reason = models.TextField(blank=True)
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.approver} {'approved' if self.approved else 'rejected'} {self.operation}"


class RequestRevision(models.Model):
    """A request as it was before or after it was changed; the rows of one that never changed are none."""

    class Change(models.TextChoices):
        ASKED = "asked", _("Asked")
        EDITED = "edited", _("Edited")
        LOWERED = "lowered", _("Lowered")

    operation = models.ForeignKey(Operation, on_delete=models.PROTECT, related_name="revisions")
    number = models.PositiveIntegerField()
    change = models.CharField(max_length=8, choices=Change.choices)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    spec = models.TextField()
    spec_hash = models.CharField(max_length=64)
    note = models.TextField(blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["operation", "number"], name="one_row_a_revision"),
        ]

    def __str__(self) -> str:
        return f"{self.operation}, revision {self.number}"

    @property
    def frozen(self) -> dict[str, Any]:
        """The request as this revision froze it."""
        return json.loads(self.spec)


class Comment(models.Model):
    """What somebody said about a request; plain text, kept with it."""

    operation = models.ForeignKey(Operation, on_delete=models.PROTECT, related_name="comments")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    text = models.TextField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.author} on {self.operation}"


class StepRecord(models.Model):
    """A step that was at least intended: a row exists before anything exists on the host."""

    class Stage(models.TextChoices):
        INTENDED = "intended", "Under way"
        DONE = "done", "Done"
        UNDONE = "undone", "Undone"

    operation = models.ForeignKey(Operation, on_delete=models.PROTECT, related_name="steps")
    index = models.PositiveIntegerField()
    name = models.CharField(max_length=64)
    stage = models.CharField(max_length=8, choices=Stage.choices, default=Stage.INTENDED)
    error_code = models.CharField(max_length=64, blank=True)
    error_raw = models.TextField(blank=True)
    #: The code of a sentence about a step that was done, but not quite as one might think.
    remark = models.CharField(max_length=64, blank=True)
    #: How far a step that takes long is, None for one that does not tell.
    percent = models.PositiveSmallIntegerField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["operation", "name"], name="one_record_a_step"),
        ]

    def __str__(self) -> str:
        return f"{self.operation} {self.name}: {self.stage}"


class Counter(models.Model):
    """How much of one resource a scope may take, has promised and has in use.

    `portal.operations.scopes` names the scopes. Units: vcpu in virtual CPUs, memory and disk in bytes,
    machines in machines. A scope that takes anything has a counter, with a limit or without, so that a
    limit that is set later finds what was taken before.
    """

    class Resource(models.TextChoices):
        VCPU = "vcpu", "vCPUs"
        MEMORY = "memory", "Memory"
        DISK = "disk", "Disk"
        MACHINES = "machines", "Machines"

    scope = models.CharField(max_length=64)
    #: What people call the scope: `project Example`, `host rack-1`.
    title = models.CharField(max_length=120, blank=True)
    resource = models.CharField(max_length=16, choices=Resource.choices)
    #: None: as much as anybody likes.
    limit = models.PositiveBigIntegerField(null=True)
    #: Whether the limit was set for this scope; else it is a copy of the default above it.
    own = models.BooleanField(default=True)
    held = models.PositiveBigIntegerField(default=0)
    used = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["scope", "resource"], name="one_counter_a_scope_and_resource"),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.resource}: {self.held} held, {self.used} used of {self.limit}"

    @property
    def taken(self) -> int:
        """What is promised or in use."""
        return self.held + self.used

    @property
    def left(self) -> int | None:
        """What can still be taken, None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.taken)


class DefaultLimit(models.Model):
    """The limit of every counter below it that has none of its own; `portal.operations.scopes` says which.

    Counters hold a copy, so that taking looks at one row. Whoever makes a counter or changes a default
    locks the default's row first: no counter can miss the change.
    """

    scope = models.CharField(max_length=64)
    resource = models.CharField(max_length=16, choices=Counter.Resource.choices)
    limit = models.PositiveBigIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["scope", "resource"], name="one_default_a_scope_and_resource"),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.resource}: {self.limit}"


class Reservation(models.Model):
    """What one operation took from one counter; the row makes release and use idempotent."""

    class Stage(models.TextChoices):
        HELD = "held", "Held"
        USED = "used", "Used"
        RELEASED = "released", "Released"

    operation = models.ForeignKey(Operation, on_delete=models.PROTECT, related_name="reservations")
    counter = models.ForeignKey(Counter, on_delete=models.PROTECT, related_name="reservations")
    amount = models.PositiveBigIntegerField()
    stage = models.CharField(max_length=8, choices=Stage.choices, default=Stage.HELD)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["operation", "counter"], name="one_reservation_a_counter"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="reserves_something"),
        ]

    def __str__(self) -> str:
        return f"{self.operation} {self.stage} {self.amount} of {self.counter}"


from portal.operations.policies.models import (  # noqa: E402, F401 (Django looks here for models)
    Delegation,
    Demand,
    DemandLevel,
    Policy,
    PolicyChoice,
    PolicyLevel,
    PolicyRange,
)
