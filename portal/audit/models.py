"""The trail: entries nobody can change, and the chain of seals over them."""

from django.db import models

from portal.audit.querysets import AuditQuerySet


class AuditEntry(models.Model):
    """One change or one console, names and ids as they were. No foreign keys: it outlives what it names."""

    #: Of no project: read only by those who hold `audit` in every project.
    estate = True

    at = models.DateTimeField(db_index=True)
    actor_id = models.CharField(max_length=64)
    actor_name = models.CharField(max_length=150)
    verb = models.CharField(max_length=64, db_index=True)
    target_type = models.CharField(max_length=64)
    target_id = models.CharField(max_length=64)
    target_name = models.CharField(max_length=255)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)

    objects = AuditQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.actor_name} {self.verb} {self.target_name}"


class AuditSeal(models.Model):
    """A link of the chain: `seal` = SHA-256 over the previous seal, the entry's id and the entry's hash."""

    entry_id = models.BigIntegerField(unique=True)
    entry_hash = models.CharField(max_length=64)
    # Unique: two sealers that read the same head cannot both append to it.
    previous = models.CharField(max_length=64, unique=True)
    seal = models.CharField(max_length=64)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.entry_id}: {self.seal}"
