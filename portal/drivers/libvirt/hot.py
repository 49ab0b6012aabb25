"""Change a domain while it runs: processors, memory, disks. Not for: what only the next start can change."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from xml.etree import ElementTree as ET

import libvirt

from portal.drivers.errors import AlreadyExists, GuestIgnores, InvalidSpec, InvalidState, NoSlot, NotSupported
from portal.drivers.libvirt import agent
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.xml.build import parse
from portal.drivers.libvirt.xml.disk import DiskElement
from portal.drivers.libvirt.xml.places import disk_at, file_of
from portal.drivers.types import DiskSpec
from portal.drivers.validation import check_disk, check_path, check_positive, check_target, check_uuid

#: Seconds a guest gets to give memory back, or to let a device go.
PATIENCE = 15.0
LOOK_EVERY = 0.3
#: How near a balloon comes to what it was told: guests count in pages of their own size.
NEAR = 1 << 20
_CONFIG, _LIVE = libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_AFFECT_LIVE
_NO_SLOT = "No more available PCI slots"


@contextmanager
def _slots() -> Iterator[None]:
    """Raise NoSlot where libvirt found no place for a device."""
    try:
        yield
    except libvirt.libvirtError as error:
        if _NO_SLOT in str(error):
            raise NoSlot(str(error)) from error
        raise


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
        if count > domain.vcpusFlags(_LIVE | libvirt.VIR_DOMAIN_VCPU_MAXIMUM):
            raise NotSupported(f"the domain runs with room for fewer than {count} vCPUs")
        if count > domain.vcpusFlags(_LIVE):
            with _slots():
                domain.setVcpusFlags(count, _LIVE)
        told: int | None = None

        def used() -> bool:
            nonlocal told
            # The guest sees what was plugged in only a moment later.
            agent.bring_online(domain, count)
            told = agent.vcpus_online(domain)
            return told is None or told >= count

        _wait_until(used)
        return told

    @translated()
    def set_balloon(self, uuid: str, memory_bytes: int) -> int:
        """Tell the balloon, and wait a while for the guest to follow."""
        domain = self._active(uuid)
        check_positive(memory_bytes, "memory")
        if memory_bytes > domain.maxMemory() * 1024:
            raise InvalidSpec("the domain runs with less memory than that")
        domain.setMemoryFlags(memory_bytes // 1024, _LIVE)

        def near() -> bool:
            return abs(domain.info()[2] * 1024 - memory_bytes) <= NEAR

        _wait_until(near)
        return int(domain.info()[2]) * 1024

    @translated()
    def attach_disk(self, uuid: str, spec: DiskSpec) -> bool:
        """Attach a disk to the definition and to what runs."""
        check_disk(spec)
        domain = self._get(uuid)
        hot = domain.isActive() and DiskElement.is_hot(spec)
        missing = 0
        for flag, text in _definitions(domain):
            there = disk_at(parse(text), spec.target)
            if there is not None and file_of(there) != spec.path:
                raise AlreadyExists(f"{spec.target} is {file_of(there)} already")
            if there is None and (flag == _CONFIG or hot):
                missing |= flag
        if missing:
            with _slots():
                domain.attachDeviceFlags(DiskElement.to_xml(spec), missing)
        return bool(hot)

    @translated()
    def detach_disk(self, uuid: str, target: str, path: str) -> None:
        """Detach a disk, from what runs first: a guest that keeps it keeps it defined too."""
        check_target(target)
        check_path(path)
        domain = self._get(uuid)
        if domain.isActive():
            self._unplug(domain, target, path)
        if (there := _own(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), target, path)) is not None:
            domain.detachDeviceFlags(ET.tostring(there, encoding="unicode"), _CONFIG)

    def _unplug(self, domain: libvirt.virDomain, target: str, path: str) -> None:
        there = _own(domain.XMLDesc(), target, path)
        if there is None:
            return
        try:
            domain.detachDeviceFlags(ET.tostring(there, encoding="unicode"), _LIVE)
        except libvirt.libvirtError as error:
            # An earlier call may have asked the guest already.
            if "in the process of unplug" not in str(error):
                raise
        if not _wait_until(lambda: _own(domain.XMLDesc(), target, path) is None):
            raise GuestIgnores(f"{target} is still there {PATIENCE:g} s after the guest was asked")

    @translated()
    def grow_disk(self, uuid: str, target: str, path: str, capacity_bytes: int) -> None:
        """Grow a disk's volume, and let a guest that runs see it."""
        check_target(target)
        check_path(path)
        check_positive(capacity_bytes, "capacity")
        domain = self._get(uuid)
        definition = domain.XMLDesc(0 if domain.isActive() else libvirt.VIR_DOMAIN_XML_INACTIVE)
        if _own(definition, target, path) is None:
            raise AlreadyExists(f"{target} is not {path}")
        volume = self._connection.storageVolLookupByPath(path)
        if domain.isActive():
            # Of a disk in use only its emulator knows the size that counts.
            if capacity_bytes > domain.blockInfo(target)[0]:
                domain.blockResize(target, capacity_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
            volume.storagePoolLookupByVolume().refresh()
        elif capacity_bytes > volume.info()[1]:
            volume.resize(capacity_bytes)


def _definitions(domain: libvirt.virDomain) -> Iterator[tuple[int, str]]:
    yield _CONFIG, domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    if domain.isActive():
        yield _LIVE, domain.XMLDesc()


def _own(text: str, target: str, path: str) -> ET.Element | None:
    """Return the disk at `target` if it is `path`; another one there is not ours to touch."""
    there = disk_at(parse(text), target)
    return there if there is not None and file_of(there) == path else None


def _wait_until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not (done := condition()) and time.monotonic() < end:
        time.sleep(LOOK_EVERY)
    return done
