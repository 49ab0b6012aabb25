"""What libosinfo's database (Debian package osinfo-db) knows of operating systems. Not for: hosts, nor words.

Format: osinfo-db's own schema (/usr/share/osinfo/schema/osinfo.rng). A system inherits devices, sizes and
firmware from those that it derives from, upgrades or is a clone of.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree as ET

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as defused

#: Where distributions put the database, and where an administrator adds to it; the later one wins.
FOLDERS = (Path("/usr/share/osinfo"), Path("/etc/osinfo"))
#: The architecture that machines have.
ARCHITECTURE = "x86_64"
#: What QEMU gives, by the identity that the database tells a device by; two for those of both ages of virtio.
_DEVICES = {
    "pci/1af4/1000": "virtio-net",
    "pci/1af4/1041": "virtio-net",
    "pci/1af4/1001": "virtio-block",
    "pci/1af4/1042": "virtio-block",
    "pci/1af4/1002": "virtio-balloon",
    "pci/1af4/1045": "virtio-balloon",
    "pci/1af4/1003": "virtio-serial",
    "pci/1af4/1043": "virtio-serial",
    "pci/1af4/1004": "virtio-scsi",
    "pci/1af4/1048": "virtio-scsi",
    "pci/1af4/1005": "virtio-rng",
    "pci/1af4/1044": "virtio-rng",
    "pci/1af4/1050": "virtio-gpu",
    "pci/1af4/1052": "virtio-input",
    "pci/1af4/105a": "virtio-fs",
    "pci/8086/10d3": "e1000e",
    "pci/8086/100e": "e1000",
    "pci/8086/2922": "ahci",
}
#: The database says nothing of TPMs; the setup of this system, and of what upgrades it, refuses without one.
_FIRST_WITH_TPM = "http://microsoft.com/win/11"
_PARENTS = ("derives-from", "upgrades", "clones")


@dataclass(frozen=True, slots=True)
class Resources:
    """Sizes of a machine: processors, and bytes of memory and disk; 0 for what is not said."""

    vcpus: int = 0
    memory: int = 0
    disk: int = 0

    def over(self, below: "Resources") -> "Resources":
        """Return these sizes, and those of `below` where nothing is said here."""
        return Resources(
            self.vcpus or below.vcpus, self.memory or below.memory, self.disk or below.disk
        )

    def at_least(self, least: "Resources") -> "Resources":
        """Return these sizes, none of them below `least`; what is not said stays unsaid."""
        return Resources(
            self.vcpus and max(self.vcpus, least.vcpus),
            self.memory and max(self.memory, least.memory),
            self.disk and max(self.disk, least.disk),
        )


@dataclass(frozen=True, slots=True)
class Medium:
    """A CD of a system: where on it its installer's kernel and initrd lie (`install.amd/vmlinuz`).

    A live one starts the system itself, in which the installer is a program.
    """

    kernel: str
    initrd: str
    live: bool = False


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of one system; `short_id` is not what was asked for where the nearest one stands in."""

    short_id: str
    name: str
    family: str
    least: Resources
    recommended: Resources
    #: Names as in `virtio-net`.
    devices: frozenset[str]
    eol: date | None
    #: It does not start by a BIOS.
    needs_uefi: bool
    needs_tpm: bool
    #: As in `debian`; '' for none.
    distribution: str = ""
    #: Its own CDs for the machines' architecture that say where a kernel lies.
    media: tuple[Medium, ...] = ()
    #: Its installer can be answered by a preseed.
    reads_preseed: bool = False

    @property
    def paravirtual(self) -> bool:
        """Whether it has drivers of its own for virtio disks and cards."""
        return {"virtio-net", "virtio-block"} <= self.devices


@dataclass(slots=True)
class _Entry:
    """One <os> as it stands in its file."""

    name: str
    short_ids: list[str]
    family: str
    eol: date | None
    parents: list[str]
    least: Resources
    recommended: Resources
    devices: dict[str, bool]
    firmware: dict[str, bool]
    distribution: str
    media: tuple[Medium, ...]
    reads_preseed: bool


@dataclass(slots=True)
class _Database:
    entries: dict[str, _Entry] = field(default_factory=dict)
    by_short_id: dict[str, str] = field(default_factory=dict)


def is_there() -> bool:
    """Say whether a database is installed."""
    return bool(_database().entries)


def is_known(short_id: str) -> bool:
    """Say whether the database has a system of exactly this short id."""
    return short_id in _database().by_short_id


def choices(query: str = "", most: int = 50) -> list[tuple[str, str]]:
    """Return (short id, name) of systems whose id or name holds every word of `query`, by name."""
    words = query.casefold().split()
    found = [
        (entry.short_ids[0], entry.name)
        for entry in _database().entries.values()
        if all(word in f"{' '.join(entry.short_ids)} {entry.name}".casefold() for word in words)
    ]
    return sorted(found, key=lambda pair: _natural(pair[1]))[:most]


def knowledge(short_id: str) -> Knowledge | None:
    """Return what is known of the system called `short_id`, None for nothing.

    A release that is newer than the database has the nearest earlier one of its name stand in for it.
    """
    database = _database()
    there = short_id if short_id in database.by_short_id else _nearest(short_id, database.by_short_id)
    return _told(database, database.by_short_id[there], there) if there else None


def _told(database: _Database, identity: str, short_id: str) -> Knowledge:
    line = list(_ancestry(database, identity, set()))
    entry, least, recommended = database.entries[identity], Resources(), Resources()
    devices: dict[str, bool] = {}
    firmware: dict[str, bool] = {}
    for ancestor in line:
        below = database.entries[ancestor]
        least, recommended = least.over(below.least), recommended.over(below.recommended)
        devices, firmware = below.devices | devices, below.firmware | firmware
    return Knowledge(
        short_id=short_id,
        name=entry.name,
        family=entry.family,
        least=least,
        recommended=recommended.at_least(least),
        devices=frozenset(_DEVICES[name] for name, given in devices.items() if given and name in _DEVICES),
        eol=entry.eol,
        needs_uefi=firmware.get("efi", False) and not firmware.get("bios", True),
        needs_tpm=_FIRST_WITH_TPM in line,
        distribution=entry.distribution,
        media=entry.media,
        reads_preseed=entry.reads_preseed,
    )


def media() -> frozenset[Medium]:
    """Return the CDs of all systems that say where a kernel lies on them."""
    return frozenset(medium for entry in _database().entries.values() for medium in entry.media)


def _ancestry(database: _Database, identity: str, seen: set[str]) -> Iterator[str]:
    """Yield the system and what it inherits from, the nearest first, each once, whatever circle they make."""
    if identity in seen or identity not in database.entries:
        return
    seen.add(identity)
    yield identity
    for parent in database.entries[identity].parents:
        yield from _ancestry(database, parent, seen)


def _nearest(short_id: str, known: Mapping[str, str]) -> str:
    """Return the highest release below `short_id` of the same name, '' for none: debian11 for debian12."""
    release = re.compile(r"([a-z-]+?)(\d+)(?:\.(\d+))?")
    asked = release.fullmatch(short_id)
    if asked is None:
        return ""
    others = (found for name in known if (found := release.fullmatch(name)) and found[1] == asked[1])
    number = {found[0]: (int(found[2]), int(found[3] or 0)) for found in others}
    wanted = (int(asked[2]), int(asked[3] or 0))
    lower = {name: value for name, value in number.items() if value < wanted}
    return max(lower, key=lambda name: lower[name], default="")


def _natural(text: str) -> list[tuple[int, str]]:
    """Return what sorts 9 before 10."""
    parts = re.split(r"(\d+)", text.casefold())
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _database() -> _Database:
    """Return the database, read again when the package was installed or renewed meanwhile."""
    stamps = []
    for folder in FOLDERS:
        for name in ("os", "VERSION"):
            with suppress(OSError):
                stamps.append((str(folder), name, (folder / name).stat().st_mtime_ns))
    return _read(tuple(stamps))


@lru_cache(maxsize=2)
def _read(stamps: tuple[tuple[str, str, int], ...]) -> _Database:
    database = _Database()
    for folder in dict.fromkeys(folder for folder, _name, _at in stamps):
        for path in sorted(Path(folder, "os").rglob("*.xml")):
            # One file that is broken costs its system alone.
            with suppress(ET.ParseError, DefusedXmlException, OSError, ValueError):
                root = defused.fromstring(path.read_bytes(), forbid_dtd=True)
                for element in root.findall("os"):
                    _take(database, element)
    return database


def _take(database: _Database, element: ET.Element) -> None:
    """Add an <os>; those of the folder `….d` beside a file say more of the same one and are not needed."""
    identity, short_ids = element.get("id", ""), [found.text or "" for found in element.findall("short-id")]
    if not identity or not short_ids:
        return
    database.entries[identity] = _Entry(
        name=_text(element, "name") or short_ids[0],
        short_ids=short_ids,
        family=_text(element, "family"),
        eol=date.fromisoformat(eol) if (eol := _text(element, "eol-date")) else None,
        parents=[found.get("id", "") for kind in _PARENTS for found in element.findall(kind)],
        least=_resources(element, "minimum"),
        recommended=_resources(element, "recommended"),
        devices={
            "/".join(found.get("id", "").split("/")[-3:]): found.get("supported", "true") == "true"
            for found in element.findall("devices/device")
        },
        firmware={
            found.get("type", ""): found.get("supported", "true") == "true"
            for found in element.findall("firmware")
            if found.get("arch") in (ARCHITECTURE, "all")
        },
        distribution=_text(element, "distro"),
        media=tuple(_media(element)),
        reads_preseed=any("/preseed/" in one.get("id", "") for one in element.findall("installer/script")),
    )
    database.by_short_id |= dict.fromkeys(short_ids, identity)


def _text(element: ET.Element, tag: str) -> str:
    """Return the text of the child that is in no particular language."""
    named = (found.text for found in element.findall(tag) if not len(found.attrib))
    return (next(named, None) or "").strip()


def _media(element: ET.Element) -> Iterator[Medium]:
    for found in element.findall(f"media[@arch='{ARCHITECTURE}']"):
        kernel, initrd = _text(found, "kernel"), _text(found, "initrd")
        if kernel and initrd:
            yield Medium(kernel, initrd, found.get("live") == "true")


def _resources(element: ET.Element, level: str) -> Resources:
    """Return the sizes of one level, of the machine's architecture before those of any."""
    found = Resources()
    for architecture in (ARCHITECTURE, "all"):
        for sizes in element.findall(f"resources[@arch='{architecture}']/{level}"):
            vcpus, memory, disk = (sizes.findtext(tag) or 0 for tag in ("n-cpus", "ram", "storage"))
            found = found.over(Resources(int(vcpus), int(memory), int(disk)))
    return found
