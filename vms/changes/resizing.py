"""Give a machine another number of processors or another amount of memory. Not for: its disks."""

import uuid
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.urls import reverse as url
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.core.errors import Denied
from portal.drivers.inspection import reverse
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import MOST_VCPUS, DomainInfo
from portal.hosts.steps import once_reached
from portal.live.publish import publish
from portal.operations import ledger, revisions
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from vms import fitting, noted, power
from vms.building import page_of_machine
from vms.changes import asking, memory
from vms.changes.disks import reason
from vms.editing import Clash, Redefine
from vms.models import Observed, VirtualMachine
from vms.settings.abilities import is_emulated
from vms.settings.model import Ground
from vms.specs import balloon, guest_memory, vcpu_ceiling
from vms.steps import DomainStep

KIND = "vm.resize"
MIB = 1 << 20


class SetSize(Redefine):
    """Write the size into the definition; a machine becomes smaller only while it is off."""

    title = "Write the size into its definition"

    def do(self, context: StepContext) -> str | None:
        info: DomainInfo = self.call(context, "domain_info", context.identifiers["uuid"])
        off = info.state in memory.OFF
        if not off and asking.shrinkage(context.spec):
            raise StepFailed("machine_runs", f"the domain is {info.state}")
        return super().do(context)


class PlugVcpus(DomainStep):
    """Give a machine that runs the processors at once, where it can have them and was started with room."""

    name, title = "plug", "Give it the processors while it runs"

    def do(self, context: StepContext) -> str | None:
        try:
            return once_reached(context, self._plug)
        except StepFailed as failure:
            if failure.away or failure.code == "domain_not_found":
                raise
            # The definition has the size by now. To take it back would leave what was plugged in uncounted.
            return "vcpus_unsure"

    def _plug(self, context: StepContext) -> str | None:
        names, wanted = context.identifiers, context.spec["sizes"]["vcpu"]
        info: DomainInfo = self.call(context, "domain_info", names["uuid"])
        if info.state in memory.OFF or "vcpu" not in asking.growth(context.spec):
            return None
        running = DefinitionSeen.of(self.call(context, "definition", names["uuid"])).running
        # It may have been started anew since it was asked, and runs another way now.
        if running is not None and is_emulated(Ground(running)):
            return "vcpus_emulated"
        try:
            used: int | None = self.call(context, "plug_vcpus", names["uuid"], wanted)
        except StepFailed as failure:
            if failure.code == "invalid_state":  # it went off in between
                return None
            if failure.code == "not_supported":
                return "at_next_start"
            raise
        if used is None:
            return "vcpus_untold"
        return "vcpus_unused" if used < wanted else None


def sizes_of(machine: VirtualMachine) -> dict[str, int]:
    """Return what a machine has, by the names of a request's sizes; bytes.

    `memory` is its ceiling. `memory_now` is there only where its guest is left less.
    """
    now = {"memory_now": machine.memory_now} if machine.memory_now != machine.memory else {}
    return _counted(machine) | now


def _counted(machine: VirtualMachine) -> dict[str, int]:
    return {"vcpu": machine.vcpus, "memory": machine.memory}


def spec_of(machine: VirtualMachine, sizes: Mapping[str, int], why: str) -> RequestSpec:
    """Freeze a change to `sizes`. Raises Denied, with the size as its field, for one that cannot be."""
    counted = {"vcpu": sizes["vcpu"], "memory": sizes["memory"]}
    present = sizes.get("memory_now", sizes["memory"])
    _refuse(machine, counted, present)
    pinned = {**asking.pinned(machine, _counted(machine), counted), "why": why.strip()}
    if (present, machine.memory_now) != (counted["memory"], machine.memory):
        # Not among the sizes: who lowers those leaves the guest less with its ceiling (`specs.guest_memory`).
        pinned |= {"memory_now": present, "memory_was": machine.memory_now}
    return RequestSpec(kind=KIND, sizes=counted, pinned=pinned)


def _refuse(machine: VirtualMachine, counted: Mapping[str, int], present: int) -> None:
    """Raise Denied for a size that cannot be, of which the guest is left `present` bytes."""
    if not 1 <= counted["vcpu"] <= MOST_VCPUS:
        raise Denied(_("A machine has 1 to %(most)d vCPUs.") % {"most": MOST_VCPUS}, field="vcpu")
    if reason := fitting.too_little(machine, present, machine.image):
        raise Denied(reason, field="memory")
    if present > counted["memory"]:
        raise Denied(
            _("The ceiling is no less than the memory. Leave it empty, and it is the same."), field="ceiling"
        )
    # What others defined may be anything, and stays while it is not changed.
    if present % MIB and present != machine.memory_now:
        raise Denied(_("Memory is whole MiB."), field="memory")
    if counted["memory"] % MIB and counted["memory"] != machine.memory:
        raise Denied(_("Memory is whole MiB."), field="ceiling")
    if (dict(counted), present) == (_counted(machine), machine.memory_now):
        raise Denied(_("The machine has this size already."))


def request_resize(
    *,
    actor: Any,
    machine: VirtualMachine,
    sizes: Mapping[str, int],
    seen: Mapping[str, int],
    why: str,
    token: uuid.UUID,
) -> Operation:
    """Ask for another size ({"vcpu", "memory"}, bytes); a smaller one needs nobody's consent and begins.

    `memory` is the ceiling, which counts; `memory_now` is what of it the guest is left, all where it is not
    named. To change that alone takes nothing, and needs nobody's consent either.
    `seen` is the size that the person saw. Idempotent by `token`. Raises Clash when it is another by now,
    and Denied, with the size as its field, for one that cannot be.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "edit")
        if dict(seen) != sizes_of(current):
            raise Clash(_("Somebody changed this machine's size since you opened this page; look again."))
        spec = spec_of(current, sizes, why)
        names = _names(current, spec.as_dict())
        if asking.growth(spec.as_dict()):
            reason(why)
        title = f"Resize {current.name}"
        return asking.ask(actor=actor, machine=current, spec=spec, title=title, token=token, begin=names)


def edit_resize(
    *, actor: Any, operation: Operation, sizes: Mapping[str, int], why: str, spec_hash: str
) -> Operation:
    """Ask for another size in place of one's own request that waits, as it was seen. Raises Denied."""
    machine = asking.machine_of(operation.frozen)
    if machine is None:
        raise Denied(_("The machine is gone."))
    spec = spec_of(machine, sizes, why)
    _names(machine, spec.as_dict())
    if not asking.growth(spec.as_dict()):
        raise Denied(_("This takes nothing that must be approved; withdraw the request and ask anew."))
    return revisions.edit(actor=actor, operation=operation, spec=spec, spec_hash=spec_hash)


def _names(machine: VirtualMachine, frozen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the steps need. Raises Denied for a size that the machine's definition does not allow."""
    off = machine.observed_state in {Observed.SHUTOFF, Observed.CRASHED}
    if asking.shrinkage(frozen) and not off:
        raise Denied(_("A machine becomes smaller only while it is off; switch it off first."))
    found = noted.of(machine)
    if found is None or found.observed_persistent is None:
        raise Denied(_("The host has not told this machine's settings yet; try again in a moment."))
    sizes = {**frozen["sizes"], "memory_now": guest_memory(frozen)}
    change = change_to(found.observed_persistent, sizes)
    return {
        "host": machine.host_id,
        "uuid": str(machine.uuid),
        "digest": found.observed_digest,
        "change": change,
        "back": reverse(found.observed_persistent, change),
    }


def change_to(defined: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return the change of a definition that gives it `sizes`. Raises Denied where that cannot be written."""
    most = defined.get("vcpus", 1)
    wanted = sizes["vcpu"]
    change: dict[str, Any] = {}
    if wanted != defined.get("current_vcpus", most):
        if wanted > most and defined.get("cpu", {}).get("topology"):
            words = _("Its processor is laid out for at most %(most)d vCPUs.")
            raise Denied(words % {"most": most}, field="vcpu")
        ceiling = max(most, vcpu_ceiling(wanted)) if wanted > most else most
        change |= {"vcpus": ceiling, "current_vcpus": wanted if wanted < ceiling else None}
    return change | _memory_change(defined, sizes["memory"], sizes.get("memory_now", sizes["memory"]))


def _memory_change(defined: Mapping[str, Any], ceiling: int, present: int) -> dict[str, int]:
    had = defined.get("memory_bytes")
    if ceiling == had and present == defined.get("current_memory_bytes", had):
        return {}
    if ceiling != had and "memory_ceiling_bytes" in defined:
        raise Denied(_("Its memory is made of modules, which are kept as they are."), field="memory")
    if present < ceiling and not memory.has_balloon(defined):
        words = _("It has no balloon, so it always has all of its memory: leave the ceiling empty.")
        raise Denied(words, field="ceiling")
    return {"memory_bytes": ceiling, "current_memory_bytes": present}


def hot_ceiling(machine: VirtualMachine) -> tuple[int, str]:
    """Return up to how many vCPUs a machine gets while it runs, and a sentence where it never gets any.

    0 and '' when it is off or nobody knows.
    """
    found = noted.of(machine)
    running = found.observed_running if found else None
    if not running:
        return 0, ""
    if is_emulated(Ground(running)):
        return 0, _("It runs emulated, and a vCPU that comes while it runs can crash QEMU's emulation.")
    return int(running.get("vcpus", 0)), ""


def place(operation: Operation) -> None:
    """Hold what more it takes of the machine's host. Raises Denied when there is no room, or it changed."""
    frozen = operation.frozen
    machine = asking.claim(operation)
    if (_counted(machine), machine.memory_now) != (frozen["pinned"]["now"], memory.before(frozen)):
        raise Denied(_("The machine has another size by now; it must be asked for anew."))
    if reason := fitting.resize_refusal(frozen, machine, machine.image):
        raise Denied(reason, field="memory")
    operation.identifiers = _names(machine, frozen)
    ledger.hold(operation, asking.capacity(machine, asking.growth(frozen)))


def settle(operation: Operation, state: State) -> None:
    """Write the size that the machine has now, and count it with what the machine took."""
    frozen = operation.frozen
    machine = asking.machine_of(frozen)
    if machine is None or state != State.SUCCEEDED:
        return
    machine.vcpus, machine.memory = frozen["sizes"]["vcpu"], frozen["sizes"]["memory"]
    machine.balloon = balloon(frozen)
    machine.save(update_fields=["vcpus", "memory", "balloon"])
    ledger.hand_over(operation, machine.built_by)
    less = asking.shrinkage(frozen)
    ledger.reduce(machine.built_by, {**asking.quotas(machine, less), **asking.capacity(machine, less)})
    publish(machine.topic)


class _Asking(asking.AskingToChange):
    def misfit(self, machine: VirtualMachine, frozen: Mapping[str, Any]) -> str:
        return fitting.resize_refusal(frozen, machine, machine.image)


RESIZE = Kind(
    KIND,
    "Resize a machine",
    (SetSize(), PlugVcpus(), memory.SetBalloon()),
    place=place,
    settle=settle,
    asking=_Asking(lambda machine, _frozen: url("vms:size", args=[machine.pk])),
    announce=gettext_lazy("%(name)s has its new size."),
    page=page_of_machine,
)
