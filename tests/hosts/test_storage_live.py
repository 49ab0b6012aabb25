"""Volumes on the real libvirt, made, grown, copied and deleted by operations, kept where used."""

import hashlib
import re
import secrets
import shutil
import subprocess
import uuid
from pathlib import Path

import libvirt
import pytest

from portal.core.errors import Denied
from portal.drivers.observations import HostTold
from portal.drivers.registry import driver_for
from portal.drivers.types import Accelerator, DiskSpec, DomainSpec, PoolSpec, VolumeSpec
from portal.hosts.models import FoundPool, PoolAttachment
from portal.hosts.observations import note, now
from portal.hosts.storage import downloading, moving, pools, services, taking_over, uploading
from portal.hosts.storage.using import is_orphan, uses_of
from portal.operations.models import StepRecord
from portal.operations.states import State
from tests.drivers.contract.bench import LIVE_URI, MIB, POOL_ROOT
from tests.factories import make_host, make_place
from tests.hosts.images.conftest import send, uploads  # noqa: F401 (a fixture)
from tests.hosts.test_storage import code, done, look, row
from tests.hosts.test_volume_uploads import qcow2

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.live]


@pytest.fixture
def real():
    """A driver, and a pool of the test's own."""
    driver, name = driver_for(LIVE_URI), f"gttest-{secrets.token_hex(4)}"
    pool = PoolSpec(name, str(uuid.uuid4()), f"{POOL_ROOT}/{name}")
    driver.ensure_pool(pool)
    yield driver, pool
    for info in driver.list_domains():
        if info.name == name:
            driver.undefine(info.uuid)
    for left in driver.list_volumes(name):
        driver.delete_volume(name, left.name)
    driver.remove_pool(name)
    driver.close()


def placed(pool):
    """Let the portal know the pool."""
    place = make_place(make_host(uri=LIVE_URI), pool.name, pool.path)
    place.pool.uuid = pool.uuid
    place.pool.save()
    return place


def test_volumes_live_their_life_on_a_real_host(real, chief):
    """Red when a step passes on what libvirt does not take, or a used volume is deleted."""
    driver, pool = real
    place = placed(pool)
    left = driver.create_volume(VolumeSpec(pool.name, "left.qcow2", 8 * MIB))
    look(chief, place)
    assert place.observed_capacity > place.observed_available > 0
    assert is_orphan(row("left.qcow2"), uses_of([row("left.qcow2")])[row("left.qcow2").pk])
    for form in ("qcow2", "raw"):
        name = f"data.{form}"
        begun = services.create(actor=chief, pool=place, name=name, capacity=8 * MIB, form=form)
        assert done(begun).state == State.SUCCEEDED
        begun = services.grow(actor=chief, volume=row(name), capacity=16 * MIB)
        assert done(begun).state == State.SUCCEEDED
        begun = services.clone(actor=chief, volume=row(name), name=f"copy.{form}")
        assert done(begun).state == State.SUCCEEDED
        info = driver.volume_info(pool.name, f"copy.{form}")
        brought = row(f"copy.{form}")
        assert done(services.download(actor=chief, volume=brought)).state == State.SUCCEEDED
        subject = services.subject_of(place, brought.name)
        length, pieces = downloading.take(actor=chief, volume=brought, subject=subject)
        content = b"".join(pieces)
        assert content == Path(info.path).read_bytes() and len(content) == length
        assert (info.capacity_bytes, info.format, info.backing_path) == (16 * MIB, form, None)
        begun = services.delete(actor=chief, volume=row(name), confirm_name=name)
        assert done(begun).state == State.SUCCEEDED
    disks = (DiskSpec(left.path),)
    emulated = Accelerator.EMULATION
    driver.define(DomainSpec(pool.name, str(uuid.uuid4()), 1, 64 * MIB, disks, accelerator=emulated))
    failed = done(services.delete(actor=chief, volume=row("left.qcow2"), confirm_name="left.qcow2"))
    assert (failed.state, code(failed)) == (State.FAILED, "volume_in_use")
    assert pool.name in StepRecord.objects.exclude(error_code="").get().error_raw
    there = [info.name for info in driver.list_volumes(pool.name)]
    assert there == ["copy.qcow2", "copy.raw", "left.qcow2"]
    with pytest.raises(Denied, match="only becomes larger"):
        services.grow(actor=chief, volume=row("copy.raw"), capacity=8 * MIB)


def test_a_file_is_uploaded_and_its_pool_stopped_and_started(real, chief, uploads, tmp_path):  # noqa: F811
    """Red when the host gets another file, keeps the mark, or a pool is stopped under a domain."""
    driver, pool = real
    place = placed(pool)
    look(chief, place)
    content = qcow2(tmp_path)
    upload = uploading.begin(actor=chief, pool=place, name="mine.qcow2")
    assert done(send(chief, upload, content)).state == State.SUCCEEDED
    made = row("mine.qcow2")
    assert (made.observed_capacity, made.observed_format, made.made) == (16 * MIB, "qcow2", True)
    digest = driver.digest_volume(pool.name, "mine.qcow2")
    assert digest.sha256 == hashlib.sha256(content).hexdigest()
    emulated, own = Accelerator.EMULATION, str(uuid.uuid4())
    disks = (DiskSpec(made.observed_path),)
    begun = pools.stop(actor=chief, pool=place)
    driver.define(DomainSpec(pool.name, own, 1, 64 * MIB, disks, accelerator=emulated))
    failed = done(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "pool_in_use")
    driver.undefine(own)
    for act, runs in ((pools.stop, False), (pools.start, True)):
        assert done(act(actor=chief, pool=place)).state == State.SUCCEEDED
        place.refresh_from_db()
        assert place.observed_active is runs
    assert done(pools.set_autostart(actor=chief, pool=place, on=False)).state == State.SUCCEEDED
    place.refresh_from_db()
    assert not place.observed_autostart and driver.digest_volume(pool.name, "mine.qcow2") == digest


@pytest.fixture
def second(real):
    """Another pool of the test's own."""
    driver, first = real
    name = f"{first.name}-b"
    pool = PoolSpec(name, str(uuid.uuid4()), f"{POOL_ROOT}/{name}")
    driver.ensure_pool(pool)
    yield pool
    for left in driver.list_volumes(name):
        driver.delete_volume(name, left.name)
    driver.remove_pool(name)


def disk_of(path, form):
    """Return the digest of what a guest reads of a disk."""
    plain = Path(f"{path}.plain")
    subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", path, plain], check=True)
    found = hashlib.sha256(plain.read_bytes()).hexdigest()
    plain.unlink()
    return found


def test_volumes_go_to_another_pool_with_what_is_in_them(real, second, chief, tmp_path):
    """Red when a copy is not what a guest would read of the original, or the original stays behind."""
    driver, first = real
    here = placed(first)
    there = make_place(here.host, second.name, second.path)
    there.pool.uuid = second.uuid
    there.pool.save()
    noise = tmp_path / "noise.raw"
    noise.write_bytes(secrets.token_bytes(3 * MIB).ljust(16 * MIB, b"\0"))
    sums = {}
    for form in ("qcow2", "raw"):
        made = driver.create_volume(VolumeSpec(first.name, f"data.{form}", 16 * MIB, format=form))
        subprocess.run(["qemu-img", "convert", "-n", "-O", form, noise, made.path], check=True)
        sums[form] = disk_of(made.path, form)
        assert sums[form] == hashlib.sha256(noise.read_bytes()).hexdigest()
    for place in (here, there):
        look(chief, place)
    for form in ("qcow2", "raw"):
        for act, name in ((moving.copy, f"copy.{form}"), (moving.move, f"data.{form}")):
            ended = done(act(actor=chief, volume=row(f"data.{form}"), to=there, name=name))
            assert ended.state == State.SUCCEEDED, StepRecord.objects.filter(operation=ended).values()
            info = driver.volume_info(second.name, name)
            assert (info.format, info.capacity_bytes, info.backing_path) == (form, 16 * MIB, None)
            assert disk_of(info.path, form) == sums[form]
            assert row(name).pool == there
    assert driver.list_volumes(first.name) == () and not list(Path(first.path).iterdir())
    disk = row("data.qcow2").observed_path
    subprocess.run(["qemu-img", "snapshot", "-c", "before", disk], check=True)
    failed = done(moving.move(actor=chief, volume=row("data.qcow2"), to=here, name="data.qcow2"))
    assert (failed.state, code(failed)) == (State.FAILED, "volume_snapshots")
    assert driver.list_volumes(first.name) == () and Path(disk).exists()
    theirs = driver.create_volume(VolumeSpec(first.name, "data.raw", 8 * MIB))
    failed = done(moving.move(actor=chief, volume=row("data.raw"), to=here, name="data.raw"))
    assert failed.state == State.FAILED and driver.list_volumes(first.name) == (theirs,)
    assert disk_of(row("data.raw").observed_path, "raw") == sums["raw"]


def test_a_pool_of_virsh_is_taken_over_used_and_given_back_as_it_was(chief):
    """Red when its definition, its state or a file in it is touched by taking over or giving back."""
    name, folder = f"gttest-{secrets.token_hex(4)}", Path(POOL_ROOT) / f"virsh-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    (folder / "My notes.img").write_bytes(b"notes" * 1000)
    connection = libvirt.open(LIVE_URI)
    text = f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
    pool = connection.storagePoolDefineXML(text)
    pool.create()

    def as_it_is():
        # Sizes are of the file system, on which others write.
        definition = re.sub(r"<(capacity|allocation|available) .*", "", pool.XMLDesc())
        files = {file.name: (file.stat().st_mode, file.read_bytes()) for file in folder.iterdir()}
        return definition, pool.isActive(), pool.autostart(), folder.stat().st_mode, files

    try:
        before = as_it_is()
        host = make_place(make_host(uri=LIVE_URI)).host
        driver = driver_for(LIVE_URI)
        note(host.pk, HostTold(*now(), pools=driver.list_pools()))
        found = FoundPool.objects.get(observed_name=name)
        assert (found.observed_path, found.observed_autostart, found.observed_persistent) == (
            str(folder),
            False,
            True,
        )
        begun = taking_over.take_over(actor=chief, found=found, seen=taking_over.seen_as(found))
        assert done(begun).state == State.SUCCEEDED and as_it_is() == before
        place = PoolAttachment.objects.get(pool__uuid=pool.UUIDString())
        assert row("My notes.img").observed_path == f"{folder}/My notes.img"
        made = services.create(actor=chief, pool=place, name="new.qcow2", capacity=8 * MIB, form="qcow2")
        assert done(made).state == State.SUCCEEDED
        made = services.clone(actor=chief, volume=row("new.qcow2"), name="copy.qcow2")
        assert done(made).state == State.SUCCEEDED
        gone = services.delete(actor=chief, volume=row("copy.qcow2"), confirm_name="copy.qcow2")
        assert done(gone).state == State.SUCCEEDED
        taking_over.give_back(actor=chief, pool=place, confirm_name=name)
        assert (folder / "new.qcow2").exists() and not PoolAttachment.objects.filter(pk=place.pk).exists()
        (folder / "new.qcow2").unlink()
        assert as_it_is() == before
        driver.close()
    finally:
        pool.destroy()
        pool.undefine()
        connection.close()
        shutil.rmtree(folder)
