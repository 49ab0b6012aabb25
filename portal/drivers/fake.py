"""An in-memory driver that keeps the contract, for tests; not a simulation of guests.

A guest obeys `shutdown` at once, and each network leases its first free address at start.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from portal.drivers import validation
from portal.drivers.editing import Edit
from portal.drivers.errors import (
    AlreadyExists,
    DomainNotFound,
    DriverError,
    GuestIgnores,
    HostUnreachable,
    InvalidSpec,
    InvalidState,
    NetworkNotFound,
    NotSupported,
    VolumeNotFound,
)
from portal.drivers.fake_storage import FakeStorage
from portal.drivers.inspection import Kind, changed
from portal.drivers.libvirt.xml.build import parse
from portal.drivers.libvirt.xml.disk import DiskElement
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.libvirt.xml.places import disk_at, file_of, sources_of, with_device, without_disk
from portal.drivers.libvirt.xml.traces import is_fresh, started
from portal.drivers.libvirt.xml.twin import twin_of
from portal.drivers.types import (
    Accelerator,
    AddressInfo,
    DeviceModel,
    DiskSpec,
    DomainAbilities,
    DomainDefinition,
    DomainInfo,
    DomainSpec,
    DomainState,
    HostDevice,
    HostInfo,
    HostReadiness,
    NetworkInfo,
    NetworkSpec,
    Proof,
    TwinSpec,
    users_among,
)

#: What QEMU's own network stack gives each guest.
OWN_ADDRESS = "10.0.2.15"


@dataclass
class _Domain:
    spec: DomainSpec
    #: What the next start makes of it, and what runs.
    persistent: str
    running: str = ""
    state: DomainState = DomainState.SHUTOFF
    leases: tuple[AddressInfo, ...] = ()
    autostart: bool = False
    #: What ran, and its state, when it was saved.
    saved: tuple[str, DomainState] | None = None


class FakeDriver(FakeStorage):
    """Hold one host's objects in memory. `reachable` False makes calls raise HostUnreachable."""

    def __init__(self, uri: str = "fake:///", *, pool_bytes: int = 1 << 40) -> None:
        super().__init__(pool_bytes)
        self.uri = uri
        self.reachable = True
        self.accelerators = frozenset(Accelerator)
        #: Under which a kernel gets as far as asking to sign in.
        self.kernels = frozenset(Accelerator)
        self.bridges = True
        #: As its firmware says it; another URI is another machine.
        self.host_uuid = str(uuid5(NAMESPACE_URL, uri))
        self.devices: tuple[HostDevice, ...] = ()
        self._networks: dict[str, NetworkSpec] = {}
        self._domains: dict[str, _Domain] = {}
        #: What `save` says in place of saving.
        self.save_fails: DriverError | None = None

    def close(self) -> None:
        self.reachable = False

    def _touch(self) -> None:
        if not self.reachable:
            raise HostUnreachable(f"{self.uri} does not answer")

    def ping(self) -> None:
        self._touch()

    def host_info(self) -> HostInfo:
        self._touch()
        return HostInfo("fake", "FAKE", 9_000_000, 7_002_022, 8, 16 << 30)

    def readiness(self) -> HostReadiness:
        host, machines = self.host_info(), ("pc", "q35")
        told = HostReadiness(host, "x86_64", "fake", "", "", True, True, 255, machines, None, ("none",))
        board = DomainAbilities("qemu", "x86_64", "q35", "pc-q35-7.2", 255, cpu_modes=("host-model",))
        board = replace(board, disk_buses=("virtio", "scsi", "sata"))
        uuid = validation.host_uuid(self.host_uuid)
        return replace(told, uuid=uuid, abilities=(board,))

    def host_devices(self) -> tuple[HostDevice, ...]:
        self._touch()
        return self.devices

    def prove(self, accelerator: Accelerator, seconds: float) -> Proof:
        self._touch()
        works = accelerator in self.accelerators
        return Proof(works, f"A fake guest {'spoke' if works else 'was silent'}.")

    def prove_image(self, accelerator: Accelerator, pool: str, name: str, seconds: float) -> Proof:
        self.volume_info(pool, name)
        works = accelerator in self.accelerators & self.kernels
        return Proof(works, f"A fake kernel {'asked to sign in' if works else 'hung'}.")

    def prove_bridge(self) -> Proof:
        self._touch()
        return Proof(self.bridges, f"A fake bridge was {'made' if self.bridges else 'refused'}.")

    def ensure_network(self, spec: NetworkSpec) -> NetworkInfo:
        validation.check_network(spec)
        self._touch()
        if not self._is_known(spec, list(self._networks.values())):
            self._networks[spec.name] = spec
        return self._network_info(self._networks[spec.name])

    @staticmethod
    def _network_info(spec: NetworkSpec) -> NetworkInfo:
        forward = "bridge" if spec.host_bridge else "nat" if spec.nat else ""
        return NetworkInfo(spec.name, spec.uuid, spec.bridge, True, forward)

    def list_networks(self) -> tuple[NetworkInfo, ...]:
        self._touch()
        found = map(self._network_info, self._networks.values())
        return tuple(sorted(found, key=lambda info: info.name))

    def remove_network(self, name: str) -> None:
        self._touch()
        self._networks.pop(validation.check_name(name), None)

    def _naming(self, paths: set[str]) -> tuple[str, ...]:
        """Return by name the domains that name one of some files."""
        named = [
            (held.spec.name, sources_of(text))
            for held in self._domains.values()
            for text in (held.persistent, held.running)
            if text
        ]
        return users_among({*paths}, named, self.canonical)

    def _get(self, uuid: str) -> _Domain:
        validation.check_uuid(uuid)
        self._touch()
        try:
            return self._domains[uuid]
        except KeyError as error:
            raise DomainNotFound(uuid) from error

    def _knows(self, *, file: str = "", network: str = "") -> bool:
        return network in self._networks or any(one.path == file for one in self._volumes.values())

    def _active(self, uuid: str) -> _Domain:
        domain = self._get(uuid)
        if domain.state in {DomainState.SHUTOFF, DomainState.SAVED}:
            raise InvalidState("the domain is off")
        return domain

    def define(self, spec: DomainSpec) -> DomainInfo:
        validation.check_domain(spec)
        self._touch()
        if not self._is_known(spec, [domain.spec for domain in self._domains.values()]):
            # In the form in which changes are written.
            text = changed(Kind.DOMAIN, DomainElement.to_xml(spec).encode(), {})
            self._domains[spec.uuid] = _Domain(spec, text)
        return self.domain_info(spec.uuid)

    def define_like(self, uuid: str, spec: TwinSpec) -> DomainInfo:
        validation.check_twin(spec)
        text = twin_of(self._get(uuid).persistent, spec)
        made = DomainElement.from_xml(text)
        if not self._is_known(made, [domain.spec for domain in self._domains.values()]):
            self._domains[spec.uuid] = _Domain(made, text)
        return self.domain_info(spec.uuid)

    def definition(self, uuid: str) -> DomainDefinition:
        domain = self._get(uuid)
        return DomainDefinition(domain.persistent, domain.running, domain.autostart)

    def autostart_domain(self, uuid: str, on: bool) -> None:
        self._get(uuid).autostart = on

    def redefine(self, uuid: str, change: Mapping[str, Any], digest: str) -> DomainDefinition:
        domain, present = self._get(uuid), self.definition(uuid)
        edit = Edit(present.persistent, change)
        if not edit.is_done:
            edit.check_seen(present.digest, digest)
            domain.persistent = edit.wanted
        return self.definition(uuid)

    def plug_vcpus(self, uuid: str, count: int) -> int | None:
        domain = self._active(uuid)
        running = DomainElement.from_xml(domain.running)
        if count > max(running.vcpus, running.vcpu_ceiling):
            raise NotSupported(f"the domain runs with room for fewer than {count} vCPUs")
        more = max(count, running.vcpus)
        if more > running.vcpus:
            domain.running = changed(Kind.DOMAIN, domain.running.encode(), {"current_vcpus": more})
        return more if self.guest_heeds else None

    def set_balloon(self, uuid: str, memory_bytes: int) -> int:
        domain = self._active(uuid)
        validation.check_positive(memory_bytes, "memory")
        running = DomainElement.from_xml(domain.running)
        if memory_bytes > running.memory_bytes:
            raise InvalidSpec("the domain runs with less memory than that")
        if running.devices is DeviceModel.EMULATED:
            raise NotSupported("the domain runs without a balloon")
        if self.guest_heeds:
            change = {"current_memory_bytes": memory_bytes}
            domain.running = changed(Kind.DOMAIN, domain.running.encode(), change)
        return memory_bytes if self.guest_heeds else running.memory_now_bytes or running.memory_bytes

    def attach_disk(self, uuid: str, spec: DiskSpec, like: Mapping[str, Any] | None = None) -> bool:
        validation.check_disk(spec)
        made = DiskElement.to_xml(spec, like)
        domain = self._get(uuid)
        hot = bool(domain.running) and DiskElement.is_hot(made)
        for text in filter(None, (domain.persistent, domain.running)):
            there = disk_at(parse(text), spec.target)
            if there is not None and file_of(there) != spec.path:
                raise AlreadyExists(f"{spec.target} is {file_of(there)} already")
        domain.persistent = self._with(domain.persistent, spec.target, made)
        if hot:
            domain.running = self._with(domain.running, spec.target, made)
        return hot

    @staticmethod
    def _with(text: str, target: str, made: str) -> str:
        return text if disk_at(parse(text), target) is not None else with_device(text, parse(made))

    def detach_disk(self, uuid: str, target: str, path: str) -> None:
        domain = self._get(uuid)
        validation.check_target(target)
        validation.check_path(path)
        if domain.running and self._has(domain.running, target, path):
            if not self.guest_heeds:
                raise GuestIgnores(target)
            domain.running = without_disk(domain.running, target)
        if self._has(domain.persistent, target, path):
            domain.persistent = without_disk(domain.persistent, target)

    @staticmethod
    def _has(text: str, target: str, path: str) -> bool:
        there = disk_at(parse(text), target)
        return there is not None and file_of(there) == path

    def grow_disk(self, uuid: str, target: str, path: str, capacity_bytes: int) -> None:
        domain = self._get(uuid)
        validation.check_target(target)
        validation.check_path(path)
        validation.check_positive(capacity_bytes, "capacity")
        if not self._has(domain.running or domain.persistent, target, path):
            raise AlreadyExists(f"{target} is not {path}")
        for key, volume in self._volumes.items():
            if volume.path == path:
                more = max(capacity_bytes, volume.capacity_bytes)
                self._volumes[key] = replace(volume, capacity_bytes=more)
                return
        raise VolumeNotFound(path)

    def undefine(self, uuid: str) -> None:
        try:
            domain = self._get(uuid)
        except DomainNotFound:
            return
        if domain.state not in {DomainState.SHUTOFF, DomainState.SAVED}:
            raise InvalidState("the domain is not off")
        del self._domains[uuid]

    def start(self, uuid: str) -> None:
        domain = self._get(uuid)
        if domain.state is DomainState.PAUSED:
            raise InvalidState("the domain is paused")
        if domain.saved is not None:
            domain.running, domain.state = domain.saved
            domain.leases, domain.saved = self._leased(domain.running), None
        elif domain.state is DomainState.SHUTOFF:
            domain.leases = self._leased(domain.persistent)
            domain.state, domain.running = DomainState.RUNNING, domain.persistent
            if is_fresh(domain.persistent):
                domain.persistent = started(domain.persistent)

    def _leased(self, text: str) -> tuple[AddressInfo, ...]:
        leases = [
            self._lease(nic.mac, nic.network, rank)
            for rank, nic in enumerate(DomainElement.from_xml(text).nics)
            if nic.network
        ]
        return tuple(lease for lease in leases if lease is not None)

    def _lease(self, mac: str, network: str, rank: int) -> AddressInfo | None:
        if network not in self._networks:
            raise NetworkNotFound(network)
        spec = self._networks[network]
        if spec.host_bridge:
            return None
        taken = {lease.address for d in self._domains.values() for lease in d.leases}
        address = ipaddress.IPv4Address(spec.dhcp_start) + rank
        while str(address) in taken:
            address += 1
        return AddressInfo(mac, str(address), spec.prefix)

    def shutdown(self, uuid: str) -> None:
        self.destroy(uuid)

    def reboot(self, uuid: str) -> None:
        self._active(uuid)

    def destroy(self, uuid: str) -> None:
        self._forget_copies(uuid)
        self._forget_run(uuid)

    def _forget_run(self, uuid: str) -> None:
        domain = self._get(uuid)
        off = DomainState.SHUTOFF if domain.saved is None else DomainState.SAVED
        domain.state, domain.running, domain.leases = off, "", ()

    def save(self, uuid: str) -> None:
        domain = self._get(uuid)
        if domain.saved is not None:
            return
        self._active(uuid)
        if self.save_fails is not None:
            raise self.save_fails
        domain.saved = (domain.running, domain.state)
        self.destroy(uuid)

    def discard_saved(self, uuid: str) -> None:
        domain = self._get(uuid)
        if domain.saved is not None:
            domain.saved = None
            self.destroy(uuid)

    def has_saved(self, uuid: str) -> bool:
        return self._get(uuid).saved is not None

    def suspend(self, uuid: str) -> None:
        self._active(uuid).state = DomainState.PAUSED

    def resume(self, uuid: str) -> None:
        self._active(uuid).state = DomainState.RUNNING

    def domain_info(self, uuid: str) -> DomainInfo:
        domain = self._get(uuid)
        present = DomainElement.from_xml(domain.running or domain.persistent)
        return DomainInfo(present.name, uuid, domain.state, present.vcpus, present.memory_bytes)

    def list_domains(self) -> tuple[DomainInfo, ...]:
        self._touch()
        found = [self.domain_info(uuid) for uuid in self._domains]
        return tuple(sorted(found, key=lambda info: info.name))

    def addresses(self, uuid: str) -> tuple[AddressInfo, ...]:
        domain = self._get(uuid)
        if domain.leases or not domain.running:
            return domain.leases
        # What a guest on a network of its own tells: every one has the same address there.
        return tuple(AddressInfo(nic.mac, OWN_ADDRESS, 24) for nic in domain.spec.nics if nic.ssh_port)

    def leases(self, uuid: str) -> tuple[AddressInfo, ...]:
        return self._get(uuid).leases

    def guest_agent_ping(self, uuid: str) -> bool:
        self._get(uuid)
        return False
