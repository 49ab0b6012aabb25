"""Pools that hosts have and the portal does not know, or not any more. Not for: what it uses."""

from django.db import models

from portal.core.querysets import RestrictedQuerySet


class FoundPool(models.Model):
    """A pool that a host has and the portal does not know, as the host told of it last; bytes.

    Hostile text, cut to what fits: nothing here was checked.
    """

    host = models.ForeignKey("hosts.Host", on_delete=models.CASCADE, related_name="found_pools")
    uuid = models.UUIDField()
    observed_name = models.CharField(max_length=255)
    #: libvirt's word, also of kinds that the portal does not do.
    observed_kind = models.CharField(max_length=32)
    observed_path = models.CharField(max_length=4096, blank=True)
    #: What it lies on and who serves it, as in `PoolSpec`.
    observed_source = models.CharField(max_length=4096, blank=True)
    observed_server = models.CharField(max_length=255, blank=True)
    #: Not so: it is only while it runs.
    observed_persistent = models.BooleanField(default=True)
    observed_active = models.BooleanField(default=True)
    observed_autostart = models.BooleanField(default=True)
    observed_capacity = models.PositiveBigIntegerField(default=0)
    observed_available = models.PositiveBigIntegerField(default=0)

    objects = RestrictedQuerySet.as_manager()
    estate = True

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["host", "uuid"], name="one_found_pool_a_host_and_uuid"),
        ]

    def __str__(self) -> str:
        return f"{self.observed_name} on {self.host}"

    @property
    def place(self) -> str:
        """Where it is: its folder, or what it lies on, in a line."""
        lies_on = " ".join(filter(None, (self.observed_server, self.observed_source)))
        return lies_on or self.observed_path


class MadeBefore(models.Model):
    """Which volumes people made here in a pool that was given back, for when it is taken over again."""

    uuid = models.UUIDField(unique=True)
    #: By name [capacity in bytes, format]: what is another by then, somebody else made.
    volumes = models.JSONField(default=dict)

    def __str__(self) -> str:
        return str(self.uuid)
