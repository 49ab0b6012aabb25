"""The <disk> element."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, need
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

    @staticmethod
    def add(devices: ET.Element, spec: DiskSpec, model: DeviceModel) -> None:
        """Append the disk to <devices>."""
        disk = child(devices, "disk", type="file", device="disk")
        child(disk, "driver", name="qemu", type=spec.format, discard="unmap")
        child(disk, "source", file=spec.path)
        child(disk, "target", dev=spec.target, bus=_DISK_BUS[model])

    @staticmethod
    def parse(disk: ET.Element) -> DiskSpec:
        """Read the element back."""
        return DiskSpec(
            path=need(disk, "source").get("file", ""),
            target=need(disk, "target").get("dev", ""),
            format=need(disk, "driver").get("type", ""),
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
