"""The contract: pools, images, volumes and seeds."""

import hashlib
import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from portal.drivers import errors
from portal.drivers.registry import driver_for
from portal.drivers.seed import build_iso
from portal.drivers.types import BootFileSpec, CloneMode, PoolSpec, SeedSpec, VolumeDigest
from tests.drivers.contract.bench import LIVE_URI, MIB, Bench


def test_pools_are_listed_with_sizes(bench: Bench) -> None:
    (found,) = [pool for pool in bench.driver.list_pools() if pool.name == bench.pool.name]
    assert (found.uuid, found.path, found.active) == (bench.pool.uuid, bench.pool.path, True)
    assert found.capacity_bytes >= found.available_bytes > 0


def test_pool_is_idempotent_and_guards_its_name(bench: Bench) -> None:
    bench.driver.ensure_pool(bench.pool)
    with pytest.raises(errors.AlreadyExists):
        bench.driver.ensure_pool(replace(bench.pool, uuid=str(uuid.uuid4())))


def test_image_is_uploaded_once(bench: Bench, image: Path) -> None:
    name = bench.volume("image").name
    first = bench.driver.upload_image(bench.pool.name, name, str(image))
    assert (first.format, first.capacity_bytes) == ("qcow2", 16 * MIB)
    assert bench.driver.upload_image(bench.pool.name, name, str(image)) == first
    assert bench.driver.list_volumes(bench.pool.name) == (first,)
    clone = bench.driver.create_volume(bench.volume(backing_path=first.path, capacity_bytes=16 * MIB))
    assert clone.backing_path == first.path


def test_a_volume_is_told_by_what_its_file_holds(bench: Bench, image: Path) -> None:
    """Red when the digest leaves the end of the file out."""
    name = bench.volume("image").name
    bench.driver.upload_image(bench.pool.name, name, str(image))
    told = bench.driver.digest_volume(bench.pool.name, name)
    content = image.read_bytes()
    assert told == VolumeDigest(hashlib.sha256(content).hexdigest(), len(content))
    with pytest.raises(errors.VolumeNotFound):
        bench.driver.digest_volume(bench.pool.name, "other.qcow2")


def test_a_volume_comes_back_as_it_was_sent(bench: Bench, image: Path, tmp_path: Path) -> None:
    """Red when download leaves a part of the file out, or appends to what lies there."""
    name = bench.volume("image").name
    bench.driver.upload_image(bench.pool.name, name, str(image))
    target = tmp_path / "copy"
    target.write_bytes(b"x" * (image.stat().st_size + 1))
    told = bench.driver.download_volume(bench.pool.name, name, str(target))
    assert target.read_bytes() == image.read_bytes()
    assert told == bench.driver.digest_volume(bench.pool.name, name)
    with pytest.raises(errors.VolumeNotFound):
        bench.driver.download_volume(bench.pool.name, "other.qcow2", str(target))
    with pytest.raises(errors.InvalidSpec):
        bench.driver.download_volume(bench.pool.name, name, str(tmp_path / "none" / "copy"))


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
from portal.drivers.seed import build_iso
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


def test_a_cd_is_uploaded_once(bench: Bench, tmp_path: Path) -> None:
    """Red when an ISO's volume is looked at as a qcow2."""
    iso, name = tmp_path / "a.iso", f"{bench.prefix}-cd.iso"
    iso.write_bytes(build_iso(SeedSpec(bench.pool.name, "x.iso", "instance-id: x", "#cloud-config")))
    first = bench.driver.upload_image(bench.pool.name, name, str(iso))
    assert (first.name, first.format, first.capacity_bytes) == (name, "iso", iso.stat().st_size)
    assert bench.driver.upload_image(bench.pool.name, name, str(iso)) == first
    with pytest.raises(errors.InvalidSpec):
        bench.driver.upload_image(bench.pool.name, f"{bench.prefix}-seed.iso", str(iso))
    iso.write_bytes(b"no CD")
    with pytest.raises(errors.InvalidSpec):
        bench.driver.upload_image(bench.pool.name, name, str(iso))


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_half_a_cd_is_none_and_is_mended(bench: Bench, tmp_path: Path) -> None:
    """Red when the sector of the volume descriptor is written with the rest."""
    iso, name = tmp_path / "a.iso", f"{bench.prefix}-cd.iso"
    iso.write_bytes(build_iso(SeedSpec(bench.pool.name, "x.iso", "instance-id: x", "#cloud-config")))
    where = (bench.pool.name, name, str(iso))
    died = subprocess.run([sys.executable, "-c", UPLOAD_AND_DIE, LIVE_URI, *where], check=False)
    assert died.returncode == -signal.SIGKILL
    (half,) = bench.driver.list_volumes(bench.pool.name)
    assert (half.name, half.format) == (name, "raw")
    whole = bench.driver.upload_image(*where)
    assert whole.format == "iso"
    assert Path(whole.path).read_bytes() == iso.read_bytes()


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


def test_a_volume_whose_pool_is_gone_is_not_called_deleted(bench: Bench) -> None:
    """Red when delete_volume passes over PoolNotFound: the file lies in the pool's folder still."""
    volume = bench.driver.create_volume(bench.volume())
    bench.driver.remove_pool(volume.pool)
    with pytest.raises(errors.PoolNotFound):
        bench.driver.delete_volume(volume.pool, volume.name)
    bench.driver.ensure_pool(bench.pool)
    assert bench.driver.list_volumes(volume.pool) == (volume,)
    bench.driver.delete_volume(volume.pool, volume.name)
    assert bench.driver.list_volumes(volume.pool) == ()


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


@pytest.fixture
def other(bench: Bench) -> Iterator[PoolSpec]:
    """Another pool of the host."""
    pool = PoolSpec(f"{bench.prefix}-other", str(uuid.uuid4()), f"{bench.pool.path}-other")
    bench.driver.ensure_pool(pool)
    yield pool
    for info in bench.driver.list_volumes(pool.name):
        bench.driver.delete_volume(pool.name, info.name)
    bench.driver.remove_pool(pool.name)


def test_a_raw_volume_is_copied_into_another_pool_as_it_is(bench: Bench, other: PoolSpec) -> None:
    """Red when a copy is another size or format, holds something else, or replaces what is there."""
    told = {"format": "raw", "capacity_bytes": 3 * MIB}
    base = bench.driver.create_volume(bench.volume("base", **told))
    if Path(base.path).exists():  # the fake one holds no files
        Path(base.path).write_bytes(secrets.token_bytes(MIB).ljust(3 * MIB, b"\0"))
    full = bench.volume("base", backing_path=base.path, backing_format="raw", clone=CloneMode.FULL, **told)
    spec = replace(full, pool=other.name, fresh=True)
    copy = bench.driver.create_volume(spec)
    assert (copy.pool, copy.name, copy.path) == (other.name, base.name, f"{other.path}/{base.name}")
    assert (copy.format, copy.capacity_bytes, copy.backing_path) == ("raw", 3 * MIB, None)
    first = bench.driver.digest_volume(bench.pool.name, base.name)
    assert bench.driver.digest_volume(other.name, base.name) == first
    with pytest.raises(errors.AlreadyExists):
        bench.driver.create_volume(spec)
    bench.driver.delete_volume(bench.pool.name, base.name)
    assert bench.driver.digest_volume(other.name, base.name) == first


def test_a_qcow2_is_copied_into_another_pool(
    bench: Bench, other: PoolSpec, image: Path, tmp_path: Path
) -> None:
    """Red when what a guest reads of the copy is not what it read of the other."""
    base = bench.driver.upload_image(bench.pool.name, bench.volume("base").name, str(image))
    full = bench.volume("copy", backing_path=base.path, clone=CloneMode.FULL, capacity_bytes=16 * MIB)
    copy = bench.driver.create_volume(replace(full, pool=other.name, fresh=True))
    assert (copy.format, copy.capacity_bytes, copy.backing_path) == ("qcow2", 16 * MIB, None)
    taken = tmp_path / "taken"
    bench.driver.download_volume(other.name, copy.name, str(taken))
    subprocess.run(["qemu-img", "compare", "-q", image, taken], check=True)


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


def test_a_boot_file_is_the_portals_file_and_what_is_appended(bench: Bench, tmp_path: Path) -> None:
    """Red when what is appended is left out, or a file of that name is kept."""
    source = tmp_path / "initrd.gz"
    source.write_bytes(b"installer" * 100_000)
    spec = BootFileSpec(bench.pool.name, f"{bench.prefix}.initrd", str(source), b"preseed")
    made = bench.driver.write_boot_file(spec)
    assert (made.capacity_bytes, made.format) == (900_007, "raw")
    assert bench.driver.write_boot_file(spec) == made
    shorter = bench.driver.write_boot_file(replace(spec, appended=b""))
    assert (shorter.capacity_bytes, shorter.path) == (900_000, made.path)
    bench.driver.delete_volume(bench.pool.name, spec.name)


def test_a_boot_file_can_be_a_part_of_the_portals_file(bench: Bench, tmp_path: Path) -> None:
    """Red when `at` or `length` is not heeded, or a part that the file does not hold is written short."""
    source = tmp_path / "cd.iso"
    source.write_bytes(b"a" * 5000 + b"kernel" + b"b" * 5000)
    spec = BootFileSpec(bench.pool.name, f"{bench.prefix}.kernel", str(source), b"", 5000, 6)
    assert bench.driver.write_boot_file(spec).capacity_bytes == 6
    assert bench.driver.write_boot_file(replace(spec, length=None)).capacity_bytes == 5006
    with pytest.raises(errors.InvalidSpec):
        bench.driver.write_boot_file(replace(spec, length=5007))
    bench.driver.delete_volume(bench.pool.name, spec.name)


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_a_boot_file_that_is_there_stays_the_same_file(bench: Bench, tmp_path: Path) -> None:
    """Red when _holds says no of what is there, or yes of what an interrupted call left."""
    source = tmp_path / "linux"
    source.write_bytes(secrets.token_bytes(MIB + 7))
    spec = BootFileSpec(bench.pool.name, f"{bench.prefix}.kernel", str(source))
    path = Path(bench.driver.write_boot_file(spec).path)
    with path.open("rb") as opened:
        bench.driver.write_boot_file(spec)
        assert os.fstat(opened.fileno()).st_nlink == 1  # its number may be given to another at once
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(bytes(7))
    bench.driver.write_boot_file(spec)
    assert path.read_bytes() == source.read_bytes()
    path.unlink()
    bench.driver.write_boot_file(spec)
    assert path.read_bytes() == source.read_bytes()
    bench.driver.delete_volume(bench.pool.name, spec.name)


def test_a_boot_file_replaces_no_disk_and_has_a_source(bench: Bench, tmp_path: Path) -> None:
    """Red when any name is taken: a disk would be overwritten."""
    source = tmp_path / "linux"
    source.write_bytes(b"kernel")
    for name, path in (("web.qcow2", source), ("seed.iso", source), ("web.kernel", tmp_path / "missing")):
        with pytest.raises(errors.InvalidSpec):
            bench.driver.write_boot_file(BootFileSpec(bench.pool.name, name, str(path)))
    with pytest.raises(errors.PoolNotFound):
        bench.driver.write_boot_file(BootFileSpec(f"{bench.prefix}-none", "web.kernel", str(source)))
    with pytest.raises(errors.InvalidSpec):
        bench.driver.create_volume(replace(bench.volume(), name="web.kernel"))
