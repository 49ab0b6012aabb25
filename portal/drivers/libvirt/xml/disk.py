"""The <disk> element."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, need
from portal.drivers.types import DiskSpec


class DiskElement:
    """A file as a virtio disk."""

    @staticmethod
    def add(devices: ET.Element, spec: DiskSpec) -> None:
        """Append the disk to <devices>."""
        disk = child(devices, "disk", type="file", device="disk")
        child(disk, "driver", name="qemu", type=spec.format, discard="unmap")
        child(disk, "source", file=spec.path)
        child(disk, "target", dev=spec.target, bus="virtio")

    @staticmethod
    def parse(disk: ET.Element) -> DiskSpec:
        """Read the element back."""
        return DiskSpec(
            path=need(disk, "source").get("file", ""),
            target=need(disk, "target").get("dev", ""),
            format=need(disk, "driver").get("type", ""),
        )


class SeedElement:
    """A NoCloud ISO as a SCSI cdrom: cloud kernels have no AHCI, so SATA would be invisible."""

    @staticmethod
    def add(devices: ET.Element, path: str) -> None:
        """Append the cdrom to <devices>."""
        disk = child(devices, "disk", type="file", device="cdrom")
        child(disk, "driver", name="qemu", type="raw")
        child(disk, "source", file=path)
        child(disk, "target", dev="sda", bus="scsi")
        child(disk, "readonly")

    @staticmethod
    def parse(disk: ET.Element) -> str | None:
        """Read the path back; None for an empty drive."""
        source = disk.find("source")
        return None if source is None else source.get("file")
