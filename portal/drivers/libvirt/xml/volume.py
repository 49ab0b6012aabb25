"""The <pool> and <volume> elements."""

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from portal.drivers.libvirt.xml.build import child, parse, serialise, text_at
from portal.drivers.types import (
    FOLDER_KINDS,
    CloneMode,
    PoolInfo,
    PoolKind,
    PoolSpec,
    VolumeInfo,
    VolumeSpec,
)
from portal.drivers.validation import check_block, check_name, check_pool, check_positive, check_volume

#: How pools let people in that have a secret of libvirt's.
_AUTH = {PoolKind.ISCSI: "chap", PoolKind.RBD: "ceph"}

#: Which part of a pool's source says what it lies on; of other kinds its name.
_SOURCES: Mapping[str, str] = {PoolKind.FS: "device", PoolKind.ISCSI: "device", PoolKind.NETFS: "dir"}


class PoolElement:
    """A pool of one of the kinds that the portal makes."""

    @staticmethod
    def to_xml(spec: PoolSpec) -> str:
        """Return the definition. Raises InvalidSpec."""
        check_pool(spec)
        root = ET.Element("pool", type=spec.kind)
        child(root, "name", spec.name)
        child(root, "uuid", spec.uuid)
        if spec.kind is not PoolKind.DIR:
            PoolElement._add_source(child(root, "source"), spec)
        if spec.kind in FOLDER_KINDS:
            target = child(root, "target")
            child(target, "path", spec.path)
            # The emulator runs as a user of its own and must be able to pass through.
            child(child(target, "permissions"), "mode", "0711")
        elif device_folder := _device_folder(spec):
            child(child(root, "target"), "path", device_folder)
        return serialise(root)

    @staticmethod
    def _add_source(source: ET.Element, spec: PoolSpec) -> None:
        if spec.server:
            name, _colon, port = spec.server.partition(":")
            child(source, "host", name=name, **({"port": port} if port else {}))
        match spec.kind:
            case PoolKind.FS | PoolKind.ISCSI:
                child(source, "device", path=spec.source)
            case PoolKind.NETFS:
                child(source, "dir", path=spec.source)
            case _:
                child(source, "name", spec.source)
        if spec.secret:
            auth = child(source, "auth", type=_AUTH[spec.kind], username=spec.user)
            child(auth, "secret", uuid=spec.secret)
        if spec.kind in FOLDER_KINDS:
            child(source, "format", type="auto")
        elif spec.kind is PoolKind.LOGICAL:
            child(source, "format", type="lvm2")

    @staticmethod
    def from_xml(text: str) -> PoolSpec:
        """Read a definition of the portal's back. Raises InvalidSpec."""
        root = parse(text)
        kind = PoolKind(root.get("type", ""))
        path = text_at(root, "target/path") if kind in FOLDER_KINDS else ""
        source, where = PoolElement._source(root, kind)
        user = _attribute(root, "source/auth", "username")
        secret = _attribute(root, "source/auth/secret", "uuid")
        name, uuid = text_at(root, "name"), text_at(root, "uuid")
        return PoolSpec(name, uuid, path, kind, source, where, user, secret)

    @staticmethod
    def _source(root: ET.Element, kind: str) -> tuple[str, str]:
        """Return what a pool lies on and who serves it, '' for what its definition does not say.

        A volume group of somebody else's says its devices as well; its name is what it lies on.
        """
        if kind == PoolKind.DIR:
            return "", ""
        server = root.find("source/host")
        name, port = ("", "") if server is None else (server.get("name", ""), server.get("port", ""))
        found = root.find(f"source/{_SOURCES.get(kind, 'name')}")
        source = "" if found is None else found.get("path") or found.text or ""
        return source, f"{name}:{port}" if port else name

    @staticmethod
    def info(text: str, active: bool, autostart: bool = True, persistent: bool = True) -> PoolInfo:
        """Read what a pool of any type reports (libvirt always does so in bytes)."""
        root = parse(text)
        total, taken, free = (int(root.findtext(tag) or 0) for tag in ("capacity", "allocation", "available"))
        path = root.findtext("target/path") or ""
        name, uuid, kind = text_at(root, "name"), text_at(root, "uuid"), root.get("type", "")
        lies_on = PoolElement._source(root, kind)
        return PoolInfo(
            name, uuid, path, active, total, taken, free, kind, autostart, *lies_on, persistent=persistent
        )

    @staticmethod
    def offered(text: str) -> tuple[PoolKind, ...]:
        """Return the kinds that a host's capabilities of pools say it has, in the order of PoolKind."""
        there = {one.get("type") for one in parse(text).findall("pool") if one.get("supported") == "yes"}
        return tuple(kind for kind in PoolKind if kind in there)


def _attribute(root: ET.Element, path: str, name: str) -> str:
    found = root.find(path)
    return "" if found is None else found.get(name, "")


def _device_folder(spec: PoolSpec) -> str:
    """Return where the host has the devices of a pool, '' for one that has none, or says so itself."""
    if spec.kind is PoolKind.LOGICAL:
        return f"/dev/{spec.source}"
    # By names that do not change when the host starts anew.
    return "/dev/disk/by-path" if spec.kind is PoolKind.ISCSI else ""


class VolumeElement:
    """A qcow2 disk, or a raw file for a seed; in a pool that is no folder (`kind`) what is raw there."""

    @staticmethod
    def to_xml(spec: VolumeSpec, kind: str = PoolKind.DIR) -> str:
        """Return the definition of a disk. Raises InvalidSpec."""
        check_volume(spec)
        if kind not in FOLDER_KINDS:
            return VolumeElement._block_xml(spec)
        root = ET.Element("volume", type="file")
        child(root, "name", spec.name)
        child(root, "capacity", str(spec.capacity_bytes), unit="bytes")
        child(root, "allocation", "0", unit="bytes")
        target = child(root, "target")
        child(target, "format", type=spec.format)
        if spec.format == "qcow2":
            child(target, "compat", "1.1")
        if spec.backing_path is not None and spec.clone is CloneMode.LINKED:
            backing = child(root, "backingStore")
            child(backing, "path", spec.backing_path)
            child(backing, "format", type=spec.backing_format)
        return serialise(root)

    @staticmethod
    def _block_xml(spec: VolumeSpec) -> str:
        """Return the definition of a volume that is no file.

        It says nothing of an allocation, which then is all of it: with less than its capacity libvirt makes a
        sparse one, and of LVM such a volume is lost when it has filled up what it was given.
        """
        check_block(spec)
        root = ET.Element("volume")
        child(root, "name", spec.name)
        child(root, "capacity", str(spec.capacity_bytes), unit="bytes")
        # The schema wants it, though there is nothing to say.
        child(root, "target")
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
    def from_xml(pool: str, text: str, kind: str = PoolKind.DIR) -> VolumeInfo:
        """Read what libvirt reports (it always does so in bytes) of a volume in a pool of that kind.

        Of what is no file libvirt tells no format, or the kind of a label that is on it.
        """
        root = parse(text)
        told = root.find("target/format")
        form = "" if told is None else told.get("type", "")
        return VolumeInfo(
            pool=pool,
            name=text_at(root, "name"),
            path=text_at(root, "target/path"),
            capacity_bytes=int(text_at(root, "capacity")),
            allocation_bytes=int(text_at(root, "allocation")),
            backing_path=root.findtext("backingStore/path"),
            format=form if kind in FOLDER_KINDS else "raw",
            length_bytes=int(root.findtext("physical") or 0),
            # Of a device it tells when its node was made.
            written=(root.findtext("target/timestamps/mtime") or "") if kind in FOLDER_KINDS else "",
        )
