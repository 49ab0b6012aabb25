"""PCI and USB devices of a host that a machine has for itself. Not for: a machine's own devices.

What a machine has counts from its next start on, a USB device at once where the hypervisor can, and no quota
knows of it. Nobody else has it: neither another machine, nor a domain that the portal does not know, nor who
has something of its IOMMU group.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.core.errors import Denied
from portal.hosts.services import check_estate, locked
from portal.operations.models import Operation
from portal.operations.states import UNFINISHED
from vms import editing, noted, power
from vms.changes.devices.shared import devices, known
from vms.hostdevice_keys import Told, cards_of, keys_of, told_of
from vms.hotplug import Plug
from vms.models import Definition, VirtualMachine

_KIND = "host_devices"


@dataclass(frozen=True)
class Given:
    """A device that a machine has: while it runs now, from its next start on, or both."""

    key: str
    label: str
    now: bool
    defined: bool


@dataclass(frozen=True)
class Offer:
    """A device of the host, and why a machine cannot have it, '' when it can."""

    key: str
    label: str
    address: str
    denied: str


def of(machine: VirtualMachine) -> list[Given]:
    """Return the devices of its host that a machine has, as its definition was seen last."""
    return _of(machine, noted.of(machine))


def _of(machine: VirtualMachine, found: Definition | None) -> list[Given]:
    told = told_of(machine.host)
    if found is None:
        return []
    labels = {one["key"]: one["label"] for one in told}
    now, defined = (keys_of(side, told) for side in (found.observed_running, found.observed_persistent))
    every = dict.fromkeys(filter(None, [*defined, *now]))
    return [Given(key, labels.get(key, key), key in now, key in defined) for key in every]


def matters(machine: VirtualMachine, seen: Definition | None) -> bool:
    """Tell whether there is anything to say: its host has what can be given, or the machine has some.

    `seen` is what `noted.of` returns.
    """
    usable = (one["group"] is not None or one["key"].startswith("usb:") for one in told_of(machine.host))
    return any(usable) or bool(_of(machine, seen))


def offers(actor: Any, machine: VirtualMachine) -> list[Offer]:
    """Return the devices of a machine's host that it does not have, for who may give them."""
    if not may(actor, "operate", None):
        return []
    told, found = told_of(machine.host), noted.of(machine)
    own = set(_every([found.observed_persistent, found.observed_running], told)) if found else set()
    holders = _holders(machine, told)
    return [
        Offer(one["key"], one["label"], one["address"], _why_not(one, told, holders))
        for one in told
        if one["key"] not in own
    ]


def _holders(machine: VirtualMachine, told: Sequence[Told]) -> dict[str, str]:
    """Return who else has, or is about to get, a device of the machine's host, by its key."""
    names = dict(VirtualMachine.objects.filter(host=machine.host_id).values_list("uuid", "name"))
    found: dict[str, str] = {}
    rows = Definition.objects.filter(host=machine.host_id).exclude(uuid=machine.uuid)
    sides = rows.values_list("uuid", "observed_name", "observed_persistent", "observed_running")
    for own, name, *definitions in sides:
        for key in _every(definitions, told):
            found[key] = names.get(own, name)
    work = Operation.objects.filter(kind=editing.EDIT.name, lane=machine.host.scope, state__in=UNFINISHED)
    for operation in work:
        pinned = operation.frozen["pinned"]
        if pinned["machine"] != str(machine.uuid):
            for key in _every([pinned["change"]], told):
                found[key] = names.get(UUID(pinned["machine"]), pinned["name"])
    return found


def _every(definitions: Iterable[Mapping[str, Any] | None], told: Sequence[Told]) -> Iterator[str]:
    for defined in definitions:
        yield from filter(None, [*keys_of(defined, told), *cards_of(defined, told)])


def _why_not(device: Told, told: Sequence[Told], holders: Mapping[str, str]) -> str:
    key, group = device["key"], device["group"]
    if key in holders:
        return _("%(machine)s has it.") % {"machine": holders[key]}
    if key.startswith("usb:"):
        if sum(one["key"] == key for one in told) > 1:
            return _("The host has several of this kind, which cannot be told apart.")
        return ""
    if group is None:
        return _("The host has no IOMMU in use, without which no guest can have a PCI device.")
    together = next((one["key"] for one in told if one["group"] == group and one["key"] in holders), "")
    if together:
        words = _("%(machine)s has a device that goes together with it (IOMMU group %(group)d).")
        return words % {"machine": holders[together], "group": group}
    return ""


def attach(*, actor: Any, machine: VirtualMachine, key: str) -> Operation:
    """Queue that a machine has a device of its host, a USB device at once. Raises Denied."""
    with transaction.atomic():
        current, found = _changeable(actor, machine)
        told = told_of(current.host)
        device = next((one for one in told if one["key"] == key), None)
        if device is None:
            raise Denied(
                _("The host has no such device, or not any more; prove it again to see what it has.")
            )
        there = keys_of(found.observed_persistent, told)
        if key in _every([found.observed_persistent], told):
            raise Denied(_("The machine has this device already."))
        if reason := _why_not(device, told, _holders(current, told)):
            raise Denied(reason)
        change = {"devices": {_KIND: [*({} for _one in there), _wanted(key)]}}
        said = [("Device of the host", "", device["label"])]
        plugs = _comes(found, key, told)
        return editing.begin(
            actor=actor, machine=current, found=found, change=change, told=said, plugs=plugs
        )


def detach(*, actor: Any, machine: VirtualMachine, key: str) -> Operation:
    """Queue that a machine has a device of its host no more, a USB device at once. Raises Denied."""
    with transaction.atomic():
        current, found = _changeable(actor, machine)
        told = told_of(current.host)
        there = keys_of(found.observed_persistent, told)
        if not key or key not in there:
            raise Denied(_("The machine is not defined with this device."))
        kept: list[Any] = [None if one == key else {} for one in there]
        change = {"devices": {_KIND: kept}}
        label = next((one["label"] for one in told if one["key"] == key), key)
        said = [("Device of the host", label, "")]
        plugs = _goes(found, key, told)
        return editing.begin(
            actor=actor, machine=current, found=found, change=change, told=said, plugs=plugs
        )


def _comes(found: Definition, key: str, told: Sequence[Told]) -> list[Plug]:
    """Return what comes to what runs at once: no PCI device, which the host must let go of first."""
    running = found.observed_running
    if not running or not key.startswith("usb:") or key in _every([running], told):
        return []
    return [Plug(_KIND, _wanted(key), comes=True)]


def _goes(found: Definition, key: str, told: Sequence[Told]) -> list[Plug]:
    """Return what goes from what runs at once; what is told by its socket alone stays as long as it runs."""
    pairs = zip(keys_of(found.observed_running, told), devices(found.observed_running, _KIND), strict=True)
    there = [device for name, device in pairs if name == key and (device.get("usb") or {}).get("vendor")]
    return [Plug(_KIND, there[0], comes=False)] if there and key.startswith("usb:") else []


def _changeable(actor: Any, machine: VirtualMachine) -> tuple[VirtualMachine, Definition]:
    """Return the machine, locked, and its definition. Joins the transaction. Raises Denied.

    The host is locked first: of two who give one device to two machines the second sees the first.
    """
    check_estate(actor, "operate", _("give machines devices of their hosts"))
    locked(machine.host)
    current = power.usable(actor, machine, "edit")
    return current, known(current)


def _wanted(key: str) -> dict[str, Any]:
    """Return the device of a definition that is `key`; the host lets go of it and takes it back by itself."""
    kind, _colon, rest = key.partition(":")
    common = {"mode": "subsystem", "type": kind, "managed": True}
    if kind == "usb":
        vendor, product = rest.split(":")
        return {**common, "usb": {"vendor": f"0x{vendor}", "product": f"0x{product}"}}
    domain, bus, last = rest.split(":")
    slot, function = last.split(".")
    address = {"domain": f"0x{domain}", "bus": f"0x{bus}", "slot": f"0x{slot}", "function": f"0x{function}"}
    return {**common, "address": address}
