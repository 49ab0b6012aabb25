"""Make an image of a machine that is off: its disks copied in full, read, and listed.

Not for: offering it, which the catalogue does, nor for another machine like it (`vms.changes.cloning`).
"""

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.accounts.backends import may
from portal.core.errors import Denied
from portal.drivers.types import CloneMode, VolumeDigest, VolumeInfo, VolumeSpec
from portal.hosts.images import appliances
from portal.hosts.images.values import BEING_MADE
from portal.hosts.models import Image, ImageAttachment, PoolAttachment
from portal.hosts.steps import HostStep, copy_volume
from portal.live.publish import publish
from portal.operations import ledger
from portal.operations.models import Counter, Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from vms import checks, noted, power, profiles
from vms.fitting import MOST_VIRTIO
from vms.models import Disk, VirtualMachine
from vms.settings.model import devices

KIND = "vm.make_template"
LONGEST_TITLE = 100


def _copies(names: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what is copied: the disk that the machine starts from, and the others that were asked for."""
    return [names, *names.get("further", ())]


class CopyDisk(HostStep):
    """Copy each disk in full, so that it needs no other volume."""

    name, title = "disk", "Copy the disks"
    timeout = 300.0

    def do(self, context: StepContext) -> None:
        pool = context.identifiers["pool"]
        for disk in _copies(context.identifiers):
            read, size = disk.get("format", "qcow2"), disk["capacity"]
            volume = VolumeSpec(pool, disk["volume"], size, disk["source"], read, CloneMode.FULL)
            copy_volume(self, context, volume)
            context.check()

    def undo(self, context: StepContext) -> None:
        for disk in _copies(context.identifiers):
            self.call(context, "delete_volume", context.identifiers["pool"], disk["volume"])


class ListImage(HostStep):
    """Read the copies for their checksums, and make the image's row. `settle` lets machines be made of it."""

    name, title = "image", "Compute its checksum and list it"
    timeout = 300.0

    def do(self, context: StepContext) -> None:
        found = []
        for disk in _copies(context.identifiers):
            where = context.identifiers["pool"], disk["volume"]
            told: VolumeDigest = self.call(context, "digest_volume", *where, size=disk["capacity"])
            info: VolumeInfo = self.call(context, "volume_info", *where)
            found.append((told, info))
            context.check()
        with transaction.atomic():
            _list(context, found)

    def undo(self, context: StepContext) -> None:
        with transaction.atomic():
            places = _places(context.identifiers)
            images = list(places.values_list("image", flat=True))
            places.delete()
            Image.objects.filter(pk__in=images, deprecated_reason=BEING_MADE).delete()


def _places(names: Mapping[str, Any]) -> Any:
    """Return where the copy lies, once it is listed."""
    return ImageAttachment.objects.filter(pool=names["place"], path=names["path"])


def _list(context: StepContext, found: Sequence[tuple[VolumeDigest, VolumeInfo]]) -> None:
    """Make the image's rows, hidden by a deprecation. Idempotent. Raises StepFailed for an image twice."""
    names, pinned = context.identifiers, context.spec["pinned"]
    if _places(names).exists():
        return
    (told, info), *others = found
    same = Image.objects.filter(sha256=told.sha256).first()
    if same is not None:
        raise StepFailed("same_image", same.label)
    image = Image.objects.create(
        sha256=told.sha256,
        size=told.length_bytes,
        virtual_size=info.capacity_bytes,
        source="",
        further=[_further(told, info) for told, info in others],
        every_project=False,
        deprecated_at=timezone.now(),
        deprecated_reason=BEING_MADE,
        **pinned["image"],
    )
    image.projects.set([pinned["project"]])
    ImageAttachment.objects.create(image=image, pool_id=names["place"], path=names["path"])


def _further(told: VolumeDigest, info: VolumeInfo) -> dict[str, Any]:
    """Return what an image keeps of a disk after its first one."""
    sizes = {"size": told.length_bytes, "capacity": info.capacity_bytes}
    return {"sha256": told.sha256, **sizes, "source": ""}


def make_template(
    *, actor: Any, machine: VirtualMachine, title: str, description: str = "", whole: bool = True
) -> Operation:
    """Begin to make an image of the disks of `machine`, which is off, for the people of its project.

    Not `whole`, it is of the disk alone that the machine starts from. While it lasts, the copies take room in
    the pool of that disk. Raises Denied, with the field, for who is no operator there, and for what cannot be
    copied now.
    """
    title, description = title.strip(), description.strip()
    if reason := right_lacks(actor, machine):
        raise Denied(reason)
    if not title or len(title) > LONGEST_TITLE or checks.unreadable(title):
        most = {"most": LONGEST_TITLE}
        raise Denied(_("A title has 1 to %(most)d letters that can be shown.") % most, field="title")
    with transaction.atomic():
        current = power.usable(actor, machine, "template")
        disk = boot_disk(current)
        if disk is None or disk.device:
            raise Denied(_("The machine starts from no file in a pool, and nothing else is copied."))
        further = further_disks(current) if whole else []
        if reason := _why_not_copied(further):
            raise Denied(reason, field="whole")
        spec = RequestSpec(kind=KIND, sizes={}, pinned=_pinned(current, title, description))
        begun = begin_operation(
            actor=actor,
            project=current.project,
            spec=spec,
            subject=current.topic,
            title=f"Make a template of {current.name}",
            identifiers=_identifiers(current, disk, further),
            lane=current.host.scope,
        )
        taken = sum(one.capacity for one in (disk, *further))
        ledger.hold(begun, {(disk.pool.pool.scope, Counter.Resource.DISK.value): taken})
        return begun


def right_lacks(actor: Any, machine: VirtualMachine) -> str:
    """Return why `actor` may make no template of `machine`, '' when they may."""
    if may(actor, "operate", machine.project):
        return ""
    return _("Only an operator or an admin of its project may make a template of a machine.")


def boot_disk(machine: VirtualMachine) -> Disk | None:
    """Return the disk that a template is made of, the one that the machine starts from; None without any.

    By what was seen of its definition last; before that, the first one by name.
    """
    disks = machine.disks.select_related("pool__pool").order_by("target")
    own = {disk.target: disk for disk in disks}
    seen = noted.of(machine)
    defined = (seen.observed_persistent if seen else None) or {}
    # Those without a rank come last, and among them the first of the definition.
    ranked = sorted(devices(defined, "disks"), key=lambda disk: disk.get("boot_order") or math.inf)
    targets = [(disk.get("target") or {}).get("dev", "") for disk in ranked]
    return next((own[target] for target in [*targets, *own] if target in own), None)


def further_disks(machine: VirtualMachine) -> list[Disk]:
    """Return the disks of a machine after the one that it starts from, in the order of its definition."""
    first, disks = boot_disk(machine), machine.disks.select_related("pool__pool").order_by("target")
    own = {disk.target: disk for disk in disks if first is None or disk.pk != first.pk}
    seen = [(one.get("target") or {}).get("dev", "") for one in devices(_defined(machine), "disks")]
    return [own[target] for target in dict.fromkeys([*seen, *own]) if target in own]


def _why_not_copied(further: Sequence[Disk]) -> str:
    """Return why not all of a machine's further disks can be copied, '' when they can."""
    if len(further) >= MOST_VIRTIO:
        return _("It has more disks than a new machine can have; copy the one alone that it starts from.")
    if found := next((disk for disk in further if disk.device), None):
        words = _(
            "Its disk %(target)s is a device of its host, and only files are copied; copy the disk alone "
            "that it starts from."
        )
        return words % {"target": found.target}
    return ""


def _pinned(machine: VirtualMachine, title: str, description: str) -> dict[str, Any]:
    """Freeze what the image will be said to be: what the machine's own image is, where it has one."""
    made_from, name = machine.image, _image_name(machine)
    return {
        "machine": str(machine.uuid),
        "name": machine.name,
        "project": machine.project_id,
        "image": {
            "kind": Image.Kind.DISK.value,
            "name": name,
            "title": title,
            "description": description,
            "version": _free_version(name),
            "login_user": machine.login_user,
            "min_memory": made_from.min_memory if made_from else machine.memory,
            "cloud_init": made_from.cloud_init if made_from else False,
            "architecture": made_from.architecture if made_from else "x86_64",
            "device_models": made_from.device_models if made_from else [machine.devices],
            "os": made_from.os if made_from else "",
            **_board(machine),
            "told": _told(machine),
        },
    }


def _image_name(machine: VirtualMachine) -> str:
    """Return what all templates of a machine are called, and no other image: so they are versions of one."""
    return f"{slugify(machine.name)[:31].strip('-_') or 'template'}-{machine.uuid.hex[:8]}"


def _free_version(name: str) -> str:
    """Return today's date, with a number from the second image of that name on."""
    today = f"{timezone.now():%Y-%m-%d}"
    taken = set(Image.objects.filter(name=name).values_list("version", flat=True))
    numbered = (f"{today}.{number}" for number in range(2, len(taken) + 3))
    return next(version for version in (today, *numbered) if version not in taken)


def _board(machine: VirtualMachine) -> dict[str, bool]:
    """Return what started what is on its disk, by what the watcher saw of the machine last."""
    if defined := _defined(machine):
        return profiles.board_of(defined)
    image = machine.image
    return {name: bool(image and getattr(image, name)) for name in ("uefi", "secure_boot", "tpm")}


def _defined(machine: VirtualMachine) -> dict[str, Any]:
    seen = noted.of(machine)
    return (seen.observed_persistent if seen else None) or {}


def _told(machine: VirtualMachine) -> dict[str, Any]:
    """Return what the machine is, as an image keeps it of an appliance's; of texts what is safe to show."""
    defined, disk = _defined(machine), boot_disk(machine)
    targets = [one.get("target") or {} for one in devices(defined, "disks")]
    target = next((one for one in targets if disk and one.get("dev") == disk.target), {})
    cards = devices(defined, "interfaces")
    return {
        "machine": True,
        "name": machine.name,
        "vcpus": machine.vcpus,
        "memory": machine.memory_now,
        **_board(machine),
        "bus": appliances.shown(target.get("bus", "")),
        "card": appliances.shown(next((card.get("model", "") for card in cards), "")),
        "cards": len(cards),
        "chipset": appliances.shown((defined.get("os") or {}).get("machine", "")),
        "os": machine.image.os if machine.image else "",
        "system": "",
        "networks": [],
        "blank": 0,
    }


def _identifiers(machine: VirtualMachine, disk: Disk, further: Sequence[Disk]) -> dict[str, Any]:
    place: PoolAttachment = disk.pool
    volume = f"gatehouse-{slugify(machine.name)[:64] or 'template'}-{uuid.uuid4().hex[:12]}.qcow2"
    seen = noted.of(machine)
    # By their names `Image.further_names` finds them beside the first.
    others = [
        {
            "source": one.path,
            "format": noted.format_of(seen, one.target),
            "capacity": one.capacity,
            "volume": f"{volume.removesuffix('.qcow2')}-disk{number}.qcow2",
        }
        for number, one in enumerate(further, 2)
    ]
    return {
        "further": others,
        "host": machine.host_id,
        "uuid": str(machine.uuid),
        "place": place.pk,
        "pool": place.pool.name,
        "source": disk.path,
        "format": noted.format_of(seen, disk.target),
        "capacity": disk.capacity,
        "volume": volume,
        "path": f"{place.path}/{volume}",
    }


def settle(operation: Operation, state: State) -> None:
    """Let machines be made from the image, now that it is whole; its room counts as what is there."""
    ledger.give_back(operation)
    if state == State.SUCCEEDED:
        made = Image.objects.filter(attachments__in=_places(operation.identifiers))
        made.filter(deprecated_reason=BEING_MADE).update(deprecated_at=None, deprecated_reason="")
    publish(operation.subject)


def page_of_image(operation: Operation) -> str:
    """Return the address of the image that `operation` made, '' for whom that page is not."""
    place = _places(operation.identifiers).first()
    if place is None or not may(operation.requester, "administer", None):
        return ""
    return reverse("vms:image", args=[place.image_id])


TEMPLATE = Kind(
    KIND,
    "Make a template",
    (CopyDisk(), ListImage()),
    settle=settle,
    cancellable=True,
    slow=True,
    announce=gettext_lazy("The template of %(name)s is made."),
    page=page_of_image,
)
