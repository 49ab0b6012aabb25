"""The catalogue and the machines made from it. Not for: operations on machines, which carry them out."""

from datetime import timedelta

from django.conf import settings
from django.db import models
from django.utils import timezone

from networks.models import Network
from portal.accounts.models import Project
from portal.core.querysets import RestrictedQuerySet
from portal.hosts.models import Host, Image, PoolAttachment
from portal.operations.models import Operation
from vms.unattended import Format
from vms.virtualization import Devices, Wanted, words


class Flavour(models.Model):
    """A size that a machine can have; memory and disk in bytes, cost in the portal's currency a month."""

    name = models.CharField(max_length=50, unique=True)
    vcpus = models.PositiveSmallIntegerField()
    memory = models.PositiveBigIntegerField()
    #: Up to which the memory can be changed while a machine runs, and by which it counts; None for the same.
    ceiling = models.PositiveBigIntegerField(null=True, blank=True)
    disk = models.PositiveBigIntegerField()
    cost_month = models.DecimalField(max_digits=10, decimal_places=2, default=0)

    objects = RestrictedQuerySet.as_manager()
    estate = True

    class Meta:
        ordering = ["memory", "vcpus"]

    def __str__(self) -> str:
        return self.name

    @property
    def memory_counted(self) -> int:
        """What a machine of it takes of quotas and of its host."""
        return self.memory if self.ceiling is None else self.ceiling


def _paravirtual_alone() -> list[str]:
    return [Devices.PARAVIRTUAL.value]


def _best_alone() -> list[str]:
    return [Wanted.BEST.value]


class CatalogueItem(models.Model):
    """Something people can ask for. Requests freeze its values: a change here changes none of them.

    Costs are a month's and come on top of the size's own.
    """

    name = models.CharField(max_length=80, unique=True)
    description = models.TextField()
    icon = models.CharField(max_length=40, default="server")
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="items")
    flavours = models.ManyToManyField(Flavour, related_name="items")
    networks = models.ManyToManyField(Network, related_name="items")
    lease_days = models.PositiveSmallIntegerField(default=90, help_text="days, when nothing else is asked")
    longest_lease_days = models.PositiveSmallIntegerField(default=365)
    linked_clone = models.BooleanField(default=True)
    offered = models.BooleanField(default=True)
    cost_month = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    #: For each GiB of disk beyond the size's.
    cost_month_gib = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    #: Bytes a person may choose between; without the most, the disk is the size's.
    disk_least = models.PositiveBigIntegerField(null=True, blank=True)
    disk_most = models.PositiveBigIntegerField(null=True, blank=True)
    device_models = models.JSONField(default=_paravirtual_alone)
    default_devices = models.CharField(
        max_length=16, choices=Devices.choices, default=Devices.PARAVIRTUAL
    )
    accelerators = models.JSONField(default=_best_alone)
    default_accelerator = models.CharField(max_length=8, choices=Wanted.choices, default=Wanted.BEST)
    #: Whom it is offered to: everybody, or the people of `projects`.
    every_project = models.BooleanField(default=True)
    projects = models.ManyToManyField(Project, related_name="items", blank=True)
    position = models.PositiveIntegerField(default=0)

    objects = RestrictedQuerySet.as_manager()
    estate = True
    shared_with = "projects"

    class Meta:
        ordering = ["position", "name"]

    def __str__(self) -> str:
        return self.name


class InstallTemplate(models.Model):
    """What an installer reads in place of a person's answers. Requests freeze it filled in, by value."""

    name = models.CharField(max_length=80, unique=True)
    format = models.CharField(max_length=12, choices=Format.choices)
    text = models.TextField()

    objects = RestrictedQuerySet.as_manager()
    estate = True

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Status(models.TextChoices):
    """Where a machine is in its life; written by services and tasks alone."""

    BUILDING = "building", "Building"
    ACTIVE = "active", "Active"
    BINNED = "binned", "In the bin"


class Observed(models.TextChoices):
    """What the watcher saw last."""

    UNKNOWN = "unknown", "Unknown"
    RUNNING = "running", "Running"
    PAUSED = "paused", "Paused"
    SHUTTING_DOWN = "shutting_down", "Shutting down"
    SHUTOFF = "shutoff", "Off"
    SAVED = "saved", "Suspended to disk"
    CRASHED = "crashed", "Crashed"
    MISSING = "missing", "Missing"


#: Before a lease ends, when pages begin to say so.
LEASE_SOON = timedelta(days=7)


class VirtualMachine(models.Model):
    """A machine on a host, from the final approval until it is deleted for good; memory in bytes."""

    name = models.CharField(max_length=63, unique=True)
    uuid = models.UUIDField(unique=True)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="machines")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="machines")
    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="machines")
    #: The operation that built it holds its reservations.
    built_by = models.OneToOneField(Operation, on_delete=models.PROTECT, related_name="machine")
    #: What of the catalogue it was made from, and the image; a machine that was adopted has neither.
    item_name = models.CharField(max_length=80)
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="machines", null=True)
    #: Somebody made it elsewhere: of what it is on its host, the portal knows what it was told.
    adopted = models.BooleanField(default=False)
    #: The domain's name on the host: people's names may repeat over time, a domain's may not.
    domain_name = models.CharField(max_length=255, blank=True)
    #: What people call it by beside its name, a line each: `name=value` or `name`, sorted.
    labels = models.TextField(blank=True)
    vcpus = models.PositiveSmallIntegerField()
    #: Its ceiling, by which it counts; `balloon` is what of it its guest is left, None for all.
    memory = models.PositiveBigIntegerField()
    balloon = models.PositiveBigIntegerField(null=True)
    login_user = models.CharField(max_length=32)
    #: How it runs: what carries out its instructions (empty where nobody noted it) and what devices it has.
    accelerator = models.CharField(max_length=8, blank=True)
    devices = models.CharField(max_length=16, choices=Devices.choices, default=Devices.PARAVIRTUAL)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.BUILDING)
    lease_until = models.DateTimeField()
    #: Of the present lease: the days before its end that its owner was told of last, and, once its end was
    #: acted upon, when the machine goes into the bin (`vms.leases`).
    lease_warned = models.PositiveSmallIntegerField(null=True)
    lease_bin_at = models.DateTimeField(null=True)
    bin_until = models.DateTimeField(null=True)
    #: In the bin: that its host started it by itself before, and does so again once it is taken out.
    binned_autostart = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    observed_state = models.CharField(max_length=16, choices=Observed.choices, default=Observed.UNKNOWN)
    observed_at = models.DateTimeField(null=True)
    observed_address = models.GenericIPAddressField(null=True, blank=True)

    objects = RestrictedQuerySet.as_manager()
    #: A requester sees what is their own, other roles what is their project's.
    owner_field = "owner"

    class Meta:
        ordering = ["name"]
        indexes = [
            models.Index(fields=["project", "name"]),
            models.Index(fields=["owner", "name"]),
            models.Index(fields=["host", "status"]),
            models.Index(fields=["status", "lease_until"]),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def memory_now(self) -> int:
        """What its guest is left of its memory; what a guest makes of it is `vms.changes.memory`."""
        return self.memory if self.balloon is None else self.balloon

    @property
    def label_list(self) -> list[str]:
        """The labels one by one."""
        return self.labels.splitlines()

    @property
    def lease_ended(self) -> bool:
        """Whether the machine may not run any more; one in the bin is beyond that."""
        return self.status == Status.ACTIVE and self.lease_until <= timezone.now()

    @property
    def lease_ends_soon(self) -> bool:
        """Whether pages should say so."""
        soon = timezone.now() + LEASE_SOON
        return self.status == Status.ACTIVE and not self.lease_ended and self.lease_until <= soon

    @property
    def topic(self) -> str:
        """The topic of live pages that show this machine, and the subject of its operations."""
        return f"vms.machine:{self.pk}"

    @property
    def virtualization(self) -> str:
        """How it runs, in words."""
        return words(self.accelerator, self.devices)


class Definition(models.Model):
    """What a domain of a host is defined as and runs as, as the watcher saw it last; foreign ones too.

    Values as `portal.drivers.inspection` names them. Apart from the machines: lists need nothing of it.
    """

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="definitions")
    uuid = models.UUIDField()
    #: The domain's name; apart, for lists to search and sort by.
    observed_name = models.CharField(max_length=255, blank=True)
    #: Tells the persistent definition from any other.
    observed_digest = models.CharField(max_length=64)
    #: None for a domain that is only while it runs, and what runs for one that is off.
    observed_persistent = models.JSONField(null=True)
    observed_running = models.JSONField(null=True)
    #: How many things in it the portal does not understand, and keeps.
    observed_kept = models.PositiveIntegerField(default=0)
    #: What of that differs from what runs: by element, as it runs and from the next start on.
    observed_unread = models.JSONField(default=dict)
    #: Whether the domain starts with its host.
    observed_autostart = models.BooleanField(default=False)
    observed_at = models.DateTimeField()

    objects = RestrictedQuerySet.as_manager()
    #: A machine's is looked up through the machine; others belong to no project.
    estate = True

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["host", "uuid"], name="one_definition_a_domain"),
        ]

    def __str__(self) -> str:
        return f"{self.host} {self.uuid}"


class Disk(models.Model):
    """A machine's disk: a volume in a host's pool; bytes."""

    machine = models.ForeignKey(VirtualMachine, on_delete=models.CASCADE, related_name="disks")
    pool = models.ForeignKey(PoolAttachment, on_delete=models.PROTECT, related_name="disks")
    volume_name = models.CharField(max_length=127)
    target = models.CharField(max_length=16, default="vda")
    capacity = models.PositiveBigIntegerField()
    #: What its guest tells it by, beside its place: `/dev/disk/by-id/virtio-SERIAL`; empty for none.
    serial = models.CharField(max_length=20, blank=True)
    #: Where its host has it, of a pool that is no folder; empty for a file.
    device = models.CharField(max_length=255, blank=True)
    #: The volume that its machine was told to work with instead, while it is not known whether it does.
    changing_to = models.CharField(max_length=127, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["pool", "volume_name"], name="one_disk_a_volume"),
            models.UniqueConstraint(fields=["machine", "target"], name="one_disk_a_target"),
        ]

    def __str__(self) -> str:
        return f"{self.machine} {self.target}"

    @property
    def path(self) -> str:
        """The disk's file or device on its host. Reads `pool`."""
        return self.device or f"{self.pool.path}/{self.volume_name}"


class Export(models.Model):
    """A machine as a file (OVA) that lies with the portal until `expires_at`; size in bytes.

    It outlives its machine: what is needed of it is written here.
    """

    machine_name = models.CharField(max_length=63)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="exports")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="exports")
    #: The operation that made it is about the machine.
    operation = models.OneToOneField(Operation, on_delete=models.PROTECT, related_name="export")
    #: Of the file, below the folder of exports.
    path = models.CharField(max_length=255)
    size = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    made_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    objects = RestrictedQuerySet.as_manager()
    owner_field = "owner"

    class Meta:
        ordering = ["-made_at"]
        indexes = [models.Index(fields=["expires_at"])]

    def __str__(self) -> str:
        return f"{self.machine_name} of {self.made_at:%Y-%m-%d %H:%M}"


from vms.console.models import ConsoleSession, ConsoleTicket  # noqa: E402, F401 (Django looks here for models)
