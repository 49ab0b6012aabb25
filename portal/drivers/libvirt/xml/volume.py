"""The <pool> and <volume> elements."""

from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, parse, serialise, text_at
from portal.drivers.types import CloneMode, PoolInfo, PoolSpec, VolumeInfo, VolumeSpec
from portal.drivers.validation import check_name, check_pool, check_positive, check_volume


class PoolElement:
    """A pool that is a directory."""

    @staticmethod
    def to_xml(spec: PoolSpec) -> str:
        """Return the definition. Raises InvalidSpec."""
        check_pool(spec)
        root = ET.Element("pool", type="dir")
        child(root, "name", spec.name)
        child(root, "uuid", spec.uuid)
        target = child(root, "target")
        child(target, "path", spec.path)
        # The emulator runs as a user of its own and must be able to pass through.
        child(child(target, "permissions"), "mode", "0711")
        return serialise(root)

    @staticmethod
    def from_xml(text: str) -> PoolSpec:
        """Read a definition back."""
        root = parse(text)
        return PoolSpec(text_at(root, "name"), text_at(root, "uuid"), text_at(root, "target/path"))

    @staticmethod
    def info(text: str, active: bool) -> PoolInfo:
        """Read what a pool of any type reports (libvirt always does so in bytes)."""
        root = parse(text)
        sizes = [int(root.findtext(tag) or 0) for tag in ("capacity", "allocation", "available")]
        path = root.findtext("target/path") or ""
        return PoolInfo(text_at(root, "name"), text_at(root, "uuid"), path, active, *sizes)


class VolumeElement:
    """A qcow2 disk, or a raw file for a seed."""

    @staticmethod
    def to_xml(spec: VolumeSpec) -> str:
        """Return the definition of a disk. Raises InvalidSpec."""
        check_volume(spec)
        root = ET.Element("volume", type="file")
        child(root, "name", spec.name)
        child(root, "capacity", str(spec.capacity_bytes), unit="bytes")
        child(root, "allocation", "0", unit="bytes")
        target = child(root, "target")
        child(target, "format", type="qcow2")
        child(target, "compat", "1.1")
        if spec.backing_path is not None and spec.clone is CloneMode.LINKED:
            backing = child(root, "backingStore")
            child(backing, "path", spec.backing_path)
            child(backing, "format", type=spec.backing_format)
        return serialise(root)

    @staticmethod
    def raw_xml(name: str, size_bytes: int) -> str:
        """Return the definition of a raw file. Raises InvalidSpec."""
        root = ET.Element("volume", type="file")
        child(root, "name", check_name(name))
        size = str(check_positive(size_bytes, "capacity"))
        child(root, "capacity", size, unit="bytes")
        child(root, "allocation", "0", unit="bytes")
        child(child(root, "target"), "format", type="raw")
        return serialise(root)

    @staticmethod
    def from_xml(pool: str, text: str) -> VolumeInfo:
        """Read what libvirt reports (it always does so in bytes)."""
        root = parse(text)
        kind = root.find("target/format")
        return VolumeInfo(
            pool=pool,
            name=text_at(root, "name"),
            path=text_at(root, "target/path"),
            capacity_bytes=int(text_at(root, "capacity")),
            allocation_bytes=int(text_at(root, "allocation")),
            backing_path=root.findtext("backingStore/path"),
            format="" if kind is None else kind.get("type", ""),
        )
