"""People, projects and who is what in which. Not for: quotas, which are counters in the ledger."""

from django.contrib.auth.models import AbstractUser
from django.db import models

from portal.core.querysets import RestrictedQuerySet


class User(AbstractUser):
    """A person who signs in."""


class Role(models.TextChoices):
    """What a person is in a project."""

    REQUESTER = "requester", "Requester"
    APPROVER = "approver", "Approver"
    OPERATOR = "operator", "Operator"
    AUDITOR = "auditor", "Auditor"
    ADMIN = "admin", "Admin"


class Project(models.Model):
    """A tenant: the people, machines and quotas that belong together."""

    name = models.CharField(max_length=64, unique=True)

    objects = RestrictedQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """One person's role in one project, or in every project when `project` is empty."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    project = models.ForeignKey(
        Project, on_delete=models.CASCADE, null=True, blank=True, related_name="memberships"
    )
    role = models.CharField(max_length=16, choices=Role.choices)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "project", "role"], name="one_role_once_a_project", nulls_distinct=False
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.project or 'every project'}"
