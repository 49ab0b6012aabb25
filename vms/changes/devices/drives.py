"""Give a machine a drive for CDs, or take one from it. Not for: what is in a drive (`media`)."""

from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.core.errors import Denied
from portal.core.stale import Snapshot
from portal.operations.models import Operation
from portal.operations.registry import Kind
from vms import noted, power, settings
from vms.building import page_of_machine
from vms.changes.devices import buses, media, places, redefining, showing
from vms.changes.devices.shared import begin, devices, known
from vms.models import Definition, VirtualMachine
from vms.settings.disks import target_of
from vms.settings.model import Choices

ADD, REMOVE = "vm.add_drive", "vm.remove_drive"
_WORDS: Choices = [
    (places.SATA, gettext_lazy("SATA, which installers and most systems know")),
    (places.IDE, gettext_lazy("IDE, which every system knows")),
    (places.SCSI, gettext_lazy("SCSI, for cloud images without a driver for SATA")),
]


# What may be


def buses_of(machine: VirtualMachine, found: Definition | None) -> Choices:
    """Return the buses on which a machine could get a drive, that of its board first.

    `found` is what `noted.of` returns.
    """
    if found is None or found.observed_persistent is None:
        return []
    ground = settings.ground_of(found.observed_persistent, machine.host.readiness)
    return [(bus, word) for bus, word in _WORDS if buses.has(ground, bus)]


def why_no_more(machine: VirtualMachine, found: Definition | None) -> str:
    """Return why a machine cannot have another drive, '' when it can."""
    if found is None or found.observed_persistent is None:
        return _("The host has not told this machine's settings yet; try again in a moment.")
    if why := buses.why_unlike(settings.ground_of(found.observed_persistent, machine.host.readiness)):
        return why
    if not any(_free(found, bus) for bus, _word in buses_of(machine, found)):
        return _("Each place of the machine's controllers is taken.")
    return ""


def _free(found: Definition, bus: str) -> tuple[str, int] | None:
    return places.free_drive(bus, found.observed_persistent, found.observed_running)


def why_stays(found: Definition | None, target: str) -> str:
    """Return why a machine keeps its drive at `target`, '' when it can be taken away.

    `found` is what `noted.of` returns.
    """
    if found is None:
        return _("The host has not told this machine's settings yet; try again in a moment.")
    sides = (found.observed_persistent, found.observed_running)
    if any(media.media_of(side).get(target) for side in sides):
        return _("There is a CD in the drive; eject it first.")
    theirs = [one for side in sides for one in devices(side or {}, "disks") if target_of(one) == target]
    if any(one.get("device") == "cdrom" and one.get("source") for one in theirs):
        return _("What is in the drive is no file, and kept as it is: take it out on its host first.")
    defined = found.observed_persistent or {}
    drives = [one for one in devices(defined, "disks") if one.get("device") == "cdrom"]
    own = next((one for one in drives if target_of(one) == target), None)
    if own is None:
        return _("The machine has no such drive.")
    first = next((one.get("dev") for one in defined.get("os", {}).get("boot", ())), "")
    if "boot_order" in own or (first == "cdrom" and own is drives[0]):
        return _("The machine starts from this drive; let it start from something else first.")
    return ""


# Asking


def add_drive(
    *, actor: Any, machine: VirtualMachine, bus: str, seen: Snapshot | None = None
) -> Operation:
    """Queue that a machine has another drive for CDs, an empty one, from its next start on.

    `seen` is what the page showed (`media.shown`). Raises Changed when its drives are others, and Denied.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "edit")
        found = known(current)
        # What is in those that were there already is no matter.
        showing.check_same(current.name, seen, media.shown(media.drives_of(current)))
        if reason := why_no_more(current, found):
            raise Denied(reason)
        if bus not in dict(buses_of(current, found)):
            raise Denied(_("The machine has no such bus."), field="bus")
        free = _free(found, bus)
        if free is None:
            raise Denied(_("Each place of this bus is taken."), field="bus")
        target, place = free
        drive = {
            "type": "file",
            "device": "cdrom",
            "driver": {"name": "qemu", "type": "raw"},
            "target": {"dev": target, "bus": bus},
            "readonly": True,
            "address": places.address(bus, place),
        }
        return begin(
            actor,
            current,
            ADD,
            f"Add a CD drive to {current.name}",
            told=[("CD drive", "", f"{target} ({bus})")],
            names={
                "digest": found.observed_digest,
                "wish": redefining.wish(redefining.DISKS, target, drive),
                "back": redefining.wish(redefining.DISKS, target, None),
            },
        )


def remove_drive(
    *, actor: Any, machine: VirtualMachine, target: str, seen: Snapshot | None = None
) -> Operation:
    """Queue that a machine has an empty drive no more from its next start on.

    `seen` is what the page showed (`media.shown`). Raises Changed when the drive is another, and Denied.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "edit")
        found = known(current)
        media.check_drive(media.drives_of(current), target, seen)
        if reason := why_stays(found, target):
            raise Denied(reason)
        there = devices(found.observed_persistent, "disks")
        drive = next(one for one in there if target_of(one) == target)
        return begin(
            actor,
            current,
            REMOVE,
            f"Remove a CD drive of {current.name}",
            told=[("CD drive", f"{target} ({places.bus_of(drive)})", "")],
            names={
                "digest": found.observed_digest,
                "wish": redefining.wish(redefining.DISKS, target, None),
                "back": redefining.wish(redefining.DISKS, target, drive),
            },
        )


def leaving(machine: VirtualMachine) -> list[str]:
    """Return the drives that a machine has as long as it runs, and not from its next start on."""
    found = noted.of(machine)
    if found is None:
        return []
    sides = (found.observed_running, found.observed_persistent)
    running, defined = (media.media_of(side) for side in sides)
    return [target for target in running if target not in defined]


#: Nobody wants a drive of last week to come or go when the host comes back today.
KINDS = tuple(
    Kind(name, title, (redefining.RedefineDevice(),), page=page_of_machine, waits_for_host=False)
    for name, title in ((ADD, "Add a CD drive"), (REMOVE, "Remove a CD drive"))
)
