"""What a test of the contract works with."""

import os
import uuid
from dataclasses import dataclass, replace

from portal.drivers.base import HypervisorDriver
from portal.drivers.types import (
    Accelerator,
    DiskSpec,
    DomainSpec,
    NetworkSpec,
    NicSpec,
    PoolSpec,
    SeedSpec,
    VolumeSpec,
)

MIB = 1024 * 1024
LIVE_URI = os.environ.get("GATEHOUSE_TEST_LIBVIRT_URI", "qemu:///system")
POOL_ROOT = os.environ.get("GATEHOUSE_TEST_POOL_ROOT", "/var/lib/libvirt/images")


@dataclass
class Bench:
    """A driver with a pool and the names one test may use."""

    driver: HypervisorDriver
    prefix: str
    pool: PoolSpec

    def volume(self, name: str = "disk", **changes: object) -> VolumeSpec:
        spec = VolumeSpec(self.pool.name, f"{self.prefix}-{name}.qcow2", 8 * MIB)
        return replace(spec, **changes)

    @property
    def network(self) -> NetworkSpec:
        return NetworkSpec(
            name=f"{self.prefix}-net",
            uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, self.prefix)),
            bridge=f"gt{self.prefix[-8:]}",
            address="10.213.77.1",
            prefix=24,
            dhcp_start="10.213.77.10",
            dhcp_end="10.213.77.20",
        )

    def domain(self) -> DomainSpec:
        path = self.driver.create_volume(self.volume()).path
        seed = SeedSpec(self.pool.name, f"{self.prefix}-seed.iso", "instance-id: a\n", "#cloud-config\n")
        self.driver.ensure_network(self.network)
        return DomainSpec(
            name=f"{self.prefix}-vm",
            uuid=str(uuid.uuid4()),
            vcpus=1,
            memory_bytes=64 * MIB,
            disks=(DiskSpec(path),),
            nics=(NicSpec("52:54:00:aa:bb:01", self.network.name),),
            seed_path=self.driver.write_seed(seed).path,
            title="<&\"'>",
            accelerator=Accelerator.EMULATION,
        )

    def clean(self) -> None:
        """Remove everything that carries the prefix."""
        for info in self.driver.list_domains():
            if info.name.startswith(self.prefix):
                self.driver.destroy(info.uuid)
                self.driver.undefine(info.uuid)
        self.driver.remove_network(self.network.name)
        for info in self.driver.list_volumes(self.pool.name):
            self.driver.delete_volume(self.pool.name, info.name)
        self.driver.remove_pool(self.pool.name)
