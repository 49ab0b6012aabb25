"""Pools and volumes of the in-memory driver. Not for: who uses them, which its domains say."""

import hashlib
import posixpath
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

from portal.drivers import validation
from portal.drivers.errors import (
    AlreadyExists,
    InvalidSpec,
    PoolFull,
    PoolInactive,
    PoolNotFound,
    StrangeFormat,
    VolumeNotFound,
)
from portal.drivers.fake_blocks import need_new, path_of, size_of
from portal.drivers.fake_copies import FakeCopies
from portal.drivers.imagesource import boot_file, look
from portal.drivers.seed import build_iso
from portal.drivers.types import (
    FOLDER_KINDS,
    BootFileSpec,
    CloneMode,
    DomainSpec,
    NetworkSpec,
    PoolInfo,
    PoolKind,
    PoolSpec,
    SeedSpec,
    VolumeDigest,
    VolumeInfo,
    VolumeSpec,
    VolumeVerb,
)

Named = PoolSpec | NetworkSpec | DomainSpec


class FakeStorage(FakeCopies):
    """Hold one host's pools and volumes in memory; each pool has `pool_bytes`."""

    def __init__(self, pool_bytes: int) -> None:
        super().__init__()
        self.pool_bytes = pool_bytes
        self.kinds: tuple[PoolKind, ...] = (PoolKind.DIR, PoolKind.FS)
        self.seeds: dict[str, bytes] = {}
        self._pools: dict[str, PoolSpec] = {}
        #: Pools that are defined and do not run.
        self.stopped_pools: set[str] = set()
        self.manual_pools: set[str] = set()
        self.transient_pools: set[str] = set()
        #: What folders of the host that are links lead to.
        self.links: dict[str, str] = {}
        self._volumes: dict[tuple[str, str], VolumeInfo] = {}
        #: Of what was uploaded, and of copies, by path: other fake volumes hold no bytes.
        self._contents: dict[str, bytes] = {}

    @abstractmethod
    def _touch(self) -> None:
        """Raise HostUnreachable while the host does not answer."""

    @abstractmethod
    def _naming(self, paths: set[str]) -> tuple[str, ...]:
        """Return by name the domains that name one of some files."""

    @staticmethod
    def _is_known(spec: Named, existing: Sequence[Named]) -> bool:
        for other in existing:
            if (other.name, other.uuid) == (spec.name, spec.uuid):
                return True
            if other.name == spec.name or other.uuid == spec.uuid:
                raise AlreadyExists(f"{other.name} has uuid {other.uuid}")
        return False

    def ensure_pool(self, spec: PoolSpec) -> None:
        validation.check_pool(spec)
        self._touch()
        if not self._is_known(spec, list(self._pools.values())):
            self._pools[spec.name] = spec
            self.manual_pools.discard(spec.name)
        self.stopped_pools.discard(spec.name)

    def start_pool(self, name: str) -> None:
        self._defined_pool(name)
        self.stopped_pools.discard(name)

    def stop_pool(self, name: str) -> None:
        self._defined_pool(name)
        self.stopped_pools.add(name)

    def autostart_pool(self, name: str, on: bool) -> None:
        self._defined_pool(name)
        (self.manual_pools.discard if on else self.manual_pools.add)(name)

    def pool_kinds(self) -> tuple[PoolKind, ...]:
        self._touch()
        return self.kinds

    def refresh_pool(self, name: str) -> PoolInfo:
        self._pool(name)
        return next(pool for pool in self.list_pools() if pool.name == name)

    def list_pools(self) -> tuple[PoolInfo, ...]:
        self._touch()
        found = []
        for pool in self._pools.values():
            used, active = self._used(pool.name), pool.name not in self.stopped_pools
            sizes = (self.pool_bytes, used, self.pool_bytes - used) if active else (0, 0, 0)
            own = pool.name not in self.manual_pools
            info = PoolInfo(pool.name, pool.uuid, pool.path, active, *sizes, pool.kind, own)
            lasts = pool.name not in self.transient_pools
            found.append(replace(info, source=pool.source, server=pool.server, persistent=lasts))
        return tuple(sorted(found, key=lambda info: info.name))

    def remove_pool(self, name: str) -> None:
        self._touch()
        self._pools.pop(validation.check_known(name), None)

    def _defined_pool(self, name: str) -> PoolSpec:
        self._touch()
        try:
            return self._pools[validation.check_known(name)]
        except KeyError as error:
            raise PoolNotFound(name) from error

    def _pool(self, name: str) -> PoolSpec:
        pool = self._defined_pool(name)
        if name in self.stopped_pools:
            raise PoolInactive(name)
        return pool

    def create_volume(self, spec: VolumeSpec) -> VolumeInfo:
        validation.check_volume(spec)
        pool = self._pool(spec.pool)
        need_new(pool, spec)
        linked = spec.backing_path if spec.clone is CloneMode.LINKED else None
        size = size_of(pool, spec.capacity_bytes)
        existing = self._volumes.get((spec.pool, spec.name))
        if existing is not None:
            told = (existing.capacity_bytes, existing.backing_path, existing.format)
            if spec.fresh or told != (size, linked, spec.format):
                raise AlreadyExists(f"volume {spec.name} has another size, format or image")
            return existing
        image = self._image(spec)
        full = image if spec.clone is CloneMode.FULL else None
        # The worst case: an image counts in full.
        allocation = full.capacity_bytes if full else 0
        path = path_of(pool, spec.name)
        made = VolumeInfo(spec.pool, spec.name, path, size, allocation, linked, spec.format)
        stored = self._store(replace(made, length_bytes=size))
        self._contents.pop(path, None)
        if full:
            self._contents[path] = self._bytes_of(full)
        return stored

    def _image(self, spec: VolumeSpec) -> VolumeInfo | None:
        """Return what a volume is made from, None for nothing."""
        if spec.backing_path is None:
            return None
        for image in self._volumes.values():
            if image.path == spec.backing_path:
                if image.capacity_bytes > spec.capacity_bytes:
                    raise InvalidSpec("the volume is smaller than its image")
                kind = self._pool(image.pool).kind
                if image.pool != spec.pool:
                    validation.check_can(kind, VolumeVerb.COPY_FROM)
                strange = image.format != spec.backing_format and kind in FOLDER_KINDS
                if spec.clone is CloneMode.FULL and strange:
                    raise StrangeFormat(f"{image.path} is {image.format}")
                return image
        raise VolumeNotFound(spec.backing_path)

    def _used(self, pool: str) -> int:
        return sum(volume.allocation_bytes for volume in self._volumes.values() if volume.pool == pool)

    def _store(self, info: VolumeInfo) -> VolumeInfo:
        if self._used(info.pool) + info.allocation_bytes > self.pool_bytes:
            raise PoolFull(f"{info.allocation_bytes} bytes do not fit pool {info.pool}")
        self._volumes[info.pool, info.name] = info
        return info

    def upload_image(self, pool: str, name: str, source: str) -> VolumeInfo:
        image = look(name, source)
        path = f"{self._pool(pool).path}/{name}"
        info = VolumeInfo(pool, name, path, image.capacity_bytes, image.length_bytes, format=image.format)
        existing = self._volumes.get((pool, name))
        if existing is None:
            with open(source, "rb") as file:
                self._contents[path] = file.read()
            return self._store(info)
        if existing != info:
            raise AlreadyExists(f"volume {name} is not this image")
        return existing

    def _make_room(self, path: str, to: str) -> None:
        known = {volume.path: volume for volume in self._volumes.values()}
        if path not in known or to not in known:
            raise VolumeNotFound(to if path in known else path)
        behind = known.get(known[path].backing_path or "")
        taken = known[path].allocation_bytes + (behind.allocation_bytes if behind else 0)
        self._store(replace(known[to], allocation_bytes=max(taken, known[to].allocation_bytes)))

    def list_volumes(self, pool: str) -> tuple[VolumeInfo, ...]:
        self._pool(pool)
        found = [volume for volume in self._volumes.values() if volume.pool == pool]
        return tuple(sorted(found, key=lambda info: info.name))

    def delete_volume(self, pool: str, name: str) -> None:
        spec, key = self._pool(pool), (pool, validation.check_known(name))
        if key in self._volumes:
            validation.check_can(spec.kind, VolumeVerb.DELETE)
            info = self._volumes.pop(key)
            self.seeds.pop(info.path, None)
            self._contents.pop(info.path, None)

    def resize_volume(self, pool: str, name: str, capacity_bytes: int) -> VolumeInfo:
        validation.check_positive(capacity_bytes, "capacity")
        validation.check_can(self._pool(pool).kind, VolumeVerb.GROW)
        info = self.volume_info(pool, name)
        if capacity_bytes < info.capacity_bytes:
            raise InvalidSpec("a volume is never made smaller")
        info = replace(info, capacity_bytes=capacity_bytes, length_bytes=capacity_bytes)
        self._volumes[pool, name] = info
        return info

    def read_volume(self, pool: str, name: str, offset: int, length: int) -> bytes:
        validation.check_read(offset, length)
        info = self.volume_info(pool, name)
        if info.path in self.seeds:
            return self.seeds[info.path][offset : offset + length]
        # Nobody writes into these.
        return bytes(max(0, min(length, info.length_bytes - offset)))

    def canonical(self, paths: tuple[str, ...]) -> Mapping[str, str]:
        self._touch()
        parts = {path: posixpath.split(path) for path in paths}
        return {path: posixpath.join(self.links.get(at, at), name) for path, (at, name) in parts.items()}

    def volume_users(self, pool: str, name: str) -> tuple[str, ...]:
        return self._naming({self.volume_info(pool, name).path})

    def pool_users(self, pool: str) -> tuple[str, ...]:
        return self._naming({info.path for info in self.list_volumes(pool)})

    def volume_info(self, pool: str, name: str) -> VolumeInfo:
        self._pool(pool)
        try:
            return self._volumes[pool, validation.check_known(name)]
        except KeyError as error:
            raise VolumeNotFound(name) from error

    def digest_volume(self, pool: str, name: str) -> VolumeDigest:
        content = self._bytes_of(self.volume_info(pool, name))
        return VolumeDigest(hashlib.sha256(content).hexdigest(), len(content))

    def _bytes_of(self, info: VolumeInfo) -> bytes:
        return self._contents.get(info.path, f"{info.path} {info.capacity_bytes}".encode())

    def download_volume(self, pool: str, name: str, target: str) -> VolumeDigest:
        content = self._bytes_of(self.volume_info(pool, name))
        try:
            with open(target, "wb") as file:
                file.write(content)
        except OSError as error:
            raise InvalidSpec(f"{target}: {error.strerror}") from error
        return VolumeDigest(hashlib.sha256(content).hexdigest(), len(content))

    def write_seed(self, spec: SeedSpec) -> VolumeInfo:
        validation.check_seed(spec)
        content = build_iso(spec)
        path = f"{self._pool(spec.pool).path}/{spec.name}"
        self._volumes.pop((spec.pool, spec.name), None)
        info = self._store(VolumeInfo(spec.pool, spec.name, path, len(content), len(content), format="raw"))
        self.seeds[path] = content
        return info

    def write_boot_file(self, spec: BootFileSpec) -> VolumeInfo:
        validation.check_boot_file(spec)
        content = boot_file(spec)
        path = f"{self._pool(spec.pool).path}/{spec.name}"
        self._volumes.pop((spec.pool, spec.name), None)
        info = self._store(VolumeInfo(spec.pool, spec.name, path, len(content), len(content), format="raw"))
        self.seeds[path] = content
        return info
