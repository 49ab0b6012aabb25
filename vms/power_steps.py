"""Steps of power actions and of deleting. Not for: who may begin them, and when."""

from contextlib import suppress
from functools import partial
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from portal.drivers.types import DomainInfo, DomainState
from portal.hosts import sharing
from portal.hosts.steps import HostStep
from portal.operations.registry import StepContext, StepFailed
from vms import noted
from vms.models import VirtualMachine
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


class Autostart(DomainStep):
    """Tell the host, and note what it says then; the watcher would see it some rounds later."""

    name, title = "autostart", "Tell the host whether it starts the machine"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        self.call(context, "autostart_domain", names["uuid"], names["on"])
        began = timezone.now()
        noted.note(names["host"], names["uuid"], self.call(context, "definition", names["uuid"]), began)


class StayOff(DomainStep):
    """Let the host not start what lies in the bin, and remember in the machine's row that it did before."""

    name, title = "stay_off", "Let its host not start it"

    def do(self, context: StepContext) -> None:
        with suppress(_NoneToStart):
            # Written down first: a worker that comes after this one finds it off.
            if self._ask(context, "definition").autostart:
                self._row(context).update(binned_autostart=True)
                self._ask(context, "autostart_domain", False)

    def undo(self, context: StepContext) -> None:
        if self._row(context).filter(binned_autostart=True).exists():
            with suppress(_NoneToStart):
                self._ask(context, "autostart_domain", True)
            self._row(context).update(binned_autostart=False)

    def _ask(self, context: StepContext, verb: str, *args: bool) -> Any:
        try:
            return self.call(context, verb, context.identifiers["uuid"], *args)
        except StepFailed as failure:
            if failure.code in ("domain_not_found", "invalid_state"):
                raise _NoneToStart from failure
            raise

    def _row(self, context: StepContext) -> QuerySet[VirtualMachine]:
        return VirtualMachine.objects.filter(uuid=context.identifiers["uuid"])


class _NoneToStart(Exception):
    """The domain is gone, or only there while it runs: its host starts no such by itself."""


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
