"""What is done to volumes on a host. Not for: who may, and what may be asked for, which `services` says."""

import uuid
from collections.abc import Iterable
from functools import partial
from typing import Any

from django.urls import reverse
from django.utils import timezone

from portal.drivers.observations import HostTold
from portal.drivers.types import FOLDER_KINDS, CloneMode, PoolKind, VolumeInfo, VolumeSpec
from portal.hosts import sharing
from portal.hosts.observations import note, now
from portal.hosts.steps import HostStep, delete_waiting
from portal.hosts.storage.looking import forget_begun, is_begun, note_begun, note_made, note_volumes
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.states import State

REFRESH, CREATE, GROW = "storage.refresh", "storage.create", "storage.grow"
CLONE, DELETE = "storage.clone", "storage.delete"


#: What a driver's error means to who works on a volume, where its own sentence speaks of machines' images.
_MEANS = {
    "volume_not_found": "volume_gone",
    "pool_not_found": "volume_pool_gone",
    "pool_inactive": "volume_pool_gone",
    "pool_full": "volume_pool_full",
    "already_exists": "name_taken",
    "strange_format": "volume_strange",
}
#: Bytes by which a volume of whole extents or blocks may come to be larger: LVM's are 4 MiB, more where
#: somebody chose so.
_EXTENT = 64 << 20
#: Into how many sizes a mark is cut, in sectors: a size that nobody chooses, and that takes no room.
_SECTOR, _SIZES = 512, 1 << 27


class StorageStep(HostStep):
    """A step on the volumes of a pool."""

    def call(self, context: StepContext, verb: str, *args: Any, size: int = 0) -> Any:
        """Call the driver's `verb`. Raises StepFailed in words of volumes."""
        try:
            return super().call(context, verb, *args, size=size)
        except StepFailed as failure:
            failure.code = _MEANS.get(failure.code, failure.code)
            raise

    def find(self, context: StepContext, name: str, pool: str = "") -> VolumeInfo | None:
        """Return what has a name in a pool now, the operation's own for none, or None when nothing has."""
        found = self.call(context, "list_volumes", pool or context.identifiers["pool"])
        return next((info for info in found if info.name == name), None)


class Look(StorageStep):
    """See what lies in the pool and how full it is."""

    name, title = "look", "Look into the pool"
    timeout = 120.0

    def place(self, context: StepContext) -> int:
        """Return the key of the pool as its host offers it."""
        place: int = context.identifiers["attachment"]
        return place

    def do(self, context: StepContext) -> None:
        names, told = context.identifiers, now()
        self.look_into(context, names["pool"], self.place(context))
        if "mark" in names:
            # Not before: a look that began earlier knows nothing of the volume, and would forget its row.
            note_made(names["attachment"], names["name"])
        note(names["host"], HostTold(*told, pools=self.call(context, "list_pools")))

    def look_into(self, context: StepContext, pool: str, attachment: int) -> None:
        """Write what lies in a pool now. Raises StepFailed."""
        began = timezone.now()
        self.call(context, "refresh_pool", pool)
        note_volumes(attachment, self.call(context, "list_volumes", pool), began)


def _mark(context: StepContext) -> VolumeSpec:
    """Return what stands for the new volume until it is made: a raw one whose size is this operation's.

    The size is set by the one call that makes it, exclusively, so that at no moment a file of somebody else
    can be taken for it.
    """
    names = context.identifiers
    size = _SECTOR * (1 + uuid.UUID(names["mark"]).int % _SIZES)
    return VolumeSpec(names["pool"], names["name"], size, format="raw", fresh=True)


def has_marks(context: StepContext) -> bool:
    """Tell whether a mark stands for a new volume in the pool.

    Not where there is no folder. Volumes are of whole extents there, so that no size is anybody's own; and
    what makes one (lvcreate, rbd, zfs) refuses a name that is there, so that it makes it exclusively.
    """
    return context.identifiers.get("pool_kind", PoolKind.DIR) in FOLDER_KINDS


def is_mark(context: StepContext, info: VolumeInfo) -> bool:
    """Tell whether a volume is what stands for the new one."""
    return has_marks(context) and (info.format, info.capacity_bytes) == ("raw", _mark(context).capacity_bytes)


def _may_be_own(context: StepContext, info: VolumeInfo) -> bool:
    """Tell whether what has the name may be the volume of an operation that began to make it.

    Where there are no marks, somebody else may have taken the name in that instant: by its size that shows.
    """
    if has_marks(context):
        return True
    asked = context.identifiers["capacity"]
    return bool(asked <= info.capacity_bytes < asked + _EXTENT)


def _is_cut(context: StepContext, info: VolumeInfo) -> bool:
    """Tell whether a file that the operation made has not the size that it was made with: libvirtd died."""
    return has_marks(context) and info.capacity_bytes != context.identifiers["capacity"]


def _claim(step: StorageStep, context: StepContext) -> None:
    """Take the name, unless this operation has it. Raises StepFailed for one that somebody else has."""
    there = step.find(context, context.identifiers["name"])
    if there is None:
        if has_marks(context):
            step.call(context, "create_volume", _mark(context))
    elif not is_mark(context, there):
        raise StepFailed("name_taken", f"a volume {there.name} is there")


class Claim(StorageStep):
    """Nobody has a volume of the name: what is there is never taken for the new one, nor written over."""

    name, title = "free", "Take the name"

    def do(self, context: StepContext) -> None:
        _claim(self, context)

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        there = self.find(context, names["name"])
        if there is not None and is_mark(context, there):
            self.call(context, "delete_volume", names["pool"], names["name"])


class Make(StorageStep):
    """The volume in place of the mark.

    A row says that the mark is going: whatever has the name after that, this operation made, because it made
    it exclusively, the instant after. What somebody else puts there in that instant makes the call fail, and
    the row goes before anything else is done. Where there are no marks, the row is written once nothing has
    the name.
    """

    name, title = "make", "Make the volume"
    timeout = 300.0

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        there = self.take(context)
        if there is not None and not _may_be_own(context, there):
            forget_begun(names["mark"])
            raise StepFailed("name_taken", f"a volume {there.name} is there")
        # A copy that was left behind looks like a whole one.
        whole = there is not None and not is_mark(context, there) and not _is_cut(context, there)
        if not whole or names.get("source"):
            # Not by a worker that lost the operation: another one may have made it whole by now.
            context.check()
            if there is not None or has_marks(context):
                delete_waiting(self, context, names["pool"], names["name"], size=names["capacity"])
            self._make(context)

    def take(self, context: StepContext) -> VolumeInfo | None:
        """Let what has the name be this operation's; return what has it. Idempotent. Raises StepFailed."""
        names = context.identifiers
        if not is_begun(names["mark"]):
            _claim(self, context)
            note_begun(names["mark"])
        return self.find(context, names["name"])

    def _make(self, context: StepContext) -> None:
        names = context.identifiers
        if names.get("source"):
            # Somebody may have begun to write there since the step before asked.
            self.check_source(context)
        spec = VolumeSpec(
            names["pool"],
            names["name"],
            names["capacity"],
            backing_path=names.get("source") or None,
            backing_format=names["format"],
            clone=CloneMode.FULL,
            format=names["format"],
            fresh=True,
        )
        copied = names["capacity"] if spec.backing_path else 0
        self.make_by(context, "create_volume", spec, size=copied)

    def check_source(self, context: StepContext) -> None:
        """Raise StepFailed when a domain has what is copied."""
        names = context.identifiers
        refuse_used(self.call(context, "volume_users", names["pool"], names["source_name"]))

    def make_by(self, context: StepContext, verb: str, *args: Any, size: int = 0) -> None:
        """Call what makes the volume, of `size` bytes that are copied. Raises StepFailed."""
        try:
            self.call(context, verb, *args, size=size)
        except StepFailed as failure:
            if not failure.retryable:
                # The host made nothing: what has the name by now is not this operation's.
                forget_begun(context.identifiers["mark"])
            raise

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        if is_begun(names["mark"]):
            there = self.find(context, names["name"])
            if there is not None and _may_be_own(context, there):
                delete_waiting(self, context, names["pool"], names["name"])
            forget_begun(names["mark"])


class Unused(StorageStep):
    """The host itself says who has the volume: what the portal saw last may be old."""

    name, title = "unused", "Ask the host who uses it"
    #: Which identifier names the volume.
    of = "name"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        if self.of == "name":
            _check_unused(self, context)
        elif self.find(context, names[self.of]) is not None:
            refuse_used(self.call(context, "volume_users", names["pool"], names[self.of]))


def _check_unused(step: StorageStep, context: StepContext) -> None:
    """Raise StepFailed when a domain has the volume, or another volume stands on it, in whatever pool."""
    names = context.identifiers
    if step.find(context, names["name"]) is not None:
        refuse_used(sharing.users_of(partial(step.call, context), names["pool"], names["name"]))


def refuse_used(users: Iterable[str]) -> None:
    """Raise StepFailed that names the users of a volume, when there are any."""
    if found := ", ".join(users):
        raise StepFailed("volume_in_use", found)


class SourceUnused(Unused):
    """What is written while it is copied makes no copy."""

    of = "source_name"


class Grow(StorageStep):
    name, title = "grow", "Make the volume larger"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        # A worker may have died since the step before asked, and much may have happened.
        _check_unused(self, context)
        self.call(context, "resize_volume", names["pool"], names["name"], names["capacity"])


class Delete(StorageStep):
    name, title = "delete", "Delete the volume"
    timeout = 300.0

    def do(self, context: StepContext) -> None:
        # As in Grow: the answer of the step before may be old.
        _check_unused(self, context)
        self.call(context, "delete_volume", context.identifiers["pool"], context.identifiers["name"])


def page(operation: Operation) -> str:
    """Return the page of the pool that an operation works in."""
    return reverse("hosts:pool", args=[operation.identifiers["attachment"]])


def _settle(operation: Operation, state: State) -> None:
    if mark := operation.identifiers.get("mark"):
        forget_begun(mark)


def _kind(name: str, title: str, *steps: HostStep, **more: Any) -> Kind:
    return Kind(name, title, (*steps, Look()), page=page, settle=_settle, waits_for_host=False, **more)


KINDS = (
    _kind(REFRESH, "Look into a pool"),
    _kind(CREATE, "Make a volume", Claim(), Make()),
    _kind(CLONE, "Copy a volume", Claim(), SourceUnused(), Make(), cancellable=True, slow=True),
    _kind(GROW, "Make a volume larger", Unused(), Grow()),
    _kind(DELETE, "Delete a volume", Unused(), Delete()),
)
