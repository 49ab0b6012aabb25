"""Limit what a machine's disk reads and writes a second. Not for: its size, which takes quota."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.core.errors import Denied
from portal.drivers.types import LIMITS, MOST_LIMIT, DomainFeature
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext
from portal.operations.words import Difference
from vms import hypervisors, noted, power
from vms.building import page_of_machine
from vms.changes.devices import showing
from vms.changes.devices.shared import DeviceStep, begin, devices, known
from vms.models import Definition, Disk, VirtualMachine

LIMIT = "vm.limit_disk"
MIB = 1 << 20
#: What people call each; bytes are typed in MiB.
LABELS = {
    "total_bytes_sec": gettext_lazy("Reading and writing, MiB/s"),
    "read_bytes_sec": gettext_lazy("Reading, MiB/s"),
    "write_bytes_sec": gettext_lazy("Writing, MiB/s"),
    "total_iops_sec": gettext_lazy("Reads and writes a second"),
    "read_iops_sec": gettext_lazy("Reads a second"),
    "write_iops_sec": gettext_lazy("Writes a second"),
}


class LimitDisk(DeviceStep):
    """Set the limits, in what runs too."""

    name, title = "limits", "Limit the disk"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        self.call(context, "limit_disk", names["uuid"], names["target"], names["path"], names["limits"])
        self.look(context)

    def undo(self, context: StepContext) -> None:
        names = context.identifiers
        self.call_if_there(context, "limit_disk", names["target"], names["path"], names["back"])
        self.look(context)


def limits_of(disk: Disk) -> dict[str, int] | None:
    """Return the limits that a disk is defined with, 0 for none; None before they are known."""
    found = noted.of(disk.machine)
    return _limits(found.observed_persistent, disk.target) if found else None


def _limits(defined: Mapping[str, Any] | None, target: str) -> dict[str, int] | None:
    for disk in devices(defined, "disks"):
        if disk.get("target", {}).get("dev") == target:
            told = disk.get("limits", {})
            return {name: int(told.get(name, 0)) for name in LIMITS}
    return None


def why_not(found: Definition | None) -> str:
    """Return why no disk of a machine can be limited, '' when they can; `found` is that of `noted.of`."""
    return hypervisors.why_not_seen(found, DomainFeature.LIMIT_DISK)


def differences(before: Mapping[str, int], after: Mapping[str, int]) -> list[Difference]:
    """Return in words what differs, in the order of LIMITS."""
    return differing(LABELS, in_words, before, after)


def differing(
    labels: Mapping[str, Any],
    words: Callable[[str, int], str],
    before: Mapping[str, int],
    after: Mapping[str, int],
) -> list[Difference]:
    """Return in words what differs of limits, in the order of their `labels`; one that is not named is 0."""
    return [
        Difference(str(label), words(name, before.get(name, 0)), words(name, after.get(name, 0)))
        for name, label in labels.items()
        if before.get(name, 0) != after.get(name, 0)
    ]


def in_words(name: str, value: int) -> str:
    """Return a limit as people type it, '' for none."""
    if not value:
        return ""
    return f"{Decimal(value) / MIB:f}" if name.endswith("bytes_sec") else str(value)


def limit_disk(
    *, actor: Any, disk: Disk, limits: Mapping[str, int], seen: Mapping[str, int]
) -> Operation | None:
    """Queue other limits of a disk (of each of LIMITS, 0 for none); the person saw it with `seen`.

    Returns None when all of it is so already. Raises Changed when it has others by now, and Denied, with the
    limit as its field, for one that cannot be.
    """
    wanted = {name: limits.get(name, 0) for name in LIMITS}
    _check(wanted)
    with transaction.atomic():
        current = power.usable(actor, disk.machine, "edit")
        now = current.disks.select_related("pool").filter(pk=disk.pk).first()
        if now is None:
            raise Denied(_("The machine has this disk no more."))
        found = known(current)
        if reason := why_not(found):
            raise Denied(reason)
        before = _limits(found.observed_persistent, now.target)
        if before is None:
            raise Denied(_("The machine has this disk no more."))
        if _is_so(found, now.target, wanted):
            return None
        showing.check(now.target, {name: seen.get(name, 0) for name in LIMITS}, before)
        return _begin(actor, current, now, wanted, before)


def _is_so(found: Definition, target: str, wanted: Mapping[str, int]) -> bool:
    """Tell whether a disk is limited so, for the next start and in what runs, where it has the disk."""
    running = _limits(found.observed_running, target)
    return _limits(found.observed_persistent, target) == wanted and running in (None, wanted)


def _begin(
    actor: Any, machine: VirtualMachine, disk: Disk, wanted: Mapping[str, int], before: Mapping[str, int]
) -> Operation:
    # Kept with the request, in no reader's language.
    with translation.override("en"):
        told = [(one.label, one.before, one.after) for one in differences(before, wanted)]
    return begin(
        actor,
        machine,
        LIMIT,
        f"Limit {disk.target} of {machine.name}",
        told=told,
        names={
            "target": disk.target,
            "path": disk.path,
            "limits": dict(wanted),
            "back": dict(before),
        },
        drive=disk.target,
    )


def _check(limits: Mapping[str, int]) -> None:
    """Raise Denied for a number that cannot be, and for a total beside a part of it."""
    for name, value in limits.items():
        if not 0 <= value <= MOST_LIMIT:
            raise Denied(_("A limit is a number above zero, and not an enormous one."), field=name)
    for unit in ("bytes", "iops"):
        total = f"total_{unit}_sec"
        if limits[total] and (limits[f"read_{unit}_sec"] or limits[f"write_{unit}_sec"]):
            words = _("Limit both together, or reading and writing each by itself.")
            raise Denied(words, field=total)


KINDS = (Kind(LIMIT, "Limit a disk", (LimitDisk(),), page=page_of_machine, waits_for_host=False),)
