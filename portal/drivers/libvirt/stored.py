"""Volumes that are there: grown, read, and who uses them. Not for: making or deleting them."""

from collections.abc import Iterator, Mapping, Set

import libvirt

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.folders import canonical
from portal.drivers.libvirt.pool import Pools, need, refresh, refresh_surely
from portal.drivers.libvirt.upload import read
from portal.drivers.libvirt.xml.places import sources_of
from portal.drivers.libvirt.xml.volume import VolumeElement
from portal.drivers.types import VolumeInfo, VolumeVerb, names_of, users_among
from portal.drivers.validation import check_known, check_positive, check_read


class Stored:
    """The volumes of one connection that are there; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect, pools: Pools) -> None:
        self._connection = connection
        self._pools = pools

    def _get(self, pool: str, name: str) -> libvirt.virStorageVol:
        return self._pools.get(pool).storageVolLookupByName(check_known(name))

    @translated()
    def resize(self, pool: str, name: str, capacity_bytes: int) -> VolumeInfo:
        """Make a volume larger, or leave it."""
        check_positive(capacity_bytes, "capacity")
        kind = need(self._pools.get(pool), VolumeVerb.GROW)
        refresh_surely(self._pools.get(pool))
        volume = self._get(pool, name)
        there = volume.info()[1]
        if capacity_bytes < there:
            raise InvalidSpec("a volume is never made smaller")
        if capacity_bytes > there:
            volume.resize(capacity_bytes)
        return VolumeElement.from_xml(pool, volume.XMLDesc(), kind)

    @translated()
    def read(self, pool: str, name: str, offset: int, length: int) -> bytes:
        """Return a part of a volume as it is stored."""
        check_read(offset, length)
        return read(self._connection, self._get(pool, name), offset, length)

    @translated()
    def users(self, pool: str, name: str) -> tuple[str, ...]:
        """Return by name the domains that have a volume for a disk, or stand on it."""
        return self._naming({*names_of(self._get(pool, name).path()), (pool, name)})

    @translated()
    def pool_users(self, pool: str) -> tuple[str, ...]:
        """Return by name the domains that have any volume of a pool for a disk, or stand on it."""
        there = self._pools.get(pool)
        refresh(there)  # a busy pool is being changed by libvirt, which then knows what is there
        places: set[str | tuple[str, str]] = set()
        for volume in there.listAllVolumes():
            try:
                places |= {*names_of(volume.path()), (pool, volume.name())}
            except libvirt.libvirtError as error:
                # One that goes at this moment takes nothing from who has the others.
                if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
                    raise
        return self._naming(places)

    @translated()
    def canonical(self, paths: tuple[str, ...]) -> Mapping[str, str]:
        return canonical(self._connection.getURI(), paths)

    def _naming(self, places: Set[str | tuple[str, str]]) -> tuple[str, ...]:
        """Return by name the domains that name one of some files, devices, and (pool, volume)."""
        named = [(user, sources_of(text)) for user, text in self._definitions()]
        return users_among(places, named, self.canonical)

    def _definitions(self) -> Iterator[tuple[str, str]]:
        for domain in self._connection.listAllDomains():
            try:
                yield domain.name(), domain.XMLDesc()
                yield domain.name(), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
