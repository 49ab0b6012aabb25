"""Put a CD into a machine's drive, or take it out. Not for: drives, which a machine has from its start on.

There are no ISO images in the portal yet: what can be put in is the machine's own seed. Those of others lie
in the same pools and hold their keys, so a list of files in a pool is no list of what may be put in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext
from vms import noted, power, seeds
from vms.changes.devices.shared import DeviceStep, begin, devices, known
from vms.models import VirtualMachine

CHANGE = "vm.change_media"


class ChangeMedia(DeviceStep):
    """Change what is in the drive; a guest that runs may hold it shut."""

    name, title = "media", "Change what is in the drive"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        self.call(context, "change_media", names["uuid"], names["target"], names["path"] or None)
        self.look(context)

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        self.call_if_there(context, "change_media", names["target"], names["back"] or None)
        self.look(context)


@dataclass(frozen=True)
class Drive:
    """A drive for CDs: its device name, the file in it now, and that from the next start on."""

    target: str
    path: str
    defined: str
    #: Whether what is in it is the machine's seed.
    seed: bool

    @property
    def medium(self) -> str:
        """What is in it, by the file's name; '' for nothing."""
        return self.path.rpartition("/")[2]


def drives_of(machine: VirtualMachine) -> list[Drive] | None:
    """Return the drives that a machine is defined with, None before the host told of them."""
    found = noted.of(machine)
    if found is None or found.observed_persistent is None:
        return None
    seed, running = seed_path(machine), _media(found.observed_running)
    drives = []
    for target, defined in _media(found.observed_persistent).items():
        path = running.get(target, defined)
        drives.append(Drive(target, path, defined, seed=bool(path) and path == seed))
    return drives


def _media(defined: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the file in each drive of a definition by the drive's device name, '' for nothing."""
    drives = [disk for disk in devices(defined, "disks") if disk.get("device") == "cdrom"]
    return {disk.get("target", {}).get("dev", ""): disk.get("source", {}).get("file", "") for disk in drives}


def seed_path(machine: VirtualMachine) -> str:
    """Return where the machine's cloud-init seed lies; '' where it has none."""
    return seeds.path_of(machine)


def change_media(*, actor: Any, machine: VirtualMachine, target: str, seed: bool) -> Operation | None:
    """Queue that the machine's seed comes into the drive at `target`, or (not `seed`) that nothing is in it.

    Returns None when it is so already. Raises Denied.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "edit")
        known(current)
        drive = next((one for one in drives_of(current) or () if one.target == target), None)
        if drive is None:
            raise Denied(_("The machine has no such drive."))
        path = seed_path(current) if seed else ""
        if drive.path == drive.defined == path:
            return None
        told = [(f"In drive {target}", drive.medium, path.rpartition("/")[2])]
        title = f"{'Insert' if seed else 'Eject'} a CD of {current.name}"
        names = {"target": target, "path": path, "back": drive.defined}
        return begin(actor, current, CHANGE, title, told=told, names=names)


KINDS = (Kind(CHANGE, "Change a CD", (ChangeMedia(),), waits_for_host=False),)
