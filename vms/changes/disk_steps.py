"""What is done to a machine's disk on its host, under the names that were fixed for it. Not for: who may."""

from collections.abc import Mapping
from typing import Any

from portal.drivers.types import DiskSpec, DomainInfo, DomainState, VolumeInfo, VolumeSpec
from portal.hosts.steps import HostStep
from portal.operations.registry import StepContext, StepFailed
from vms.changes.devices.shared import DeviceStep
from vms.steps import DomainStep


class MakeVolume(HostStep):
    """Make an empty volume of the name that was fixed."""

    name, title = "volume", "Make the disk"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        spec = VolumeSpec(names["pool"], names["volume"], context.spec["sizes"]["disk"])
        self.call(context, "create_volume", spec)

    def undo(self, context: StepContext) -> None:
        self.call(context, "delete_volume", context.identifiers["pool"], context.identifiers["volume"])


class Attach(DeviceStep):
    """Attach the volume, to what runs too where the machine's devices allow it."""

    name, title = "attach", "Attach it to the machine"

    def do(self, context: StepContext) -> str | None:
        names = context.identifiers
        hot = self.call(context, "attach_disk", names["uuid"], disk_spec(names))
        info: DomainInfo = self.call(context, "domain_info", names["uuid"])
        self.look(context)
        return None if hot or info.state is DomainState.SHUTOFF else "at_next_start"

    def undo(self, context: StepContext) -> None:
        detach(self, context)
        self.look(context)


class Detach(DeviceStep):
    """Detach the disk; a guest that runs must let it go."""

    name, title = "detach", "Detach it from the machine"

    def do(self, context: StepContext) -> None:
        detach(self, context)
        # Until it is seen that the machine has it no more, its volume is nobody else's.
        self.look(context)

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        try:
            self.call(context, "volume_info", names["pool"], names["volume"])
        except StepFailed as failure:
            if failure.code == "volume_not_found":  # it was deleted after all: nothing to give back
                return
            raise
        # As it was: one of an adopted machine may be raw, or on a bus of its own.
        self.call(context, "attach_disk", names["uuid"], disk_spec(names), names.get("was"))


def detach(step: HostStep, context: StepContext) -> None:
    """Detach the disk of the operation; a machine that is gone has none. Raises StepFailed."""
    names = context.identifiers
    try:
        step.call(context, "detach_disk", names["uuid"], names["target"], names["volume_path"])
    except StepFailed as failure:
        if failure.code != "domain_not_found":
            raise


class Grow(DomainStep):
    """Grow the disk. What has grown does not shrink again, so there is no way back."""

    name, title = "grow", "Grow the disk"

    def do(self, context: StepContext) -> None:
        names, wanted = context.identifiers, context.spec["sizes"]["disk"]
        try:
            self.call(context, "grow_disk", names["uuid"], names["target"], names["volume_path"], wanted)
        except StepFailed as failure:
            # A host may say so too late: what has grown counts, or the room would be given twice.
            if failure.away or not self._grown(context):
                raise

    def _grown(self, context: StepContext) -> bool:
        """Tell whether the volume has the size that was asked for, as far as the host says anything."""
        names = context.identifiers
        try:
            info: VolumeInfo = self.call(context, "volume_info", names["pool"], names["volume"])
        except StepFailed:
            return False
        return info.capacity_bytes >= context.spec["sizes"]["disk"]


def disk_spec(names: Mapping[str, Any]) -> DiskSpec:
    """Return the disk under the names that were fixed for it."""
    form, serial = names.get("format", "qcow2"), names.get("serial", "")
    return DiskSpec(names["volume_path"], names["target"], form, serial)
