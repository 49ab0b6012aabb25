"""Change one device of a definition, for the next start: a new one, one less, or other values of one.

A device is told by its name and not by its place: libvirt puts disks into an order of its own, so that a
place says nothing of a definition that was changed meanwhile. Not for: a machine's settings (`vms.editing`).
"""

from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from portal.drivers.inspection import agrees
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import DomainDefinition
from portal.operations.registry import StepContext, StepFailed
from vms import noted
from vms.changes.devices import nics
from vms.changes.devices.shared import DeviceStep, devices
from vms.settings.disks import target_of

DISKS, CARDS = "disks", "interfaces"
Wish = Mapping[str, Any]
Defined = Mapping[str, Any]


def wish(kind: str, name: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what becomes of the device `name` of a kind: it has `values` then, or (None) is gone.

    One that is not there is made of them. A value that is None is left to libvirt.
    """
    return {"kind": kind, "name": name, "values": None if values is None else dict(values)}


def place_of(defined: Defined, wanted: Wish) -> int | None:
    """Return the place among its kind where the device stands, None when it is not there."""
    every = devices(defined, wanted["kind"])
    names = [nics.mac_of(one) if wanted["kind"] == CARDS else target_of(one) for one in every]
    return names.index(wanted["name"]) if wanted["name"] in names else None


def is_so(defined: Defined, wanted: Wish) -> bool:
    """Tell whether the device is as it was wished."""
    place, values = place_of(defined, wanted), wanted["values"]
    if place is None or values is None:
        return place is None and values is None
    told = {name: value for name, value in values.items() if value is not None}
    return agrees(devices(defined, wanted["kind"])[place], told)


def change_of(defined: Defined, wanted: Wish) -> dict[str, Any]:
    """Return the change that makes a definition as it was wished."""
    every: list[Any] = [{} for _one in devices(defined, wanted["kind"])]
    place = place_of(defined, wanted)
    if place is None:
        every.append(wanted["values"])
    elif wanted["values"] is None:
        every[place] = None
    else:
        every[place] = _whole(devices(defined, wanted["kind"])[place], wanted["values"])
    return {"devices": {wanted["kind"]: every}}


def _whole(present: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of which an address is a whole one: parts of the one before say nothing beside it."""
    address, before = values.get("address"), present.get("address", {})
    if address is None:
        return dict(values)
    return {**values, "address": {**dict.fromkeys(before), **address}}


class RedefineDevice(DeviceStep):
    """Make the definition that was seen as it was wished; what runs stays as it is."""

    name, title = "redefine", "Change the machine's definition"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        found, digest = self._seen(context)
        if is_so(found, names["wish"]):
            return
        if digest != names["digest"]:
            raise StepFailed("definition_changed")
        self._redefine(context, change_of(found, names["wish"]), digest)

    def undo(self, context: StepContext) -> None:
        """Set it back if it was set: a call that took too long may have been heeded all the same."""
        names = context.identifiers
        try:
            found, digest = self._seen(context)
        except StepFailed as failure:
            if failure.code != "domain_not_found":
                raise
            return
        # What somebody else made of it meanwhile is not this operation's to take back.
        if digest != names["digest"] and is_so(found, names["wish"]):
            self._put_back(context, found, digest)

    def _put_back(self, context: StepContext, found: Defined, digest: str) -> None:
        back = context.identifiers["back"]
        try:
            self._redefine(context, change_of(found, back), digest)
        except StepFailed as failure:
            if failure.code != "invalid_spec" or not back["values"]:
                raise
            # Where it stood stands what libvirt added for the other model: it chooses another slot.
            anywhere = {**back, "values": {**back["values"], "address": None}}
            self._redefine(context, change_of(found, anywhere), digest)

    def _seen(self, context: StepContext) -> tuple[Defined, str]:
        """Return what the domain is defined as now, and note it."""
        names, began = context.identifiers, timezone.now()
        now: DomainDefinition = self.call(context, "definition", names["uuid"])
        noted.note(names["host"], names["uuid"], now, began)
        return DefinitionSeen.of(now).persistent or {}, now.digest

    def _redefine(self, context: StepContext, change: Mapping[str, Any], digest: str) -> None:
        names, began = context.identifiers, timezone.now()
        made = self.call(context, "redefine", names["uuid"], change, digest)
        noted.note(names["host"], names["uuid"], made, began)
