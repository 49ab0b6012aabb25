"""The contract: a disk moves to another file. What a guest keeps of it, tests/vms shows."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from portal.drivers import errors
from portal.drivers.types import LIMITS, CloneMode, CopyStage, DomainSpec, PoolSpec, VolumeInfo
from tests.drivers.contract.bench import MIB, POOL_ROOT, Bench
from tests.drivers.contract.test_hot import disks


@pytest.fixture
def other(bench: Bench) -> Iterator[PoolSpec]:
    """A second pool."""
    pool = PoolSpec(f"{bench.prefix}-other", str(uuid.uuid4()), f"{POOL_ROOT}/{bench.prefix}-other")
    bench.driver.ensure_pool(pool)
    yield pool
    for info in bench.driver.list_domains():
        if info.name.startswith(bench.prefix):
            bench.driver.destroy(info.uuid)
    for volume in bench.driver.list_volumes(pool.name):
        bench.driver.delete_volume(pool.name, volume.name)
    bench.driver.remove_pool(pool.name)


@pytest.fixture
def there(bench: Bench, other: PoolSpec) -> VolumeInfo:
    """An empty volume in the second pool, as large as the domain's disk."""
    return bench.driver.create_volume(bench.volume("moved", pool=other.name))


def same(text: str, other: str) -> bool:
    """Say whether two definitions are the same but for white space, and that no image is behind a disk."""
    text = text.replace("<backingStore/>", "")
    return ET.canonicalize(text, strip_text=True) == ET.canonicalize(other, strip_text=True)


def until_ready(bench: Bench, spec: DomainSpec, to: str) -> None:
    end = time.monotonic() + 60
    while (copy := bench.driver.disk_copy(spec.uuid, "vda", to)).stage is not CopyStage.READY:
        assert copy.stage is CopyStage.COPYING and copy.percent < 100 and time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def running(bench: Bench) -> DomainSpec:
    spec = bench.domain()
    bench.driver.define(spec)
    bench.driver.start(spec.uuid)
    return spec


def test_a_disk_moves_while_it_runs(bench: Bench, running: DomainSpec, there: VolumeInfo) -> None:
    """Red when the pivot is left out, or the definition goes on naming the old file."""
    driver, path = bench.driver, running.disks[0].path
    before = driver.definition(running.uuid)
    assert driver.disk_copy(running.uuid, "vda", there.path).stage is CopyStage.NONE
    for copied in (False, True):
        with pytest.raises(errors.InvalidState):
            driver.finish_copy(running.uuid, "vda", path, there.path, copied)
    assert disks(driver.definition(running.uuid).running)["vda"] == path
    for _again in range(2):
        driver.begin_copy(running.uuid, "vda", path, there.path)
    until_ready(bench, running, there.path)
    driver.begin_copy(running.uuid, "vda", path, there.path)
    assert disks(driver.definition(running.uuid).persistent) == disks(before.persistent)
    for _again in range(2):
        driver.finish_copy(running.uuid, "vda", path, there.path, False)
        found = driver.definition(running.uuid)
        assert disks(found.persistent)["vda"] == disks(found.running)["vda"] == there.path
    assert driver.disk_copy(running.uuid, "vda", there.path).stage is CopyStage.MOVED
    driver.begin_copy(running.uuid, "vda", path, there.path)
    assert driver.volume_info(bench.pool.name, bench.volume().name).path == path
    driver.abort_copy(running.uuid, "vda", path, there.path)
    assert disks(driver.definition(running.uuid).running)["vda"] == there.path


def test_nothing_else_of_the_definition_changes(
    bench: Bench, running: DomainSpec, there: VolumeInfo
) -> None:
    """Red when the disk is written anew instead of having its file changed."""
    driver, path = bench.driver, running.disks[0].path
    driver.limit_disk(running.uuid, "vda", path, dict.fromkeys(LIMITS, 0) | {"total_iops_sec": 5000})
    before = driver.definition(running.uuid).persistent
    driver.begin_copy(running.uuid, "vda", path, there.path)
    until_ready(bench, running, there.path)
    driver.finish_copy(running.uuid, "vda", path, there.path, False)
    assert same(driver.definition(running.uuid).persistent, before.replace(path, there.path))


def test_a_copy_that_is_aborted_leaves_the_disk(
    bench: Bench, running: DomainSpec, there: VolumeInfo
) -> None:
    driver, path = bench.driver, running.disks[0].path
    before = driver.definition(running.uuid)
    driver.begin_copy(running.uuid, "vda", path, there.path)
    for _again in range(2):
        driver.abort_copy(running.uuid, "vda", path, there.path)
        assert driver.disk_copy(running.uuid, "vda", there.path).stage is CopyStage.NONE
    assert disks(driver.definition(running.uuid).running) == disks(before.running)
    driver.delete_volume(there.pool, there.name)


def test_a_copy_ends_with_the_domain(bench: Bench, running: DomainSpec, there: VolumeInfo) -> None:
    """Red when the half copy of a domain that went off is taken for its disk."""
    driver, path = bench.driver, running.disks[0].path
    driver.begin_copy(running.uuid, "vda", path, there.path)
    until_ready(bench, running, there.path)
    driver.destroy(running.uuid)
    assert driver.disk_copy(running.uuid, "vda", there.path).stage is CopyStage.NONE
    assert disks(driver.definition(running.uuid).persistent)["vda"] == path
    with pytest.raises(errors.InvalidState):
        driver.begin_copy(running.uuid, "vda", path, there.path)
    driver.abort_copy(running.uuid, "vda", path, there.path)


def test_the_disk_of_a_domain_that_is_off_is_another_file(bench: Bench, there: VolumeInfo) -> None:
    driver, spec = bench.driver, bench.domain()
    path = spec.disks[0].path
    driver.define(spec)
    before = driver.definition(spec.uuid).persistent
    driver.abort_copy(spec.uuid, "vda", path, there.path)
    with pytest.raises(errors.InvalidState):
        driver.finish_copy(spec.uuid, "vda", path, there.path, False)
    for _again in range(2):
        driver.finish_copy(spec.uuid, "vda", path, there.path, True)
        assert same(driver.definition(spec.uuid).persistent, before.replace(path, there.path))
    assert driver.disk_copy(spec.uuid, "vda", there.path).stage is CopyStage.MOVED
    driver.start(spec.uuid)
    assert disks(driver.definition(spec.uuid).running)["vda"] == there.path


def test_a_linked_disk_is_whole_afterwards(bench: Bench, other: PoolSpec, image: object) -> None:
    """Red when the copy is a shallow one, which needs the image in the old pool for ever."""
    driver, pool = bench.driver, bench.pool.name
    made = driver.upload_image(pool, f"{bench.prefix}-image.qcow2", str(image))
    linked = driver.create_volume(
        bench.volume("linked", capacity_bytes=16 * MIB, backing_path=made.path, clone=CloneMode.LINKED)
    )
    spec = bench.domain()
    spec = replace(spec, disks=(replace(spec.disks[0], path=linked.path),))
    driver.define(spec)
    driver.start(spec.uuid)
    to = driver.create_volume(bench.volume("moved", pool=other.name, capacity_bytes=16 * MIB))
    driver.begin_copy(spec.uuid, "vda", linked.path, to.path)
    until_ready(bench, spec, to.path)
    driver.finish_copy(spec.uuid, "vda", linked.path, to.path, False)
    driver.list_volumes(other.name)  # which reads it
    found = driver.volume_info(other.name, to.name)
    assert found.backing_path is None and found.allocation_bytes >= 3 * MIB
    assert made.path not in driver.definition(spec.uuid).running


def test_only_the_disk_that_was_meant_moves(bench: Bench, running: DomainSpec, there: VolumeInfo) -> None:
    """Red when the path is not compared."""
    driver, path = bench.driver, running.disks[0].path
    third, before = f"{path}.third", driver.definition(running.uuid)
    with pytest.raises(errors.AlreadyExists):
        driver.begin_copy(running.uuid, "vda", third, there.path)
    with pytest.raises(errors.AlreadyExists):
        driver.finish_copy(running.uuid, "vda", third, there.path, False)
    driver.begin_copy(running.uuid, "vda", path, there.path)
    with pytest.raises(errors.AlreadyExists):
        driver.begin_copy(running.uuid, "vda", path, f"{there.path}.other")
    driver.abort_copy(running.uuid, "vda", path, f"{there.path}.other")
    assert driver.disk_copy(running.uuid, "vda", there.path).stage is not CopyStage.NONE
    driver.abort_copy(running.uuid, "vda", path, there.path)
    assert driver.definition(running.uuid).persistent == before.persistent


def test_what_is_not_there_is_said(bench: Bench, running: DomainSpec, there: VolumeInfo) -> None:
    driver, path, nobody = bench.driver, running.disks[0].path, str(uuid.uuid4())
    with pytest.raises(errors.VolumeNotFound):
        driver.begin_copy(running.uuid, "vda", path, f"{there.path}.absent")
    with pytest.raises(errors.DeviceNotFound):
        driver.disk_copy(running.uuid, "vdz", there.path)
    for call in (
        lambda: driver.begin_copy(nobody, "vda", path, there.path),
        lambda: driver.disk_copy(nobody, "vda", there.path),
        lambda: driver.finish_copy(nobody, "vda", path, there.path, False),
        lambda: driver.abort_copy(nobody, "vda", path, there.path),
    ):
        with pytest.raises(errors.DomainNotFound):
            call()
    for hostile in ("../x", "/x/../y", "relative"):
        with pytest.raises(errors.InvalidSpec):
            driver.begin_copy(running.uuid, "vda", path, hostile)
