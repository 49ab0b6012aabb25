"""Put a CD into a machine's drive, or take it out. Not for: the drives themselves (`drives`).

What can be put in is the machine's own seed, and ISO images of the catalogue. The seeds of others lie in the
same pools and hold their keys, so a list of files in a pool is no list of what may be put in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from portal.core.canonical import canonical_json, digest
from portal.core.errors import Denied
from portal.core.stale import Snapshot
from portal.hosts.models import Image, ImageAttachment
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.words import Difference
from vms import noted, power, seeds
from vms.building import page_of_machine
from vms.changes.devices import showing
from vms.changes.devices.shared import DeviceStep, begin, devices, known
from vms.models import VirtualMachine

CHANGE = "vm.change_media"


class ChangeMedia(DeviceStep):
    """Change what is in the drive; a guest that runs may hold it shut."""

    name, title = "media", "Change what is in the drive"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        told = (names["uuid"], names["target"], names["path"] or None, names.get("force", False))
        try:
            self.call(context, "change_media", *told)
        except StepFailed as failure:
            if failure.code == "guest_ignores":
                raise StepFailed("tray_held", failure.raw) from failure
            raise
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
    #: The title of the image that is in it, '' for what is none of the portal's.
    image: str = ""
    #: The machine runs without it so far.
    waits: bool = False

    @property
    def medium(self) -> str:
        """What is in it, by the file's name; '' for nothing."""
        return _name(self.path)

    @property
    def seen(self) -> list[str]:
        """What a page shows: what is in it now, what from the next start on, and a digest of both."""
        return [self.medium, _name(self.defined), digest(canonical_json([self.path, self.defined]))]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def drives_of(machine: VirtualMachine) -> list[Drive] | None:
    """Return the drives that a machine is defined with, None before the host told of them."""
    found = noted.of(machine)
    if found is None or found.observed_persistent is None:
        return None
    seed, running, runs = seed_path(machine), media_of(found.observed_running), bool(found.observed_running)
    copies = ImageAttachment.objects.filter(pool__host=machine.host_id, image__kind=Image.Kind.ISO)
    titles = {copy.path: copy.image.label for copy in copies.select_related("image")}
    drives = []
    for target, defined in media_of(found.observed_persistent).items():
        path = running.get(target, defined)
        own = bool(path) and path == seed
        waits = runs and target not in running
        drives.append(Drive(target, path, defined, seed=own, image=titles.get(path, ""), waits=waits))
    return drives


def shown(drives: Iterable[Drive] | None) -> Snapshot:
    """Return what pages show of drives, by their names."""
    return {drive.target: drive.seen for drive in drives or ()}


def check_drive(drives: Iterable[Drive] | None, target: str, seen: Snapshot | None) -> None:
    """Raise Changed unless the drive `target` is as a page showed it, or as little there."""
    showing.check(_("drive %(drive)s") % {"drive": target}, seen, {target: shown(drives).get(target)})


def differences(before: Snapshot, after: Snapshot) -> list[Difference]:
    """Return in words what differs between two looks at drives (`shown`)."""
    found = []
    for target in sorted({**before, **after}):
        was, now, drive = before.get(target), after.get(target), {"drive": target}
        if was == now:
            continue
        if was is None or now is None:
            there, gone = _("there"), _("not there")
            sides = (gone, there) if was is None else (there, gone)
            found.append(Difference(_("Drive %(drive)s") % drive, *sides))
        elif was[0] == now[0] and was[1] != now[1]:
            words = _("In drive %(drive)s from the next start on")
            found.append(Difference(words % drive, was[1], now[1]))
        else:
            other = now[0] if was[0] != now[0] else _("another file of this name")
            found.append(Difference(_("In drive %(drive)s") % drive, was[0], other))
    return found


def media_of(defined: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the file in each drive of a definition by the drive's device name, '' for nothing."""
    drives = [disk for disk in devices(defined, "disks") if disk.get("device") == "cdrom"]
    return {disk.get("target", {}).get("dev", ""): disk.get("source", {}).get("file", "") for disk in drives}


def seed_path(machine: VirtualMachine) -> str:
    """Return where the machine's cloud-init seed lies; '' where it has none."""
    return seeds.path_of(machine)


def images_for(actor: Any, machine: VirtualMachine) -> QuerySet[Image]:
    """Return the ISO images that `actor` may put into a machine: on its host, for its project."""
    theirs = Image.objects.restrict(actor, "view").filter(kind=Image.Kind.ISO, deprecated_at=None)
    here = ImageAttachment.objects.filter(pool__host=machine.host_id)
    shared = Q(every_project=True) | Q(pk__in=Image.objects.filter(projects=machine.project_id).values("pk"))
    return theirs.filter(shared, pk__in=here.values("image"))


def insert_image(
    *,
    actor: Any,
    machine: VirtualMachine,
    target: str,
    image: Image,
    force: bool = False,
    seen: Snapshot | None = None,
) -> Operation | None:
    """Queue that an ISO image comes into the drive at `target`; `force` takes out what the guest holds.

    `seen` is what the page showed (`shown`). Returns None when it is so already. Raises Changed when the
    drive is another by now, and Denied.
    """
    with transaction.atomic():
        # Whoever deletes an image locks its row and looks who uses it: one of the two comes first.
        Image.objects.select_for_update().filter(pk=image.pk).first()
        current = power.usable(actor, machine, "edit")
        chosen = images_for(actor, current).filter(pk=image.pk).first()
        if chosen is None:
            raise Denied(_("This image cannot be put into this machine, or not any more; choose another."))
        copies = chosen.attachments.filter(pool__host=current.host_id).order_by("pk")
        pinned = {"image": {"sha256": chosen.sha256, "title": chosen.title}}
        return _change(actor, current, target, copies[0].path, force=force, seen=seen, **pinned)


def change_media(
    *,
    actor: Any,
    machine: VirtualMachine,
    target: str,
    seed: bool,
    force: bool = False,
    seen: Snapshot | None = None,
) -> Operation | None:
    """Queue that the machine's seed comes into the drive at `target`, or (not `seed`) that nothing is in it.

    `force` takes out what the guest holds, `seen` is what the page showed (`shown`). Returns None when it
    is so already. Raises Changed when the drive is another by now, and Denied.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "edit")
        path = seed_path(current) if seed else ""
        return _change(actor, current, target, path, force=force, seen=seen)


def _change(
    actor: Any,
    machine: VirtualMachine,
    target: str,
    path: str,
    *,
    force: bool,
    seen: Snapshot | None,
    **pinned: Any,
) -> Operation | None:
    """Queue that the file `path` comes into a drive of a machine that the caller holds. Raises Denied."""
    known(machine)
    drives = drives_of(machine) or ()
    drive = next((one for one in drives if one.target == target), None)
    if drive is not None and drive.path == drive.defined == path:
        return None
    check_drive(drives, target, seen)
    if drive is None:
        raise Denied(_("The machine has no such drive."))
    told = [(f"In drive {target}", drive.medium, _name(path))]
    if force:
        told.append(("By force", "", "yes"))
    title = f"{'Insert' if path else 'Eject'} a CD of {machine.name}"
    names = {"target": target, "path": path, "back": drive.defined, "force": force}
    return begin(actor, machine, CHANGE, title, told=told, names=names, **pinned)


KINDS = (Kind(CHANGE, "Change a CD", (ChangeMedia(),), page=page_of_machine, waits_for_host=False),)
