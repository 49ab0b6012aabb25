"""Refuse hostile values before a host sees them, or after it told them; not for quota or policy."""

import ipaddress
import re
import uuid as uuids
from collections.abc import Mapping, Sequence

from portal.drivers.errors import InvalidSpec, NotSupported
from portal.drivers.types import (
    BANDWIDTH,
    BOOT_FILES,
    FOLDER_KINDS,
    LIMITS,
    LONGEST_READ,
    MOST_BANDWIDTH,
    MOST_LIMIT,
    MOST_VCPUS,
    SECRET_KINDS,
    SERVED_KINDS,
    BootFileSpec,
    CloneMode,
    DeviceModel,
    DiskSpec,
    DomainSpec,
    NetworkSpec,
    NicPlace,
    NicSpec,
    PoolKind,
    PoolSpec,
    SeedSpec,
    TwinSpec,
    VolumeSpec,
    VolumeVerb,
    can,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
BRIDGE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,14}")  # IFNAMSIZ leaves 15 characters
MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")  # unicast
PORT = re.compile(r"[1-9][0-9]{3,4}")
TARGET = re.compile(r"(x?v|s|h)d[a-z]{1,2}")
SERVER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?")
IQN = re.compile(r"iqn\.[0-9]{4}-[0-9]{2}\.[a-z0-9.:-]{1,200}")
#: A pool of ZFS, of which a part can be meant.
DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}(/[A-Za-z0-9][A-Za-z0-9._-]{0,126}){0,8}")
#: Whom a pool lets in: a user of Ceph (`client.` stays away), or a name of CHAP.
POOL_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,126}")
SERIAL = re.compile(r"[A-Za-z0-9_-]{0,20}")
TARGETS = {
    DeviceModel.PARAVIRTUAL: re.compile(r"vd[a-z]"),
    # A SATA controller has six ports; the last is the seed's.
    DeviceModel.EMULATED: re.compile(r"sd[a-e]"),
}


#: The drives of CDs that a domain begins with, all SATA: installers have drivers for that, also Windows' own.
CD_PLACES = {
    DeviceModel.PARAVIRTUAL: ("sdb", "sdc"),
    DeviceModel.EMULATED: ("sde", "sdd"),
}


#: What makers leave in their firmware, as it is and with the first parts in the other order of bytes.
PLACEHOLDERS = {
    "03000200-0400-0500-0006-000700080009",
    "00020003-0004-0005-0006-000700080009",
    "fefefefe-fefe-fefe-fefe-fefefefefefe",
}


def host_uuid(told: str) -> str:
    """Return the UUID that a host told of itself, '' for what tells no machine from another."""
    try:
        found = uuids.UUID(told.strip())
    except ValueError:
        return ""
    alike = len(set(found.hex)) == 1
    return "" if alike or str(found) in PLACEHOLDERS else str(found)


def _match(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise InvalidSpec(f"{what} {value!r} is not allowed")
    return value


def check_name(value: str) -> str:
    """Return the name of a domain, pool, volume or network, or raise InvalidSpec."""
    return _match(NAME, value, "name")


def check_known(value: str) -> str:
    """Return the name by which something is looked up that a host has, or raise InvalidSpec.

    Whoever made it there named it as they liked: libvirt makes pools of folders called `My VMs`, and every
    ext4 has a `lost+found`. Nothing is made by such a name.
    """
    if not value or "\0" in value:
        raise InvalidSpec(f"name {value!r} is not allowed")
    return value


def check_uuid(value: str) -> str:
    """Return a canonical UUID, or raise InvalidSpec."""
    try:
        canonical = str(uuids.UUID(value))
    except ValueError as error:
        raise InvalidSpec(f"uuid {value!r} is not valid") from error
    if canonical != value:
        raise InvalidSpec(f"uuid {value!r} is not canonical")
    return value


def check_text(value: str) -> str:
    """Return one printable line, or raise InvalidSpec."""
    if not value.isprintable():
        raise InvalidSpec(f"text {value!r} holds control characters")
    return value


def check_path(value: str) -> str:
    """Return an absolute path without `..`, or raise InvalidSpec."""
    check_text(value)
    if not value.startswith("/") or ".." in value.split("/"):
        raise InvalidSpec(f"path {value!r} is not allowed")
    return value


def check_target(value: str) -> str:
    """Return the device name of a disk (`vda`, `sdb`, of others `hda` or `xvda`), or raise InvalidSpec."""
    return _match(TARGET, value, "target")


def check_serial(value: str) -> str:
    """Return a disk's serial, '' for none, or raise InvalidSpec. QEMU's virtio disks tell 20 characters."""
    return _match(SERIAL, value, "serial")


def check_disk(disk: DiskSpec) -> None:
    """Raise InvalidSpec unless every value of a disk may reach a host."""
    check_path(disk.path)
    check_format(disk.format)
    check_target(disk.target)
    check_serial(disk.serial)


def check_mac(value: str) -> str:
    """Return the address of a network card, or raise InvalidSpec."""
    return _match(MAC, value, "mac")


def check_limits(limits: Mapping[str, int]) -> None:
    """Raise InvalidSpec unless every limit of a disk is named, and none is both a total's and a part's."""
    _check_numbers(limits, LIMITS, MOST_LIMIT)
    for unit in ("bytes", "iops"):
        if limits[f"total_{unit}_sec"] and (limits[f"read_{unit}_sec"] or limits[f"write_{unit}_sec"]):
            raise InvalidSpec(f"a total limit of {unit} goes with none of reading or writing")


def _check_numbers(limits: Mapping[str, int], names: Sequence[str], most: int) -> None:
    if set(limits) != set(names):
        raise InvalidSpec(f"limits are {', '.join(names)}")
    for name, value in limits.items():
        if not 0 <= value <= most:
            raise InvalidSpec(f"a limit {name} of {value} is not allowed")


def check_bandwidth(limits: Mapping[str, int]) -> None:
    """Raise InvalidSpec unless every limit of a card is named, and each peak and burst has an average."""
    _check_numbers(limits, BANDWIDTH, MOST_BANDWIDTH)
    for way in ("inbound", "outbound"):
        if not limits[f"{way}_average"] and (limits[f"{way}_peak"] or limits[f"{way}_burst"]):
            raise InvalidSpec(f"a peak or a burst of what is {way} goes with an average")


def check_positive(value: int, what: str) -> int:
    """Return a number above zero, or raise InvalidSpec."""
    if value <= 0:
        raise InvalidSpec(f"{what} must be above zero")
    return value


def check_read(offset: int, length: int) -> None:
    """Raise InvalidSpec unless a part of a volume may be asked for at once."""
    if offset < 0 or not 0 < length <= LONGEST_READ:
        raise InvalidSpec(f"{length} bytes from {offset} on cannot be read at once")


def check_format(value: str) -> str:
    """Return a disk format the portal uses, or raise InvalidSpec."""
    if value not in {"qcow2", "raw"}:
        raise InvalidSpec(f"format {value!r} is not offered")
    return value


def check_domain(spec: DomainSpec) -> None:
    """Raise InvalidSpec unless every value of a domain may reach a host."""
    check_name(spec.name)
    check_uuid(spec.uuid)
    check_text(spec.title)
    check_positive(spec.vcpus, "vcpus")
    check_positive(spec.memory_bytes, "memory")
    if spec.memory_bytes % 1024:
        raise InvalidSpec("memory must be whole KiB")
    if not 0 <= spec.memory_now_bytes <= spec.memory_bytes or spec.memory_now_bytes % 1024:
        raise InvalidSpec("the memory now must be whole KiB, and no more than all of it")
    if 0 < spec.memory_now_bytes < spec.memory_bytes and spec.devices is DeviceModel.EMULATED:
        raise InvalidSpec("with emulated devices there is no balloon, so a guest has all of its memory")
    if spec.secure_boot and not spec.uefi:
        raise InvalidSpec("only UEFI knows Secure Boot")
    if not 0 <= spec.vcpu_ceiling <= MOST_VCPUS:
        raise InvalidSpec(f"a ceiling of {spec.vcpu_ceiling} vCPUs is not allowed")
    for disk in spec.disks:
        check_disk(disk)
        _match(TARGETS[spec.devices], disk.target, "target")
    if len({disk.target for disk in spec.disks}) != len(spec.disks):
        raise InvalidSpec("two disks share a target")
    for nic in spec.nics:
        check_nic(nic)
    if spec.seed_path is not None:
        check_path(spec.seed_path)
    check_cds(spec)
    if spec.boot is not None:
        check_path(spec.boot.kernel)
        check_path(spec.boot.initrd)
        check_text(spec.boot.cmdline)


def check_cds(spec: DomainSpec) -> None:
    """Raise InvalidSpec unless the CDs of a domain have drives of their own."""
    places = CD_PLACES[spec.devices][: len(spec.cds)]
    if len(spec.cds) > len(CD_PLACES[spec.devices]):
        raise InvalidSpec(f"a domain begins with at most {len(CD_PLACES[spec.devices])} CDs")
    for path in spec.cds:
        check_path(path)
    if taken := {disk.target for disk in spec.disks} & set(places):
        raise InvalidSpec(f"{min(taken)} is the drive of a CD")


def check_twin(spec: TwinSpec) -> None:
    """Raise InvalidSpec unless every name that a twin gets may reach a host."""
    check_name(spec.name)
    check_uuid(spec.uuid)
    check_text(spec.title)
    for path in spec.paths.values():
        check_path(path)
    for mac in spec.macs.values():
        _match(MAC, mac, "mac")
    for port in spec.ports.values():
        _match(PORT, port, "port")


def check_nic(nic: NicSpec) -> None:
    """Raise InvalidSpec unless a card is on a network, or on one of its own with a port of the host."""
    check_mac(nic.mac)
    if nic.ssh_port == 0:
        check_name(nic.network)
    elif nic.network or not 1024 <= nic.ssh_port <= 65535:
        raise InvalidSpec("a card without a network has a port of the host from 1024 to 65535")


def check_place(place: NicPlace) -> None:
    """Raise InvalidSpec unless a card is on one thing: others than the portal named what it may be on."""
    names = [name for name in (place.network, place.bridge) if name]
    if len(names) != 1 or (place.portgroup and not place.network):
        raise InvalidSpec(f"a card is on a network or on a bridge, not on {place}")
    for name in (*names, *filter(None, [place.portgroup])):
        check_known(name)


def check_pool(spec: PoolSpec) -> None:
    """Raise InvalidSpec unless a pool's values may reach a host."""
    check_name(spec.name)
    check_uuid(spec.uuid)
    if spec.kind in FOLDER_KINDS:
        check_path(spec.path)
    elif spec.path:
        raise InvalidSpec(f"a pool of kind {spec.kind} has no folder")
    if spec.kind in SERVED_KINDS:
        _match(SERVER, spec.server, "server")
    elif spec.server:
        raise InvalidSpec(f"a pool of kind {spec.kind} has no server")
    _check_source(spec)
    _check_secret(spec)


def _check_source(spec: PoolSpec) -> None:
    if spec.kind is PoolKind.DIR:
        if spec.source:
            raise InvalidSpec("a folder has no source")
    elif spec.kind in FOLDER_KINDS:
        check_path(spec.source)
    elif spec.kind is PoolKind.ISCSI:
        _match(IQN, spec.source, "target")
    else:
        _match(DATASET if spec.kind is PoolKind.ZFS else NAME, spec.source, "source")


def _check_secret(spec: PoolSpec) -> None:
    if bool(spec.user) != bool(spec.secret):
        raise InvalidSpec("a user of a pool goes with the secret of its password")
    if spec.secret:
        if spec.kind not in SECRET_KINDS:
            raise InvalidSpec(f"a pool of kind {spec.kind} asks for no password")
        _match(POOL_USER, spec.user, "user")
        check_uuid(spec.secret)


def check_volume(spec: VolumeSpec) -> None:
    """Raise InvalidSpec unless a volume's values may reach a host."""
    check_name(spec.pool)
    check_image_name(spec.name)
    check_positive(spec.capacity_bytes, "capacity")
    if spec.capacity_bytes % 512:
        raise InvalidSpec("capacity must be whole sectors of 512 bytes")
    check_format(spec.format)
    if spec.format == "raw" and spec.backing_path is not None and spec.clone is CloneMode.LINKED:
        raise InvalidSpec("a raw volume cannot stand on another one")
    if spec.backing_path is not None:
        check_path(spec.backing_path)
        check_format(spec.backing_format)


def check_can(kind: str, verb: VolumeVerb) -> None:
    """Raise NotSupported when libvirt does not do that to volumes of a kind of pool."""
    if not can(kind, verb):
        raise NotSupported(f"a pool of kind {kind} does not {verb} volumes")


def check_block(spec: VolumeSpec) -> None:
    """Raise InvalidSpec unless a volume can be in a pool that is no folder: raw, with nothing behind it."""
    if spec.format != "raw":
        raise InvalidSpec("a volume of a pool that is no folder is raw")
    if spec.backing_path is not None and spec.clone is CloneMode.LINKED:
        raise InvalidSpec("a volume of a pool that is no folder stands on no other one")


def check_seed(spec: SeedSpec) -> None:
    """Raise InvalidSpec unless a seed's name is one."""
    check_name(spec.pool)
    check_name(spec.name)
    if not spec.name.endswith(".iso"):
        raise InvalidSpec("a seed's name ends in .iso")


def check_boot_file(spec: BootFileSpec) -> None:
    """Raise InvalidSpec unless the name is a kernel's or an initrd's: no disk is replaced by one."""
    check_name(spec.pool)
    check_name(spec.name)
    if not spec.name.endswith(BOOT_FILES):
        raise InvalidSpec("the name of a kernel or initrd ends in .kernel or .initrd")


SEED_SUFFIX = "-seed.iso"


def check_iso_name(value: str) -> str:
    """Return the name of a CD's volume, or raise InvalidSpec: what may be a seed is overwritten as one."""
    if value.endswith(SEED_SUFFIX):
        raise InvalidSpec("the suffix -seed.iso belongs to seeds")
    return check_name(value)


def check_image_name(value: str) -> str:
    """Return the name of a disk or image volume, or raise InvalidSpec."""
    if value.endswith(".iso"):
        raise InvalidSpec("the suffix .iso belongs to seeds")
    if value.endswith(BOOT_FILES):
        raise InvalidSpec("the suffixes .kernel and .initrd belong to what guests boot without a loader")
    return check_name(value)


def check_network(spec: NetworkSpec) -> None:
    """Raise InvalidSpec unless gateway and DHCP range fit the subnet (a host's bridge has neither)."""
    check_name(spec.name)
    check_uuid(spec.uuid)
    if spec.user:
        raise InvalidSpec("a network that each guest has of its own is made on no host")
    _match(BRIDGE, spec.bridge, "bridge")
    if spec.host_bridge:
        if spec.address or spec.dhcp_start or spec.dhcp_end:
            raise InvalidSpec("a bridge of the host gets no addresses from libvirt")
        return
    try:
        subnet = ipaddress.IPv4Network(f"{spec.address}/{spec.prefix}", strict=False)
        gateway = ipaddress.IPv4Address(spec.address)
        first, last = (ipaddress.IPv4Address(a) for a in (spec.dhcp_start, spec.dhcp_end))
    except ValueError as error:
        raise InvalidSpec(str(error)) from error
    inside = all(a in subnet for a in (first, last))
    if not inside or first > last or first <= gateway <= last:
        raise InvalidSpec("the DHCP range does not fit the subnet beside its gateway")
