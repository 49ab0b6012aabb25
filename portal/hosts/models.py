"""Hosts, storage pools and images: what a machine can be built on. Not for: networks or machines.

A pool or an image has one identity and one attachment per host that offers it. `observed_*` fields are
written by the watcher alone, everything else by services. Those of pools and volumes stand in
`storage.models`; Django, and everybody else, looks here for all of them.
"""

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone

from portal.accounts.models import Project
from portal.core.encryption import SealedField
from portal.core.querysets import RestrictedQuerySet
from portal.drivers import ssh
from portal.drivers.types import XEN, Accelerator, DeviceModel
from portal.hosts.images.fetching import without_query
from portal.hosts.images.models import ImportNetwork as ImportNetwork
from portal.hosts.storage.models import BegunVolume as BegunVolume
from portal.hosts.storage.models import FoundPool as FoundPool
from portal.hosts.storage.models import MadeBefore as MadeBefore
from portal.hosts.storage.models import PoolAttachment as PoolAttachment
from portal.hosts.storage.models import StoragePool as StoragePool
from portal.hosts.storage.models import Volume as Volume

#: Wanted accelerator -> what a host that gives it was proven by: whoever runs KVM can emulate as well.
#: For what is not named here nothing is built.
GIVEN_BY = {
    Accelerator.KVM: (Accelerator.KVM,),
    Accelerator.EMULATION: (Accelerator.EMULATION, Accelerator.KVM),
}


def _paravirtual_alone() -> list[str]:
    return [DeviceModel.PARAVIRTUAL.value]


class Health(models.TextChoices):
    """Whether a host answers its watcher."""

    NEW = "new", "Not seen yet"
    UP = "up", "Up"
    STALE = "stale", "Stale"


class Host(models.Model):
    """A hypervisor that the portal builds machines on."""

    name = models.CharField(max_length=64, unique=True)
    uri = models.CharField(max_length=255, unique=True)
    maintenance = models.BooleanField(default=False)
    maintenance_reason = models.CharField(max_length=200, blank=True)
    #: What a booted guest proved, not what the host claims; empty until the probe ran. XEN needs no proof.
    accelerator = models.CharField(
        max_length=8, choices=[(item.value, item.name) for item in Accelerator], blank=True
    )
    proof = models.TextField(blank=True)
    proven_at = models.DateTimeField(null=True)
    #: Whether it was seen to make a bridge; without, machines get networks of their own (user mode).
    bridges = models.BooleanField(default=True)
    bridge_proof = models.TextField(blank=True)
    #: Where people come to by ssh before they jump to a machine: [user@]name[:port], or empty.
    jump = models.CharField(max_length=255, blank=True)
    readiness = models.JSONField(default=dict)
    #: libvirt's host UUID as the last enrolment was told it: a machine is one host, by whatever address.
    host_uuid = models.UUIDField(null=True, unique=True)
    cpu_overcommit = models.PositiveSmallIntegerField(default=4)
    memory_reserve = models.PositiveBigIntegerField(default=1 << 30, help_text="bytes kept for the host")
    enrolled_at = models.DateTimeField(auto_now_add=True)
    #: The SSH host key that an admin confirmed, as `kind base64`; nothing connects before.
    host_key = models.TextField(blank=True)
    #: What the host showed when it was last asked, and when; it becomes `host_key` only by a confirmation.
    offered_host_key = models.TextField(blank=True)
    offered_at = models.DateTimeField(null=True)

    observed_health = models.CharField(max_length=8, choices=Health.choices, default=Health.NEW)
    observed_at = models.DateTimeField(null=True)
    observed_reason = models.CharField(max_length=200, blank=True)
    #: The driver's word for why it is stale; it selects the sentence for people.
    observed_code = models.CharField(max_length=32, blank=True)
    observed_cpus = models.PositiveIntegerField(default=0)
    observed_memory = models.PositiveBigIntegerField(default=0)
    #: What running domains that nobody manages take; it counts against what the host can give.
    observed_foreign_vcpus = models.PositiveIntegerField(default=0)
    observed_foreign_memory = models.PositiveBigIntegerField(default=0)

    objects = RestrictedQuerySet.as_manager()
    #: Belongs to no project: roles held in every project decide.
    estate = True

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def gives(self) -> list[Accelerator]:
        """The accelerators that a machine may have here, the best first; none before a proof."""
        return [wanted for wanted, proofs in GIVEN_BY.items() if self.accelerator in proofs]

    @property
    def is_xen(self) -> bool:
        """Tell whether it is one of Xen, as it said: the portal runs machines there, and builds none."""
        return self.readiness.get("host", {}).get("hypervisor") == XEN

    @property
    def is_local(self) -> bool:
        """Tell whether it is the machine that the portal runs on."""
        return "+" not in self.uri.partition(":")[0]

    @property
    def topic(self) -> str:
        """The topic of live pages that show this host, and the subject of its operations."""
        return f"hosts.host:{self.pk}"

    @property
    def scope(self) -> str:
        """The name of this host's counters in the ledger."""
        return f"host:{self.pk}"

    @property
    def by_ssh(self) -> bool:
        """Tell whether the portal reaches it by SSH."""
        return ssh.SshAddress.of(self.uri) is not None

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the confirmed host key, '' before there is one."""
        return ssh.fingerprint(self.host_key) if self.host_key else ""

    @property
    def offered_fingerprint(self) -> str:
        """The fingerprint of a host key that waits for a confirmation, '' when none does."""
        waiting = self.offered_host_key and self.offered_host_key != self.host_key
        return ssh.fingerprint(self.offered_host_key) if waiting else ""


class SshKey(models.Model):
    """The portal's own SSH key, one row."""

    ONLY = 1

    private = SealedField()
    #: `ssh-ed25519 base64`
    public = models.TextField()
    made_at = models.DateTimeField(auto_now_add=True)

    objects = RestrictedQuerySet.as_manager()
    estate = True

    def __str__(self) -> str:
        return "the portal's SSH key"

    @property
    def fingerprint(self) -> str:
        """The public half's fingerprint."""
        return ssh.fingerprint(self.public)


class Image(models.Model):
    """A guest image by identity, as the image builder or an upload described it; sizes in bytes."""

    class Kind(models.TextChoices):
        """What a machine does with it."""

        DISK = "disk", "Disk"
        ISO = "iso", "CD"
        #: A kernel with its initrd, in the folder `source`; the volume on hosts is the kernel.
        NETBOOT = "boot", "Network installer"

    kind = models.CharField(max_length=4, choices=Kind.choices, default=Kind.DISK)
    name = models.SlugField(max_length=64)
    title = models.CharField(max_length=100)
    version = models.CharField(max_length=64)
    sha256 = models.CharField(max_length=64, unique=True)
    architecture = models.CharField(max_length=16, default="x86_64")
    format = models.CharField(max_length=8, default="qcow2")
    size = models.PositiveBigIntegerField()
    virtual_size = models.PositiveBigIntegerField()
    login_user = models.CharField(max_length=32)
    min_memory = models.PositiveBigIntegerField()
    #: What a disk made from it has at least where that is more than the image itself; 0 for that alone.
    min_disk = models.PositiveBigIntegerField(default=0)
    cloud_init = models.BooleanField(default=True)
    description = models.TextField(blank=True)
    #: The device models that its kernel has drivers for.
    device_models = models.JSONField(default=_paravirtual_alone)
    #: Where the portal keeps the file that it uploads to hosts; empty once a newer build replaced it.
    source = models.CharField(max_length=255)
    #: What osinfo-db calls the system in it (`debian12`), '' where nobody said.
    os = models.CharField(max_length=64, blank=True)
    #: Of a CD: kernel and initrd, by name, of each pair that osinfo-db tells of and that is on it.
    boot_files = models.JSONField(default=list, blank=True)
    #: What is known of the machine that it comes from: what its appliance (OVA) said (`images.appliances
    #: .said_by`), or how the machine was defined that it is a template of (then with `machine`).
    told = models.JSONField(default=dict, blank=True)
    #: The disks that machines get after the one that they start from, in order: `sha256`, `size` and
    #: `capacity` in bytes, and `source`, where the portal keeps the file, '' for none.
    further = models.JSONField(default=list, blank=True)
    #: Its system starts by UEFI, not by a BIOS.
    uefi = models.BooleanField(default=False)
    #: That UEFI starts only what is signed; and the machine has a TPM 2.0.
    secure_boot = models.BooleanField(default=False)
    tpm = models.BooleanField(default=False)
    #: Who may use it: everybody, or the people of `projects`.
    every_project = models.BooleanField(default=True)
    projects = models.ManyToManyField(Project, related_name="images", blank=True)
    #: What people said here of it (`images.values.FIELDS`): no builder's list overrules that.
    edited = models.JSONField(default=list, blank=True)
    #: What a builder's list said of these last, by name, whether it counts or people said otherwise.
    listed = models.JSONField(default=dict, blank=True)
    imported_at = models.DateTimeField(auto_now_add=True, null=True)
    #: Since when nothing new is made from it, and why.
    deprecated_at = models.DateTimeField(null=True, blank=True)
    deprecated_reason = models.CharField(max_length=200, blank=True)

    objects = RestrictedQuerySet.as_manager()
    estate = True
    shared_with = "projects"

    class Meta:
        ordering = ["title"]

    def __str__(self) -> str:
        return self.title

    @property
    def topic(self) -> str:
        """The subject of the operation that deletes it."""
        return f"hosts.image:{self.pk}"

    @property
    def label(self) -> str:
        """Its title with its version, unless the title says that."""
        return self.title if self.version in self.title.split() else f"{self.title} {self.version}"

    @property
    def least_disk(self) -> int:
        """The bytes that a disk of a machine made from it has at least."""
        # An installer writes onto a disk of its own: what is said of that, is so.
        if self.needs_installer and self.min_disk:
            return self.min_disk
        return max(self.virtual_size, self.min_disk)

    @property
    def further_size(self) -> int:
        """The bytes that the further disks of a machine made from it have together."""
        return sum(disk["capacity"] for disk in self.further)

    def further_names(self, first: str) -> list[str]:
        """Return what its further disks are called, or where they lie, beside its volume `first`."""
        stem, dot, suffix = first.rpartition(".")
        return [f"{stem}-disk{number}{dot}{suffix}" for number, _disk in enumerate(self.further, 2)]

    @property
    def volume_names(self) -> list[str]:
        """The names of all its volumes in a pool that it was copied to, the first disk's first."""
        return [self.volume_name, *self.further_names(self.volume_name)]

    @property
    def sources(self) -> list[str]:
        """Where the portal keeps the files of `volume_names`."""
        return [self.source, *(disk["source"] for disk in self.further)]

    @property
    def needs_installer(self) -> bool:
        """Whether a machine made from it begins empty, with this as its installer."""
        return self.kind != self.Kind.DISK

    @property
    def volume_name(self) -> str:
        """The image's name as a volume, by content: a new build never overwrites one that clones need."""
        suffixes = {self.Kind.ISO.value: "iso", self.Kind.NETBOOT.value: "kernel"}
        suffix = suffixes.get(self.kind, self.format)
        return f"gatehouse-{self.name}-{self.sha256[:12]}.{suffix}"


class Upload(models.Model):
    """A file that a person hands in to become an image, or a volume of a pool.

    It is sent by their browser; an image's may be fetched from an address.
    """

    class State(models.TextChoices):
        """Where it is on its way. What the operation is at, its own row says."""

        OPEN = "open", "Being sent"
        HANDED = "handed", "Being imported"
        FAILED = "failed", "Not imported"
        DONE = "done", "Imported"

    token = models.UUIDField(unique=True, default=uuid.uuid4)
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="uploads")
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    #: What the image will be: the values of `portal.hosts.images.values.Wanted`. Of a volume its name, and
    #: whether it is `raw`.
    wanted = models.JSONField()
    #: Where it is fetched from, whole until that is done; '' for what a browser sends.
    address = models.CharField(max_length=2000, blank=True)
    #: Of the file: what tells it from others, so that another one does not go on in its place.
    file_name = models.CharField(max_length=255, blank=True)
    file_size = models.PositiveBigIntegerField(default=0)
    file_head = models.CharField(max_length=64, blank=True)
    expected_sha256 = models.CharField(max_length=64, blank=True)
    #: What the worker found it to be.
    sha256 = models.CharField(max_length=64, blank=True)
    format = models.CharField(max_length=8, blank=True)
    capacity = models.PositiveBigIntegerField(default=0)
    #: What an appliance says of its machine (`images.appliances.said_by`).
    told = models.JSONField(default=dict, blank=True)
    #: Which disk of an appliance is taken, from 1; None where nobody chose.
    disk = models.PositiveSmallIntegerField(null=True)
    #: What there is to choose from (`images.appliances.NoDisk`); none for no appliance, None before a look.
    disks = models.JSONField(null=True)
    image = models.ForeignKey(Image, on_delete=models.SET_NULL, null=True, related_name="uploads")
    #: The pool that it becomes a volume of; None for what becomes an image.
    pool = models.ForeignKey(PoolAttachment, on_delete=models.PROTECT, null=True, related_name="uploads")
    begun_at = models.DateTimeField(auto_now_add=True)
    #: When a part of it came last, or its import failed.
    touched_at = models.DateTimeField(default=timezone.now)

    objects = RestrictedQuerySet.as_manager()
    estate = True

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return str(self.wanted.get("title", ""))

    @property
    def topic(self) -> str:
        """The subject of the operation that imports it."""
        return f"hosts.upload:{self.pk}"

    @property
    def is_raw(self) -> bool:
        """Whether somebody said that it is a raw disk, taken byte for byte; only volumes can be."""
        return bool(self.wanted.get("raw"))

    @property
    def shown_address(self) -> str:
        """Its address for people and for what is kept: without the query, which may be a key to the file."""
        return without_query(self.address)


class ImageAttachment(models.Model):
    """An image as a volume in one host's pool, its further disks beside it. Is there when all of them are."""

    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="attachments")
    pool = models.ForeignKey(PoolAttachment, on_delete=models.PROTECT, related_name="images")
    path = models.CharField(max_length=255)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["image", "pool"], name="one_volume_an_image_and_pool"),
        ]

    def __str__(self) -> str:
        return f"{self.image} in {self.pool}"

    @property
    def paths(self) -> list[str]:
        """Where all its disks lie, the first one first. Reads `image`."""
        return [self.path, *self.image.further_names(self.path)]
