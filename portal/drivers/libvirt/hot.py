"""Change a domain while it runs: processors, memory, disks. Not for: what only the next start can change."""

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from portal.drivers.errors import AlreadyExists, InvalidSpec, InvalidState, NotSupported
from portal.drivers.libvirt import agent, nodes
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.plugging import CONFIG, LIVE, definitions, detach, slots, wait_until
from portal.drivers.libvirt.xml.build import parse
from portal.drivers.libvirt.xml.disk import DiskElement
from portal.drivers.libvirt.xml.places import disk_at, file_of
from portal.drivers.types import DiskSpec
from portal.drivers.validation import check_disk, check_path, check_positive, check_target, check_uuid

#: How near a balloon comes to what it was told: guests count in pages of their own size.
NEAR = 1 << 20


class Hot:
    """Changes of one connection's running domains; the contract is in `portal.drivers.base`."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    def _get(self, uuid: str) -> libvirt.virDomain:
        return self._connection.lookupByUUIDString(check_uuid(uuid))

    def _active(self, uuid: str) -> libvirt.virDomain:
        domain = self._get(uuid)
        if not domain.isActive():
            raise InvalidState("the domain is off")
        return domain

    @translated()
    def plug_vcpus(self, uuid: str, count: int) -> int | None:
        """Plug virtual processors in, and let the guest's agent bring them online."""
        domain = self._active(uuid)
        if count > domain.vcpusFlags(LIVE | libvirt.VIR_DOMAIN_VCPU_MAXIMUM):
            raise NotSupported(f"the domain runs with room for fewer than {count} vCPUs")
        if count > domain.vcpusFlags(LIVE):
            with slots():
                domain.setVcpusFlags(count, LIVE)
        told: int | None = None

        def used() -> bool:
            nonlocal told
            # The guest sees what was plugged in only a moment later.
            agent.bring_online(domain, count)
            told = agent.vcpus_online(domain)
            return told is None or told >= count

        wait_until(used)
        return told

    @translated()
    def set_balloon(self, uuid: str, memory_bytes: int) -> int:
        """Tell the balloon, and wait a while for the guest to follow."""
        domain = self._active(uuid)
        check_positive(memory_bytes, "memory")
        if memory_bytes > domain.maxMemory() * 1024:
            raise InvalidSpec("the domain runs with less memory than that")
        balloon = parse(domain.XMLDesc()).find("devices/memballoon")
        if balloon is None or balloon.get("model") == "none":
            raise NotSupported("the domain runs without a balloon")
        domain.setMemoryFlags(memory_bytes // 1024, LIVE)

        def near() -> bool:
            return abs(domain.info()[2] * 1024 - memory_bytes) <= NEAR

        wait_until(near)
        return int(domain.info()[2]) * 1024

    @translated()
    def attach_disk(self, uuid: str, spec: DiskSpec, like: Mapping[str, Any] | None = None) -> bool:
        """Attach a disk to the definition and to what runs."""
        check_disk(spec)
        text = DiskElement.to_xml(spec, like)
        domain = self._get(uuid)
        hot = domain.isActive() and DiskElement.is_hot(text)
        missing = 0
        for flag, defined in definitions(domain):
            there = disk_at(parse(defined), spec.target)
            if there is not None and file_of(there) != spec.path:
                raise AlreadyExists(f"{spec.target} is {file_of(there)} already")
            if there is None and (flag == CONFIG or hot):
                missing |= flag
        if missing:
            with slots():
                _attach(domain, text, missing, spec.path)
        return bool(hot)

    @translated()
    def detach_disk(self, uuid: str, target: str, path: str) -> None:
        """Detach a disk."""
        check_target(target)
        check_path(path)
        detach(self._get(uuid), lambda domain: _own(domain, target, path), target)

    @translated()
    def grow_disk(self, uuid: str, target: str, path: str, capacity_bytes: int) -> None:
        """Grow a disk's volume, and let a guest that runs see it."""
        check_target(target)
        check_path(path)
        check_positive(capacity_bytes, "capacity")
        domain = self._get(uuid)
        definition = domain.XMLDesc(0 if domain.isActive() else libvirt.VIR_DOMAIN_XML_INACTIVE)
        if _own(parse(definition), target, path) is None:
            raise AlreadyExists(f"{target} is not {path}")
        volume = self._connection.storageVolLookupByPath(path)
        if domain.isActive():
            # Of a disk in use only its emulator knows the size that counts.
            if capacity_bytes > domain.blockInfo(target)[0]:
                domain.blockResize(target, capacity_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
            volume.storagePoolLookupByVolume().refresh()
        elif capacity_bytes > volume.info()[1]:
            volume.resize(capacity_bytes)


def _attach(domain: libvirt.virDomain, text: str, flags: int, path: str) -> None:
    """Attach a disk, also where libvirt died in the middle of an earlier attempt."""
    try:
        domain.attachDeviceFlags(text, flags)
    except libvirt.libvirtError as error:
        if not (flags & LIVE and nodes.is_refusal(error) and nodes.let_go(domain, path)):
            raise
        domain.attachDeviceFlags(text, flags)


def _own(domain: ET.Element, target: str, path: str) -> ET.Element | None:
    """Return the disk at `target` if it is `path`; another one there is not ours to touch."""
    there = disk_at(domain, target)
    return there if there is not None and file_of(there) == path else None
