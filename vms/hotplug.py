"""Give a machine that runs what its definition got, and take what that lost. Not for: disks and cards.

The definition is changed first, for the next start (`vms.editing`). What the hypervisor or the guest does not
do at once is told by a remark, and waits for that start.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from portal.hosts.steps import once_reached
from portal.operations.registry import StepContext, StepFailed
from vms.changes.devices.shared import DeviceStep
from vms.models import Definition
from vms.settings import SETTINGS


@dataclass(frozen=True)
class Plug:
    """A device that comes to what runs (`comes`) or goes; `kind` and `values` are the driver's."""

    kind: str
    values: Mapping[str, Any]
    comes: bool


def plugs_of(found: Definition, after: Mapping[str, Any]) -> list[Plug]:
    """Return what of settings comes to what runs and goes, where a definition becomes what `after` names.

    `after` is what `inspection.outcome` returns: of what a change does not name nothing comes or goes.
    """
    running = found.observed_running
    if not running:
        return []
    plugs = []
    for setting in SETTINGS:
        device = setting.plugged
        if device is None or device.kind not in after.get("devices", {}):
            continue
        runs, waits = device.of(running), device.of(after)
        # Of one that is on both sides, and otherwise, nothing can be changed as long as it runs.
        if bool(runs) != bool(waits):
            plugs.append(Plug(device.kind, (waits or runs)[0], comes=bool(waits)))
    return plugs


def noted(plugs: Iterable[Plug]) -> list[dict[str, Any]]:
    """Return what the step needs, to be kept with its operation."""
    return [asdict(plug) for plug in plugs]


#: What people are told of what stood in the way; what is off meanwhile has it all at its start.
_TOLD: Mapping[str, str | None] = {
    "invalid_state": None,
    "no_slot": "plug_no_slot",
    "guest_ignores": "plug_kept",
    "host_unreachable": "plug_unsure",
    "call_timeout": "plug_unsure",
}


class PlugDevices(DeviceStep):
    """Give and take at once what a hypervisor can; the rest counts from the next start, and is told."""

    name, title = "plug", "Change at once what can be while it runs"

    def do(self, context: StepContext) -> str | None:
        told = [self._try(context, plug) for plug in _plugs(context)]
        if told:
            self.look(context)
        return next(filter(None, told), None)

    def _try(self, context: StepContext, plug: Mapping[str, Any]) -> str | None:
        """Plug or unplug; return the code of a remark on what stood in the way. Raises StepFailed."""
        broken_off = False

        def act(reached: StepContext) -> None:
            nonlocal broken_off
            try:
                self._plug(reached, plug, comes=plug["comes"])
            except StepFailed as failure:
                broken_off = broken_off or failure.code == "host_unreachable"
                raise

        try:
            once_reached(context, act)
        except StepFailed as failure:
            if failure.away or failure.code == "domain_not_found":
                raise
            told = _TOLD.get(failure.code, "plug_at_next_start")
            # QEMU may have what a libvirtd that died in the midst of it never noted, and takes no second one.
            return "plug_unsure" if told == "plug_at_next_start" and broken_off else told
        return None

    def undo(self, context: StepContext) -> None:
        """Take it back as far as hypervisor and guest do it: the definition goes back in any case."""
        plugs = _plugs(context)
        for plug in plugs:
            try:
                self._plug(context, plug, comes=not plug["comes"])
            except StepFailed as failure:
                if failure.retryable or failure.away:
                    raise
        if plugs:
            self.look(context)

    def _plug(self, context: StepContext, plug: Mapping[str, Any], *, comes: bool) -> None:
        verb = "plug_device" if comes else "unplug_device"
        self.call(context, verb, context.identifiers["uuid"], plug["kind"], plug["values"])


def _plugs(context: StepContext) -> list[Mapping[str, Any]]:
    return list(context.identifiers.get("plugs", ()))
