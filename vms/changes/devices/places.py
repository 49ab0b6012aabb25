"""Where disks and drives stand on their buses, and which place is free. Not for: PCI, where libvirt chooses.

The names and the places of one bus go together where they can: libvirt lets the third name of a bus stand in
its third place by itself, so that whoever attaches a disk later by its name alone finds that place free.
"""

from collections.abc import Iterator, Mapping
from string import ascii_lowercase
from typing import Any

from vms.changes.devices.shared import devices
from vms.settings.disks import target_of

SATA, IDE, SCSI, VIRTIO = "sata", "ide", "scsi", "virtio"
#: What the first controller of a bus has room for, as libvirt counts.
ROOM = {SATA: 6, IDE: 4, SCSI: 7}
PREFIX = {SATA: "sd", IDE: "hd", SCSI: "sd", VIRTIO: "vd"}

Defined = Mapping[str, Any]


def bus_of(disk: Defined) -> str:
    """Return the bus of a disk of a definition, '' for one without."""
    return str((disk.get("target") or {}).get("bus", ""))


def rank_of(name: str) -> int:
    """Return which of its bus a device name counts as, from 0 (`aa` is behind `z`); -1 for no such name."""
    rank, letters = 0, name.removeprefix("x")[2:]
    if not set(letters) <= set(ascii_lowercase):
        return -1
    for letter in letters:
        rank = rank * len(ascii_lowercase) + ascii_lowercase.index(letter) + 1
    return rank - 1


def name_at(bus: str, place: int) -> str:
    """Return the device name that libvirt puts into a place of a bus by itself, '' for no such place."""
    return PREFIX[bus] + ascii_lowercase[place] if 0 <= place < len(ascii_lowercase) else ""


def taken(defined: Defined, bus: str) -> set[int]:
    """Return the places of the first controller of a bus where something stands."""
    there = [disk for disk in devices(defined, "disks") if bus_of(disk) == bus]
    return {place for disk in there for place in _places(disk, bus)}


def _places(disk: Defined, bus: str) -> Iterator[int]:
    address = disk.get("address") or {}
    if address.get("type") != "drive":
        # Seen before the portal looked for addresses: where libvirt puts it by its name.
        yield rank_of(target_of(disk))
        return
    controller, upper, unit = (_whole(address.get(name)) for name in ("controller", "bus", "unit"))
    if controller == 0:
        yield 2 * upper + unit if bus == IDE else unit


def _whole(text: Any) -> int:
    try:
        return int(str(text or "0"), 0)
    except ValueError:
        return -1


def address(bus: str, place: int) -> dict[str, str]:
    """Return the address of a place of the first controller of a bus."""
    upper, unit = divmod(place, 2) if bus == IDE else (0, place)
    return {"type": "drive", "controller": "0", "bus": str(upper), "target": "0", "unit": str(unit)}


def free_place(defined: Defined, bus: str) -> int | None:
    """Return a place of a bus where nothing stands, the highest; None when it is full."""
    return max(set(range(ROOM[bus])) - taken(defined, bus), default=None)


def free_drive(bus: str, *sides: Defined | None) -> tuple[str, int] | None:
    """Return the name and the place of another drive on a bus, None when the bus is full.

    `sides` are the definition and what runs of it. Behind what is there, so that the first to start from
    stays the first; else the last that is free, since disks are given the first ones.
    """
    names = {target_of(disk) for side in sides for disk in devices(side, "disks")}
    used = {place for side in sides if side is not None for place in taken(side, bus)}
    places = [place for place in range(ROOM[bus]) if place not in used]
    if not places:
        return None
    alike = [place for place in places if name_at(bus, place) not in names]
    behind = [place for place in alike if place > max(used, default=-1)]
    if alike:
        place = behind[0] if behind else alike[-1]
        return name_at(bus, place), place
    free = [PREFIX[bus] + letter for letter in ascii_lowercase if PREFIX[bus] + letter not in names]
    return (free[-1], places[-1]) if free else None
