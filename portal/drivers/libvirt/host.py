"""What a host says about itself; not for proving it."""

import time
from collections.abc import Iterator
from contextlib import suppress

import libvirt

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.kernel import kernel_facts
from portal.drivers.libvirt.network import Networks
from portal.drivers.libvirt.saving import UNABLE
from portal.drivers.libvirt.xml.abilities import abilities_of
from portal.drivers.libvirt.xml.build import parse
from portal.drivers.libvirt.xml.capabilities import Capabilities
from portal.drivers.libvirt.xml.node_device import host_device
from portal.drivers.types import DomainAbilities, HostDevice, HostInfo, HostReadiness

#: The boards that machines of the portal, and those that it adopts, usually have; others have one a host.
_BOARDS = ("q35", "pc", "xenpv", "xenpvh", "xenfv", "virt")

#: Seconds for which a host is asked for one device after the other; each is a round trip.
DEVICE_PATIENCE = 15.0
#: Cards with many functions have hundreds.
MOST_DEVICES = 2000

_NOT_OFFERED = {
    libvirt.VIR_ERR_INVALID_ARG,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
}


@translated()
def host_info(connection: libvirt.virConnect) -> HostInfo:
    """Return the host's name, versions, CPU count and memory."""
    cpus = connection.getInfo()[2]
    return HostInfo(
        hostname=connection.getHostname(),
        hypervisor=connection.getType(),
        libvirt_version=connection.getLibVersion(),
        hypervisor_version=connection.getVersion(),
        cpus=cpus,
        memory_bytes=_memory(connection),
    )


def _memory(connection: libvirt.virConnect) -> int:
    """Return the host's memory in bytes.

    getInfo counts NUMA cells and was found too low by far on a host whose cells do not say; it serves
    where the host offers no statistics (libvirt's test driver).
    """
    try:
        stats = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NOT_OFFERED:
            raise
        stats = {}
    return stats["total"] * 1024 if "total" in stats else connection.getInfo()[1] * 1024 * 1024


@translated()
def readiness(connection: libvirt.virConnect) -> HostReadiness:
    """Return what the host offers, in its own words."""
    found = Capabilities.from_xml(connection.getCapabilities())
    return HostReadiness(
        host=host_info(connection),
        arch=found.arch,
        cpu_model=found.cpu_model,
        cpu_vendor=found.cpu_vendor,
        virtualization_flag=found.virtualization_flag,
        kvm_offered=_offers(connection, found, "kvm"),
        emulation_offered=_offers(connection, found, "qemu"),
        max_vcpus=found.max_vcpus,
        machine_types=found.machine_types,
        iommu=found.iommu,
        security_models=found.security_models,
        kernel=kernel_facts(connection.getURI()),
        networks=Networks(connection).list(),
        bridges=_bridges(connection),
        uuid=found.uuid,
        abilities=tuple(_abilities(connection, found)),
        saves=connection.getType() not in UNABLE,
    )


def _bridges(connection: libvirt.virConnect) -> tuple[str, ...] | None:
    """Return the names of the host's bridges, None where its libvirt cannot list interfaces."""
    try:
        found = [parse(interface.XMLDesc()) for interface in connection.listAllInterfaces()]
    except (libvirt.libvirtError, InvalidSpec):
        return None
    return tuple(sorted(root.get("name", "") for root in found if root.get("type") == "bridge"))


def _offers(connection: libvirt.virConnect, found: Capabilities, kind: str) -> bool:
    """Say whether libvirt would start a domain of this type (it looks at /dev/kvm itself)."""
    if kind not in found.domain_types:
        return False
    try:
        connection.getDomainCapabilities(None, found.arch, None, kind)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NOT_OFFERED:
            return False
        raise
    return True


def _abilities(connection: libvirt.virConnect, found: Capabilities) -> Iterator[DomainAbilities]:
    """Yield what domains of each type can have on each board; a board that a type lacks is left out."""
    boards = [board for board in _BOARDS if board in found.machine_types]
    for kind in sorted(found.domain_types):
        for board in boards or [""]:
            try:
                told = connection.getDomainCapabilities(None, found.arch, board or None, kind)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _NOT_OFFERED:
                    raise
                continue
            yield abilities_of(told, board)


def host_devices(connection: libvirt.virConnect) -> tuple[HostDevice, ...]:
    """Return the host's PCI and USB devices, those that it tells within DEVICE_PATIENCE."""
    kinds = (
        libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_USB_DEV
    )
    end = time.monotonic() + DEVICE_PATIENCE
    found = []
    try:
        for device in connection.listAllDevices(kinds)[:MOST_DEVICES]:
            # One that was unplugged meanwhile, or says what nobody can read, is left out; the last is raised
            # by libvirt's own bindings for what is no UTF-8.
            with suppress(libvirt.libvirtError, InvalidSpec, UnicodeDecodeError):
                found.append(host_device(device.XMLDesc()))
            if time.monotonic() > end:
                break
    except libvirt.libvirtError:
        return ()
    return tuple(sorted(filter(None, found), key=lambda one: (one.key, one.address)))
