"""Copy and move volumes into another pool of their host. Not for: who may, and what (`moving`).

Of a move the original goes last, when the copy is whole. A row (`BegunVolume`, by `leaving`) says when it
begins to go: from then on there is no way back, and who takes the operation back brings it to its end.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from django.db import transaction
from django.urls import reverse
from django.utils.translation import gettext_lazy

from portal.drivers.qcow2 import SECTOR, has_external_data, has_snapshots, is_encrypted
from portal.drivers.types import VolumeInfo
from portal.hosts import sharing
from portal.hosts.models import Volume
from portal.hosts.steps import delete_waiting
from portal.hosts.storage.kinds import Claim, Look, Make, StorageStep, page, refuse_used
from portal.hosts.storage.looking import forget_begun, is_begun, note_begun
from portal.hosts.storage.using import uses_of
from portal.operations import ledger
from portal.operations.models import Operation, StepRecord
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.states import State

COPY, MOVE = "storage.copy_over", "storage.move"


def is_leaving(context: StepContext) -> bool:
    """Tell whether the original is going, or gone: the copy is all there is then."""
    mark = str(context.identifiers.get("leaving", ""))
    return bool(mark) and is_begun(mark)


def _source(names: Mapping[str, Any]) -> tuple[str, str]:
    return names["source_pool"], names["source_name"]


class TakeName(Claim):
    title = "Take the name in the other pool"

    def undo(self, context: StepContext) -> None:
        if not is_leaving(context):
            super().undo(context)


class SourceFree(StorageStep):
    """Nobody has the volume, as the portal and its host say now, and it is what was seen."""

    name, title = "source", "Ask the host who uses the volume"

    def do(self, context: StepContext) -> None:
        info = check_free(self, context)
        if info.format == "qcow2":
            head = self.call(context, "read_volume", *_source(context.identifiers), 0, SECTOR)
            _check_head(head)


def _check_head(head: bytes) -> None:
    """Raise StepFailed for a qcow2 of which a copy would be something else."""
    if has_snapshots(head):
        raise StepFailed("volume_snapshots")
    if is_encrypted(head):
        raise StepFailed("volume_encrypted")
    if has_external_data(head):
        raise StepFailed("volume_external")


def check_free(step: StorageStep, context: StepContext) -> VolumeInfo:
    """Return what the host says of the original. Raises StepFailed when it has users, or is another one."""
    names = context.identifiers
    info: VolumeInfo = step.call(context, "volume_info", *_source(names))
    if not _is_seen(info, names):
        raise StepFailed("volume_other")
    refuse_used(_users(step, context))
    return info


def _is_seen(info: VolumeInfo, names: Mapping[str, Any]) -> bool:
    """Tell whether what has the original's name may be the original."""
    told = (info.path, info.capacity_bytes, info.format, info.backing_path or "")
    return told == (names["source"], names["capacity"], names["format"], "")


def _users(step: StorageStep, context: StepContext) -> list[str]:
    """Return who has the original, or stands on it: as the host says now, and as the portal knows."""
    names = context.identifiers
    there = Volume.objects.filter(pool=names["source_attachment"], name=names["source_name"])
    volumes = list(there.select_related("pool__pool", "pool__host"))
    known = {use.words for uses in uses_of(volumes).values() for use in uses}
    return sorted(known.union(sharing.users_of(partial(step.call, context), *_source(names))))


class CopyOver(Make):
    """The copy in place of the mark, complete, of what nobody wrote to meanwhile."""

    name, title = "copy", "Copy the volume"

    def check_source(self, context: StepContext) -> None:
        check_free(self, context)

    def make_by(self, context: StepContext, verb: str, *args: Any, size: int = 0) -> None:
        before = self._there(context)
        try:
            super().make_by(context, verb, *args, size=size)
        except StepFailed as failure:
            if failure.code != "volume_pool_full":
                raise
            raise StepFailed("other_pool_full", context.identifiers["pool"]) from failure
        if self._there(context) != before:
            raise StepFailed("volume_changed", context.identifiers["source_name"])

    def _there(self, context: StepContext) -> tuple[VolumeInfo, str]:
        info: VolumeInfo = self.call(context, "volume_info", *_source(context.identifiers))
        # File systems correct by themselves what a file takes.
        return replace(info, allocation_bytes=0), info.written

    def undo(self, context: StepContext) -> None:
        if not is_leaving(context):
            super().undo(context)


class DeleteSource(StorageStep):
    """Delete the original, once the copy is there and nobody has the original.

    The host and the portal's own rows are asked in the very step: a copy may have taken hours.
    """

    name, title = "old", "Delete the volume in the old pool"
    timeout = 300.0

    def do(self, context: StepContext) -> str | None:
        if not is_leaving(context):
            pool, name = _source(context.identifiers)
            # Should somebody have deleted it, the copy is all there is, and stays.
            if self.find(context, name, pool):
                check_free(self, context)
            self._check_copy(context)
            with transaction.atomic():
                # Behind this lock of the operation's row nobody takes it back: a worker that stood still, and
                # lost it meanwhile, would delete the original of a copy that another one deletes.
                context.check()
                note_begun(context.identifiers["leaving"])
        return self._delete(context)

    def _check_copy(self, context: StepContext) -> None:
        names = context.identifiers
        copy = self.find(context, names["name"])
        whole = copy is not None and copy.capacity_bytes >= names["capacity"] and not copy.backing_path
        if copy is None or not whole or copy.format != names["format"]:
            # What has its name by now is somebody else's: no undo takes it.
            forget_begun(names["mark"])
            raise StepFailed("copy_gone", names["name"])

    def _delete(self, context: StepContext) -> str | None:
        """Delete the original; return a remark when it is left. Idempotent. Raises what may pass.

        The volume is where it should be: that the old one is left over takes nothing of it back.
        """
        pool, name = _source(context.identifiers)
        try:
            there = self.find(context, name, pool)
            if there is None:
                return None
            # Of another one of its name too: a worker may have died once the original was gone.
            if not _is_seen(there, context.identifiers) or _users(self, context):
                return "volume_left"
            context.check()
            size = context.identifiers["capacity"]
            delete_waiting(self, context, pool, name, size=size)
        except StepFailed as failure:
            if failure.retryable:
                raise
            return "volume_left"
        return None

    def undo(self, context: StepContext) -> None:
        if is_leaving(context):
            self._delete(context)
            try:
                LookAtBoth().do(context)
            except StepFailed as failure:
                if failure.retryable:
                    raise


class LookAtBoth(Look):
    """See what lies in the new pool, and then what lies no more in the old one."""

    def do(self, context: StepContext) -> None:
        super().do(context)
        names = context.identifiers
        try:
            self.look_into(context, names["source_pool"], names["source_attachment"])
        except StepFailed as failure:
            # Somebody stopped it: what lies there is seen when it runs again.
            if failure.code != "volume_pool_gone":
                raise


def volume_page(operation: Operation) -> str:
    """Return the page of the volume that was made, of its pool as long as there is none."""
    names = operation.identifiers
    volume = Volume.objects.filter(pool=names["attachment"], name=names["name"]).first()
    return reverse("hosts:volume", args=[volume.pk]) if volume else page(operation)


def settle(operation: Operation, state: State) -> None:
    """Give back the room that was held: the copy is there, and counts as what is there, or is not."""
    names = operation.identifiers
    forget_begun(names["mark"])
    ledger.give_back(operation)
    if leaving := names.get("leaving"):
        if state != State.SUCCEEDED and is_begun(leaving):
            late = StepRecord.objects.filter(operation=operation, name=DeleteSource.name)
            late.update(remark="volume_moved_already")
        forget_begun(leaving)


def _kind(name: str, title: str, *steps: StorageStep, announce: Any) -> Kind:
    return Kind(
        name,
        title,
        (TakeName(), SourceFree(), CopyOver(), *steps),
        page=volume_page,
        settle=settle,
        waits_for_host=False,
        cancellable=True,
        slow=True,
        announce=announce,
    )


KINDS = (
    _kind(
        COPY,
        "Copy a volume to another pool",
        Look(),
        announce=gettext_lazy("%(name)s is copied to its new pool."),
    ),
    _kind(
        MOVE,
        "Move a volume to another pool",
        DeleteSource(),
        LookAtBoth(),
        announce=gettext_lazy("%(name)s is in its new pool."),
    ),
)
