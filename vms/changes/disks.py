"""Give a machine another disk, a larger one, or one less. Not for: what lies on them."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.urls import reverse as url
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.core.errors import Denied
from portal.core.stale import Snapshot
from portal.core.templatetags.gatehouse import gib
from portal.drivers.types import FOLDER_KINDS, DomainFeature, VolumeVerb, can
from portal.hosts.models import PoolAttachment
from portal.live.publish import publish
from portal.operations import ledger, revisions
from portal.operations.models import Operation
from portal.operations.registry import Kind
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from vms import checks, hypervisors, noted, placement, power, power_steps
from vms.building import page_of_machine
from vms.changes import asking
from vms.changes.devices import places, showing
from vms.changes.disk_steps import Attach, Detach, Grow, MakeVolume
from vms.editing import Clash
from vms.models import Definition, Disk, VirtualMachine
from vms.virtualization import Devices

ADD, GROW, REMOVE = "vm.add_disk", "vm.grow_disk", "vm.remove_disk"
MIB, GIB = 1 << 20, 1 << 30
#: A boot order behind every other (libvirt counts from 1).
NOT_FIRST = 1 << 30
#: Bytes; what is larger is a slip of the keyboard.
LARGEST = 64 << 40
#: The letters after `vd` and `sd`; a SATA controller has six ports, and the last is the seed's.
_LETTERS = {Devices.PARAVIRTUAL: "abcdefghijklmnopqrstuvwxyz", Devices.EMULATED: "abcde"}
_PREFIX = {Devices.PARAVIRTUAL: "vd", Devices.EMULATED: "sd"}


# Asking


def _size(capacity: int, *, least: int = 1) -> dict[str, int]:
    """Return a disk's size as a request's. Raises Denied."""
    if not least <= capacity <= LARGEST:
        words = _("A disk has %(least)s to %(most)s.")
        raise Denied(words % {"least": gib(max(least, MIB), 3), "most": gib(LARGEST)}, field="disk")
    if capacity % MIB:
        raise Denied(_("A disk is whole MiB."), field="disk")
    return {"disk": capacity}


def reason(why: str) -> str:
    """Return what a change is needed for. Raises Denied for no words, and for what nobody could read."""
    if not why.strip():
        raise Denied(_("Say in a few words what it is needed for."), field="why")
    if refusal := checks.unreadable(why.strip()):
        raise Denied(refusal, field="why")
    return why.strip()


def add_spec(machine: VirtualMachine, capacity: int, why: str) -> RequestSpec:
    """Freeze another disk of `capacity` bytes. Raises Denied."""
    free_target(machine)
    sizes = _size(capacity)
    frozen = {**asking.pinned(machine, {}, sizes), "why": reason(why)}
    return RequestSpec(kind=ADD, sizes=sizes, pinned=frozen)


def why_not_grown(found: Definition | None) -> str:
    """Return why a machine's disks do not grow now, '' when they can; `found` is what `noted.of` returns."""
    return hypervisors.why_not_seen(found, DomainFeature.GROW_DISK_HOT)


def grow_spec(machine: VirtualMachine, disk: Disk, capacity: int, why: str) -> RequestSpec:
    """Freeze the growth of a disk to `capacity` bytes. Raises Denied."""
    if why_not_now := why_not_grown(noted.of(machine)):
        raise Denied(why_not_now)
    if not can(disk.pool.observed_kind, VolumeVerb.GROW):
        raise Denied(_("libvirt makes no volumes of the disk's pool larger."), field="disk")
    if capacity <= disk.capacity:
        words = _("A disk can only grow, and this one has %(now)s: what is on it would be cut off.")
        raise Denied(words % {"now": gib(disk.capacity, 3)}, field="disk")
    sizes = _size(capacity)
    frozen = asking.pinned(machine, {"disk": disk.capacity}, sizes)
    return RequestSpec(kind=GROW, sizes=sizes, pinned={**frozen, "drive": disk.target, "why": reason(why)})


def request_disk(
    *, actor: Any, machine: VirtualMachine, capacity: int, why: str, token: uuid.UUID
) -> Operation:
    """Ask for another disk of `capacity` bytes. Idempotent by `token`. Raises Denied."""
    with transaction.atomic():
        current = power.usable(actor, machine, "edit")
        spec = add_spec(current, capacity, why)
        title = f"Add a disk to {current.name}"
        return asking.ask(actor=actor, machine=current, spec=spec, title=title, token=token)


def request_growth(
    *, actor: Any, disk: Disk, capacity: int, seen: int, why: str, token: uuid.UUID
) -> Operation:
    """Ask for a disk to grow to `capacity` bytes; the person saw it with `seen`. Idempotent by `token`.

    Raises Clash when it has another size by now, and Denied for one that it cannot have.
    """
    with transaction.atomic():
        current = power.usable(actor, disk.machine, "edit")
        now = current.disks.filter(pk=disk.pk).first()
        if now is None:
            raise Denied(_("The machine has this disk no more."))
        if now.capacity != seen:
            raise Clash(_("Somebody changed this disk since you opened this page; look again."))
        spec = grow_spec(current, now, capacity, why)
        title = f"Grow {now.target} of {current.name}"
        return asking.ask(actor=actor, machine=current, spec=spec, title=title, token=token)


def edit_request(*, actor: Any, operation: Operation, capacity: int, why: str, spec_hash: str) -> Operation:
    """Ask for another size in place of one's own request that waits, as it was seen. Raises Denied."""
    frozen = operation.frozen
    machine = asking.machine_of(frozen)
    if machine is None:
        raise Denied(_("The machine is gone."))
    if operation.kind == ADD:
        spec = add_spec(machine, capacity, why)
    else:
        disk = machine.disks.filter(target=frozen["pinned"]["drive"]).first()
        if disk is None:
            raise Denied(_("The machine has this disk no more."))
        spec = grow_spec(machine, disk, capacity, why)
    return revisions.edit(actor=actor, operation=operation, spec=spec, spec_hash=spec_hash)


def why_no_more(found: Definition | None) -> str:
    """Return why a machine gets no disk from here, '' when it can; `found` is what `noted.of` returns."""
    return hypervisors.why_not_seen(found, DomainFeature.OWN_DISKS)


def free_target(machine: VirtualMachine) -> str:
    """Return the first free device name of a machine. Raises Denied when it can have no other disk."""
    devices = Devices(machine.devices)
    taken = set(machine.disks.values_list("target", flat=True))
    found = noted.of(machine)
    if why := why_no_more(found):
        raise Denied(why)
    for defined in (found.observed_persistent, found.observed_running) if found else ():
        taken |= {name for name, _disk in _disks(defined)}
        # A disk that is attached by its name alone stands where its name says.
        taken |= {places.name_at(places.SATA, place) for place in places.taken(defined or {}, places.SATA)}
    for letter in _LETTERS[devices]:
        if (name := _PREFIX[devices] + letter) not in taken:
            return name
    raise Denied(_("The machine has no place for another disk."))


def _disks(defined: Mapping[str, Any] | None) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """Return the disks of a definition by their device name, in its order."""
    found = (defined or {}).get("devices", {}).get("disks", ())
    return [(disk.get("target", {}).get("dev", ""), disk) for disk in found]


def why_kept(machine: VirtualMachine, disk: Disk) -> str:
    """Return why a disk cannot be taken from its machine, '' when it can."""
    found = noted.of(machine)
    if found is None or found.observed_persistent is None:
        return _("The host has not told this machine's settings yet; try again in a moment.")
    disks = [(name, one) for name, one in _disks(found.observed_persistent) if one.get("device") != "cdrom"]
    # Without an order of devices the first one that is listed.
    first = min(disks, key=lambda named: named[1].get("boot_order", NOT_FIRST), default=("", {}))[0]
    return _("The machine starts from this disk.") if disk.target == first else ""


def shown(disk: Disk) -> Snapshot:
    """Return what pages show of a disk: a name alone may be that of another by now."""
    return {"volume": disk.volume_name, "pool": disk.pool.pool.name, "size": disk.capacity}


def remove_disk(
    *, actor: Any, disk: Disk, confirm_name: str, seen: Snapshot | None = None
) -> Operation:
    """Detach a disk and delete it with all that is on it; `seen` is what a page showed (`shown`).

    Raises Changed when it is another by now, and Denied.
    """
    if confirm_name != disk.target:
        raise Denied(_("Type the disk's name exactly to delete it."))
    return begin_taking(actor, disk, REMOVE, "Delete", seen)


def begin_taking(actor: Any, disk: Disk, kind: str, doing: str, seen: Snapshot | None) -> Operation:
    """Queue that a machine loses a disk; `doing` is what is done to it, in the title.

    `seen` is what a page showed (`shown`). Raises Changed when the disk is another by now, and Denied.
    """
    with transaction.atomic():
        current = power.usable(actor, disk.machine, "edit")
        now = current.disks.select_related("pool__pool").filter(pk=disk.pk).first()
        if now is None:
            raise Denied(_("The machine has this disk no more."))
        showing.check(now.target, seen, shown(now))
        if reason := why_kept(current, now):
            raise Denied(reason)
        pinned = {"machine": str(current.uuid), "name": current.name, "drive": now.target}
        return begin_operation(
            actor=actor,
            project=current.project,
            spec=RequestSpec(kind=kind, sizes={}, pinned=pinned),
            subject=current.topic,
            title=f"{doing} {now.target} of {current.name}",
            identifiers={**names(current, now), "was": _defined_as(current, now)},
            lane=current.host.scope,
        )


def _defined_as(machine: VirtualMachine, disk: Disk) -> Mapping[str, Any] | None:
    """Return what a disk is defined as, None where the host has not told it yet.

    Raises Denied where it is another file, or the same by another name: nothing would be detached there,
    and its volume be taken for free.
    """
    found = noted.of(machine)
    here = dict(_disks(found.observed_persistent)).get(disk.target) if found else None
    source = here.get("source", {}) if here else {}
    if here is None or (source.get("file") or source.get("dev")) == disk.path:
        return here
    raise Denied(
        _(
            "The host defines this disk in another way than the portal knows it. Look again in a moment; if "
            "it stays so, take it from the machine there."
        )
    )


def names(machine: VirtualMachine, disk: Disk) -> dict[str, Any]:
    """Return what an operation on a disk needs of it."""
    return {
        "host": machine.host_id,
        "uuid": str(machine.uuid),
        "disk": disk.pk,
        "pool": disk.pool.pool.name,
        "volume": disk.volume_name,
        "volume_path": disk.path,
        "volumes": [[disk.pool.pool.name, disk.volume_name]],
        "target": disk.target,
        "serial": disk.serial,
    }


# Placing and settling


def place_new(operation: Operation) -> None:
    """Choose the pool of a new disk, hold its room and fix its names. Raises Denied."""
    machine = asking.claim(operation)
    target = free_target(machine)
    pool = _hold(operation, machine)
    disk = Disk.objects.create(
        machine=machine,
        pool=pool,
        target=target,
        # A disk of that name may have been there before, and its volume may be there still.
        volume_name=f"{placement.domain_name(machine.name, machine.uuid)}-{target}-{operation.pk}.qcow2",
        capacity=operation.frozen["sizes"]["disk"],
        serial=f"gatehouse-{operation.pk}"[:20],
    )
    operation.identifiers = names(machine, disk)


def _hold(operation: Operation, machine: VirtualMachine) -> PoolAttachment:
    """Hold the disk's room, beside the machine's first disk if it fits there. Raises Denied.

    A pool that was taken over gets only disks of machines that begin there.
    """
    own = list(machine.disks.order_by("target").values_list("pool", flat=True)[:1])
    found = PoolAttachment.objects.filter(host=machine.host, observed_kind__in=FOLDER_KINDS)
    pools = found.filter(Q(taken_over=False) | Q(pk__in=own)).select_related("pool")
    refused = Denied(_("The machine's host has no storage pool."))
    for pool in sorted(pools, key=lambda one: (one.pk not in own, -one.observed_available)):
        try:
            ledger.hold(operation, asking.capacity(machine, operation.frozen["sizes"], pool.pool.scope))
        except Denied as denied:
            refused = denied
        else:
            return pool
    raise refused


def place_growth(operation: Operation) -> None:
    """Hold what more the disk takes of its pool. Raises Denied when there is no room, or it changed."""
    frozen = operation.frozen
    machine = asking.claim(operation)
    disks = machine.disks.select_related("pool__pool")
    disk = disks.filter(target=frozen["pinned"]["drive"]).first()
    if disk is None or disk.capacity != frozen["pinned"]["now"]["disk"]:
        raise Denied(_("The disk has another size by now; it must be asked for anew."))
    operation.identifiers = names(machine, disk)
    ledger.hold(operation, asking.capacity(machine, asking.growth(frozen), disk.pool.pool.scope))


def settle_new(operation: Operation, state: State) -> None:
    """Count the disk with its machine, or forget its row when there is none."""
    disk = _settled(operation)
    if disk is None:
        return
    if state == State.SUCCEEDED:
        ledger.hand_over(operation, disk.machine.built_by)
    else:
        disk.delete()
    publish(operation.subject)


def settle_growth(operation: Operation, state: State) -> None:
    """Write the size that the disk has now."""
    disk = _settled(operation)
    if disk is None or state != State.SUCCEEDED:
        return
    disk.capacity = operation.frozen["sizes"]["disk"]
    disk.save(update_fields=["capacity"])
    ledger.hand_over(operation, disk.machine.built_by)
    publish(operation.subject)


def settle_removal(operation: Operation, state: State) -> None:
    """Forget the disk and give back what it took."""
    disk = _settled(operation)
    if disk is None or state != State.SUCCEEDED:
        return
    machine, size = disk.machine, {"disk": disk.capacity}
    less = {**asking.quotas(machine, size), **asking.capacity(machine, size, disk.pool.pool.scope)}
    ledger.reduce(machine.built_by, less)
    disk.delete()
    publish(operation.subject)


def _settled(operation: Operation) -> Disk | None:
    found = Disk.objects.filter(pk=operation.identifiers.get("disk"))
    return found.select_related("machine__built_by", "pool__pool").first()


def _page_of_disk(machine: VirtualMachine, frozen: Mapping[str, Any]) -> str:
    return url("vms:disk", args=[machine.pk, frozen["pinned"]["drive"]])


KINDS = (
    Kind(
        ADD,
        "Add a disk",
        (MakeVolume(), Attach()),
        place=place_new,
        settle=settle_new,
        asking=asking.AskingToChange(lambda machine, _frozen: url("vms:disk_add", args=[machine.pk])),
        announce=gettext_lazy("%(name)s has its new disk."),
        page=page_of_machine,
    ),
    Kind(
        GROW,
        "Grow a disk",
        (Grow(),),
        place=place_growth,
        settle=settle_growth,
        asking=asking.AskingToChange(_page_of_disk),
        announce=gettext_lazy("The disk of %(name)s has its new size."),
        page=page_of_machine,
    ),
    Kind(
        REMOVE,
        "Delete a disk",
        (Detach(), power_steps.DeleteVolumes()),
        settle=settle_removal,
        page=page_of_machine,
        waits_for_host=False,
    ),
)
