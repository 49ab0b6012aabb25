"""Move a machine's disk to another pool of its host, while it runs or off. Not for: another host.

A disk has moved as soon as the machine works with the other file: from then on there is no way back, and
whoever takes the operation back brings it to its end instead.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.core.errors import Denied
from portal.core.stale import Snapshot
from portal.drivers.types import (
    FOLDER_KINDS,
    CloneMode,
    CopyStage,
    DomainFeature,
    DomainInfo,
    DomainState,
    VolumeSpec,
)
from portal.hosts import sharing
from portal.hosts.models import PoolAttachment
from portal.hosts.steps import HostStep, copy_volume, delete_waiting
from portal.live.publish import publish
from portal.operations import counters, ledger
from portal.operations.models import Counter, Operation, StepRecord
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.states import State
from vms import hypervisors, noted, placement, power
from vms.building import page_of_machine
from vms.changes import disks
from vms.changes.changing_over import NO_COPY, ChangeOver
from vms.changes.devices import showing
from vms.changes.devices.shared import DeviceStep, begin, devices, known
from vms.models import Definition, Disk, VirtualMachine

KIND = "vm.move_disk"
#: Seconds between two looks at a copy: the most, and the least, with which one of a small disk is begun.
LOOK_EVERY, LOOK_SOON = 0.5, 0.05
#: Of the time that a copy took so far, what the next look may be late by.
LATE = 0.05
#: Bytes; a pool with less room than that is full.
NO_ROOM = 16 << 20
#: How often a machine may go on or off in the middle of a copy before that is given up.
TURNS = 3


class MakeVolume(HostStep):
    """Make an empty volume in the other pool, of the name that was fixed."""

    name, title = "volume", "Make room in the other pool"

    def do(self, context: StepContext) -> None:
        make_volume(self, context)

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        if not has_moved(context):
            delete_waiting(self, context, names["to_pool"], names["to_volume"])


class _CopyFile(HostStep):
    """Copy the file of a disk; how long that takes, its size says."""

    name, title = "file", "Copy the file"
    timeout = 300.0

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        to, size, read = names["to_volume"], names["capacity"], names.get("format", "qcow2")
        full = VolumeSpec(names["to_pool"], to, size, names["path"], read, CloneMode.FULL)
        with _naming(context):
            copy_volume(self, context, full)


class Move(ChangeOver):
    """Copy the disk and let the machine work with the copy.

    Of a machine that runs its emulator copies, and goes on when the worker or libvirt dies. A machine that
    goes off meanwhile ends that copy, whose last writes may be missing: it is copied anew.
    """

    name, title = "move", "Copy the disk and change over to the copy"

    def do(self, context: StepContext) -> None:
        if self.is_begun(context) and self.has_changed_over(context):
            return
        for turn in range(TURNS):
            try:
                if self._copy(context):
                    self.finish(context, copied=True)
                else:
                    self.change_over(context)
                break
            except StepFailed as failure:
                # It went on or off between two calls.
                if failure.code != "invalid_state" or turn == TURNS - 1:
                    raise
            context.check()
        self.note(context)

    def undo(self, context: StepContext) -> None:
        if self.is_begun(context):
            if self.has_changed_over(context):
                delete_old(self, context)
            return
        names = context.identifiers
        try:
            if self.look_at_copy(context).stage is CopyStage.MOVED:
                self.finish(context, copied=False)
                self.note(context)
                delete_old(self, context)
                return
        except StepFailed as failure:
            if failure.code not in NO_COPY:
                raise
        self.call_if_there(context, "abort_copy", names["target"], names["path"], names["to_path"])

    def _copy(self, context: StepContext) -> bool:
        """Return once the copy is whole: True when it was copied while the machine was off."""
        begun, since = False, time.monotonic()
        while True:
            copy = self.look_at_copy(context)
            if copy.stage in {CopyStage.READY, CopyStage.MOVED}:
                return False
            if copy.stage is CopyStage.COPYING:
                begun = True
                context.progress(copy.percent)
            elif self._is_off(context):
                _CopyFile().do(context)
                context.check()
                return True
            elif begun:
                raise self._why_ended(context)
            else:
                self._begin(context)
                begun = True
            context.check()
            time.sleep(min(LOOK_EVERY, max(LOOK_SOON, LATE * (time.monotonic() - since))))

    def _begin(self, context: StepContext) -> None:
        """Begin a copy of what runs; it overwrites whatever an earlier one left in the volume."""
        names = context.identifiers
        make_volume(self, context)
        with _naming(context):
            self.call(
                context, "begin_copy", names["uuid"], names["target"], names["path"], names["to_path"]
            )

    def _is_off(self, context: StepContext) -> bool:
        info: DomainInfo = self.call(context, "domain_info", context.identifiers["uuid"])
        return info.state is DomainState.SHUTOFF

    def _why_ended(self, context: StepContext) -> StepFailed:
        """Return why a copy ended that nobody ended: most often there is no more room."""
        names = context.identifiers
        self.call(context, "list_volumes", names["to_pool"])  # which reads the pool anew
        pools = [pool for pool in self.call(context, "list_pools") if pool.name == names["to_pool"]]
        if pools and pools[0].available_bytes < NO_ROOM:
            return StepFailed("target_pool_full", names["to_pool"])
        return StepFailed("copy_ended", f"the copy of {names['target']} ended before it was ready")


class DeleteOld(DeviceStep):
    """Delete the volume that the disk was, once nothing names it any more."""

    name, title = "old", "Delete the disk in the old pool"

    def do(self, context: StepContext) -> str | None:
        return delete_old(self, context)


def delete_old(step: HostStep, context: StepContext) -> str | None:
    """Delete the volume that the disk was, unless it has users; return a remark when it is left. Idempotent.

    The disk is where it should be: that a file is left over takes nothing of it back. Raises StepFailed for
    what may pass.
    """
    names = context.identifiers
    try:
        if sharing.users_of(partial(step.call, context), names["pool"], names["volume"]):
            return "old_disk_left"
        delete_waiting(step, context, names["pool"], names["volume"])
    except StepFailed as failure:
        if failure.retryable:
            raise
        return "old_disk_left"
    return None


@contextmanager
def _naming(context: StepContext) -> Iterator[None]:
    """Say which pool is full, where one is."""
    try:
        yield
    except StepFailed as failure:
        if failure.code != "pool_full":
            raise
        raise StepFailed("target_pool_full", context.identifiers["to_pool"]) from failure


def make_volume(step: HostStep, context: StepContext) -> None:
    """Make the volume that the disk is copied to, unless it is there. Raises StepFailed."""
    names = context.identifiers
    empty = VolumeSpec(names["to_pool"], names["to_volume"], names["capacity"])
    with _naming(context):
        try:
            step.call(context, "create_volume", empty)
        except StepFailed as failure:
            if failure.code != "already_exists":
                raise
            # What a libvirt that died left in the middle of a copy is no volume yet.
            context.check()
            delete_waiting(step, context, names["to_pool"], names["to_volume"])
            step.call(context, "create_volume", empty)


def has_moved(context: StepContext) -> bool:
    """Tell whether the disk is known to be in the other pool."""
    names = context.identifiers
    moved = Disk.objects.filter(pk=names["disk"], pool=names["to"], volume_name=names["to_volume"])
    return moved.exists()


# Asking


def _not_yours() -> str:
    return _("Only an operator or an admin may move a disk.")


@dataclass(frozen=True)
class Place:
    """A pool that a disk could move to, and how many bytes more it takes."""

    pool: PoolAttachment
    left: int


def places(disk: Disk) -> list[Place]:
    """Return the other pools of files of the machine's host, the emptiest first."""
    others = PoolAttachment.objects.filter(host=disk.machine.host_id).exclude(pool=disk.pool.pool_id)
    pools = list(others.filter(observed_kind__in=FOLDER_KINDS).select_related("pool"))
    keys = [(pool.pool.scope, Counter.Resource.DISK.value) for pool in pools]
    found = []
    for pool, counter in zip(pools, counters.look(keys), strict=True):
        promised = counter.left
        left = pool.observed_available if promised is None else min(promised, pool.observed_available)
        found.append(Place(pool, left))
    return sorted(found, key=lambda place: (-place.left, place.pool.pk))


def is_linked(machine: VirtualMachine, disk: Disk) -> bool:
    """Tell whether the disk shares an image with others, as far as the portal made it so."""
    built = machine.built_by
    linked = built.frozen.get("pinned", {}).get("clone") == CloneMode.LINKED
    # One that moved since has another name.
    return linked and built.identifiers.get("volume") == disk.volume_name


def why_not(actor: Any, machine: VirtualMachine) -> str:
    """Return why `actor` cannot move disks of `machine` now, '' when they can."""
    if not may(actor, "operate", machine.project):
        return _not_yours()
    return power.why_not(actor, machine, "edit")


def move_disk(
    *, actor: Any, disk: Disk, to: PoolAttachment, seen: Snapshot | None = None
) -> Operation:
    """Queue the move of a disk to another pool of its host, whose room is held at once.

    `seen` is what a page showed (`disks.shown`). Raises Changed when the disk is another by now, or lies
    elsewhere, and Denied.
    """
    with transaction.atomic():
        current = power.usable(actor, disk.machine, "edit")
        if not may(actor, "operate", current.project):
            raise Denied(_not_yours())
        now = current.disks.select_related("pool__pool").filter(pk=disk.pk).first()
        if now is None:
            raise Denied(_("The machine has this disk no more."))
        there = PoolAttachment.objects.select_related("pool").filter(pk=to.pk, host=current.host_id).first()
        if there is None:
            raise Denied(_("The machine's host has this pool no more."), field="pool")
        if there.pool_id == now.pool.pool_id:
            raise Denied(_("The disk is in this pool already."), field="pool")
        showing.check(now.target, seen, disks.shown(now))
        if not there.has_folder:
            raise Denied(_("Disks of machines are files, and this pool is no folder."), field="pool")
        _check_movable(known(current), now)
        told = [("Pool", now.pool.pool.name, there.pool.name)]
        begun = begin(
            actor,
            current,
            KIND,
            f"Move {now.target} of {current.name}",
            told=told,
            names=_names(current, now, there),
            drive=now.target,
        )
        try:
            ledger.hold(begun, {(there.pool.scope, Counter.Resource.DISK.value): now.capacity})
        except Denied as denied:
            raise Denied(denied.reason, field="pool") from denied
        return begun


def why_stays(found: Definition | None) -> str:
    """Return why disks of a machine stay in their pools, '' when they can move.

    `found` is what `noted.of` returns.
    """
    return hypervisors.why_not_seen(found, DomainFeature.MOVE_DISK)


def _check_movable(found: Definition, disk: Disk) -> None:
    """Raise Denied for a disk that others write to as well, and for what is no file."""
    if reason := why_stays(found):
        raise Denied(reason)
    if disk.device:
        raise Denied(_("Only files are moved, and this disk is a device of its host."))
    for one in devices(found.observed_persistent, "disks"):
        if one.get("target", {}).get("dev") == disk.target and "shareable" in one:
            raise Denied(_("Other machines may use this disk at the same time, so it cannot move."))


def _names(machine: VirtualMachine, disk: Disk, to: PoolAttachment) -> dict[str, Any]:
    domain = placement.domain_name(machine.name, machine.uuid)
    # One of its name may lie there from an earlier move.
    volume = f"{domain}-{disk.target}-{secrets.token_hex(4)}.qcow2"
    return {
        "disk": disk.pk,
        "target": disk.target,
        "capacity": disk.capacity,
        "from": disk.pool_id,
        "pool": disk.pool.pool.name,
        "volume": disk.volume_name,
        "path": disk.path,
        "format": noted.format_of(noted.of(machine), disk.target),
        "to": to.pk,
        "to_pool": to.pool.name,
        "to_volume": volume,
        "to_path": f"{to.path}/{volume}",
    }


def settle(operation: Operation, state: State) -> None:
    """Give back the room that the disk takes no more: the old pool's, or the other's when it did not move.

    Where the disk is, its row says, whatever became of the operation.
    """
    names = operation.identifiers
    disk = Disk.objects.select_related("machine__built_by").filter(pk=names["disk"]).first()
    if disk is None or disk.volume_name != names["to_volume"]:
        return
    if state != State.SUCCEEDED:
        # It was too late: what was promised was given back a moment ago, in this transaction. Somebody may
        # have taken the room since, or lowered the limit; the disk lies there all the same.
        ledger.take_again(operation, beyond=True)
        StepRecord.objects.filter(operation=operation, name=Move.name).update(remark="moved_already")
    built_by = disk.machine.built_by
    ledger.hand_over(operation, built_by)
    old = PoolAttachment.objects.select_related("pool").get(pk=names["from"])
    ledger.reduce(built_by, {(old.pool.scope, Counter.Resource.DISK.value): disk.capacity})
    publish(operation.subject)


KINDS: Sequence[Kind] = (
    Kind(
        KIND,
        "Move a disk",
        (MakeVolume(), Move(), DeleteOld()),
        settle=settle,
        page=page_of_machine,
        cancellable=True,
        slow=True,
    ),
)
