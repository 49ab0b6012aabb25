"""Volume calls; not for pools or XML."""

import hashlib

import libvirt

from portal.drivers.errors import (
    AlreadyExists,
    InvalidSpec,
    PoolFull,
    StrangeFormat,
    VolumeNotFound,
)
from portal.drivers.imagesource import ImageSource, boot_file, look
from portal.drivers.libvirt import upload
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.pool import Pools, kind_of, need, refresh, refresh_surely
from portal.drivers.libvirt.xml.volume import VolumeElement
from portal.drivers.qcow2 import has_external_data
from portal.drivers.seed import build_iso
from portal.drivers.types import (
    FOLDER_KINDS,
    BootFileSpec,
    CloneMode,
    SeedSpec,
    VolumeDigest,
    VolumeInfo,
    VolumeSpec,
    VolumeVerb,
)
from portal.drivers.validation import check_boot_file, check_known, check_seed, check_volume

#: How files begin that can name another one for their content: qcow2, QED, VMDK, VHD and VHDX.
_MAGICS = (b"QFI\xfb", b"QED\0", b"KDMV", b"COWD", b"# Disk DescriptorFile", b"conectix", b"vhdxfile")
#: What is said of a name that something has.
_THERE = ("already exists", "already in use", "File exists")


def _is_same(info: VolumeInfo, spec: VolumeSpec, kind: str) -> bool:
    linked = spec.backing_path if spec.clone is CloneMode.LINKED else None
    # Pools that are no folders have whole extents or blocks.
    same_size = info.capacity_bytes == spec.capacity_bytes
    if kind not in FOLDER_KINDS:
        same_size = info.capacity_bytes >= spec.capacity_bytes
    return same_size and (info.backing_path, info.format) == (linked, spec.format)


def _length(volume: libvirt.virStorageVol) -> int:
    return volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2]


class Volumes:
    """The volumes of one connection; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect, pools: Pools) -> None:
        self._connection = connection
        self._pools = pools

    @translated()
    def _get(self, pool: str, name: str) -> libvirt.virStorageVol:
        return self._pools.get(pool).storageVolLookupByName(check_known(name))

    @translated()
    def info(self, pool: str, name: str) -> VolumeInfo:
        """Return one volume."""
        there = self._pools.get(pool)
        text = there.storageVolLookupByName(check_known(name)).XMLDesc()
        return VolumeElement.from_xml(pool, text, kind_of(there))

    @translated()
    def list(self, pool: str) -> tuple[VolumeInfo, ...]:
        """Return a pool's volumes by name; one that vanishes meanwhile is left out."""
        there = self._pools.get(pool)
        refresh(there)  # a busy pool is being changed by libvirt, which then knows what is there
        found, kind = [], kind_of(there)
        for volume in there.listAllVolumes():
            try:
                found.append(VolumeElement.from_xml(pool, volume.XMLDesc(), kind))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
                    raise
        return tuple(sorted(found, key=lambda info: info.name))

    @translated()
    def create(self, spec: VolumeSpec) -> VolumeInfo:
        """Create a blank, linked or full volume unless the same one exists."""
        check_volume(spec)
        pool = self._pools.get(spec.pool)
        kind = need(pool, VolumeVerb.CREATE if spec.backing_path is None else VolumeVerb.CLONE)
        refresh(pool)  # files that came or went without libvirt
        try:
            existing = self.info(spec.pool, spec.name)
        except VolumeNotFound:
            try:
                self._create(pool, spec, kind)
            except libvirt.libvirtError as error:
                # libvirt looks for the file itself, and has no code of its own for it; nor where it
                # copies, nor for what lvcreate and zfs say, and Ceph's EEXIST.
                if any(words in str(error) for words in _THERE):
                    raise AlreadyExists(str(error)) from error
                raise
            return self.info(spec.pool, spec.name)
        if spec.fresh or not _is_same(existing, spec, kind):
            raise AlreadyExists(f"volume {spec.name} has another size, format or image")
        return existing

    def _create(self, pool: libvirt.virStoragePool, spec: VolumeSpec, kind: str) -> None:
        text = VolumeElement.to_xml(spec, kind)
        image = self._image(spec)
        if image is None or spec.clone is CloneMode.LINKED:
            pool.createXML(text)
            return
        source = image.storagePoolLookupByVolume()
        other = source.name() != pool.name()
        if other:
            need(source, VolumeVerb.COPY_FROM)
        self._check_format(image, source, spec.backing_format, other and kind in FOLDER_KINDS)
        _type, capacity, allocation = image.info()
        if allocation > pool.info()[3]:
            raise PoolFull(f"{allocation} bytes do not fit pool {spec.pool}")
        volume = pool.createXMLFrom(text, image)
        try:
            if spec.capacity_bytes > volume.info()[1]:
                volume.resize(spec.capacity_bytes)
            if other:
                # qemu-img leaves what it copied to the host's memory, and who asked may delete the image.
                upload.sync(self._connection, volume)
        except libvirt.libvirtError:
            volume.delete()
            raise

    def _image(self, spec: VolumeSpec) -> libvirt.virStorageVol | None:
        """Return the image to clone, having checked that it exists and is not larger."""
        if spec.backing_path is None:
            return None
        image = self._connection.storageVolLookupByPath(spec.backing_path)
        if image.info()[1] > spec.capacity_bytes:
            raise InvalidSpec("the volume is smaller than its image")
        return image

    def _check_format(
        self, image: libvirt.virStorageVol, pool: libvirt.virStoragePool, wanted: str, as_file: bool
    ) -> None:
        """Raise StrangeFormat unless a volume of `pool` reads as what it is: libvirt copies what it reads.

        What lies in a pool that is no folder is raw to it, unless a folder takes the copy (`as_file`), whose
        pool reads it as one of its own.
        """
        if (kind := kind_of(pool)) not in FOLDER_KINDS:
            head = upload.sector(self._connection, image, 0) if as_file else b""
            if head.startswith(_MAGICS):
                raise StrangeFormat(f"{image.path()} is raw, and begins {head[:12]!r}")
            return
        # Where a copy is being made, libvirt looks at nothing anew: so the beginning is read as well.
        refresh(pool)
        found = VolumeElement.from_xml(pool.name(), image.XMLDesc(), kind).format
        head = upload.sector(self._connection, image, 0)
        if found != wanted or (found == "raw" and head.startswith(_MAGICS)):
            raise StrangeFormat(f"{image.path()} is {wanted}, reads as {found}, and begins {head[:12]!r}")
        if has_external_data(head):
            raise StrangeFormat(f"the content of {image.path()} lies in another file")

    @translated()
    def delete(self, pool: str, name: str) -> None:
        """Delete a volume; absent is no error, but a pool that is gone: the file may lie there still."""
        try:
            volume = self._get(pool, name)
            need(self._pools.get(pool), VolumeVerb.DELETE)
            volume.delete()
        except VolumeNotFound:
            return

    @translated()
    def digest(self, pool: str, name: str) -> VolumeDigest:
        """Return the digest of a volume's file."""
        return upload.digest(self._connection, self._get(pool, name))

    @translated()
    def download(self, pool: str, name: str, target: str) -> VolumeDigest:
        """Write a volume's file to another on this machine; return its digest."""
        volume = self._get(pool, name)
        try:
            with open(target, "wb") as file:
                return upload.digest(self._connection, volume, file)
        except OSError as error:
            raise InvalidSpec(f"{target}: {error.strerror}") from error

    @translated()
    def write_seed(self, spec: SeedSpec) -> VolumeInfo:
        """Write a seed as a raw volume, replacing one of that name."""
        check_seed(spec)
        self.delete(spec.pool, spec.name)
        self.write_raw(spec.pool, spec.name, build_iso(spec))
        return self.info(spec.pool, spec.name)

    @translated()
    def write_boot_file(self, spec: BootFileSpec) -> VolumeInfo:
        """Write a kernel or initrd as a raw volume, replacing one of that name that is another."""
        check_boot_file(spec)
        content = boot_file(spec)
        there = self._pools.get(spec.pool)
        refresh_surely(there)
        if self._holds(spec.pool, spec.name, content):
            return self.info(spec.pool, spec.name)
        self.delete(spec.pool, spec.name)
        refresh_surely(there)
        if len(content) > there.info()[3]:
            raise PoolFull(f"{len(content)} bytes do not fit pool {spec.pool}")
        self.write_raw(spec.pool, spec.name, content)
        return self.info(spec.pool, spec.name)

    def _holds(self, pool: str, name: str, content: bytes) -> bool:
        """Tell whether a volume is there and has that content: a guest may be starting from it."""
        try:
            volume = self._get(pool, name)
        except VolumeNotFound:
            return False
        if _length(volume) != len(content):
            return False
        wanted = VolumeDigest(hashlib.sha256(content).hexdigest(), len(content))
        return upload.digest(self._connection, volume) == wanted

    @translated()
    def write_raw(self, pool: str, name: str, content: bytes) -> None:
        """Create a raw volume with that content, or nothing."""
        volume = self._pools.get(pool).createXML(VolumeElement.raw_xml(name, len(content)))
        try:
            upload.write(self._connection, volume, content)
        except libvirt.libvirtError:
            volume.delete()
            raise

    @translated()
    def upload_image(self, pool: str, name: str, source: str) -> VolumeInfo:
        """Copy a local qcow2 or ISO into the pool; the contract tells how a half-made one is known."""
        image = look(name, source)
        there = self._pools.get(pool)
        refresh_surely(there)
        try:
            volume = self._get(pool, name)
        except VolumeNotFound:
            if image.length_bytes > there.info()[3]:
                raise PoolFull(f"{image.length_bytes} bytes do not fit pool {pool}") from None
            volume = there.createXML(VolumeElement.raw_xml(name, image.length_bytes))
        else:
            if self._is_complete(volume, pool, image):
                return self.info(pool, name)
        self._fill(volume, source, image.key_at)
        refresh_surely(there)  # only now does libvirt read format and virtual size
        return self.info(pool, name)

    def _is_complete(self, volume: libvirt.virStorageVol, pool: str, image: ImageSource) -> bool:
        """Say whether a volume is the image (True) or its half (False). Raises AlreadyExists."""
        info, length = VolumeElement.from_xml(pool, volume.XMLDesc()), _length(volume)
        wanted = (image.format, image.capacity_bytes, image.length_bytes)
        if (info.format, info.capacity_bytes, length) == wanted:
            return True
        half = info.format == "raw" and length in {0, image.length_bytes}
        if half and (not length or not upload.sector(self._connection, volume, image.key_at).strip(b"\0")):
            return False
        raise AlreadyExists(f"volume {info.name} is not this image")

    def _fill(self, volume: libvirt.virStorageVol, source: str, key_at: int) -> None:
        try:
            upload.write_file(self._connection, volume, source, key_at)
        except OSError as error:
            volume.delete()
            raise InvalidSpec(f"{source}: {error.strerror}") from error
        except libvirt.libvirtError:
            volume.delete()
            raise
