"""Memory while a machine runs: its balloon, what its guest has, what comes when. Not for: what may be asked.

A machine is counted by its ceiling (`VirtualMachine.memory`, libvirt's `memory`); below it, the balloon
leaves the guest `VirtualMachine.memory_now` (libvirt's `currentMemory`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from portal.drivers.types import DomainInfo, DomainState
from portal.hosts.steps import once_reached
from portal.operations.registry import StepContext, StepFailed
from vms import noted
from vms.models import Definition, VirtualMachine
from vms.specs import guest_memory
from vms.steps import DomainStep

OFF = (DomainState.SHUTOFF, DomainState.CRASHED)
#: Bytes by which what a guest has may differ from what it was told: guests count in pages of their own.
NEAR = 1 << 20


def has_balloon(defined: Mapping[str, Any]) -> bool:
    """Tell whether a domain that is defined so can give memory back, or get it, while it runs."""
    return bool(defined.get("devices", {}).get("balloon", "none") != "none")


def before(frozen: Mapping[str, Any]) -> int:
    """Return what the guest had when a change was asked for."""
    had: int = frozen["pinned"].get("memory_was", frozen["pinned"]["now"]["memory"])
    return had


class SetBalloon(DomainStep):
    """Tell the guest of a machine that runs, up to what it was started with; its next start gives the rest.

    What it ignores is told and no failure: a guest may need it, or have no driver of the balloon.
    """

    name, title = "balloon", "Tell its guest how much memory it has"

    def do(self, context: StepContext) -> str | None:
        try:
            return once_reached(context, self._tell)
        except StepFailed as failure:
            if failure.away or failure.code == "domain_not_found":
                raise
            # The definition has it by now, and processors may be plugged in, which nobody takes out again.
            return None if failure.code == "invalid_state" else "memory_unsure"

    def _tell(self, context: StepContext) -> str | None:
        frozen, name = context.spec, context.identifiers["uuid"]
        had, grown = before(frozen), frozen["sizes"]["memory"] > frozen["pinned"]["now"]["memory"]
        if guest_memory(frozen) == had and not grown:
            return None
        info: DomainInfo = self.call(context, "domain_info", name)
        if info.state in OFF:
            return None
        now = min(guest_memory(frozen), info.memory_bytes)
        if now != had:
            try:
                got: int = self.call(context, "set_balloon", name, now)
            except StepFailed as failure:
                if failure.code == "not_supported":
                    return "memory_at_next_start"
                raise
            self._note(context)
            if abs(got - now) > NEAR:
                return "memory_kept" if got > now else "memory_not_taken"
        if guest_memory(frozen) > info.memory_bytes:
            return "memory_at_next_start"
        return "ceiling_at_next_start" if frozen["sizes"]["memory"] > info.memory_bytes else None

    def _note(self, context: StepContext) -> None:
        """Write what the guest has now: the page need not wait for the watcher's next look."""
        names, began = context.identifiers, timezone.now()
        noted.note(names["host"], names["uuid"], self.call(context, "definition", names["uuid"]), began)

    def undo(self, context: StepContext) -> None:
        """Let the guest have what it had; what it ignores now it ignored before."""
        had = before(context.spec)
        if guest_memory(context.spec) == had:
            return
        try:
            info: DomainInfo = self.call(context, "domain_info", context.identifiers["uuid"])
            if info.state not in OFF:
                self.call(context, "set_balloon", info.uuid, min(had, info.memory_bytes))
                self._note(context)
        except StepFailed as failure:
            if failure.code not in {"domain_not_found", "invalid_state", "not_supported"}:
                raise


@dataclass(frozen=True)
class Sight:
    """A machine's memory as it is, in bytes: `now` of `ceiling` is what it should have.

    `guest` is what the balloon leaves the guest while it runs, and `hot` up to what it can change at once;
    both None when it is off or nobody knows. `balloon` tells that it has one at all.
    """

    now: int
    ceiling: int
    guest: int | None
    hot: int | None
    balloon: bool

    @property
    def matters(self) -> bool:
        """Whether there is more to say than the machine's size."""
        return self.now != self.ceiling or self.differs

    @property
    def differs(self) -> bool:
        """Whether the guest has something else than it should have."""
        return self.guest is not None and abs(self.guest - self.now) > NEAR

    @property
    def why(self) -> str:
        """Why the guest has something else, in a sentence; empty when it has not."""
        if not self.differs or self.guest is None:
            return ""
        if self.guest > self.now:
            return _(
                "It has not given the rest back so far. It may need it, or have no driver of the balloon "
                "(virtio-balloon): then it always has what it was started with."
            )
        if self.hot is None or self.hot < self.now:
            return _("It gets the rest when the machine is switched off and started again.")
        return _("It has not taken the rest so far.")


def sights(machines: Iterable[VirtualMachine]) -> dict[int, Sight]:
    """Return the memory of machines by their keys; one query."""
    found = list(machines)
    rows = Definition.objects.filter(uuid__in=[vm.uuid for vm in found])
    seen = {(row.host_id, row.uuid): row for row in rows}
    return {vm.pk: _sight(vm, seen.get((vm.host_id, vm.uuid))) for vm in found}


def _sight(machine: VirtualMachine, seen: Definition | None) -> Sight:
    running = (seen.observed_running if seen else None) or {}
    told = running or (seen.observed_persistent if seen else None) or {}
    most = running.get("memory_bytes")
    return Sight(
        now=machine.memory_now,
        ceiling=machine.memory,
        guest=running.get("current_memory_bytes", most),
        hot=most if has_balloon(running) else None,
        balloon=has_balloon(told),
    )
