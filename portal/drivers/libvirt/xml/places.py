"""Find devices of a definition by what tells them apart, and change one. Not for: reading all of one."""

from collections.abc import Mapping
from dataclasses import asdict
from xml.etree import ElementTree as ET

from portal.drivers.errors import AlreadyExists, NotSupported
from portal.drivers.libvirt.xml.build import child, need, parse
from portal.drivers.types import BANDWIDTH, LIMITED_CARDS, MOST_BANDWIDTH, NicPlace, Place


def disk_at(domain: ET.Element, target: str) -> ET.Element | None:
    """Return the <disk> whose target is `target`, None when there is none."""
    for disk in domain.iterfind("devices/disk"):
        if (place := disk.find("target")) is not None and place.get("dev") == target:
            return disk
    return None


def file_of(disk: ET.Element) -> str:
    """Return the file or device of a <disk>, '' for an empty drive and for what is neither."""
    source = disk.find("source")
    return "" if source is None else source.get("file") or source.get("dev") or ""


def set_file(disk: ET.Element, path: str) -> None:
    """Let a <disk> be the qcow2 file `path`, which has no image behind it; all else of it stays."""
    # What belongs to the file that goes: its own labels and address, and what lies behind it.
    for part in (*disk.findall("backingStore"), *disk.findall("mirror")):
        disk.remove(part)
    source = disk.find("source")
    if source is None:
        source = child(disk, "source")
    tail = source.tail
    source.clear()
    source.tail = tail
    source.set("file", path)
    disk.set("type", "file")
    driver = disk.find("driver")
    if driver is None:
        driver = child(disk, "driver", name="qemu")
    driver.set("type", "qcow2")


def sources_of(text: str) -> set[Place]:
    """Return what a definition has for its disks and its start: files and devices, and (pool, volume).

    What its disks stand on is among them, where the definition says so, as that of what runs does.
    """
    domain = parse(text)
    found: set[Place] = set()
    for source in domain.iterfind("devices/disk//source"):
        found |= {path for path in (source.get("file"), source.get("dev"), source.get("name")) if path}
        if (pool := source.get("pool")) and (volume := source.get("volume")):
            found.add((pool, volume))
    for tag in ("kernel", "initrd", "loader", "nvram"):
        found |= {told.text for told in domain.iterfind(f"os/{tag}") if told.text}
    return found


def drive_at(domain: ET.Element, target: str) -> ET.Element | None:
    """Return the drive for CDs at `target`, None when what is there is none."""
    there = disk_at(domain, target)
    return there if there is not None and there.get("device") == "cdrom" else None


def card_with(domain: ET.Element, mac: str) -> ET.Element | None:
    """Return the <interface> of that MAC, None when there is none."""
    for card in domain.iterfind("devices/interface"):
        if (told := card.find("mac")) is not None and told.get("address", "").lower() == mac:
            return card
    return None


def network_of(card: ET.Element) -> str:
    """Return the libvirt network of an <interface>, '' for a card on something else."""
    source = card.find("source")
    return "" if source is None else source.get("network", "")


def place_of(card: ET.Element) -> NicPlace | None:
    """Return what an <interface> is on, None for one that is on neither a network nor a bridge."""
    source, kind = card.find("source"), card.get("type", "")
    if source is None or kind not in {"network", "bridge"}:
        return None
    # What runs tells the bridge of its network beside it, and is of that kind where the network is a bridge.
    if network := source.get("network"):
        return NicPlace(network=network, portgroup=source.get("portgroup", ""))
    return NicPlace(bridge=source.get("bridge", ""))


def check_rewired(card: ET.Element, to: NicPlace, was: NicPlace) -> NicPlace:
    """Return what an <interface> is on, `to` or `was`. Raises NotSupported and AlreadyExists."""
    place = place_of(card)
    if place is None:
        raise NotSupported(f"a card of the kind {card.get('type', '')} is on no network")
    if place not in (to, was):
        raise AlreadyExists(f"the card is on {place} and not on {was}")
    return place


def set_place(card: ET.Element, place: NicPlace) -> None:
    """Let an <interface> be on something else; all but its source stays."""
    source = need(card, "source")
    # What a running card was told of its network, as its port's ID, goes with the network.
    for name in list(source.attrib):
        del source.attrib[name]
    card.set("type", "network" if place.network else "bridge")
    for name, value in asdict(place).items():
        if value:
            source.set(name, value)


def is_linked(card: ET.Element) -> bool:
    """Say whether the cable of an <interface> is plugged in, as it is where nothing is said."""
    link = card.find("link")
    return link is None or link.get("state") != "down"


def set_link(card: ET.Element, up: bool) -> None:
    """Plug the cable of an <interface> in, or out."""
    for link in card.findall("link"):
        card.remove(link)
    if not up:
        child(card, "link", state="down")


def set_medium(drive: ET.Element, path: str) -> None:
    """Put the file into a drive, '' for nothing."""
    # What belongs to the medium that goes: the parts of its source, and what lies behind it.
    for part in (*drive.findall("source"), *drive.findall("backingStore")):
        drive.remove(part)
    if path:
        drive.set("type", "file")
        child(drive, "source", file=path)


def set_limits(disk: ET.Element, limits: Mapping[str, int]) -> None:
    """Limit a <disk> to what is not 0; limits of other names stay."""
    tune = disk.find("iotune")
    if tune is None:
        tune = child(disk, "iotune")
    for name, value in limits.items():
        for old in tune.findall(name):
            tune.remove(old)
        if value:
            child(tune, name, str(value))
    if not len(tune):
        disk.remove(tune)


def check_shaped(card: ET.Element) -> None:
    """Raise NotSupported for an <interface> of a kind that libvirt does not limit, or of a huge floor."""
    kind = card.get("type", "")
    if kind not in LIMITED_CARDS:
        raise NotSupported(f"libvirt limits no card of the kind {kind}")
    if floor_of(card) > MOST_BANDWIDTH:
        raise NotSupported("libvirt cannot set a floor like that of the card again")


def bandwidth_of(card: ET.Element) -> dict[str, int]:
    """Return what an <interface> is limited to, by the names of `types.BANDWIDTH`, 0 for none."""
    parts = (name.split("_") for name in BANDWIDTH)
    return {f"{way}_{part}": _number(card, way, part) for way, part in parts}


def floor_of(card: ET.Element) -> int:
    """Return what an <interface> is promised of its network's bandwidth, in KiB a second, 0 for nothing."""
    return _number(card, "inbound", "floor")


def _number(card: ET.Element, way: str, part: str) -> int:
    found = card.find(f"bandwidth/{way}")
    return 0 if found is None else int(found.get(part, "0"))


def set_bandwidth(card: ET.Element, limits: Mapping[str, int]) -> None:
    """Limit an <interface> to what is not 0; what is said beside that (a floor) stays."""
    whole = card.find("bandwidth")
    if whole is None:
        whole = child(card, "bandwidth")
    for name, value in limits.items():
        way, part = name.split("_")
        found = whole.find(way)
        if found is None:
            found = child(whole, way)
        found.attrib.pop(part, None)
        if value:
            found.set(part, str(value))
    for found in list(whole):
        if not found.attrib and not len(found):
            whole.remove(found)
    if not len(whole) and not whole.attrib:
        card.remove(whole)


def with_device(text: str, device: ET.Element) -> str:
    """Return a definition with `device` after its other devices."""
    domain = parse(text)
    need(domain, "devices").append(device)
    return ET.tostring(domain, encoding="unicode")


def without_disk(text: str, target: str) -> str:
    """Return a definition without its disk at `target`."""
    domain = parse(text)
    if (disk := disk_at(domain, target)) is not None:
        need(domain, "devices").remove(disk)
    return ET.tostring(domain, encoding="unicode")


def without_card(text: str, mac: str) -> str:
    """Return a definition without its card of that MAC."""
    domain = parse(text)
    if (card := card_with(domain, mac)) is not None:
        need(domain, "devices").remove(card)
    return ET.tostring(domain, encoding="unicode")
