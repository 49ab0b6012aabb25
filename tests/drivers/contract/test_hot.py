"""The contract: what is changed while a domain runs. What a guest itself does of it, tests/vms shows."""

import uuid
from dataclasses import replace
from typing import Any

import pytest

from portal.drivers import errors
from portal.drivers.inspection import Kind, inspect
from portal.drivers.libvirt import plugging
from portal.drivers.types import DeviceModel, DiskSpec, DomainSpec
from tests.drivers.contract.bench import MIB, Bench


def understood(text: str) -> dict[str, Any]:
    return inspect(Kind.DOMAIN, text.encode()).understood


def disks(text: str) -> dict[str, str]:
    found = understood(text)["devices"]["disks"]
    return {disk["target"]["dev"]: disk["source"]["file"] for disk in found}


@pytest.fixture
def running(bench: Bench) -> DomainSpec:
    spec = replace(bench.domain(), vcpu_ceiling=3)
    bench.driver.define(spec)
    bench.driver.start(spec.uuid)
    return spec


@pytest.fixture
def extra(bench: Bench) -> DiskSpec:
    path = bench.driver.create_volume(bench.volume("extra")).path
    return DiskSpec(path, "vdb", serial="extra-1")


def test_a_ceiling_is_room_and_no_more(bench: Bench, running: DomainSpec) -> None:
    """Red when the definition gives the guest its ceiling at once."""
    found = understood(bench.driver.definition(running.uuid).persistent)
    assert (found["vcpus"], found["current_vcpus"]) == (3, 1)
    assert bench.driver.domain_info(running.uuid).vcpus == 1


def test_vcpus_come_while_it_runs_and_never_go(bench: Bench, running: DomainSpec) -> None:
    """Red when plug_vcpus() changes the definition, goes beyond the ceiling or takes one away."""
    driver, before = bench.driver, bench.driver.definition(running.uuid)
    driver.plug_vcpus(running.uuid, 2)
    driver.plug_vcpus(running.uuid, 2)
    assert driver.domain_info(running.uuid).vcpus == 2
    driver.plug_vcpus(running.uuid, 1)
    assert driver.domain_info(running.uuid).vcpus == 2
    with pytest.raises(errors.NotSupported):
        driver.plug_vcpus(running.uuid, 4)
    assert driver.domain_info(running.uuid).vcpus == 2
    assert driver.definition(running.uuid).persistent == before.persistent


def test_a_balloon_is_told_what_is_so_then(bench: Bench, running: DomainSpec) -> None:
    """Red when more than the domain was started with is accepted. No guest follows here on libvirt."""
    before = bench.driver.definition(running.uuid)
    assert bench.driver.set_balloon(running.uuid, 64 * MIB) == 64 * MIB
    with pytest.raises(errors.InvalidSpec):
        bench.driver.set_balloon(running.uuid, 128 * MIB)
    assert bench.driver.definition(running.uuid).persistent == before.persistent


def test_a_balloon_is_room_and_what_a_guest_ignores_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when the definition has all of it at once, or what was asked for is told in place of what is so."""
    driver, spec = bench.driver, replace(bench.domain(), memory_now_bytes=32 * MIB)
    driver.define(spec)
    made = driver.definition(spec.uuid)
    found = understood(made.persistent)
    assert (found["memory_bytes"], found["current_memory_bytes"]) == (64 * MIB, 32 * MIB)
    driver.start(spec.uuid)
    assert driver.domain_info(spec.uuid).memory_bytes == 64 * MIB
    if hasattr(driver, "guest_heeds"):
        assert driver.set_balloon(spec.uuid, 64 * MIB) == 64 * MIB
        driver.guest_heeds = False
    monkeypatch.setattr(plugging, "PATIENCE", 1.0)
    # On libvirt there is no guest on the disk, and so none that gives anything back.
    assert driver.set_balloon(spec.uuid, 48 * MIB) == 64 * MIB
    assert driver.set_balloon(spec.uuid, 48 * MIB) == 64 * MIB
    assert understood(driver.definition(spec.uuid).running)["current_memory_bytes"] == 64 * MIB
    assert driver.definition(spec.uuid).persistent == made.persistent


def test_without_a_balloon_nothing_is_asked_of_the_guest(bench: Bench) -> None:
    """Red when set_balloon() does not look: libvirt's own error says that the domain is off."""
    driver, spec = bench.driver, bench.domain()
    emulated = replace(spec, devices=DeviceModel.EMULATED, disks=(replace(spec.disks[0], target="sda"),))
    driver.define(emulated)
    driver.start(spec.uuid)
    with pytest.raises(errors.NotSupported):
        driver.set_balloon(spec.uuid, 32 * MIB)
    with pytest.raises(errors.InvalidSpec):
        driver.define(replace(emulated, name=f"{spec.name}-2", memory_now_bytes=32 * MIB))


@pytest.mark.parametrize("now", [-1, 1000, 65 * MIB], ids=str)
def test_memory_beyond_the_ceiling_is_refused(bench: Bench, now: int) -> None:
    with pytest.raises(errors.InvalidSpec):
        bench.driver.define(replace(bench.domain(), memory_now_bytes=now))


def test_a_disk_comes_while_it_runs_and_stays(bench: Bench, running: DomainSpec, extra: DiskSpec) -> None:
    """Red when either definition is left out, or the same disk is attached twice."""
    driver = bench.driver
    assert driver.attach_disk(running.uuid, extra) is True
    assert driver.attach_disk(running.uuid, extra) is True
    made = driver.definition(running.uuid)
    assert disks(made.persistent)["vdb"] == disks(made.running)["vdb"] == extra.path
    assert "extra-1" in made.persistent
    with pytest.raises(errors.AlreadyExists):
        driver.attach_disk(running.uuid, replace(extra, path=f"{extra.path}.other"))
    assert driver.definition(running.uuid) == made


def test_a_disk_comes_back_as_it_was(bench: Bench, extra: DiskSpec) -> None:
    """Red when what it was like is left out: a raw disk would be read as qcow2."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    driver.attach_disk(spec.uuid, extra)
    change = {"driver": {"type": "raw", "cache": "none", "discard": None}, "limits": {"total_iops_sec": 500}}
    found = driver.definition(spec.uuid)
    places = [change if target == "vdb" else {} for target in disks(found.persistent)]
    driver.redefine(spec.uuid, {"devices": {"disks": places}}, found.digest)

    def seen() -> dict[str, Any]:
        told = understood(driver.definition(spec.uuid).persistent)["devices"]["disks"]
        return {one["target"]["dev"]: one for one in told}

    was = seen()["vdb"]
    driver.detach_disk(spec.uuid, "vdb", extra.path)
    with pytest.raises(errors.InvalidSpec):
        driver.attach_disk(spec.uuid, replace(extra, target="vdc"), was)
    driver.attach_disk(spec.uuid, extra, was)
    assert seen()["vdb"] == was and was["driver"]["type"] == "raw"


def test_a_device_of_the_host_is_a_disk(bench: Bench, running: DomainSpec, device: str) -> None:
    """Red when it is written as a file: what knows LVM's volumes as devices would not find who has them."""
    driver, spec = bench.driver, DiskSpec(device, "vdb", "raw")
    for _turn in range(2):
        assert driver.attach_disk(running.uuid, spec) is True
        made = driver.definition(running.uuid)
        for text in (made.persistent, made.running):
            [disk] = [one for one in understood(text)["devices"]["disks"] if one["target"]["dev"] == "vdb"]
            assert (disk["type"], disk["source"]["dev"], disk["driver"]["type"]) == ("block", device, "raw")
        with pytest.raises(errors.AlreadyExists):
            driver.attach_disk(running.uuid, replace(spec, path="/dev/null"))
    driver.detach_disk(running.uuid, "vdb", "/dev/null")
    assert driver.definition(running.uuid) == made
    driver.destroy(running.uuid)
    driver.detach_disk(running.uuid, "vdb", device)
    assert "vdb" not in disks(driver.definition(running.uuid).persistent)
    assert driver.attach_disk(running.uuid, spec, disk) is False
    assert driver.definition(running.uuid).persistent == made.persistent


def test_half_an_attachment_is_made_whole(bench: Bench, extra: DiskSpec) -> None:
    """Red when attach_disk() takes a disk that only the definition has for one that runs too."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    driver.start(spec.uuid)
    before = driver.definition(spec.uuid)
    driver.destroy(spec.uuid)
    assert driver.attach_disk(spec.uuid, extra) is False
    driver.start(spec.uuid)
    assert disks(driver.definition(spec.uuid).running)["vdb"] == extra.path
    driver.destroy(spec.uuid)
    driver.detach_disk(spec.uuid, "vdb", extra.path)
    assert disks(driver.definition(spec.uuid).persistent) == disks(before.persistent)
    driver.start(spec.uuid)
    assert driver.attach_disk(spec.uuid, extra) is True
    assert disks(driver.definition(spec.uuid).running)["vdb"] == extra.path


def test_a_disk_that_cannot_come_while_it_runs_waits(bench: Bench, extra: DiskSpec) -> None:
    """Red when a disk on an AHCI is plugged, which QEMU refuses."""
    driver, spec = bench.driver, bench.domain()
    emulated = replace(spec, devices=DeviceModel.EMULATED, disks=(DiskSpec(spec.disks[0].path, "sda"),))
    driver.define(emulated)
    driver.start(spec.uuid)
    assert driver.attach_disk(spec.uuid, replace(extra, target="sdb")) is False
    found = driver.definition(spec.uuid)
    assert "sdb" in disks(found.persistent) and "sdb" not in disks(found.running)


def test_a_disk_is_taken_from_one_that_is_off_and_only_the_one_that_was_meant(
    bench: Bench, extra: DiskSpec
) -> None:
    """Red when the path is not compared."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    driver.attach_disk(spec.uuid, extra)
    driver.detach_disk(spec.uuid, "vdb", f"{extra.path}.other")
    assert "vdb" in disks(driver.definition(spec.uuid).persistent)
    driver.detach_disk(spec.uuid, "vdb", extra.path)
    driver.detach_disk(spec.uuid, "vdb", extra.path)
    assert "vdb" not in disks(driver.definition(spec.uuid).persistent)
    assert driver.volume_info(bench.pool.name, bench.volume("extra").name).path == extra.path


def test_a_guest_that_keeps_a_disk_keeps_it_defined(
    bench: Bench, running: DomainSpec, extra: DiskSpec
) -> None:
    """Red when the definition loses what the guest still has. On libvirt nothing boots that could heed."""
    bench.driver.attach_disk(running.uuid, extra)
    if hasattr(bench.driver, "guest_heeds"):
        bench.driver.guest_heeds = False
    made = bench.driver.definition(running.uuid)
    with pytest.raises(errors.GuestIgnores):
        bench.driver.detach_disk(running.uuid, "vdb", extra.path)
    assert bench.driver.definition(running.uuid) == made


@pytest.mark.parametrize("on", [True, False])
def test_a_disk_grows_and_never_shrinks(bench: Bench, on: bool) -> None:
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    if on:
        driver.start(spec.uuid)
    path, volume = spec.disks[0].path, bench.volume()
    for wanted in (16 * MIB, 16 * MIB, 8 * MIB):
        driver.grow_disk(spec.uuid, "vda", path, wanted)
        assert driver.volume_info(volume.pool, volume.name).capacity_bytes == 16 * MIB
    with pytest.raises(errors.AlreadyExists):
        driver.grow_disk(spec.uuid, "vda", f"{path}.other", 32 * MIB)
    assert driver.volume_info(volume.pool, volume.name).capacity_bytes == 16 * MIB


def test_what_is_off_or_not_there_is_said(bench: Bench, extra: DiskSpec) -> None:
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    with pytest.raises(errors.InvalidState):
        driver.plug_vcpus(spec.uuid, 1)
    with pytest.raises(errors.InvalidState):
        driver.set_balloon(spec.uuid, MIB)
    nobody = str(uuid.uuid4())
    for call in (
        lambda: driver.plug_vcpus(nobody, 1),
        lambda: driver.set_balloon(nobody, MIB),
        lambda: driver.attach_disk(nobody, extra),
        lambda: driver.detach_disk(nobody, "vdb", extra.path),
        lambda: driver.grow_disk(nobody, "vdb", extra.path, MIB),
    ):
        with pytest.raises(errors.DomainNotFound):
            call()


@pytest.mark.parametrize(
    "change", [{"path": "../x"}, {"target": "vdb'/>"}, {"serial": "<&>"}, {"format": "vmdk"}], ids=str
)
def test_a_hostile_disk_is_refused(bench: Bench, extra: DiskSpec, change: dict[str, str]) -> None:
    spec = bench.domain()
    bench.driver.define(spec)
    before = bench.driver.definition(spec.uuid)
    with pytest.raises(errors.InvalidSpec):
        bench.driver.attach_disk(spec.uuid, replace(extra, **change))
    assert bench.driver.definition(spec.uuid) == before
