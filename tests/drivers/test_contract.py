"""One suite for every driver: what `portal.drivers.base` promises."""

import os
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from portal.drivers import errors
from portal.drivers.base import HypervisorDriver
from portal.drivers.fake import FakeDriver
from portal.drivers.registry import driver_for
from portal.drivers.types import (
    Accelerator,
    CloneMode,
    DiskSpec,
    DomainSpec,
    DomainState,
    NetworkSpec,
    NicSpec,
    PoolSpec,
    SeedSpec,
    VolumeSpec,
)

MIB = 1024 * 1024
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
        for name in ("copy", "disk", "base"):
            self.driver.delete_volume(self.pool.name, self.volume(name).name)
        self.driver.delete_volume(self.pool.name, f"{self.prefix}-seed.iso")
        self.driver.remove_pool(self.pool.name)


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.live)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    uri = os.environ.get("GATEHOUSE_TEST_LIBVIRT_URI", "qemu:///system")
    driver = driver_for("fake:///" if request.param == "fake" else uri)
    prefix = f"gttest-{secrets.token_hex(4)}"
    pool = PoolSpec(f"{prefix}-pool", str(uuid.uuid4()), f"{POOL_ROOT}/{prefix}")
    made = Bench(driver, prefix, pool)
    try:
        driver.ensure_pool(pool)
        yield made
    finally:
        made.clean()
        driver.close()


def test_host_info_has_sizes(bench: Bench) -> None:
    info = bench.driver.host_info()
    assert info.cpus > 0
    assert info.memory_bytes > 256 * MIB


def test_pool_is_idempotent_and_guards_its_name(bench: Bench) -> None:
    bench.driver.ensure_pool(bench.pool)
    with pytest.raises(errors.AlreadyExists):
        bench.driver.ensure_pool(replace(bench.pool, uuid=str(uuid.uuid4())))


def test_network_is_idempotent_and_guards_its_name(bench: Bench) -> None:
    first = bench.driver.ensure_network(bench.network)
    assert first.active
    assert bench.driver.ensure_network(bench.network) == first
    with pytest.raises(errors.AlreadyExists):
        bench.driver.ensure_network(replace(bench.network, uuid=str(uuid.uuid4())))
    bench.driver.remove_network(bench.network.name)
    bench.driver.remove_network(bench.network.name)
    assert bench.driver.ensure_network(bench.network) == first


def test_volume_is_idempotent_and_guards_its_name(bench: Bench) -> None:
    first = bench.driver.create_volume(bench.volume())
    assert first.capacity_bytes == 8 * MIB
    assert bench.driver.create_volume(bench.volume()).path == first.path
    with pytest.raises(errors.AlreadyExists):
        bench.driver.create_volume(bench.volume(capacity_bytes=16 * MIB))
    bench.driver.delete_volume(first.pool, first.name)
    bench.driver.delete_volume(first.pool, first.name)
    with pytest.raises(errors.VolumeNotFound):
        bench.driver.volume_info(first.pool, first.name)


@pytest.mark.parametrize("mode", list(CloneMode))
def test_clone_may_be_larger_but_not_smaller(bench: Bench, mode: CloneMode) -> None:
    base = bench.driver.create_volume(bench.volume("base"))
    spec = bench.volume("copy", backing_path=base.path, clone=mode, capacity_bytes=16 * MIB)
    copy = bench.driver.create_volume(spec)
    assert copy.capacity_bytes == 16 * MIB
    assert copy.backing_path == (base.path if mode is CloneMode.LINKED else None)
    assert bench.driver.create_volume(spec).path == copy.path
    with pytest.raises(errors.InvalidSpec):
        bench.driver.create_volume(replace(spec, name="x.qcow2", capacity_bytes=4 * MIB))


def test_missing_pool_and_image_are_named(bench: Bench) -> None:
    with pytest.raises(errors.PoolNotFound):
        bench.driver.create_volume(bench.volume(pool=f"{bench.prefix}-none"))
    with pytest.raises(errors.VolumeNotFound):
        bench.driver.create_volume(bench.volume(backing_path=f"{bench.pool.path}/none.qcow2"))


def test_seed_is_replaced(bench: Bench) -> None:
    spec = SeedSpec(bench.pool.name, f"{bench.prefix}-seed.iso", "instance-id: a\n", "#cloud-config\n")
    first = bench.driver.write_seed(spec)
    again = bench.driver.write_seed(replace(spec, user_data="#" * 100_000))
    assert again.path == first.path
    assert again.capacity_bytes > first.capacity_bytes + 90_000


def test_definition_is_idempotent_and_guards_name_and_uuid(bench: Bench) -> None:
    spec = bench.domain()
    first = bench.driver.define(spec)
    assert (first.name, first.uuid, first.state) == (spec.name, spec.uuid, DomainState.SHUTOFF)
    assert (first.vcpus, first.memory_bytes) == (1, 64 * MIB)
    assert bench.driver.define(spec) == first
    for change in ({"uuid": str(uuid.uuid4())}, {"name": f"{bench.prefix}-other"}):
        with pytest.raises(errors.AlreadyExists):
            bench.driver.define(replace(spec, **change))
    assert first in bench.driver.list_domains()


def test_life_of_a_domain(bench: Bench) -> None:
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    for action, expected in (
        (driver.start, DomainState.RUNNING),
        (driver.start, DomainState.RUNNING),
        (driver.reboot, DomainState.RUNNING),
        (driver.suspend, DomainState.PAUSED),
        (driver.suspend, DomainState.PAUSED),
        (driver.resume, DomainState.RUNNING),
        (driver.resume, DomainState.RUNNING),
        (driver.destroy, DomainState.SHUTOFF),
        (driver.destroy, DomainState.SHUTOFF),
        (driver.shutdown, DomainState.SHUTOFF),
    ):
        action(spec.uuid)
        assert driver.domain_info(spec.uuid).state is expected, action
    assert driver.addresses(spec.uuid) == ()
    driver.undefine(spec.uuid)
    driver.undefine(spec.uuid)
    with pytest.raises(errors.DomainNotFound):
        driver.domain_info(spec.uuid)


def test_state_forbids(bench: Bench) -> None:
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    for action in (driver.reboot, driver.suspend, driver.resume):
        with pytest.raises(errors.InvalidState):
            action(spec.uuid)
    driver.start(spec.uuid)
    with pytest.raises(errors.InvalidState):
        driver.undefine(spec.uuid)
    driver.suspend(spec.uuid)
    with pytest.raises(errors.InvalidState):
        driver.start(spec.uuid)
    assert driver.domain_info(spec.uuid).state is DomainState.PAUSED


def test_start_names_a_missing_network(bench: Bench) -> None:
    spec = bench.domain()
    bench.driver.define(spec)
    bench.driver.remove_network(bench.network.name)
    with pytest.raises(errors.NetworkNotFound):
        bench.driver.start(spec.uuid)


@pytest.mark.parametrize("call", ["start", "shutdown", "reboot", "destroy", "suspend", "resume", "addresses"])
def test_unknown_domain_is_named(bench: Bench, call: str) -> None:
    with pytest.raises(errors.DomainNotFound) as caught:
        getattr(bench.driver, call)(str(uuid.uuid4()))
    assert caught.value.code == "domain_not_found"
    assert caught.value.raw


def test_full_pool_is_named_and_a_silent_host_too() -> None:
    driver = FakeDriver(pool_bytes=10 * MIB)
    driver.ensure_pool(PoolSpec("p", str(uuid.uuid4()), "/p"))
    base = driver.create_volume(VolumeSpec("p", "base", 8 * MIB))
    copy = VolumeSpec("p", "copy", 8 * MIB, backing_path=base.path, clone=CloneMode.FULL)
    driver.create_volume(copy)
    with pytest.raises(errors.PoolFull):
        driver.create_volume(replace(copy, name="copy2"))
    driver.reachable = False
    with pytest.raises(errors.HostUnreachable) as caught:
        driver.host_info()
    assert caught.value.retryable


@pytest.mark.live
def test_absent_daemon_is_unreachable() -> None:
    with pytest.raises(errors.HostUnreachable) as caught:
        driver_for("qemu+unix:///system?socket=/nonexistent/libvirt-sock")
    assert caught.value.retryable
    assert "nonexistent" in caught.value.raw
