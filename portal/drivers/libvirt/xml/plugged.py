"""Devices that come to what runs and go, each told by what it is. Not for: disks and cards."""

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from portal.drivers.errors import InvalidSpec
from portal.drivers.inspection import Kind, changed, inspect
from portal.drivers.libvirt.xml.build import need, parse, serialise

#: libvirt's element of each kind, by its name in `inspection`.
_TAGS = {"watchdogs": "watchdog", "channels": "channel", "host_devices": "hostdev"}


def element_of(kind: str, values: Mapping[str, Any]) -> str:
    """Return a device alone, of what `inspection` understands of it. Raises InvalidSpec."""
    _need_name(kind, values)
    whole = changed(Kind.DOMAIN, b"<domain><devices/></domain>", {"devices": {kind: [dict(values)]}})
    return serialise(need(parse(whole), f"devices/{_TAGS[kind]}"))


def device_like(domain: ET.Element, kind: str, values: Mapping[str, Any]) -> ET.Element | None:
    """Return the device that is what `values` tell, None when there is none. Raises InvalidSpec."""
    wanted = _need_name(kind, values)
    told = inspect(Kind.DOMAIN, ET.tostring(domain)).understood.get("devices", {}).get(kind, [])
    pairs = zip(domain.iterfind(f"devices/{_TAGS[kind]}"), told, strict=False)
    return next((element for element, one in pairs if _name(kind, one or {}) == wanted), None)


def _need_name(kind: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    if wanted := _name(kind, values):
        return wanted
    raise InvalidSpec(f"{kind} is nothing that comes and goes, or not by {dict(values)}")


def _name(kind: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells a device from others of its kind, () for one that nobody could tell."""
    if kind == "watchdogs":
        return (values["model"],) if values.get("model") else ()
    if kind == "channels":
        target = values.get("target") or {}
        return (target["name"],) if target.get("type") == "virtio" and target.get("name") else ()
    usb = values.get("usb") or {}
    if kind == "host_devices" and values.get("type") == "usb" and usb.get("vendor"):
        try:
            return int(usb["vendor"], 0), int(usb.get("product") or "0", 0)
        except ValueError:
            return ()
    return ()


def without_device(text: str, kind: str, values: Mapping[str, Any]) -> str:
    """Return a definition without the device that is what `values` tell. Raises InvalidSpec."""
    domain = parse(text)
    if (there := device_like(domain, kind, values)) is not None:
        need(domain, "devices").remove(there)
    return ET.tostring(domain, encoding="unicode")


def free_port(domain: ET.Element) -> dict[str, str] | None:
    """Return the address of an empty PCIe root port of what runs, None when each has a device.

    libvirt chooses none for devices of the older PCI, and takes one that is named.
    """
    devices = need(domain, "devices")
    taken = {_bus(address) for address in devices.iterfind("*/address") if address.get("type") == "pci"}
    for port in devices.iterfind("controller"):
        index = port.get("index", "")
        free = index.isdecimal() and int(index) not in taken
        if port.get("type") == "pci" and port.get("model") == "pcie-root-port" and free:
            place = {"domain": "0x0000", "bus": hex(int(index)), "slot": "0x00", "function": "0x0"}
            return {"type": "pci", **place}
    return None


def _bus(address: ET.Element) -> int:
    try:
        return int(address.get("bus", "0"), 0)
    except ValueError:
        return 0
