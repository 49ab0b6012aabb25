"""Steps of power actions and of deleting. Not for: who may begin them, and when."""

from functools import partial

from portal.drivers.types import DomainInfo, DomainState
from portal.hosts import sharing
from portal.hosts.steps import HostStep
from portal.operations.registry import StepContext, StepFailed
from vms.steps import DomainStep

#: Seconds that writing a machine's memory to its host's disk, or reading it, may take.
MEMORY_PATIENCE = 3600.0


class CallVerb(DomainStep):
    """One driver call on the machine's domain."""

    def __init__(self, name: str, title: str, call: str) -> None:
        self.name, self.title, self._call = name, title, call

    def do(self, context: StepContext) -> None:
        self.call(context, self._call, context.identifiers["uuid"])


class Save(DomainStep):
    """Write the memory into a file of the host; a machine that cannot be saved goes on as it was."""

    name, title = "save", "Write its memory to the host's disk"
    timeout = MEMORY_PATIENCE

    def do(self, context: StepContext) -> None:
        self.call(context, "save", context.identifiers["uuid"])


class Start(DomainStep):
    """Start the machine; one that is saved goes on as it was, which takes as long as reading its memory."""

    name, title = "start", "Start"

    def do(self, context: StepContext) -> None:
        # While an earlier worker's call restores it, it is paused.
        slow = self._state(context) in {DomainState.SAVED, DomainState.PAUSED}
        step = _RESTORE if slow else self
        try:
            step.call(context, "start", context.identifiers["uuid"])
        except StepFailed as failure:
            # One that was paused when it was saved is paused again: that worker restored it to its end.
            restored = context.identifiers.get("saved") and failure.code == "invalid_state"
            if not restored or self._state(context) is not DomainState.PAUSED:
                raise

    def _state(self, context: StepContext) -> DomainState:
        info: DomainInfo = self.call(context, "domain_info", context.identifiers["uuid"])
        return info.state


class _Restore(CallVerb):
    timeout = MEMORY_PATIENCE


_RESTORE = _Restore("start", "Start", "start")


class ForceOff(DomainStep):
    name, title = "off", "Switch the machine off"

    def do(self, context: StepContext) -> None:
        self.force_off(context)


class StayOff(DomainStep):
    """Let the host not start what lies in the bin."""

    name, title = "stay_off", "Let its host not start it"

    def do(self, context: StepContext) -> None:
        self._set(context, False)

    def undo(self, context: StepContext) -> None:
        if context.identifiers.get("autostart"):
            self._set(context, True)

    def _set(self, context: StepContext, on: bool) -> None:
        try:
            self.call(context, "autostart_domain", context.identifiers["uuid"], on)
        except StepFailed as failure:
            # Gone, or only there while it runs: its host starts no such domain.
            if failure.code not in ("domain_not_found", "invalid_state"):
                raise


class Undefine(CallVerb):
    def __init__(self) -> None:
        super().__init__("undefine", "Remove the machine's definition", "undefine")


class DeleteVolumes(HostStep):
    """Delete the disks that nobody else has: somebody may have made a domain of one, or a disk upon it."""

    name, title = "volumes", "Delete its disks"

    def do(self, context: StepContext) -> str | None:
        left = False
        for pool, volume in context.identifiers["volumes"]:
            if sharing.users_of(partial(self.call, context), pool, volume):
                left = True
            else:
                self.call(context, "delete_volume", pool, volume)
            context.check()
        return "disks_left" if left else None
