"""Frozen values that pass between the portal and the drivers; not for behaviour.

All are imported from here; those of pools and volumes stand in `storagetypes`. Every size is in bytes, every
UUID the canonical lower-case text, every MAC lower-case with colons.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from portal.drivers.domainkinds import XEN as XEN
from portal.drivers.domainkinds import XEN_HOST as XEN_HOST
from portal.drivers.domainkinds import DomainFeature as DomainFeature
from portal.drivers.domainkinds import lacks as lacks
from portal.drivers.poolkinds import FOLDER_KINDS as FOLDER_KINDS
from portal.drivers.poolkinds import SECRET_KINDS as SECRET_KINDS
from portal.drivers.poolkinds import SERVED_KINDS as SERVED_KINDS
from portal.drivers.poolkinds import Place as Place
from portal.drivers.poolkinds import PoolKind as PoolKind
from portal.drivers.poolkinds import VolumeVerb as VolumeVerb
from portal.drivers.poolkinds import can as can
from portal.drivers.poolkinds import names_of as names_of
from portal.drivers.poolkinds import users_among as users_among
from portal.drivers.storagetypes import BOOT_FILES as BOOT_FILES
from portal.drivers.storagetypes import LONGEST_READ as LONGEST_READ
from portal.drivers.storagetypes import POOL_PREFIX as POOL_PREFIX
from portal.drivers.storagetypes import BootFileSpec as BootFileSpec
from portal.drivers.storagetypes import CloneMode as CloneMode
from portal.drivers.storagetypes import CopyStage as CopyStage
from portal.drivers.storagetypes import DiskCopy as DiskCopy
from portal.drivers.storagetypes import PoolInfo as PoolInfo
from portal.drivers.storagetypes import PoolSpec as PoolSpec
from portal.drivers.storagetypes import SeedSpec as SeedSpec
from portal.drivers.storagetypes import VolumeDigest as VolumeDigest
from portal.drivers.storagetypes import VolumeInfo as VolumeInfo
from portal.drivers.storagetypes import VolumeSpec as VolumeSpec


class DomainState(StrEnum):
    """What a domain is doing, in libvirt's words."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting_down"
    SHUTOFF = "shutoff"
    #: Off, with its memory in a file of the host: the next start goes on from there.
    SAVED = "saved"
    CRASHED = "crashed"
    UNKNOWN = "unknown"


class Accelerator(StrEnum):
    """How guest instructions are executed (libvirt's domain type)."""

    KVM = "kvm"
    EMULATION = "qemu"
    #: Of machines that others made: the portal makes none for it, so no guest proves it.
    XEN = "xen"


class DeviceModel(StrEnum):
    """Which devices a guest sees: those made for guests (virtio), or copies of real ones for any system."""

    PARAVIRTUAL = "paravirtual"
    EMULATED = "emulated"


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A qcow2 or raw file, or a device of the host (`is_device`), as a disk.

    `target` is the device name: `vda` on, of an emulated disk `sda` on.

    `serial` is what the guest tells it by (`/dev/disk/by-id/virtio-SERIAL`), empty for none.
    """

    path: str
    target: str = "vda"
    format: str = "qcow2"
    serial: str = ""


def is_device(path: str) -> bool:
    """Tell whether a disk's path is a device of its host, as volumes of LVM and ZFS are."""
    return path.startswith("/dev/")


#: What the reading and writing of a disk can be limited to: bytes and operations a second, 0 for no limit.
#: A total goes with no limit of reading or writing alone.
LIMITS = (
    "total_bytes_sec",
    "read_bytes_sec",
    "write_bytes_sec",
    "total_iops_sec",
    "read_iops_sec",
    "write_iops_sec",
)
#: What QEMU takes at most (THROTTLE_VALUE_MAX).
MOST_LIMIT = 10**15

#: What a card can be limited to, as libvirt counts: KiB a second, bursts in KiB, 0 for no limit. `inbound` is
#: what the guest receives. A peak and a burst go with an average.
BANDWIDTH = (
    "inbound_average",
    "inbound_peak",
    "inbound_burst",
    "outbound_average",
    "outbound_peak",
    "outbound_burst",
)
#: The kinds of cards that libvirt limits (virNetDevSupportsBandwidth).
LIMITED_CARDS = frozenset({"network", "bridge", "direct", "ethernet"})
#: What libvirt takes at most while a domain runs (an unsigned int).
MOST_BANDWIDTH = 2**32 - 1


@dataclass(frozen=True, slots=True)
class NicSpec:
    """A network card on a named libvirt network, or (`network` empty) on a network of the guest's own.

    The latter is part of the emulator and needs no right on the host: the guest reaches the outside by the
    host's own connections, and nobody reaches the guest but by `ssh_port` of the host's loopback, which leads
    to the guest's port 22.
    """

    mac: str
    network: str = ""
    ssh_port: int = 0


@dataclass(frozen=True, slots=True)
class CardWas:
    """A card before it was detached, in the definition and in what ran, None where it was not there.

    As `portal.drivers.inspection` understood it.
    """

    defined: Mapping[str, Any] | None
    ran: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class NicPlace:
    """What a card is on: a libvirt network (`portgroup` is one of its), or a bridge of the host by itself."""

    network: str = ""
    bridge: str = ""
    portgroup: str = ""

    def __str__(self) -> str:
        return self.network or self.bridge


@dataclass(frozen=True, slots=True)
class DirectBoot:
    """A kernel and initrd on the host that the guest boots without a boot loader."""

    kernel: str
    initrd: str
    cmdline: str = ""


#: What QEMU's q35 machine has room for (hw/i386/pc_q35.c, 7.2).
MOST_VCPUS = 288


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """A machine to define. `seed_path` is a NoCloud ISO, attached as a cdrom, and so are at most two `cds`.

    With `installs`, what is defined is for the first start alone: it is from `boot`, or from the first of
    `cds` before the disk, and a guest that restarts is off.

    With emulated devices there is no virtio at all: disk and cdrom are SATA, the card is an Intel 82574L,
    the screen is VGA, and there is no channel to an agent, no balloon and no random-number device.
    """

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
    devices: DeviceModel = DeviceModel.PARAVIRTUAL
    #: Up to how many vCPUs it can get while it runs; 0 for no more than it has.
    vcpu_ceiling: int = 0
    #: What the balloon leaves its guest of `memory_bytes`; 0 for all of it.
    memory_now_bytes: int = 0
    cds: tuple[str, ...] = ()
    installs: bool = False
    #: UEFI in place of a BIOS; the host finds the firmware.
    uefi: bool = False
    #: That firmware starts only what is signed, by keys that it comes with.
    secure_boot: bool = False
    #: A TPM 2.0 that the host's swtpm plays.
    tpm: bool = False
    #: As Windows wants it: a clock of local time, steady timers, and, with KVM, the interfaces of Hyper-V.
    windows: bool = False


@dataclass(frozen=True, slots=True)
class TwinSpec:
    """A domain to define like another one: its own name, UUID and title, and by what was there what is now.

    `paths` of files that disks and drives are, those of disks as qcow2 files, `macs` of cards in lower case,
    and `ports` of the host's loopback, as digits, that lead to a guest on a network of its own.
    """

    name: str
    uuid: str
    title: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    macs: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, str] = field(default_factory=dict)


#: How the names of what a proof makes for a moment begin: its guests, pools and networks.
PROBE_PREFIX = "gatehouse-probe"


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network for guests, of one of four kinds.

    An IPv4 network with DHCP on a bridge that the host makes, with NAT or (`nat` False) isolated:
    `address` is the gateway's. Or, with `host_bridge`, a bridge that the host's administrator made
    (a LAN): then nothing but `name`, `uuid` and `bridge` counts, and addresses must be empty. Or, with
    `user`, one that each guest has of its own (see `NicSpec`): no host makes it, and no driver takes it.
    """

    name: str
    uuid: str
    bridge: str
    address: str = ""
    prefix: int = 24
    dhcp_start: str = ""
    dhcp_end: str = ""
    nat: bool = True
    host_bridge: bool = False
    user: bool = False


@dataclass(frozen=True, slots=True)
class DomainInfo:
    """A domain as the host reports it."""

    name: str
    uuid: str
    state: DomainState
    vcpus: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class DomainDefinition:
    """What a domain is defined as, and what it runs as: definitions of the hypervisor's, without secrets.

    `persistent` is what the next start makes of it, empty for a domain that is only while it runs; `running`
    is empty for one that is off. `autostart` tells whether it starts with its host, which is no part of the
    definition and its digest.
    """

    persistent: str
    running: str = ""
    autostart: bool = False

    @property
    def digest(self) -> str:
        """Return what tells `persistent` from any other definition (SHA-256, hexadecimal)."""
        return hashlib.sha256(self.persistent.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A network as the host reports it; `forward` is libvirt's word, empty for an isolated one."""

    name: str
    uuid: str
    bridge: str
    active: bool
    forward: str = ""


@dataclass(frozen=True, slots=True)
class AddressInfo:
    """An address of a network card: leased by the host's DHCP server, or told by the guest."""

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


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What a host's kernel is set to; None for what is not known.

    `cgroup_version` is 1 also for a mixture of both; `bridge_rules` tells whether packets on a bridge meet
    iptables' rules (bridge-nf-call-iptables).
    """

    cgroup_version: int | None = None
    cgroup_controllers: tuple[str, ...] | None = None
    ip_forward: bool | None = None
    bridge_rules: bool | None = None


#: Traces of a domain (`inspection`, `traces`): a firmware that must forget at its next start what another one
#: kept, and one, or a TPM, that the domain had and of which something is on the host still.
FRESH, LEFT = "fresh", "left"


@dataclass(frozen=True, slots=True)
class DomainAbilities:
    """What a host's emulator can give a domain of one type on one board, as it says itself.

    `board` is the family (`q35`), `machine` what that is today (`pc-q35-7.2`). `cpu_models` are those the
    host can run; `uefi` tells that libvirt finds a firmware by itself, `secure_boot` that one of them can.
    """

    type: str
    arch: str
    board: str
    machine: str = ""
    max_vcpus: int = 0
    uefi: bool = False
    secure_boot: bool = False
    cpu_modes: tuple[str, ...] = ()
    cpu_models: tuple[str, ...] = ()
    tpm_models: tuple[str, ...] = ()
    tpm_backends: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    graphics: tuple[str, ...] = ()
    host_devices: tuple[str, ...] = ()
    disk_buses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A PCI or USB device of a host that a guest could be given.

    `key` tells it from others of the host: `pci:0000:03:00.0`, and `usb:046d:c52b` by what it is, since a USB
    device has another number each time that it is plugged in. `address` is where it is now, of USB
    `bus.number`. `group` is its IOMMU group, None where the host has no IOMMU in use; what shares one goes
    together.
    """

    key: str
    label: str
    address: str
    group: int | None = None


@dataclass(frozen=True, slots=True)
class HostReadiness:
    """What a host says about itself; that KVM is offered does not prove that a guest runs on it.

    `virtualization_flag` is `vmx`, `svm` or empty; `iommu` None when the host does not say, and so
    `bridges`, the names of all its bridges. `uuid` tells the machine from others, by whatever address it is
    reached; empty when the host does not know, or says what many machines of its maker say. `abilities` has
    one entry for each type of domain and board that it offers. `saves` tells that it can keep the memory of a
    domain in a file.
    """

    host: HostInfo
    arch: str
    cpu_model: str
    cpu_vendor: str
    virtualization_flag: str
    kvm_offered: bool
    emulation_offered: bool
    max_vcpus: int
    machine_types: tuple[str, ...]
    iommu: bool | None
    security_models: tuple[str, ...]
    kernel: KernelFacts = KernelFacts()
    networks: tuple[NetworkInfo, ...] = ()
    bridges: tuple[str, ...] | None = None
    uuid: str = ""
    abilities: tuple[DomainAbilities, ...] = ()
    saves: bool = True


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a guest booted under one accelerator, and what was seen."""

    works: bool
    evidence: str
