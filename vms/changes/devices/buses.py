"""Change the bus that a machine has a disk on, from its next start on. Not for: drives for CDs (`drives`).

The disk keeps its device name, by which all else of the portal and of libvirt knows it, whatever its bus.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.core.errors import Denied
from portal.core.stale import Snapshot
from portal.operations.models import Operation
from portal.operations.registry import Kind
from vms import power, settings
from vms.building import page_of_machine
from vms.changes.devices import places, redefining, showing
from vms.changes.devices.shared import begin, devices, known
from vms.models import Definition, Disk, VirtualMachine
from vms.settings.abilities import board_of, unknown
from vms.settings.disks import target_of
from vms.settings.model import Choices, Ground

BUS = "vm.set_disk_bus"
#: The domain types and boards whose controllers the portal knows.
TYPES = frozenset({"kvm", "qemu"})
_PLAIN = {"q35": places.SATA, "pc": places.IDE}
WORDS: Choices = [
    (places.VIRTIO, gettext_lazy("virtio, the fastest; the guest needs its driver")),
    (places.SCSI, gettext_lazy("SCSI, at the machine's controller for it")),
    (places.SATA, gettext_lazy("SATA, which most systems know")),
    (places.IDE, gettext_lazy("IDE, which every system knows, and slow")),
]


def has(ground: Ground, bus: str) -> bool:
    """Tell whether a machine has a bus: its board brings the controller, or its definition does."""
    offered = ground.can("disk_buses")
    if offered and bus not in offered:
        return False
    if bus == places.SCSI:
        return any(one.get("type") == "scsi" for one in ground.devices("controllers"))
    return bus == places.VIRTIO or _PLAIN.get(board_of(ground.defined)) == bus


def in_libvirts_order(disks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of disks as libvirt lists them: those of one bus together, by their names."""
    found: list[Mapping[str, Any]] = []
    for disk in disks:
        bus, rank = places.bus_of(disk), places.rank_of(target_of(disk))
        alike = [at for at, one in enumerate(found) if places.bus_of(one) == bus]
        later = [at for at in alike if places.rank_of(target_of(found[at])) > rank]
        found.insert(later[0] if later else alike[-1] + 1 if alike else len(found), disk)
    return [target_of(disk) for disk in found]


# What may be


def bus_of(disk: Disk, found: Definition | None) -> str:
    """Return the bus that a disk is defined on, '' before the host told it."""
    own = _own(found, disk.target)
    return places.bus_of(own) if own else ""


def shown(disk: Disk, found: Definition | None) -> Snapshot:
    """Return what pages show of a disk that `set_bus` changes."""
    return {"bus": bus_of(disk, found)}


def waits(disk: Disk, found: Definition | None) -> bool:
    """Tell whether a disk is on another bus as long as its machine runs."""
    running = _disks(found.observed_running if found else None, disk.target)
    return bool(running) and places.bus_of(running[0]) != bus_of(disk, found)


def _disks(defined: Mapping[str, Any] | None, target: str) -> list[Mapping[str, Any]]:
    return [one for one in devices(defined, "disks") if target_of(one) == target]


def _own(found: Definition | None, target: str) -> Mapping[str, Any] | None:
    return next(iter(_disks(found.observed_persistent if found else None, target)), None)


def choices(machine: VirtualMachine, disk: Disk, found: Definition | None) -> Choices:
    """Return the other buses that a machine could have a disk on. `found` is what `noted.of` returns."""
    if why_fixed(machine, disk, found) or found is None or found.observed_persistent is None:
        return []
    ground = settings.ground_of(found.observed_persistent, machine.host.readiness)
    return [one for one in WORDS if one[0] != bus_of(disk, found) and has(ground, one[0])]


def why_fixed(machine: VirtualMachine, disk: Disk, found: Definition | None) -> str:
    """Return why a disk stays on its bus, '' when it can be on another."""
    if found is None or found.observed_persistent is None:
        return _("The host has not told this machine's settings yet; try again in a moment.")
    own, ground = _own(found, disk.target), settings.ground_of(
        found.observed_persistent, machine.host.readiness
    )
    if own is None:
        return _("The machine has this disk no more.")
    if why := why_unlike(ground):
        return why
    if own.get("device", "disk") != "disk" or bus_of(disk, found) not in dict(WORDS):
        kind = {"kind": f"{own.get('device', 'disk')} {bus_of(disk, found)}".strip()}
        return _("The disk is of the kind %(kind)s, which the portal leaves as it is.") % kind
    if reason := unknown(ground):
        return reason
    if not ground.can("disk_buses"):
        return _("The host has not told which buses it has; an admin proves it again.")
    return ""


def why_unlike(ground: Ground) -> str:
    """Return why the portal does not know the devices of a machine of this kind, '' when it does."""
    if ground.defined.get("type") not in TYPES or board_of(ground.defined) not in _PLAIN:
        kind = {"kind": f"{ground.defined.get('type', '')} {board_of(ground.defined)}".strip()}
        return _("The machine is of the kind %(kind)s, whose devices the portal leaves as they are.") % kind
    return ""


# Asking


def set_bus(*, actor: Any, disk: Disk, bus: str, seen: Snapshot | None = None) -> Operation | None:
    """Queue that a machine has a disk on another bus from its next start on; `seen` is what a page showed.

    Returns None when it is so already. Raises Changed when the disk is on another bus than was seen, and
    Denied.
    """
    with transaction.atomic():
        current = power.usable(actor, disk.machine, "edit")
        now = current.disks.filter(pk=disk.pk).first()
        if now is None:
            raise Denied(_("The machine has this disk no more."))
        found = known(current)
        if reason := why_fixed(current, now, found):
            raise Denied(reason, field="bus")
        if bus == bus_of(now, found):
            return None
        showing.check(now.target, seen, shown(now, found))
        if bus not in dict(choices(current, now, found)):
            raise Denied(_("The machine cannot have the disk on that bus."), field="bus")
        own, before = _own(found, now.target) or {}, bus_of(now, found)
        defined = found.observed_persistent or {}
        address = None
        if bus in places.ROOM:
            place = places.free_place(defined, bus)
            if place is None:
                raise Denied(_("Each place of this bus is taken."), field="bus")
            address = places.address(bus, place)
        _check_first(defined, now.target, bus)
        values = {"target": {"bus": bus}, "address": address}
        back = {"target": {"bus": before}, "address": own.get("address")}
        return begin(
            actor,
            current,
            BUS,
            f"Change the bus of {now.target} of {current.name}",
            told=[(f"Bus of {now.target}", before, bus)],
            names={
                "digest": found.observed_digest,
                "wish": redefining.wish(redefining.DISKS, now.target, values),
                "back": redefining.wish(redefining.DISKS, now.target, back),
            },
            drive=now.target,
        )


def _check_first(defined: Mapping[str, Any], target: str, bus: str) -> None:
    """Raise Denied where libvirt would put another disk first, and nobody said which one to start from."""
    every = [one for one in devices(defined, "disks") if one.get("device", "disk") == "disk"]
    if any("boot_order" in one for kind in ("disks", "interfaces") for one in devices(defined, kind)):
        return
    moved = [
        {**one, "target": {**one["target"], "bus": bus}} if target_of(one) == target else one
        for one in every
    ]
    if in_libvirts_order(every)[:1] != in_libvirts_order(moved)[:1]:
        raise Denied(
            _(
                "Another disk would come first then, and the machine start from that. Give its devices an "
                "order in the settings first."
            ),
            field="bus",
        )


#: Nobody wants a disk of last week on another bus when the host comes back today.
KINDS = (
    Kind(
        BUS,
        "Change the bus of a disk",
        (redefining.RedefineDevice(),),
        page=page_of_machine,
        waits_for_host=False,
    ),
)
