"""Policies, what they demanded of each request, deputies. Not for: what values mean, which `rules` knows."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from portal.accounts.models import Project
from portal.core.querysets import RestrictedQuerySet
from portal.operations.policies.rules import Effect, Measure, Who


class Policy(models.Model):
    """Which requests, and whose consent they need. The first that matches, by position, speaks."""

    name = models.CharField(max_length=80, unique=True)
    description = models.CharField(max_length=500, blank=True)
    position = models.PositiveIntegerField()
    enabled = models.BooleanField(default=True)
    projects = models.ManyToManyField(Project, related_name="+")
    people = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="+")
    effect = models.CharField(max_length=8, choices=Effect.choices, default=Effect.LEVELS)
    refusal = models.CharField(max_length=300, blank=True)
    #: Days after which an undecided request expires, empty for never.
    expires_days = models.PositiveSmallIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    objects = RestrictedQuerySet.as_manager()
    #: Belongs to no project: roles held in every project decide.
    estate = True

    class Meta:
        ordering = ["position", "pk"]
        verbose_name_plural = "policies"

    def __str__(self) -> str:
        return self.name


class PolicyRange(models.Model):
    """A condition on a measure, in its smallest unit: bytes, seconds, hundredths, pieces."""

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="ranges")
    measure = models.CharField(max_length=16, choices=Measure.choices)
    least = models.BigIntegerField(null=True)
    most = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["policy", "measure"], name="one_range_a_measure"),
            models.CheckConstraint(
                # Each part names the empty case: a comparison with NULL would pass a check.
                condition=(Q(least__isnull=False) | Q(most__isnull=False))
                & (Q(least=None) | Q(most=None) | Q(least__lte=F("most"))),
                name="range_has_a_bound_and_an_inside",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.policy}: {self.least} to {self.most} {self.measure}"


class PolicyChoice(models.Model):
    """A kind of operation or a catalogue item that a policy speaks about; one of those named must match."""

    class Of(models.TextChoices):
        KIND = "kind", "Kind of operation"
        ITEM = "item", "Catalogue item"

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="choices")
    of = models.CharField(max_length=8, choices=Of.choices)
    #: By name, as it stands frozen in requests.
    value = models.CharField(max_length=80)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["policy", "of", "value"], name="one_choice_once"),
        ]

    def __str__(self) -> str:
        return f"{self.policy}: {self.of} {self.value}"


class AbstractLevel(models.Model):
    """How many of whom must agree."""

    number = models.PositiveSmallIntegerField()
    who = models.CharField(max_length=20, choices=Who.choices)
    needed = models.PositiveSmallIntegerField(default=1)
    #: For named people alone.
    people = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="+")

    class Meta:
        abstract = True
        ordering = ["number"]


class PolicyLevel(AbstractLevel):
    """A level that a policy demands."""

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="levels")

    class Meta(AbstractLevel.Meta):
        constraints = [
            models.UniqueConstraint(fields=["policy", "number"], name="one_level_a_number"),
        ]

    def __str__(self) -> str:
        return f"{self.policy}: level {self.number}"


class Demand(models.Model):
    """Whose consent one request needs, as the policy said when it was asked.

    A later change of the policy changes nothing here. Asked again with other values, the request is given
    a new one.
    """

    operation = models.OneToOneField(
        "operations.Operation", on_delete=models.CASCADE, related_name="demand"
    )
    #: Empty when no policy spoke, or when it is gone; its name stays.
    policy = models.ForeignKey(Policy, on_delete=models.SET_NULL, null=True, related_name="demands")
    policy_name = models.CharField(max_length=80, blank=True)
    policy_digest = models.CharField(max_length=64, blank=True)
    #: The policy approves by itself. With a `note` it could not, and people decide.
    auto = models.BooleanField(default=False)
    note = models.TextField(blank=True)
    #: How many machines the person had or had asked for, as the policies saw it.
    machines = models.PositiveIntegerField(default=0)
    #: The level that is open, counted from 1.
    level = models.PositiveSmallIntegerField(default=1)
    expires_at = models.DateTimeField(null=True, db_index=True)

    def __str__(self) -> str:
        return f"{self.operation}: {self.policy_name or 'no policy'}"


class DemandLevel(AbstractLevel):
    """A level as it was demanded of one request. Never changed."""

    demand = models.ForeignKey(Demand, on_delete=models.CASCADE, related_name="levels")

    class Meta(AbstractLevel.Meta):
        constraints = [
            models.UniqueConstraint(fields=["demand", "number"], name="one_demanded_level_a_number"),
        ]

    def __str__(self) -> str:
        return f"{self.demand}: level {self.number}"


class Delegation(models.Model):
    """While `person` is away, `deputy` decides what the person could decide, in the person's name."""

    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="delegations"
    )
    deputy = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="stands_in_for"
    )
    starts_at = models.DateTimeField()
    #: The first instant that no longer counts. Brought forward when it is ended early.
    ends_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    objects = RestrictedQuerySet.as_manager()

    class Meta:
        ordering = ["-starts_at", "-pk"]
        constraints = [
            models.CheckConstraint(condition=~Q(person=F("deputy")), name="nobody_is_their_own_deputy"),
            models.CheckConstraint(condition=Q(starts_at__lte=F("ends_at")), name="delegation_ends_after"),
        ]

    def __str__(self) -> str:
        return f"{self.deputy} for {self.person}"

    @property
    def last_moment(self) -> datetime:
        """The last instant that counts, whose day is the last day."""
        return self.ends_at - timedelta(microseconds=1)
