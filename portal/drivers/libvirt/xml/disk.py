"""The <disk> element."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from portal.drivers.errors import InvalidSpec
from portal.drivers.inspection import Kind, changed
from portal.drivers.libvirt.xml.build import child, need, parse, serialise
from portal.drivers.libvirt.xml.places import file_of
from portal.drivers.types import DeviceModel, DiskSpec, is_device
from portal.drivers.validation import CD_PLACES

#: Device model -> the bus of disks, and the name and bus of the seed's drive.
_DISK_BUS = {DeviceModel.PARAVIRTUAL: "virtio", DeviceModel.EMULATED: "sata"}
_COLD = frozenset({"sata", "ide", "fdc"})
_SEED_PLACE = {
    # Cloud kernels have no AHCI, so SATA would be invisible to them.
    DeviceModel.PARAVIRTUAL: ("sda", "scsi"),
    DeviceModel.EMULATED: ("sdf", "sata"),
}


class DiskElement:
    """A file, or a device of the host, as a disk."""

    @classmethod
    def to_xml(cls, spec: DiskSpec, like: Mapping[str, Any] | None = None) -> str:
        """Return the disk alone, for a domain that is there; its name tells its bus, unless `like` does.

        Raises InvalidSpec when what it was `like` was another file or in another place.
        """
        if not like:
            return serialise(cls.add(ET.Element("devices"), spec, cls._model(spec)))
        source = like.get("source", {})
        told = source.get("file") or source.get("dev"), like.get("target", {}).get("dev")
        if told != (spec.path, spec.target):
            raise InvalidSpec(f"{spec.target} was {told}")
        # Its slot can be another's by now, and another one in what runs than in the definition.
        kept = {name: value for name, value in like.items() if name != "address" or _is_on_a_bus(value)}
        whole = changed(Kind.DOMAIN, b"<domain><devices/></domain>", {"devices": {"disks": [kept]}})
        return serialise(need(need(parse(whole), "devices"), "disk"))

    @classmethod
    def is_hot(cls, text: str) -> bool:
        """Say whether a <disk> can be attached while the guest runs: QEMU's AHCI and IDE cannot."""
        return need(parse(text), "target").get("bus") not in _COLD

    @staticmethod
    def _model(spec: DiskSpec) -> DeviceModel:
        return DeviceModel.PARAVIRTUAL if spec.target.startswith("vd") else DeviceModel.EMULATED

    @staticmethod
    def add(devices: ET.Element, spec: DiskSpec, model: DeviceModel) -> ET.Element:
        """Append the disk to <devices> and return it."""
        kind, attribute = ("block", "dev") if is_device(spec.path) else ("file", "file")
        disk = child(devices, "disk", type=kind, device="disk")
        child(disk, "driver", name="qemu", type=spec.format, discard="unmap")
        child(disk, "source", **{attribute: spec.path})
        child(disk, "target", dev=spec.target, bus=_DISK_BUS[model])
        if spec.serial:
            child(disk, "serial", spec.serial)
        return disk

    @staticmethod
    def parse(disk: ET.Element) -> DiskSpec:
        """Read the element back."""
        return DiskSpec(
            path=file_of(disk),
            target=need(disk, "target").get("dev", ""),
            format=need(disk, "driver").get("type", ""),
            serial=disk.findtext("serial") or "",
        )


def _is_on_a_bus(address: Mapping[str, Any]) -> bool:
    """Tell whether an address is that of a disk at a controller for disks, and no slot of the machine's."""
    return address.get("type") == "drive"


class SeedElement:
    """A NoCloud ISO as a cdrom on the bus that a guest of the device model can see."""

    @staticmethod
    def add(devices: ET.Element, path: str, model: DeviceModel) -> None:
        """Append the cdrom to <devices>."""
        target, bus = _SEED_PLACE[model]
        SeedElement.drive(devices, path, target, bus)

    @staticmethod
    def is_at(disk: ET.Element, model: DeviceModel) -> bool:
        """Say whether a cdrom is in the seed's place."""
        return need(disk, "target").get("dev") == _SEED_PLACE[model][0]

    @staticmethod
    def drive(devices: ET.Element, path: str, target: str, bus: str) -> None:
        """Append a drive with an ISO file in it to <devices>."""
        disk = child(devices, "disk", type="file", device="cdrom")
        child(disk, "driver", name="qemu", type="raw")
        child(disk, "source", file=path)
        child(disk, "target", dev=target, bus=bus)
        child(disk, "readonly")

    @staticmethod
    def parse(disk: ET.Element) -> str | None:
        """Read the path back; None for an empty drive."""
        source = disk.find("source")
        return None if source is None else source.get("file")


class CdElements:
    """The CDs that a domain begins with, beside its seed."""

    @staticmethod
    def add(devices: ET.Element, paths: Sequence[str], model: DeviceModel) -> None:
        """Append a drive for each to <devices>."""
        for path, target in zip(paths, CD_PLACES[model], strict=False):
            SeedElement.drive(devices, path, target, "sata")

    @staticmethod
    def parse(drives: Sequence[ET.Element], model: DeviceModel) -> tuple[str, ...]:
        """Read the paths back; empty drives are left out."""
        found = {need(drive, "target").get("dev", ""): SeedElement.parse(drive) for drive in drives}
        return tuple(path for target in CD_PLACES[model] if (path := found.get(target)))
