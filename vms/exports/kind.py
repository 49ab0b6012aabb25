"""How a machine becomes a file: its disks copied on their host, brought here, and packed.

Not for: who may have it. The steps put everything into one folder, named before anything is made.
"""

import errno
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext_lazy

from portal.drivers import inspection
from portal.drivers.ova.appliance import Appliance, PackedDisk
from portal.drivers.ova.archive import pack, sha256_of
from portal.drivers.types import DomainDefinition, VolumeInfo
from portal.hosts.bringing import bring, need_room
from portal.hosts.steps import HostStep
from portal.operations import ledger
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.states import State
from vms.building import page_of_machine
from vms.changes.cloning import CopyDisks
from vms.models import Export, VirtualMachine
from vms.profiles import board_of
from vms.settings.model import devices
from vms.steps import DomainStep

FOLDER: Path = settings.STATE_DIR / "exports"
#: Days that a file is kept.
KEPT_DAYS = 7
DEFINITION = "domain.xml"


def folder_of(context: StepContext) -> Path:
    """Return the folder of an export. Its name was drawn by the portal, and holds nothing of anybody's."""
    return FOLDER / str(context.identifiers["folder"])


class Bring(HostStep):
    """Bring the copies here. What an earlier attempt brought is written anew."""

    name, title = "bring", "Bring the disks to the portal"
    timeout = 300.0

    def do(self, context: StepContext) -> None:
        disks = context.identifiers["disks"]
        folder = folder_of(context)
        folder.mkdir(parents=True, exist_ok=True)
        self._need_room(context, folder)
        for disk in disks:
            target, size = folder / disk["file"], disk["capacity"]
            bring(self, context, disk["pool"], disk["volume"], target, size=size)
            context.check()

    def _need_room(self, context: StepContext, folder: Path) -> None:
        """Raise StepFailed unless every disk fits here twice: as it comes, and packed."""
        written = 0
        for disk in context.identifiers["disks"]:
            info: VolumeInfo = self.call(context, "volume_info", disk["pool"], disk["volume"])
            written += info.allocation_bytes
        need_room(folder, 2 * written)

    def undo(self, context: StepContext) -> None:
        shutil.rmtree(folder_of(context), ignore_errors=True)


class Pack(DomainStep):
    name, title = "pack", "Pack it with its definition and checksums"

    def do(self, context: StepContext) -> None:
        folder, names = folder_of(context), context.identifiers
        defined: DomainDefinition = self.call(context, "definition", names["uuid"])
        target, part = folder / names["file"], folder / f"{names['file']}.part"
        files = {disk["file"]: folder / disk["file"] for disk in names["disks"]}
        extra = {DEFINITION: defined.persistent.encode()}
        try:
            if all(path.exists() for path in files.values()):
                pack(part, _appliance(context, extra[DEFINITION]), files, extra, context.check)
                part.replace(target)
            # The disks go only now: an attempt that comes here again needs them, or the whole file.
            told = sha256_of(target, context.check)
            for path in files.values():
                path.unlink(missing_ok=True)
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            raise StepFailed("portal_full" if full else "export_broken", str(error)) from error
        _note(context, target.stat().st_size, told)

    def undo(self, context: StepContext) -> None:
        Export.objects.filter(path=_path(context)).delete()


def _appliance(context: StepContext, definition: bytes) -> Appliance:
    machine = VirtualMachine.objects.get(uuid=context.identifiers["uuid"])
    disks = tuple(PackedDisk(disk["file"], disk["capacity"]) for disk in context.identifiers["disks"])
    networks = tuple(context.spec["pinned"]["networks"])
    system = machine.image.os if machine.image else ""
    defined = inspection.inspect(inspection.Kind.DOMAIN, definition).understood
    return Appliance(
        machine.name,
        machine.vcpus,
        machine.memory,
        disks,
        networks,
        **board_of(defined),
        bus=_bus(defined),
        card=next((card.get("model", "") for card in devices(defined, "interfaces")), ""),
        systems=(system,) if system else (),
    )


def _bus(defined: Mapping[str, Any]) -> str:
    """Return what the machine's first disk hangs on, as appliances name it; SCSI is virtio's here."""
    drives = [one for one in devices(defined, "disks") if one.get("device", "disk") == "disk"]
    bus = next(((one.get("target") or {}).get("bus", "") for one in drives), "")
    return "virtio" if bus == "scsi" else str(bus)


def _path(context: StepContext) -> str:
    return f"{context.identifiers['folder']}/{context.identifiers['file']}"


def _note(context: StepContext, size: int, sha256: str) -> None:
    operation = Operation.objects.get(identifiers__folder=context.identifiers["folder"])
    values: dict[str, Any] = {
        "machine_name": context.spec["pinned"]["name"],
        "project": operation.project,
        "owner": operation.requester,
        "path": _path(context),
        "size": size,
        "sha256": sha256,
        "expires_at": timezone.now() + timedelta(days=KEPT_DAYS),
    }
    Export.objects.update_or_create(operation=operation, defaults=values)


class DropCopies(HostStep):
    name, title = "drop", "Delete the copies on the host"

    def do(self, context: StepContext) -> None:
        for disk in context.identifiers["disks"]:
            self.call(context, "delete_volume", disk["pool"], disk["volume"])


def settle(operation: Operation, state: State) -> None:
    """Give back the room of the copies: they are gone, whatever became of the file."""
    if state == State.SUCCEEDED:
        rows = operation.reservations.select_related("counter")
        amounts = {(row.counter.scope, row.counter.resource): row.amount for row in rows}
        ledger.reduce(operation, amounts)


EXPORT = Kind(
    "vm.export",
    "Export a machine",
    (CopyDisks(), Bring(), Pack(), DropCopies()),
    settle=settle,
    cancellable=True,
    slow=True,
    announce=gettext_lazy("%(name)s is exported; the file is on its page."),
    page=page_of_machine,
)
