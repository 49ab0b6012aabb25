"""One suite for every driver: what `portal.drivers.base` promises."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier

import pytest

from portal.drivers import errors
from portal.drivers.base import HypervisorDriver
from portal.drivers.fake import FakeDriver
from portal.drivers.registry import driver_for
from portal.drivers.types import (
    Accelerator,
    CloneMode,
    DeviceModel,
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


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.live)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    driver = driver_for("fake:///" if request.param == "fake" else LIVE_URI)
    prefix = f"gttest-{secrets.token_hex(4)}"
    pool = PoolSpec(f"{prefix}-pool", str(uuid.uuid4()), f"{POOL_ROOT}/{prefix}")
    made = Bench(driver, prefix, pool)
    try:
        driver.ensure_pool(pool)
        yield made
    finally:
        made.clean()
        driver.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Make a qcow2 of 16 MiB with 3 MiB of noise in it."""
    raw, path = tmp_path / "noise.raw", tmp_path / "image.qcow2"
    raw.write_bytes(secrets.token_bytes(3 * MIB).ljust(16 * MIB, b"\0"))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    return path


def test_host_info_has_sizes(bench: Bench) -> None:
    info = bench.driver.host_info()
    assert info.cpus > 0
    assert info.memory_bytes > 256 * MIB


def test_readiness_names_what_is_offered(bench: Bench) -> None:
    bench.driver.ping()
    found = bench.driver.readiness()
    assert found.host == bench.driver.host_info()
    assert found.emulation_offered
    assert found.arch and found.cpu_model and found.max_vcpus > 0
    assert "q35" in found.machine_types


def test_a_host_says_who_it_is_by_whatever_connection(bench: Bench) -> None:
    """Red when the driver makes a UUID of its own, or tells none."""
    told = bench.driver.readiness().uuid
    assert str(uuid.UUID(told)) == told
    again = driver_for("fake:///" if isinstance(bench.driver, FakeDriver) else LIVE_URI)
    try:
        assert again.readiness().uuid == told
    finally:
        again.close()


def test_emulation_is_proven_and_leaves_nothing(bench: Bench) -> None:
    """Red when the proof listens for another word than its guest's, or does not remove its pool."""
    proof = bench.driver.prove(Accelerator.EMULATION, 60)
    assert proof.works, proof.evidence
    assert proof.evidence
    for found in (*bench.driver.list_pools(), *bench.driver.list_domains()):
        assert not found.name.startswith("gatehouse-probe")


def test_an_image_that_asks_nobody_to_sign_in_is_no_proof(bench: Bench, image: Path) -> None:
    """Red when the clone stays, or a guest that started counts as one that asked."""
    if isinstance(bench.driver, FakeDriver):
        bench.driver.kernels = frozenset()
    made = bench.driver.upload_image(bench.pool.name, f"{bench.prefix}-image.qcow2", str(image))
    proof = bench.driver.prove_image(Accelerator.EMULATION, bench.pool.name, made.name, 2)
    assert not proof.works and proof.evidence
    assert [volume.name for volume in bench.driver.list_volumes(bench.pool.name)] == [made.name]
    assert not [info for info in bench.driver.list_domains() if info.name.startswith("gatehouse-probe")]
    with pytest.raises(errors.VolumeNotFound):
        bench.driver.prove_image(Accelerator.EMULATION, bench.pool.name, "missing.qcow2", 2)


def test_pools_are_listed_with_sizes(bench: Bench) -> None:
    (found,) = [pool for pool in bench.driver.list_pools() if pool.name == bench.pool.name]
    assert (found.uuid, found.path, found.active) == (bench.pool.uuid, bench.pool.path, True)
    assert found.capacity_bytes >= found.available_bytes > 0


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


def test_networks_are_listed_with_their_kind(bench: Bench) -> None:
    for changes, forward in (
        ({}, "nat"),
        ({"nat": False}, ""),
        ({"host_bridge": True, "address": "", "dhcp_start": "", "dhcp_end": ""}, "bridge"),
    ):
        spec = replace(bench.network, **changes)
        made = bench.driver.ensure_network(spec)
        assert (made.forward, made.bridge, made.active) == (forward, spec.bridge, True)
        assert made in bench.driver.list_networks()
        bench.driver.remove_network(spec.name)
    with pytest.raises(errors.InvalidSpec):
        bench.driver.ensure_network(replace(bench.network, host_bridge=True))


def test_a_bridge_is_proven_and_leaves_nothing(bench: Bench) -> None:
    """Red when the network of a proof is left there."""
    proof = bench.driver.prove_bridge()
    assert proof.works, proof.evidence
    assert not [info for info in bench.driver.list_networks() if info.name.startswith("gatehouse-probe")]


def test_a_network_of_the_guests_own_needs_nothing_of_the_host(bench: Bench) -> None:
    """Red when such a card is looked for among the host's networks."""
    with pytest.raises(errors.InvalidSpec):
        bench.driver.ensure_network(replace(bench.network, user=True))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = replace(bench.domain(), nics=(NicSpec("52:54:00:aa:bb:01", ssh_port=port),))
    bench.driver.remove_network(bench.network.name)
    bench.driver.define(spec)
    bench.driver.start(spec.uuid)
    assert bench.driver.leases(spec.uuid) == ()
    if isinstance(bench.driver, FakeDriver):
        assert [found.mac for found in bench.driver.addresses(spec.uuid)] == [spec.nics[0].mac]
    else:
        # Nobody listens in this guest, which has no system; the emulator listens for it.
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    bench.driver.destroy(spec.uuid)


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_a_port_of_another_program_is_named(bench: Bench) -> None:
    """Red when the emulator's sentence about it is not recognised."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        spec = replace(bench.domain(), nics=(NicSpec("52:54:00:aa:bb:01", ssh_port=taken.getsockname()[1]),))
        bench.driver.define(spec)
        with pytest.raises(errors.PortTaken):
            bench.driver.start(spec.uuid)
    bench.driver.start(spec.uuid)


def test_image_is_uploaded_once(bench: Bench, image: Path) -> None:
    name = bench.volume("image").name
    first = bench.driver.upload_image(bench.pool.name, name, str(image))
    assert (first.format, first.capacity_bytes) == ("qcow2", 16 * MIB)
    assert bench.driver.upload_image(bench.pool.name, name, str(image)) == first
    assert bench.driver.list_volumes(bench.pool.name) == (first,)
    clone = bench.driver.create_volume(bench.volume(backing_path=first.path, capacity_bytes=16 * MIB))
    assert clone.backing_path == first.path


def test_upload_guards_its_name_and_its_source(bench: Bench, image: Path, tmp_path: Path) -> None:
    """Red when a backing file's name in the header is not refused."""
    disk = bench.driver.create_volume(bench.volume())
    with pytest.raises(errors.AlreadyExists):
        bench.driver.upload_image(bench.pool.name, disk.name, str(image))
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, tmp_path / "child.qcow2"],
        check=True,
    )
    for source in ("child.qcow2", "noise.raw", "missing.qcow2"):
        with pytest.raises(errors.InvalidSpec):
            bench.driver.upload_image(bench.pool.name, "other.qcow2", str(tmp_path / source))
    with pytest.raises(errors.InvalidSpec):
        bench.driver.upload_image(bench.pool.name, "seed.iso", str(image))
    with pytest.raises(errors.PoolNotFound):
        bench.driver.upload_image(f"{bench.prefix}-none", "other.qcow2", str(image))
    assert [info.name for info in bench.driver.list_volumes(bench.pool.name)] == [disk.name]


UPLOAD_AND_DIE = """
import os, signal, sys
from portal.drivers.libvirt import upload
from portal.drivers.fake import FakeDriver
from portal.drivers.registry import driver_for
upload.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
driver_for(sys.argv[1]).upload_image(*sys.argv[2:])
"""


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_half_an_upload_is_no_image_and_is_mended(bench: Bench, image: Path) -> None:
    """Red when the first sector is written with the rest, or a half is not recognised."""
    name = bench.volume("image").name
    where = (bench.pool.name, name, str(image))
    died = subprocess.run([sys.executable, "-c", UPLOAD_AND_DIE, LIVE_URI, *where], check=False)
    assert died.returncode == -signal.SIGKILL
    (half,) = bench.driver.list_volumes(bench.pool.name)
    assert (half.name, half.format) == (name, "raw")
    whole = bench.driver.upload_image(*where)
    assert (whole.format, whole.capacity_bytes) == ("qcow2", 16 * MIB)
    assert Path(whole.path).read_bytes() == image.read_bytes()


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


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_volumes_are_made_at_once_in_one_pool(bench: Bench, image: Path) -> None:
    """Red when a pool that is busy with another volume is an error."""
    base = bench.driver.upload_image(bench.pool.name, bench.volume("base").name, str(image))
    drivers = [driver_for(LIVE_URI) for _ in range(4)]

    def clone(rank: int) -> None:
        for step in range(5):
            name = f"{bench.prefix}-{rank}-{step}"
            full = bench.volume(backing_path=base.path, capacity_bytes=16 * MIB, clone=CloneMode.FULL)
            drivers[rank].create_volume(replace(full, name=name))

    with ThreadPoolExecutor(len(drivers)) as threads:
        list(threads.map(clone, range(len(drivers))))
    assert len(bench.driver.list_volumes(bench.pool.name)) == 1 + 4 * 5
    for driver in drivers:
        driver.close()


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


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_seed_is_read_by_others_byte_by_byte(bench: Bench) -> None:
    """Red when build_iso writes another label, leaves a document out, or changes a byte of it.

    cloud-init finds its seed by the label that blkid tells. GRUB's reader of ISO 9660 owes nothing to the
    library that writes it, and wants neither root nor a kernel that knows the format.
    """
    given = {
        "meta-data": "instance-id: ä\r\nlocal-hostname: a \n\n",
        "user-data": "#cloud-config\n# \t grüße\0\x1a\r" + "ö" * 100_000,
        "network-config": "x" * 2048,  # a sector, to the byte
    }
    name = f"{bench.prefix}-seed.iso"
    spec = SeedSpec(bench.pool.name, name, *given.values())
    for told in given, dict(list(given.items())[:2]):
        path = bench.driver.write_seed(replace(spec, network_config=told.get("network-config"))).path
        assert output("blkid", "-p", "-o", "value", "-s", "LABEL", path) == b"cidata\n"
        assert output("grub-fstest", path, "ls", "(loop0)/").split() == [key.encode() for key in sorted(told)]
        for key, text in told.items():
            assert output("grub-fstest", path, "cat", f"(loop0)/{key}") == text.encode()


def output(*call: str) -> bytes:
    return subprocess.run(call, check=True, capture_output=True, timeout=30).stdout


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


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
@pytest.mark.parametrize("same_uuid", [True, False])
def test_two_at_once_end_in_one_domain(bench: Bench, same_uuid: bool) -> None:
    """Red when define_once does not look again after libvirt refused."""
    spec = bench.domain()
    drivers = [driver_for(LIVE_URI) for _ in range(2)]
    for _round in range(20):
        specs = [spec, spec if same_uuid else replace(spec, uuid=str(uuid.uuid4()))]
        gate = Barrier(2)

        def define(driver: HypervisorDriver, wanted: DomainSpec, gate: Barrier = gate) -> object:
            gate.wait()
            try:
                return driver.define(wanted)
            except errors.AlreadyExists as error:
                return error

        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(define, drivers, specs))
        (made,) = [info for info in bench.driver.list_domains() if info.name == spec.name]
        refused = sum(isinstance(answer, errors.AlreadyExists) for answer in answers)
        assert (refused, answers.count(made)) == ((0, 2) if same_uuid else (1, 1))
        bench.driver.undefine(made.uuid)
    for driver in drivers:
        driver.close()


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
    assert driver.addresses(spec.uuid) == driver.leases(spec.uuid) == ()
    assert not driver.guest_agent_ping(spec.uuid)
    driver.undefine(spec.uuid)
    driver.undefine(spec.uuid)
    with pytest.raises(errors.DomainNotFound):
        driver.domain_info(spec.uuid)


def test_a_domain_of_emulated_devices_starts(bench: Bench) -> None:
    """Red when libvirt or QEMU refuse a device of that model."""
    paravirtual = bench.domain()
    disk = replace(paravirtual.disks[0], target="sda")
    spec = replace(paravirtual, devices=DeviceModel.EMULATED, disks=(disk,))
    bench.driver.define(spec)
    bench.driver.start(spec.uuid)
    assert bench.driver.domain_info(spec.uuid).state is DomainState.RUNNING


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


@pytest.mark.parametrize(
    "call",
    [
        "start",
        "shutdown",
        "reboot",
        "destroy",
        "suspend",
        "resume",
        "addresses",
        "leases",
        "guest_agent_ping",
    ],
)
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
