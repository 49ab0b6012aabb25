"""The libvirt driver, assembled; not for logic of its own."""

from portal.drivers.base import HypervisorDriver
from portal.drivers.libvirt.connection import open_connection
from portal.drivers.libvirt.domain import Domains
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.network import Networks
from portal.drivers.libvirt.volume import Volumes
from portal.drivers.types import (
    AddressInfo,
    DomainInfo,
    DomainSpec,
    HostInfo,
    NetworkInfo,
    NetworkSpec,
    PoolSpec,
    SeedSpec,
    VolumeInfo,
    VolumeSpec,
)


class LibvirtDriver(HypervisorDriver):
    """Speak to one libvirt host; each method is described in the contract."""

    def __init__(self, uri: str) -> None:
        self._connection = open_connection(uri)
        self._open = True
        self._domains = Domains(self._connection)
        self._networks = Networks(self._connection)
        self._volumes = Volumes(self._connection)

    @translated()
    def close(self) -> None:
        if self._open:
            self._open = False
            self._connection.close()

    @translated()
    def host_info(self) -> HostInfo:
        _model, memory_mib, cpus, *_rest = self._connection.getInfo()
        return HostInfo(
            hostname=self._connection.getHostname(),
            hypervisor=self._connection.getType(),
            libvirt_version=self._connection.getLibVersion(),
            hypervisor_version=self._connection.getVersion(),
            cpus=cpus,
            memory_bytes=memory_mib * 1024 * 1024,
        )

    def ensure_pool(self, spec: PoolSpec) -> None:
        self._volumes.ensure_pool(spec)

    def remove_pool(self, name: str) -> None:
        self._volumes.remove_pool(name)

    def ensure_network(self, spec: NetworkSpec) -> NetworkInfo:
        return self._networks.ensure(spec)

    def remove_network(self, name: str) -> None:
        self._networks.remove(name)

    def create_volume(self, spec: VolumeSpec) -> VolumeInfo:
        return self._volumes.create(spec)

    def delete_volume(self, pool: str, name: str) -> None:
        self._volumes.delete(pool, name)

    def volume_info(self, pool: str, name: str) -> VolumeInfo:
        return self._volumes.info(pool, name)

    def write_seed(self, spec: SeedSpec) -> VolumeInfo:
        return self._volumes.write_seed(spec)

    def define(self, spec: DomainSpec) -> DomainInfo:
        return self._domains.define(spec)

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

    def domain_info(self, uuid: str) -> DomainInfo:
        return self._domains.info(uuid)

    def list_domains(self) -> tuple[DomainInfo, ...]:
        return self._domains.list()

    def addresses(self, uuid: str) -> tuple[AddressInfo, ...]:
        return self._domains.addresses(uuid)
