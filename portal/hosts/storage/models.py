"""Storage pools and their volumes, and pools of hosts that the portal does not know, or not any more.

Imported from `portal.hosts.models`, as all models of the app. Not for: what lies in volumes.
"""

import uuid

from django.db import models

from portal.core.querysets import RestrictedQuerySet
from portal.drivers.types import FOLDER_KINDS, PoolKind
from portal.hosts.storage import pool_words


class StoragePool(models.Model):
    """A storage pool by identity; one shared by several hosts counts once."""

    #: As the hosts call it; pools of one name on two hosts are two pools.
    name = models.CharField(max_length=64)
    uuid = models.UUIDField(unique=True, default=uuid.uuid4)

    objects = RestrictedQuerySet.as_manager()
    estate = True

    def __str__(self) -> str:
        return self.name

    @property
    def scope(self) -> str:
        """The name of this pool's counters in the ledger."""
        return f"pool:{self.pk}"


class PoolAttachment(models.Model):
    """A pool as one host offers it: a directory on that host, or what has no `path` (LVM and others)."""

    host = models.ForeignKey("hosts.Host", on_delete=models.PROTECT, related_name="pools")
    pool = models.ForeignKey(StoragePool, on_delete=models.PROTECT, related_name="attachments")
    path = models.CharField(max_length=255, blank=True)
    #: Somebody else made it: the portal uses it, and neither removes it nor fills it by itself.
    taken_over = models.BooleanField(default=False)
    #: libvirt's word, which never changes.
    observed_kind = models.CharField(max_length=16, default=PoolKind.DIR.value)
    observed_capacity = models.PositiveBigIntegerField(default=0)
    observed_available = models.PositiveBigIntegerField(default=0)
    observed_active = models.BooleanField(default=True)
    #: Whether it runs whenever the host does.
    observed_autostart = models.BooleanField(default=True)
    #: When the host was last asked what lies in it.
    observed_volumes_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["host", "pool"], name="one_attachment_a_host_and_pool"),
        ]

    def __str__(self) -> str:
        return f"{self.pool} on {self.host}"

    @property
    def has_folder(self) -> bool:
        """Tell whether its volumes are files, as those of machines are."""
        return self.observed_kind in FOLDER_KINDS

    @property
    def place(self) -> str:
        """Where it is on its host: its folder, else what it is, in words."""
        return self.path or pool_words.label_of(self.observed_kind)

    @property
    def topic(self) -> str:
        """The subject of operations on the pool as this host offers it."""
        return f"hosts.pool:{self.pk}"


class Volume(models.Model):
    """A volume of a pool as its host told of it last; bytes."""

    pool = models.ForeignKey(PoolAttachment, on_delete=models.CASCADE, related_name="volumes")
    #: As the host calls it, which may be a name that the portal would not give.
    name = models.CharField(max_length=255)
    #: Whether people made it here; one that nobody made here and nobody uses is an orphan.
    made = models.BooleanField(default=False)
    observed_path = models.CharField(max_length=4096)
    observed_capacity = models.PositiveBigIntegerField(default=0)
    observed_allocation = models.PositiveBigIntegerField(default=0)
    observed_format = models.CharField(max_length=16, blank=True)
    #: The file that it stands on, '' for none.
    observed_backing = models.CharField(max_length=4096, blank=True)

    objects = RestrictedQuerySet.as_manager()
    estate = True

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["pool", "name"], name="one_row_a_volume"),
        ]

    def __str__(self) -> str:
        return self.name


class BegunVolume(models.Model):
    """An operation that is making a volume, and whatever has the volume's name now is its own."""

    #: The operation's own, drawn when it was begun; of an import made of its image and the pool.
    mark = models.UUIDField(primary_key=True)

    def __str__(self) -> str:
        return str(self.mark)


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
