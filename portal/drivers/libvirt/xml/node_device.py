"""The <device> element of a host's PCI and USB devices, read only. Not for: what a guest has of them."""

from xml.etree import ElementTree as ET

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt.xml.build import parse
from portal.drivers.types import HostDevice

#: Classes of PCI devices that hold the host together: bridges, whatever they lead to.
_BRIDGES = 0x06
#: Characters of a name.
_LONGEST = 100
#: The vendor of hubs that the kernel itself makes.
_KERNEL = "1d6b"


def host_device(text: str) -> HostDevice | None:
    """Return a device that a guest could be given, None for what is none. Raises InvalidSpec."""
    capability = parse(text).find("capability")
    kind = "" if capability is None else capability.get("type", "")
    if capability is None or kind not in {"pci", "usb_device"}:
        return None
    vendor, product = _word(capability, "vendor"), _word(capability, "product")
    label = " ".join(filter(None, (vendor[1], product[1]))) or f"{vendor[0]}:{product[0]}"
    if kind == "usb_device":
        if vendor[0] == _KERNEL:
            return None
        key = f"usb:{vendor[0]}:{product[0]}"
        return HostDevice(key, label, f"{_number(capability, 'bus')}.{_number(capability, 'device')}")
    if _number(capability, "class") >> 16 == _BRIDGES:
        return None
    numbers = [_number(capability, name) for name in ("domain", "bus", "slot", "function")]
    address = "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)
    group = capability.find("iommuGroup")
    together = None if group is None else _count("iommuGroup", group.get("number", "0"))
    return HostDevice(f"pci:{address}", label, address, together)


def _word(capability: ET.Element, name: str) -> tuple[str, str]:
    """Return the four digits and the name of a vendor or a product."""
    found = capability.find(name)
    if found is None:
        return "0000", ""
    number = _count(name, found.get("id", "0"))
    return f"{number:04x}", " ".join((found.text or "").split())[:_LONGEST]


def _number(capability: ET.Element, name: str) -> int:
    return _count(name, capability.findtext(name) or "0")


def _count(name: str, text: str) -> int:
    """Return a number of what a host tells; it has 32 bits there. Raises InvalidSpec."""
    try:
        found = int(text, 0)
    except ValueError as error:
        raise InvalidSpec(f"{name} is no number") from error
    if not 0 <= found < 1 << 32:
        raise InvalidSpec(f"{name} is no number of a device")
    return found
