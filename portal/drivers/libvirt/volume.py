"""Pool and volume calls; not for XML."""

import libvirt

from portal.drivers.errors import (
    AlreadyExists,
    InvalidSpec,
    PoolFull,
    PoolNotFound,
    VolumeNotFound,
)
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.lookup import find_same
from portal.drivers.libvirt.xml.volume import PoolElement, VolumeElement
from portal.drivers.seed import build_iso
from portal.drivers.types import CloneMode, PoolSpec, SeedSpec, VolumeInfo, VolumeSpec
from portal.drivers.validation import check_name, check_pool, check_seed, check_volume

CHUNK = 64 * 1024  # measured faster than sendAll


def _is_same(info: VolumeInfo, spec: VolumeSpec) -> bool:
    linked = spec.backing_path if spec.clone is CloneMode.LINKED else None
    return (info.capacity_bytes, info.backing_path) == (spec.capacity_bytes, linked)


class Volumes:
    """The pools and volumes of one connection; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    @translated()
    def ensure_pool(self, spec: PoolSpec) -> None:
        """Define a directory pool unless it exists, build its directory and start it."""
        check_pool(spec)
        pool = find_same(self._connection.listAllStoragePools(), spec.name, spec.uuid, "pool")
        if pool is None:
            pool = self._connection.storagePoolDefineXML(PoolElement.to_xml(spec))
        if not pool.isActive():
            pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
        pool.setAutostart(1)

    @translated()
    def remove_pool(self, name: str) -> None:
        """Stop and undefine a pool and remove its directory when empty; absent is no error."""
        try:
            pool = self._pool(name)
        except PoolNotFound:
            return
        if pool.isActive():
            pool.refresh()
            empty = not pool.listAllVolumes()
            pool.destroy()
            if empty:
                pool.delete()
        pool.undefine()

    @translated()
    def _pool(self, name: str) -> libvirt.virStoragePool:
        return self._connection.storagePoolLookupByName(check_name(name))

    @translated()
    def _get(self, pool: str, name: str) -> libvirt.virStorageVol:
        return self._pool(pool).storageVolLookupByName(check_name(name))

    @translated()
    def info(self, pool: str, name: str) -> VolumeInfo:
        """Return one volume."""
        return VolumeElement.from_xml(pool, self._get(pool, name).XMLDesc())

    @translated()
    def create(self, spec: VolumeSpec) -> VolumeInfo:
        """Create a blank, linked or full volume unless the same one exists."""
        check_volume(spec)
        pool = self._pool(spec.pool)
        pool.refresh()  # files that came or went without libvirt
        try:
            existing = self.info(spec.pool, spec.name)
        except VolumeNotFound:
            self._create(pool, spec)
            return self.info(spec.pool, spec.name)
        if not _is_same(existing, spec):
            raise AlreadyExists(f"volume {spec.name} has another size or image")
        return existing

    def _create(self, pool: libvirt.virStoragePool, spec: VolumeSpec) -> None:
        image = self._image(spec)
        if image is None or spec.clone is CloneMode.LINKED:
            pool.createXML(VolumeElement.to_xml(spec))
            return
        _type, capacity, allocation = image.info()
        if allocation > pool.info()[3]:
            raise PoolFull(f"{allocation} bytes do not fit pool {spec.pool}")
        volume = pool.createXMLFrom(VolumeElement.to_xml(spec), image)
        try:
            if spec.capacity_bytes > volume.info()[1]:
                volume.resize(spec.capacity_bytes)
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

    @translated()
    def delete(self, pool: str, name: str) -> None:
        """Delete a volume; absent is no error."""
        try:
            self._get(pool, name).delete()
        except (PoolNotFound, VolumeNotFound):
            return

    @translated()
    def write_seed(self, spec: SeedSpec) -> VolumeInfo:
        """Write a seed as a raw volume, replacing one of that name."""
        check_seed(spec)
        content = build_iso(spec)
        pool = self._pool(spec.pool)
        self.delete(spec.pool, spec.name)
        volume = pool.createXML(VolumeElement.raw_xml(spec.name, len(content)))
        try:
            self._upload(volume, content)
        except libvirt.libvirtError:
            volume.delete()
            raise
        return self.info(spec.pool, spec.name)

    def _upload(self, volume: libvirt.virStorageVol, content: bytes) -> None:
        stream = self._connection.newStream()
        volume.upload(stream, 0, len(content))
        try:
            offset = 0
            while offset < len(content):
                offset += stream.send(content[offset : offset + CHUNK])
        except libvirt.libvirtError:
            stream.abort()
            raise
        stream.finish()
