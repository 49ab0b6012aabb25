"""Give a machine a volume that lies in a pool already, and take a disk from it whose volume stays.

For those who look after the whole estate: volumes belong to no project. Not for: new disks (`disks`).
"""

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction
from django.urls import reverse as url
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.accounts.backends import may
from portal.core.errors import Denied
from portal.core.stale import Snapshot
from portal.drivers.qcow2 import SECTOR, has_external_data
from portal.drivers.types import DomainInfo, VolumeInfo, is_device
from portal.hosts import sharing
from portal.hosts.limits import count_present
from portal.hosts.models import Image, Volume
from portal.hosts.services import check_estate
from portal.hosts.steps import HostStep
from portal.hosts.storage.further import lies_under
from portal.hosts.storage.services import (
    has_plain_name,
    why_without_base,
    why_worked_on,
    works_on,
)
from portal.hosts.storage.using import uses_of
from portal.live.publish import publish
from portal.operations import ledger, revisions
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from vms import power
from vms.building import page_of_machine
from vms.changes import asking, disk_steps, disks
from vms.models import Disk, VirtualMachine

ATTACH, DETACH = "vm.attach_volume", "vm.detach_disk"
#: What a guest can have for a disk as it lies there.
_FORMATS = ("qcow2", "raw")
#: What a volume holds that nobody writes to, by the end of its name.
_NO_DISKS = (".iso", ".kernel", ".initrd")


class Unused(HostStep):
    """The host itself says that the volume is as it was seen, and that nobody has it."""

    name, title = "unused", "Ask the host who uses the volume"

    def do(self, context: StepContext) -> None:
        _check_as_seen(self, context)
        _check_unused(self, context)


class AttachUnused(disk_steps.Attach):
    """Ask again, in the very step: a worker may have died since the answer."""

    def do(self, context: StepContext) -> str | None:
        info: DomainInfo = self.call(context, "domain_info", context.identifiers["uuid"])
        _check_unused(self, context, but=info.name)
        return super().do(context)


def _check_as_seen(step: HostStep, context: StepContext) -> None:
    """Raise StepFailed unless the volume is what was asked for, and names no file beside what was seen.

    Whoever had it as a raw disk could write there what reads as a qcow2. As raw it harms nobody.
    """
    names = context.identifiers
    try:
        info: VolumeInfo = step.call(context, "volume_info", names["pool"], names["volume"])
        head = b""
        if names["format"] == "qcow2":
            head = step.call(context, "read_volume", names["pool"], names["volume"], 0, SECTOR)
    except StepFailed as failure:
        if failure.code == "volume_not_found":
            raise StepFailed("volume_gone", failure.raw) from failure
        raise
    seen = (info.path, info.capacity_bytes, info.format, info.backing_path or "")
    if seen != (names["volume_path"], context.spec["sizes"]["disk"], names["format"], names["backing"]):
        raise StepFailed("volume_other")
    if has_external_data(head):
        raise StepFailed("image_external")


def _check_unused(step: HostStep, context: StepContext, but: str = "") -> None:
    """Raise StepFailed when anybody has the volume, or works on it, `but` the domain of that name."""
    names = context.identifiers
    pool = Disk.objects.select_related("pool").get(pk=names["disk"]).pool
    if work := works_on(pool, names["volume"]).first():
        raise StepFailed("volume_in_use", str(work))
    users = sharing.users_of(partial(step.call, context), names["pool"], names["volume"])
    if others := ", ".join(user for user in users if user != but):
        raise StepFailed("volume_in_use", others)


# Attaching


def right_lacks(actor: Any) -> str:
    """Return why `actor` attaches no volume and keeps none, '' when they may. Asks the database."""
    return "" if may(actor, "operate", None) else _("Only those who operate the whole estate may do this.")


def volumes_for(machine: VirtualMachine) -> list[Volume]:
    """Return the volumes that a machine could be given as a disk now, as far as the portal knows."""
    found = Volume.objects.filter(pool__host=machine.host_id, pool__observed_active=True)
    found = found.filter(observed_format__in=_FORMATS).select_related("pool__pool", "pool__host")
    named = [one for one in found.order_by("pool__pool__name", "name") if _is_disk(one)]
    uses = uses_of(named)
    free = [one for one in named if _lies_there(one) and not uses[one.pk]]
    return [one for one in free if not _why_strange(one)]


def _lies_there(volume: Volume) -> bool:
    return volume.pool.has_folder or is_device(volume.observed_path)


def _is_disk(volume: Volume) -> bool:
    return has_plain_name(volume.name) and not volume.name.endswith(_NO_DISKS)


def why_not(machine: VirtualMachine, volume: Volume) -> str:
    """Return why a machine cannot be given a volume as a disk now, '' when it can. Asks the database."""
    if volume.pool.host_id != machine.host_id:
        return _("The volume lies on another host than the machine.")
    if not _is_disk(volume) or volume.observed_format not in _FORMATS or not volume.observed_capacity:
        return _("Only volumes in the formats qcow2 and raw, with plain names, become disks.")
    if not volume.pool.observed_active:
        return _("The volume's pool does not run.")
    if not _lies_there(volume):
        return _("The volume is no file and no device of the host, and others are not attached.")
    if users := ", ".join(use.words for use in uses_of([volume])[volume.pk]):
        return _("It is in use: %(users)s.") % {"users": users}
    if reason := why_worked_on(volume.pool, volume.name):
        return reason
    return _why_strange(volume)


def _why_strange(volume: Volume) -> str:
    """Return why a volume that nobody has should be nobody's disk; '' for nothing. Asks the database."""
    if volume.name in {image.volume_name for image in Image.objects.all()}:
        return _("It is the copy of an image, or what is left of one.")
    if not volume.pool.has_folder and lies_under(volume):
        return _("Another pool of the host lies on it.")
    return why_without_base(volume)


def attach_spec(machine: VirtualMachine, volume: Volume, why: str) -> RequestSpec:
    """Freeze that a machine gets a volume as a disk. Raises Denied."""
    disks.free_target(machine)
    if reason := why_not(machine, volume):
        raise Denied(reason, field="volume")
    sizes = {"disk": volume.observed_capacity}
    pool = volume.pool.pool
    named = {"pool": str(pool.uuid), "volume": volume.name, "format": volume.observed_format}
    told = {"settings": [["Volume", "", f"{pool.name}/{volume.name}"]]}
    frozen = {**asking.pinned(machine, {}, sizes), **named, **told, "why": disks.reason(why)}
    return RequestSpec(kind=ATTACH, sizes=sizes, pinned=frozen)


def request_attachment(
    *, actor: Any, machine: VirtualMachine, volume: Volume, why: str, token: uuid.UUID
) -> Operation:
    """Ask for a volume of a pool as a machine's disk; it counts as any disk does. Idempotent by `token`.

    Raises Denied.
    """
    check_estate(actor, "operate", _("attach volumes"))
    with transaction.atomic():
        current = power.usable(actor, machine, "edit")
        spec = attach_spec(current, volume, why)
        title = f"Attach {volume.name} to {current.name}"
        return asking.ask(actor=actor, machine=current, spec=spec, title=title, token=token)


def edit_request(*, actor: Any, operation: Operation, volume: Volume, why: str, spec_hash: str) -> Operation:
    """Ask for another volume in place of one's own request that waits, as it was seen. Raises Denied."""
    check_estate(actor, "operate", _("attach volumes"))
    machine = asking.machine_of(operation.frozen)
    if machine is None:
        raise Denied(_("The machine is gone."))
    spec = attach_spec(machine, volume, why)
    title = f"Attach {volume.name} to {machine.name}"
    return revisions.edit(actor=actor, operation=operation, spec=spec, spec_hash=spec_hash, title=title)


def place(operation: Operation) -> None:
    """Hold what the disk takes, make it the machine's and fix its names. Raises Denied."""
    named = operation.frozen["pinned"]
    machine = asking.claim(operation)
    target = disks.free_target(machine)
    volume = _still_free(machine, named, operation.frozen["sizes"]["disk"])
    room = asking.capacity(machine, operation.frozen["sizes"], volume.pool.pool.scope)
    ledger.lock_ahead(operation, room)
    # What it fills of its pool does not have to be free.
    count_present(volume.pool.pool, min(volume.observed_allocation, volume.observed_capacity))
    ledger.hold(operation, room)
    try:
        with transaction.atomic():
            disk = Disk.objects.create(
                machine=machine,
                pool=volume.pool,
                target=target,
                volume_name=volume.name,
                capacity=volume.observed_capacity,
                serial=f"gatehouse-{operation.pk}"[:20],
                device="" if volume.pool.has_folder else volume.observed_path,
            )
    except IntegrityError as error:
        raise Denied(_("Somebody gave this volume to a machine at this moment.")) from error
    told = {"format": named["format"], "backing": volume.observed_backing}
    operation.identifiers = {**disks.names(machine, disk), **told}


def _still_free(machine: VirtualMachine, named: Mapping[str, Any], capacity: int) -> Volume:
    """Return the volume that was asked for. Raises Denied when it cannot become a disk any more."""
    there = Volume.objects.filter(pool__host=machine.host_id, pool__pool__uuid=named["pool"])
    volume = there.filter(name=named["volume"]).select_related("pool__pool", "pool__host").first()
    if volume is None:
        raise Denied(_("The volume is gone from its pool."))
    if (volume.observed_capacity, volume.observed_format) != (capacity, named["format"]):
        raise Denied(_("The volume has another size or format by now; it must be asked for anew."))
    if reason := why_not(machine, volume):
        raise Denied(reason)
    return volume


class _Asking(asking.AskingToChange):
    def check_lowered(self, spec: Mapping[str, Any]) -> None:
        raise Denied(_("A volume is attached as large as it is; reject the request instead."), field="disk")

    def room(
        self, machine: VirtualMachine, frozen: Mapping[str, Any], pool: str
    ) -> dict[tuple[str, str], int]:
        # It lies in a pool of its own, and fills there what it fills already.
        return {}


# Detaching


def detach(*, actor: Any, disk: Disk, seen: Snapshot | None = None) -> Operation:
    """Take a disk from its machine; its volume stays in the pool, where operators find it.

    `seen` is what a page showed (`disks.shown`). Raises Changed when it is another by now, and Denied.
    """
    check_estate(actor, "operate", _("detach disks and keep them"))
    return disks.begin_taking(actor, disk, DETACH, "Detach", seen)


def settle_detached(operation: Operation, state: State) -> None:
    """Forget the disk, give back what it took, and know its volume as one that people keep."""
    disk = Disk.objects.filter(pk=operation.identifiers.get("disk")).select_related("pool").first()
    if disk is not None and state == State.SUCCEEDED:
        told = {"observed_path": disk.path, "observed_capacity": disk.capacity}
        kept, _made = Volume.objects.get_or_create(pool=disk.pool, name=disk.volume_name, defaults=told)
        Volume.objects.filter(pk=kept.pk).update(made=True)
        publish(disk.pool.topic)
    disks.settle_removal(operation, state)


def _page(machine: VirtualMachine, frozen: Mapping[str, Any]) -> str:
    return url("vms:disk_attach", args=[machine.pk])


KINDS = (
    Kind(
        ATTACH,
        "Attach a volume",
        (Unused(), AttachUnused()),
        place=place,
        settle=disks.settle_new,
        asking=_Asking(_page),
        announce=gettext_lazy("%(name)s has its new disk."),
        page=page_of_machine,
    ),
    Kind(
        DETACH,
        "Detach a disk",
        (disk_steps.Detach(),),
        settle=settle_detached,
        page=page_of_machine,
        waits_for_host=False,
    ),
)
