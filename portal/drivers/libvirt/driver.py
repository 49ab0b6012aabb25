"""The libvirt driver, assembled; not for logic of its own."""

import time
from collections.abc import Mapping
from typing import Any

from portal.drivers.base import HypervisorDriver
from portal.drivers.libvirt import host
from portal.drivers.libvirt.connection import open_connection
from portal.drivers.libvirt.definition import Definitions
from portal.drivers.libvirt.domain import Domains
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.events import Changed, Closed, Lifecycle
from portal.drivers.libvirt.hot import Hot
from portal.drivers.libvirt.hot_devices import HotDevices
from portal.drivers.libvirt.listing import Listing
from portal.drivers.libvirt.moving import Moving
from portal.drivers.libvirt.network import Networks
from portal.drivers.libvirt.pool import Pools
from portal.drivers.libvirt.proof import Prover
from portal.drivers.libvirt.saving import Saving
from portal.drivers.libvirt.stored import Stored
from portal.drivers.libvirt.volume import Volumes
from portal.drivers.types import (
    Accelerator,
    AddressInfo,
    BootFileSpec,
    CardWas,
    DeviceModel,
    DiskCopy,
    DiskSpec,
    DomainDefinition,
    DomainInfo,
    DomainSpec,
    HostDevice,
    HostInfo,
    HostReadiness,
    NetworkInfo,
    NetworkSpec,
    NicPlace,
    NicSpec,
    PoolInfo,
    PoolKind,
    PoolSpec,
    Proof,
    SeedSpec,
    TwinSpec,
    VolumeDigest,
    VolumeInfo,
    VolumeSpec,
)


class LibvirtDriver(HypervisorDriver):
    """Speak to one libvirt host; each method is described in the contract."""

    def __init__(self, uri: str) -> None:
        self._connection = open_connection(uri)
        self._open = True
        self._lifecycle: Lifecycle | None = None
        self._domains = Domains(self._connection)
        self._definitions = Definitions(self._connection)
        self._hot = Hot(self._connection)
        self._devices = HotDevices(self._connection)
        self._moving = Moving(self._connection)
        self._saving = Saving(self._connection)
        self._listing = Listing(self._connection)
        self._networks = Networks(self._connection)
        self._pools = Pools(self._connection)
        self._volumes = Volumes(self._connection, self._pools)
        self._stored = Stored(self._connection, self._pools)
        self._prover = Prover(self._connection, self._pools, self._volumes)

    @translated()
    def close(self) -> None:
        if self._open:
            self._open = False
            self._connection.close()

    def on_lifecycle(self, changed: Changed, closed: Closed) -> bool:
        self._lifecycle = Lifecycle(self._connection, changed, closed)
        return True

    @translated()
    def ping(self) -> None:
        self._connection.getLibVersion()

    def host_info(self) -> HostInfo:
        return host.host_info(self._connection)

    def readiness(self) -> HostReadiness:
        return host.readiness(self._connection)

    def host_devices(self) -> tuple[HostDevice, ...]:
        return host.host_devices(self._connection)

    def prove(self, accelerator: Accelerator, seconds: float) -> Proof:
        return self._prover.prove(accelerator, seconds)

    def prove_image(self, accelerator: Accelerator, pool: str, name: str, seconds: float) -> Proof:
        return self._prover.prove_image(accelerator, pool, name, seconds)

    def prove_bridge(self) -> Proof:
        return self._networks.prove()

    def list_pools(self) -> tuple[PoolInfo, ...]:
        return self._pools.list()

    def pool_kinds(self) -> tuple[PoolKind, ...]:
        return self._pools.kinds()

    def ensure_pool(self, spec: PoolSpec) -> None:
        self._pools.ensure(spec)

    def remove_pool(self, name: str) -> None:
        self._pools.remove(name)

    def start_pool(self, name: str) -> None:
        self._pools.start(name)

    def stop_pool(self, name: str) -> None:
        self._pools.stop(name)

    def autostart_pool(self, name: str, on: bool) -> None:
        self._pools.autostart(name, on)

    def refresh_pool(self, name: str) -> PoolInfo:
        return self._pools.refresh(name)

    def list_networks(self) -> tuple[NetworkInfo, ...]:
        return self._networks.list()

    def ensure_network(self, spec: NetworkSpec) -> NetworkInfo:
        return self._networks.ensure(spec)

    def remove_network(self, name: str) -> None:
        self._networks.remove(name)

    def create_volume(self, spec: VolumeSpec) -> VolumeInfo:
        return self._volumes.create(spec)

    def upload_image(self, pool: str, name: str, source: str) -> VolumeInfo:
        return self._volumes.upload_image(pool, name, source)

    def list_volumes(self, pool: str) -> tuple[VolumeInfo, ...]:
        return self._volumes.list(pool)

    def delete_volume(self, pool: str, name: str) -> None:
        self._volumes.delete(pool, name)

    def resize_volume(self, pool: str, name: str, capacity_bytes: int) -> VolumeInfo:
        return self._stored.resize(pool, name, capacity_bytes)

    def read_volume(self, pool: str, name: str, offset: int, length: int) -> bytes:
        return self._stored.read(pool, name, offset, length)

    def canonical(self, paths: tuple[str, ...]) -> Mapping[str, str]:
        return self._stored.canonical(paths)

    def volume_users(self, pool: str, name: str) -> tuple[str, ...]:
        return self._stored.users(pool, name)

    def pool_users(self, pool: str) -> tuple[str, ...]:
        return self._stored.pool_users(pool)

    def volume_info(self, pool: str, name: str) -> VolumeInfo:
        return self._volumes.info(pool, name)

    def digest_volume(self, pool: str, name: str) -> VolumeDigest:
        return self._volumes.digest(pool, name)

    def download_volume(self, pool: str, name: str, target: str) -> VolumeDigest:
        return self._volumes.download(pool, name, target)

    def write_seed(self, spec: SeedSpec) -> VolumeInfo:
        return self._volumes.write_seed(spec)

    def write_boot_file(self, spec: BootFileSpec) -> VolumeInfo:
        return self._volumes.write_boot_file(spec)

    def define(self, spec: DomainSpec) -> DomainInfo:
        return self._domains.define(spec)

    def define_like(self, uuid: str, spec: TwinSpec) -> DomainInfo:
        return self._domains.define_like(uuid, spec)

    def definition(self, uuid: str) -> DomainDefinition:
        return self._definitions.read(uuid)

    def autostart_domain(self, uuid: str, on: bool) -> None:
        self._definitions.autostart(uuid, on)

    def redefine(self, uuid: str, change: Mapping[str, Any], digest: str) -> DomainDefinition:
        return self._definitions.change(uuid, change, digest)

    def plug_vcpus(self, uuid: str, count: int) -> int | None:
        return self._hot.plug_vcpus(uuid, count)

    def set_balloon(self, uuid: str, memory_bytes: int) -> int:
        return self._hot.set_balloon(uuid, memory_bytes)

    def attach_disk(self, uuid: str, spec: DiskSpec, like: Mapping[str, Any] | None = None) -> bool:
        return self._hot.attach_disk(uuid, spec, like)

    def detach_disk(self, uuid: str, target: str, path: str) -> None:
        self._hot.detach_disk(uuid, target, path)

    def grow_disk(self, uuid: str, target: str, path: str, capacity_bytes: int) -> None:
        self._hot.grow_disk(uuid, target, path, capacity_bytes)

    def attach_nic(self, uuid: str, spec: NicSpec, model: DeviceModel, was: CardWas | None = None) -> bool:
        return self._devices.attach_nic(uuid, spec, model, was)

    def detach_nic(self, uuid: str, mac: str) -> None:
        self._devices.detach_nic(uuid, mac)

    def set_link(self, uuid: str, mac: str, up: bool) -> None:
        self._devices.set_link(uuid, mac, up)

    def rewire_nic(self, uuid: str, mac: str, to: NicPlace, was: NicPlace) -> None:
        self._devices.rewire_nic(uuid, mac, to, was)

    def change_media(self, uuid: str, target: str, path: str | None, force: bool = False) -> None:
        self._devices.change_media(uuid, target, path, force)

    def limit_disk(self, uuid: str, target: str, path: str, limits: Mapping[str, int]) -> None:
        self._devices.limit_disk(uuid, target, path, limits)

    def limit_nic(
        self, uuid: str, mac: str, limits: Mapping[str, int], ran: Mapping[str, int] | None = None
    ) -> None:
        self._devices.limit_nic(uuid, mac, limits, ran)

    def plug_device(self, uuid: str, kind: str, values: Mapping[str, Any]) -> None:
        self._devices.plug_device(uuid, kind, values)

    def unplug_device(self, uuid: str, kind: str, values: Mapping[str, Any]) -> None:
        self._devices.unplug_device(uuid, kind, values)

    def begin_copy(self, uuid: str, target: str, path: str, to: str) -> None:
        self._moving.begin(uuid, target, path, to)

    def disk_copy(self, uuid: str, target: str, to: str) -> DiskCopy:
        return self._moving.look(uuid, target, to)

    def finish_copy(self, uuid: str, target: str, path: str, to: str, copied: bool) -> None:
        self._moving.finish(uuid, target, path, to, copied)

    def abort_copy(self, uuid: str, target: str, path: str, to: str) -> None:
        self._moving.abort(uuid, target, path, to)

    def undefine(self, uuid: str) -> None:
        self._domains.undefine(uuid)

    def start(self, uuid: str) -> None:
        self._domains.start(uuid)

    def shutdown(self, uuid: str) -> None:
        self._domains.shutdown(uuid)

    def reboot(self, uuid: str) -> None:
        self._domains.reboot(uuid)

    def destroy(self, uuid: str) -> None:
        self._domains.destroy(uuid)

    def suspend(self, uuid: str) -> None:
        self._domains.suspend(uuid)

    def resume(self, uuid: str) -> None:
        self._domains.resume(uuid)

    def save(self, uuid: str) -> None:
        self._saving.save(uuid)

    def discard_saved(self, uuid: str) -> None:
        self._saving.discard(uuid)

    def domain_info(self, uuid: str) -> DomainInfo:
        return self._domains.info(uuid)

    def list_domains(self) -> tuple[DomainInfo, ...]:
        began = time.monotonic()
        found = self._listing.all()
        if self._lifecycle is not None:
            self._lifecycle.learn(found, began)
        return found

    def addresses(self, uuid: str) -> tuple[AddressInfo, ...]:
        return self._domains.addresses(uuid)

    def leases(self, uuid: str) -> tuple[AddressInfo, ...]:
        return self._domains.leases(uuid)

    def guest_agent_ping(self, uuid: str) -> bool:
        return self._domains.guest_agent_ping(uuid)
