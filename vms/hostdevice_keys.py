"""Which device of its host one in a definition is. Not for: who has it, nor giving any."""

from collections.abc import Mapping, Sequence
from typing import Any

from portal.hosts.models import Host
from vms.changes.devices.shared import devices

#: A device as the host told of it: the values of `portal.drivers.types.HostDevice`.
Told = Mapping[str, Any]
_PCI = ("domain", "bus", "slot", "function")


def told_of(host: Host) -> list[Told]:
    """Return the devices that a host told of when it was proven last."""
    return list(host.readiness.get("devices", ()))


def _key(device: Mapping[str, Any] | None, told: Sequence[Told]) -> str:
    """Return which device of the host one of a definition is, '' for one of another kind."""
    device = device or {}
    address, usb = device.get("address") or {}, device.get("usb") or {}
    try:
        if device.get("type") == "pci":
            numbers = [int(address.get(name) or "0", 0) for name in _PCI]
            return "pci:{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)
        if device.get("type") == "usb" and usb.get("vendor"):
            return f"usb:{int(usb['vendor'], 0):04x}:{int(usb.get('product') or '0', 0):04x}"
        if device.get("type") == "usb":
            place = f"{int(address.get('bus') or '0', 0)}.{int(address.get('device') or '0', 0)}"
            plugged = (
                one["key"] for one in told if one["key"].startswith("usb:") and one["address"] == place
            )
            return next(plugged, f"usb@{place}")
    except ValueError:
        return ""
    return ""


def cards_of(defined: Mapping[str, Any] | None, told: Sequence[Told]) -> list[str]:
    """Return which devices of the host a definition names as network cards, by <interface type='hostdev'>."""
    places = [card["host_address"] for card in devices(defined, "interfaces") if card.get("host_address")]
    return [_key({"type": place.get("type"), "address": place}, told) for place in places]


def keys_of(defined: Mapping[str, Any] | None, told: Sequence[Told]) -> list[str]:
    """Return which devices of the host a definition, or a change of one, names by <hostdev>, in its order.

    Those that are network cards (`cards_of`) are not among them.
    """
    return [_key(device, told) for device in devices(defined, "host_devices")]
