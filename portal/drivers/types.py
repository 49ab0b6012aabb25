"""Frozen values that pass between the portal and the drivers; not for behaviour.

Every size is in bytes, every UUID the canonical lower-case text, every MAC lower-case with colons.
"""

from dataclasses import dataclass
from enum import StrEnum


class DomainState(StrEnum):
    """What a domain is doing, in libvirt's words."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting_down"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    UNKNOWN = "unknown"


class Accelerator(StrEnum):
    """How guest instructions are executed (libvirt's domain type)."""

    KVM = "kvm"
    EMULATION = "qemu"


class CloneMode(StrEnum):
    """How a volume relates to the image it is made from."""

    LINKED = "linked"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A qcow2 or raw file as a virtio disk; `target` is the device name, such as `vda`."""

    path: str
    target: str = "vda"
    format: str = "qcow2"


@dataclass(frozen=True, slots=True)
class NicSpec:
    """A virtio network card on a named libvirt network."""

    mac: str
    network: str


@dataclass(frozen=True, slots=True)
class DirectBoot:
    """A kernel and initrd on the host that the guest boots without a boot loader."""

    kernel: str
    initrd: str
    cmdline: str = ""


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """A machine to define. `seed_path` is a NoCloud ISO, attached as a SCSI cdrom."""

    name: str
    uuid: str
    vcpus: int
    memory_bytes: int
    disks: tuple[DiskSpec, ...] = ()
    nics: tuple[NicSpec, ...] = ()
    seed_path: str | None = None
    title: str = ""
    accelerator: Accelerator = Accelerator.KVM
    boot: DirectBoot | None = None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A storage pool that is a directory."""

    name: str
    uuid: str
    path: str


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A qcow2 volume: blank, or cloned from `backing_path`."""

    pool: str
    name: str
    capacity_bytes: int
    backing_path: str | None = None
    backing_format: str = "qcow2"
    clone: CloneMode = CloneMode.LINKED


@dataclass(frozen=True, slots=True)
class SeedSpec:
    """Documents for cloud-init's NoCloud source; `name` ends in `.iso`."""

    pool: str
    name: str
    meta_data: str
    user_data: str
    network_config: str | None = None


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """An IPv4 network with DHCP; `nat` False keeps it isolated. `address` is the gateway's."""

    name: str
    uuid: str
    bridge: str
    address: str
    prefix: int
    dhcp_start: str
    dhcp_end: str
    nat: bool = True


@dataclass(frozen=True, slots=True)
class DomainInfo:
    """A domain as the host reports it."""

    name: str
    uuid: str
    state: DomainState
    vcpus: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume as the host reports it."""

    pool: str
    name: str
    path: str
    capacity_bytes: int
    allocation_bytes: int
    backing_path: str | None = None


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A network as the host reports it."""

    name: str
    uuid: str
    bridge: str
    active: bool


@dataclass(frozen=True, slots=True)
class AddressInfo:
    """An address that the host's DHCP server leased to a network card."""

    mac: str
    address: str
    prefix: int


@dataclass(frozen=True, slots=True)
class HostInfo:
    """A host's name, versions (libvirt's integers, major * 1,000,000 + ...) and size."""

    hostname: str
    hypervisor: str
    libvirt_version: int
    hypervisor_version: int
    cpus: int
    memory_bytes: int
