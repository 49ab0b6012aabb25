"""An appliance's descriptor, both ways; not for the files beside it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree as ET

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt.xml.build import parse
from portal.drivers.ova.appliance import BUSES, CARDS, FORMATS, QCOW2, Appliance, PackedDisk

#: Bytes; one is a few KiB.
LONGEST = 1 << 20
MOST_DISKS = 64
_OVF = "http://schemas.dmtf.org/ovf/envelope/1"
_RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
_VSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
#: VMware's own elements; others read and write them too, since the standard has no word for firmware.
_VMW = "http://www.vmware.com/schema/ovf"
#: CIM's number of an operating system that it has no number for.
_OTHER_SYSTEM = "1"
#: More than any machine has; beyond it is no machine.
MOST_VCPUS, MOST_MEMORY = 4096, 1 << 50
LONGEST_NAME = 200
#: CIM's numbers of resources (DSP0004).
_OTHER, _CPU, _MEMORY, _CARD, _DISK = "1", "3", "4", "10", "17"
#: The controllers that disks hang on: their number, and what the portal calls the model that it writes.
_CONTROLLERS = {"ide": ("5", "PIIX4"), "sata": ("20", "AHCI"), "nvme": ("20", "vmware.nvme.controller")}
_VIRTIO_SCSI = "6", "virtio-scsi"
#: What a controller without a known model is, by its number alone.
_BY_NUMBER = {"5": "ide", "6": "scsi"}
#: VMware's words for firmware, and for a TPM among the items.
_FIRMWARE, _SECURE, _VTPM = "firmware", "bootOptions.efiSecureBootEnabled", "vmware.vtpm"
#: What a thing that a machine has is called; the latter two since OVF 2.
_ITEMS = {"Item", "StorageItem", "EthernetPortItem"}
#: Units by the words of DSP0004 and of who makes appliances, all of which mean powers of two by them.
_BYTES = {"": 1} | {
    word: 1 << power
    for power, words in (
        (0, ("byte", "bytes")),
        (10, ("kilobytes", "kbytes", "kb", "kib", "kibibyte")),
        (20, ("megabytes", "mbytes", "mb", "mib", "mebibyte")),
        (30, ("gigabytes", "gbytes", "gb", "gib", "gibibyte")),
        (40, ("terabytes", "tbytes", "tb", "tib", "tebibyte")),
    )
    for word in words
}
#: `byte * 2^20`, `byte * 10^6`, `byte * 1024`.
_PRODUCT = re.compile(r"bytes?((?:\*[0-9]{1,19}(?:\^[0-9]{1,2})?){1,4})")
_LARGEST = (1 << 63) - 1


def write(appliance: Appliance, sizes: Mapping[str, int]) -> bytes:
    """Return the descriptor; `sizes` are the bytes of every file beside it, in their order in the archive."""
    for prefix, space in (("ovf", _OVF), ("rasd", _RASD), ("vssd", _VSSD), ("vmw", _VMW)):
        ET.register_namespace(prefix, space)
    root = ET.Element(_ovf("Envelope"))
    references = ET.SubElement(root, _ovf("References"))
    for name, size in sizes.items():
        told = {_ovf("id"): f"file-{name}", _ovf("href"): name, _ovf("size"): str(size)}
        ET.SubElement(references, _ovf("File"), told)
    section = _section(root, "DiskSection", "The disks")
    for disk in appliance.disks:
        told = {
            _ovf("diskId"): f"disk-{disk.file}",
            _ovf("fileRef"): f"file-{disk.file}",
            _ovf("capacity"): str(disk.capacity_bytes),
            _ovf("format"): QCOW2,
        }
        ET.SubElement(section, _ovf("Disk"), told)
    section = _section(root, "NetworkSection", "The networks of its cards")
    for name in dict.fromkeys(appliance.networks):
        ET.SubElement(section, _ovf("Network"), {_ovf("name"): name})
    _write_system(root, appliance)
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def _write_system(root: ET.Element, appliance: Appliance) -> None:
    system = ET.SubElement(root, _ovf("VirtualSystem"), {_ovf("id"): appliance.name})
    ET.SubElement(system, _ovf("Info")).text = "A machine"
    ET.SubElement(system, _ovf("Name")).text = appliance.name
    if appliance.systems:
        told = _section(system, "OperatingSystemSection", "The system in it")
        told.set(_ovf("id"), _OTHER_SYSTEM)
        ET.SubElement(told, _ovf("Description")).text = appliance.systems[0]
    hardware = _section(system, "VirtualHardwareSection", "What it is made of")
    items: list[dict[str, str]] = [
        {"ElementName": "vCPUs", "ResourceType": _CPU, "VirtualQuantity": str(appliance.vcpus)},
        {
            "AllocationUnits": "byte * 2^20",
            "ElementName": "Memory",
            "ResourceType": _MEMORY,
            "VirtualQuantity": str(appliance.memory_bytes >> 20),
        },
    ]
    number, model = _CONTROLLERS.get(appliance.bus, _VIRTIO_SCSI)
    items.append({"ElementName": "Disks", "ResourceSubType": model, "ResourceType": number})
    controller = str(len(items))
    for place, disk in enumerate(appliance.disks):
        items.append(
            {
                "AddressOnParent": str(place),
                "ElementName": f"Disk {place + 1}",
                "HostResource": f"ovf:/disk/disk-{disk.file}",
                "Parent": controller,
                "ResourceType": _DISK,
            }
        )
    for name in appliance.networks:
        card = {"Connection": name, "ElementName": f"Card on {name}", "ResourceType": _CARD}
        items.append(card | ({"ResourceSubType": appliance.card} if appliance.card else {}))
    if appliance.tpm:
        items.append({"ElementName": "TPM", "ResourceSubType": _VTPM, "ResourceType": _OTHER})
    for place, item in enumerate(items, 1):
        element = ET.SubElement(hardware, _ovf("Item"))
        # In the order of the alphabet, as the schema wants them.
        for name, value in sorted({**item, "InstanceID": str(place)}.items()):
            ET.SubElement(element, f"{{{_RASD}}}{name}").text = value
    said = {_FIRMWARE: "efi"} if appliance.uefi else {}
    said |= {_SECURE: "true"} if appliance.secure_boot else {}
    for key, value in said.items():
        told_so = {_ovf("required"): "false", f"{{{_VMW}}}key": key, f"{{{_VMW}}}value": value}
        ET.SubElement(hardware, f"{{{_VMW}}}Config", told_so)


def _section(parent: ET.Element, name: str, info: str) -> ET.Element:
    section = ET.SubElement(parent, _ovf(name))
    ET.SubElement(section, _ovf("Info")).text = info
    return section


def _ovf(name: str) -> str:
    return f"{{{_OVF}}}{name}"


def read(content: bytes) -> Appliance:
    """Return what a descriptor says, its disks in the order of the machine's.

    Raises InvalidSpec for what is no descriptor, says a size that is none or of no machine, has several
    machines, or a disk that is packed, cut into pieces, based on another or not there. Disks that begin empty
    are only counted.
    """
    if len(content) > LONGEST:
        raise InvalidSpec(f"the descriptor is longer than {LONGEST >> 20} MiB")
    try:
        root = parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidSpec("the descriptor is no UTF-8") from error
    if _local(root) != "Envelope":
        raise InvalidSpec("the descriptor is no OVF envelope")
    systems = list(_all(root, "VirtualSystem"))
    if len(systems) != 1:
        raise InvalidSpec(f"the appliance holds {len(systems)} machines; one is taken at a time")
    items = [one for one in systems[0].iter() if _local(one) in _ITEMS and not _attribute(one, "bound")]
    disks, blank = _attached(root, items)
    vcpus = sum(_number(_text(item, "VirtualQuantity")) for item in _usual(items, _CPU))
    memory = sum(_memory(item) for item in _usual(items, _MEMORY))
    if vcpus > MOST_VCPUS or memory > MOST_MEMORY:
        raise InvalidSpec(f"a machine of {vcpus} processors and {memory} bytes of memory is none")
    return Appliance(
        name=(_text(systems[0], "Name") or _attribute(systems[0], "id"))[:LONGEST_NAME],
        vcpus=vcpus,
        memory_bytes=memory,
        disks=disks,
        networks=tuple(_text(item, "Connection") for item in items if _is(item, _CARD)),
        uefi=(uefi := _starts_by_uefi(systems[0])),
        secure_boot=uefi and _config(systems[0], _SECURE) in {"true", "1"},
        tpm=_has_tpm(systems[0], items),
        bus=_bus(items),
        card=CARDS.get(_model(next((item for item in items if _is(item, _CARD)), None)), ""),
        systems=tuple(dict.fromkeys(_names_of_system(systems[0]))),
        blank=blank,
    )


def _usual(items: Sequence[ET.Element], kind: str) -> list[ET.Element]:
    """Return the items of a kind that every configuration has; where it differs by those, the first one's."""
    found = [item for item in items if _is(item, kind)]
    return [item for item in found if not _attribute(item, "configuration")] or found[:1]


def _attached(root: ET.Element, items: Sequence[ET.Element]) -> tuple[tuple[PackedDisk, ...], int]:
    """Return the disks that the machine has, in its order, and how many more it has that begin empty.

    What only lies beside them is none of it.
    """
    disks = _disks(root)
    found: dict[str, PackedDisk | None] = {}
    for item in items:
        # One without a file begins empty, as a drive does: there is nothing to take over.
        if _is(item, _DISK) and (resource := _text(item, "HostResource")):
            key = resource.rpartition("/")[2]
            if key not in disks:
                raise InvalidSpec(f"the machine's disk {key[:80]!r} is one that the descriptor does not list")
            found[key] = disks[key]
    full = tuple(disk for disk in found.values() if disk is not None)
    if found and not full:
        raise InvalidSpec("all disks of the appliance begin empty; there is nothing to take over")
    if not found:
        raise InvalidSpec("the appliance has no disk")
    return full, len(found) - len(full)


def _starts_by_uefi(system: ET.Element) -> bool:
    """Say so by the words of VMware (`Config`) or of VirtualBox (`Firmware`)."""
    told = {_attribute(one, "type").lower() for one in _all(system, "Firmware")}
    told.add(_config(system, _FIRMWARE))
    return any(word.startswith("efi") for word in told)


def _config(system: ET.Element, key: str) -> str:
    """Return what VMware's `Config` says of `key`, in small letters."""
    found = (one for one in _all(system, "Config") if _attribute(one, "key") == key)
    return next((_attribute(one, "value").lower() for one in found), "")


def _has_tpm(system: ET.Element, items: Sequence[ET.Element]) -> bool:
    """Say so by an item of VMware's, or by VirtualBox's element with a type."""
    types = {_attribute(one, "type").lower() for one in _all(system, "TrustedPlatformModule")}
    return bool(types - {"", "none"}) or any(_model(item) == _VTPM for item in items)


def _bus(items: Sequence[ET.Element]) -> str:
    """Return what the machine's first disk hangs on, '' where that is not said or nobody knows it."""
    disk = next((item for item in items if _is(item, _DISK) and _text(item, "HostResource")), None)
    parent = _text(disk, "Parent") if disk is not None else ""
    found = next((item for item in items if parent and _text(item, "InstanceID") == parent), None)
    if found is None:
        return ""
    return BUSES.get(_model(found)) or _BY_NUMBER.get(_text(found, "ResourceType"), "")


def _model(item: ET.Element | None) -> str:
    """Return what an item says of its model, in small letters; of several words the first."""
    words = _text(item, "ResourceSubType").lower().split() if item is not None else []
    return words[0] if words else ""


def _names_of_system(system: ET.Element) -> Iterator[str]:
    """Yield what the system is called: in words, by VMware's own name for it, by VirtualBox's."""
    for section in _all(system, "OperatingSystemSection"):
        yield from filter(None, (_text(section, "Description"), _attribute(section, "osType")))
        yield from filter(None, [_text(section, "OSType")])


def _disks(root: ET.Element) -> dict[str, PackedDisk | None]:
    """Return the disks that are listed, by their names; None for one that begins empty and has no file."""
    files = {_attribute(one, "id"): one for one in _all(root, "File")}
    found: dict[str, PackedDisk | None] = {}
    for disk in _all(root, "Disk"):
        name, reference = _attribute(disk, "diskId"), _attribute(disk, "fileRef")
        if len(found) >= MOST_DISKS:
            raise InvalidSpec(f"the appliance has more than {MOST_DISKS} disks")
        if _attribute(disk, "parentRef"):
            raise InvalidSpec(f"the disk {name} is based on another")
        if not reference:
            found[name] = None
            continue
        file = files.get(reference)
        if file is None:
            raise InvalidSpec(f"the disk {name} is in no file of the appliance")
        if _attribute(file, "compression") not in {"", "identity"} or _attribute(file, "chunkSize"):
            href = _attribute(file, "href")
            raise InvalidSpec(f"{href} is packed or in pieces; only whole disks are taken")
        unit = _unit(_attribute(disk, "capacityAllocationUnits"))
        found[name] = PackedDisk(
            file=_attribute(file, "href"),
            capacity_bytes=_number(_attribute(disk, "capacity")) * unit,
            format=FORMATS.get(_attribute(disk, "format").partition("#")[0], ""),
        )
    return found


def _memory(item: ET.Element) -> int:
    # What names no unit means MiB, by the examples of the specification.
    return _number(_text(item, "VirtualQuantity")) * _unit(_text(item, "AllocationUnits") or "byte * 2^20")


def _unit(text: str) -> int:
    """Return a programmatic unit (DSP0004, annex C) in bytes: `byte * 2^20`, or the older `MegaBytes`."""
    plain = text.strip().lower()
    if plain in _BYTES:
        return _BYTES[plain]
    unit = 1
    if matched := _PRODUCT.fullmatch(plain.replace(" ", "")):
        for factor in matched[1].split("*")[1:]:
            base, _power, exponent = factor.partition("^")
            unit *= int(base) ** int(exponent or 1)
        if 0 < unit <= _LARGEST:
            return unit
    raise InvalidSpec(f"nobody knows the unit {text[:80]!r}")


def _number(text: str) -> int:
    plain = text.strip()
    if not (plain.isascii() and plain.isdigit() and len(plain) < 20 and int(plain) <= _LARGEST):
        raise InvalidSpec(f"{text!r} is no size")
    return int(plain)


def _is(item: ET.Element, kind: str) -> bool:
    return _text(item, "ResourceType") == kind


def _local(element: ET.Element) -> str:
    """Return a name without its namespace: version 0.9, 1 and 2 differ in it, and in nothing read here."""
    return element.tag.rpartition("}")[2]


def _all(root: ET.Element, name: str) -> Iterator[ET.Element]:
    return (element for element in root.iter() if _local(element) == name)


def _text(parent: ET.Element, name: str) -> str:
    return next(((one.text or "").strip() for one in parent if _local(one) == name), "")


def _attribute(element: ET.Element, name: str) -> str:
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), "")
