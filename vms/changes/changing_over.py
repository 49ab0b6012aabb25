"""A machine that runs works with the copy of its disk from now on. Not for: making the copy.

A libvirt that dies in the middle of that may forget that the machine runs, or believe that it works with
the old file still (docs/machines.md). So the row of the disk notes a change-over before it is ordered, and
from then on neither file is written or deleted until it is known whose it is: the machine is seen with the
copy, or somebody deleted the copy, which says that it is the old file.
"""

from contextlib import suppress

from django.db import transaction

from portal.drivers.types import CopyStage, DiskCopy
from portal.live.publish import publish
from portal.operations.registry import StepContext, StepFailed
from portal.operations.transitions import CancelAsked
from vms.changes.devices.shared import DeviceStep
from vms.models import Disk, VirtualMachine

#: What tells, on the way back, that there is no copy to end.
NO_COPY = ("domain_not_found", "device_not_found", "saved_state", "has_snapshots")
#: What a driver says that was asked for a change-over and ordered none.
_NOT_ORDERED = ("invalid_state", "already_exists", "not_supported", "has_snapshots")


class ChangeOver(DeviceStep):
    """What the step that moves a disk knows of the change-over to its copy."""

    def change_over(self, context: StepContext) -> None:
        """Let what runs work with the copy, which is ready. Raises StepFailed, CancelAsked."""
        context.check()
        _note_begun(context, context.identifiers["to_volume"])
        try:
            self.finish(context, copied=False)
        except StepFailed as failure:
            if failure.code in _NOT_ORDERED:
                _forget(context)
            raise

    def is_begun(self, context: StepContext) -> bool:
        """Tell whether a change-over may have been ordered, of which nobody knows yet what came of it."""
        names = context.identifiers
        return Disk.objects.filter(pk=names["disk"], changing_to=names["to_volume"]).exists()

    def has_changed_over(self, context: StepContext) -> bool:
        """Bring a change-over that was begun to its end; False once it is known that none was made.

        It is ordered again where the copy still waits for that. Raises StepFailed while nobody knows.
        """
        try:
            stage = self.look_at_copy(context).stage
        except StepFailed as failure:
            if failure.code not in NO_COPY:
                raise
            stage = CopyStage.NONE
        if stage is CopyStage.COPYING:  # the host is at it
            raise _unsure(context, retryable=True)
        if stage is CopyStage.NONE:
            names = context.identifiers
            there = self.call(context, "list_volumes", names["to_pool"])
            if any(volume.name == names["to_volume"] for volume in there):
                raise _unsure(context)
            _forget(context)
            return False
        try:
            self.finish(context, copied=False)
        except StepFailed as failure:
            # What was not ordered now may have been before.
            if failure.code in _NOT_ORDERED:
                raise _unsure(context) from failure
            raise
        self.note(context)
        return True

    def look_at_copy(self, context: StepContext) -> DiskCopy:
        """Return how far the copy is. Raises StepFailed."""
        names = context.identifiers
        found: DiskCopy = self.call(context, "disk_copy", names["uuid"], names["target"], names["to_path"])
        return found

    def finish(self, context: StepContext, *, copied: bool) -> None:
        """Let the disk be the other file, which the step itself `copied` if the machine is off."""
        names = context.identifiers
        there = names["uuid"], names["target"], names["path"], names["to_path"]
        try:
            self.call(context, "finish_copy", *there, copied)
        except StepFailed as failure:
            if failure.code == "copy_unsure":
                raise _unsure(context) from failure
            raise

    def note(self, context: StepContext) -> None:
        """Write where the disk is now; the machine works with it there already. Idempotent."""
        names = context.identifiers
        with transaction.atomic():
            here = Disk.objects.filter(pk=names["disk"])
            here.update(pool=names["to"], volume_name=names["to_volume"], changing_to="")
            publish(*(machine.topic for machine in VirtualMachine.objects.filter(uuid=names["uuid"])))
        self.look(context)


def _note_begun(context: StepContext, volume: str) -> None:
    Disk.objects.filter(pk=context.identifiers["disk"]).update(changing_to=volume)


def _forget(context: StepContext) -> None:
    """Note that none was made. Raises StaleAttempt: whoever has the operation by now may order one."""
    with suppress(CancelAsked):
        context.check()
    _note_begun(context, "")


def _unsure(context: StepContext, *, retryable: bool = False) -> StepFailed:
    """Return that nobody knows which file is the machine's, with what an operator finds it out by."""
    names = context.identifiers
    return StepFailed(
        "copy_unsure", f"{names['uuid']}, {names['path']}, {names['to_path']}", retryable=retryable
    )
