"""Find devices of a definition by what tells them apart. Not for: reading all of one."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import need, parse


def disk_at(domain: ET.Element, target: str) -> ET.Element | None:
    """Return the <disk> whose target is `target`, None when there is none."""
    for disk in domain.iterfind("devices/disk"):
        if (place := disk.find("target")) is not None and place.get("dev") == target:
            return disk
    return None


def file_of(disk: ET.Element) -> str:
    """Return the file of a <disk>, '' for an empty drive and for what is no file."""
    source = disk.find("source")
    return "" if source is None else source.get("file", "")


def with_disk(text: str, disk: ET.Element) -> str:
    """Return a definition with `disk` after its other devices."""
    domain = parse(text)
    need(domain, "devices").append(disk)
    return ET.tostring(domain, encoding="unicode")


def without_disk(text: str, target: str) -> str:
    """Return a definition without its disk at `target`."""
    domain = parse(text)
    if (disk := disk_at(domain, target)) is not None:
        need(domain, "devices").remove(disk)
    return ET.tostring(domain, encoding="unicode")
