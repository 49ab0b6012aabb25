"""The contract: what a host says of itself, what it is proven to run, and when it cannot be reached."""

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from portal.drivers import errors
from portal.drivers.fake import FakeDriver
from portal.drivers.registry import driver_for
from portal.drivers.types import Accelerator, CloneMode, PoolSpec, VolumeSpec
from tests.drivers.contract.bench import LIVE_URI, MIB, Bench


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


def test_a_host_says_what_its_emulator_can_give_a_domain(bench: Bench) -> None:
    """Red when only one board or type is asked for, or answers are told under another's name."""
    found = bench.driver.readiness().abilities
    [able] = [one for one in found if (one.type, one.board) == ("qemu", "q35")]
    assert able.arch == "x86_64" and able.machine.startswith("pc-q35-") and able.max_vcpus > 0
    assert able.cpu_modes and "host-passthrough" not in able.cpu_modes
    assert len({(one.type, one.board) for one in found}) == len(found)


def test_a_host_tells_its_devices_by_their_keys(bench: Bench) -> None:
    """A virtual host has none but the kernel's own and what its machine type brings."""
    told = [(one.key, one.address) for one in bench.driver.host_devices()]
    assert told == sorted(told)
    assert all(key.startswith(("pci:", "usb:")) and not key.startswith("usb:1d6b:") for key, _place in told)


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
