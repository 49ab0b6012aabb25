"""The <disk> element."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, need, serialise
from portal.drivers.types import DeviceModel, DiskSpec

#: Device model -> the bus of disks, and the name and bus of the seed's drive.
_DISK_BUS = {DeviceModel.PARAVIRTUAL: "virtio", DeviceModel.EMULATED: "sata"}
_SEED_PLACE = {
    # Cloud kernels have no AHCI, so SATA would be invisible to them.
    DeviceModel.PARAVIRTUAL: ("sda", "scsi"),
    DeviceModel.EMULATED: ("sdf", "sata"),
}


class DiskElement:
    """A file as a disk."""

    @classmethod
    def to_xml(cls, spec: DiskSpec) -> str:
        """Return the disk alone, for a domain that is there; its name tells its bus."""
        return serialise(cls.add(ET.Element("devices"), spec, cls._model(spec)))

    @classmethod
    def is_hot(cls, spec: DiskSpec) -> bool:
        """Say whether the disk can be attached while the guest runs: QEMU's AHCI cannot."""
        return cls._model(spec) is DeviceModel.PARAVIRTUAL

    @staticmethod
    def _model(spec: DiskSpec) -> DeviceModel:
        return DeviceModel.PARAVIRTUAL if spec.target.startswith("vd") else DeviceModel.EMULATED

    @staticmethod
    def add(devices: ET.Element, spec: DiskSpec, model: DeviceModel) -> ET.Element:
        """Append the disk to <devices> and return it."""
        disk = child(devices, "disk", type="file", device="disk")
        child(disk, "driver", name="qemu", type=spec.format, discard="unmap")
        child(disk, "source", file=spec.path)
        child(disk, "target", dev=spec.target, bus=_DISK_BUS[model])
        if spec.serial:
            child(disk, "serial", spec.serial)
        return disk

    @staticmethod
    def parse(disk: ET.Element) -> DiskSpec:
        """Read the element back."""
        return DiskSpec(
            path=need(disk, "source").get("file", ""),
            target=need(disk, "target").get("dev", ""),
            format=need(disk, "driver").get("type", ""),
            serial=disk.findtext("serial") or "",
        )


class SeedElement:
    """A NoCloud ISO as a cdrom on the bus that a guest of the device model can see."""

    @staticmethod
    def add(devices: ET.Element, path: str, model: DeviceModel) -> None:
        """Append the cdrom to <devices>."""
        target, bus = _SEED_PLACE[model]
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
