"""The contract: kinds of pools, and volumes that are there: grown, read, and who uses them."""

import secrets
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from portal.drivers import errors
from portal.drivers.libvirt import volume as libvirt_volume
from portal.drivers.types import LONGEST_READ, CloneMode, DiskSpec, PoolKind, PoolSpec
from tests.drivers.contract.bench import MIB, POOL_ROOT, Bench


def test_a_host_says_which_kinds_of_pools_it_has(bench: Bench) -> None:
    assert {PoolKind.DIR, PoolKind.FS} <= set(bench.driver.pool_kinds()) <= set(PoolKind)


def test_a_pool_is_read_again(bench: Bench) -> None:
    """Red when refresh_pool takes a pool that is not there for an empty one."""
    bench.driver.create_volume(bench.volume())
    info = bench.driver.refresh_pool(bench.pool.name)
    assert (info.name, info.kind, info.active) == (bench.pool.name, "dir", True)
    with pytest.raises(errors.PoolNotFound):
        bench.driver.refresh_pool(f"{bench.prefix}-none")


def test_a_pool_is_stopped_and_started_and_loses_nothing(bench: Bench) -> None:
    """Red when stop_pool or start_pool is an error the second time, or what lies there goes."""
    made = bench.driver.create_volume(bench.volume())
    mine = lambda: next(info for info in bench.driver.list_pools() if info.name == bench.pool.name)  # noqa: E731
    assert (mine().active, mine().autostart) == (True, True)
    for _turn in range(2):
        bench.driver.stop_pool(bench.pool.name)
    assert not mine().active and mine().autostart
    with pytest.raises(errors.PoolInactive):
        bench.driver.list_volumes(bench.pool.name)
    for _turn in range(2):
        bench.driver.start_pool(bench.pool.name)
    assert mine().active and bench.driver.list_volumes(bench.pool.name) == (made,)


def test_a_pool_starts_with_its_host_or_not(bench: Bench) -> None:
    """Red when autostart_pool starts or stops it now, ensure_pool changes it, or list_pools does not tell."""
    for on in (False, True, True):
        bench.driver.autostart_pool(bench.pool.name, on)
        mine = next(info for info in bench.driver.list_pools() if info.name == bench.pool.name)
        assert (mine.active, mine.autostart) == (True, on)
        bench.driver.ensure_pool(bench.pool)
        assert [one.autostart for one in bench.driver.list_pools() if one.name == bench.pool.name] == [on]


def test_a_pool_that_is_not_there_is_neither_started_nor_stopped(bench: Bench) -> None:
    none = f"{bench.prefix}-none"
    for act in (bench.driver.start_pool, bench.driver.stop_pool):
        with pytest.raises(errors.PoolNotFound):
            act(none)
    with pytest.raises(errors.PoolNotFound):
        bench.driver.autostart_pool(none, True)


def test_a_volume_grows_and_never_shrinks(bench: Bench) -> None:
    """Red when resize_volume passes a smaller size on."""
    for kind in ("qcow2", "raw"):
        made = bench.driver.create_volume(bench.volume(kind, format=kind))
        assert made.format == kind
        grown = bench.driver.resize_volume(made.pool, made.name, 16 * MIB)
        assert (grown.capacity_bytes, grown.format) == (16 * MIB, kind)
        assert bench.driver.resize_volume(made.pool, made.name, 16 * MIB).capacity_bytes == 16 * MIB
        with pytest.raises(errors.InvalidSpec):
            bench.driver.resize_volume(made.pool, made.name, 8 * MIB)
        assert bench.driver.volume_info(made.pool, made.name).capacity_bytes == 16 * MIB
    with pytest.raises(errors.VolumeNotFound):
        bench.driver.resize_volume(bench.pool.name, "none.qcow2", MIB)


def test_a_volume_of_another_format_is_another_one(bench: Bench) -> None:
    """Red when create_volume does not compare the format."""
    bench.driver.create_volume(bench.volume(format="raw"))
    with pytest.raises(errors.AlreadyExists):
        bench.driver.create_volume(bench.volume())


def test_a_fresh_volume_is_never_one_that_is_there(bench: Bench) -> None:
    """Red when create_volume takes a volume that is the same for the fresh one."""
    made = bench.driver.create_volume(bench.volume(fresh=True))
    copied = bench.volume(fresh=True, backing_path=made.path, clone=CloneMode.FULL)
    for spec in (bench.volume(fresh=True), bench.volume(fresh=True, format="raw"), copied):
        with pytest.raises(errors.AlreadyExists):
            bench.driver.create_volume(spec)
    assert bench.driver.volume_info(made.pool, made.name) == made
    assert bench.driver.create_volume(bench.volume()) == made


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_a_file_that_comes_at_the_last_moment_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when a refusal of libvirt's own is no AlreadyExists: libvirt saw no such file, and one comes."""
    monkeypatch.setattr(libvirt_volume, "refresh", lambda _pool: True)
    base = bench.driver.create_volume(bench.volume("base"))
    for kind, changes in (("qcow2", {}), ("raw", {}), ("qcow2", {"backing_path": base.path})):
        spec = bench.volume(kind, format=kind, fresh=True, clone=CloneMode.FULL, **changes)
        path = Path(bench.pool.path) / spec.name
        path.write_bytes(b"theirs")
        with pytest.raises(errors.AlreadyExists):
            bench.driver.create_volume(spec)
        assert path.read_bytes() == b"theirs"
        path.unlink()


def test_a_raw_volume_is_cloned_in_full_alone(bench: Bench) -> None:
    base = bench.driver.create_volume(bench.volume("base", format="raw"))
    spec = bench.volume("copy", backing_path=base.path, backing_format="raw", format="raw")
    copy = bench.driver.create_volume(replace(spec, clone=CloneMode.FULL))
    assert (copy.format, copy.backing_path, copy.capacity_bytes) == ("raw", None, 8 * MIB)
    with pytest.raises(errors.InvalidSpec):
        bench.driver.create_volume(spec)


def test_a_volume_is_copied_as_what_it_is_said_to_be_alone(bench: Bench) -> None:
    """Red when only what a volume reads as counts: see the next test."""
    base = bench.driver.create_volume(bench.volume("base"))
    for format in ("raw", "qcow2"):
        with pytest.raises(errors.StrangeFormat):
            spec = bench.volume("copy", backing_path=base.path, backing_format="raw", format=format)
            bench.driver.create_volume(replace(spec, clone=CloneMode.FULL))
    assert [volume.name for volume in bench.driver.list_volumes(bench.pool.name)] == [base.name]


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
@pytest.mark.parametrize("busy", [False, True])
def test_what_a_guest_writes_into_its_raw_disk_names_no_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    """Red when libvirt's own look decides: the copy would hold a file of the host, to be read by the guest.

    Also while the pool is busy, when libvirt knows the volume as it was before.
    """
    secret, overlay = tmp_path / "secret", tmp_path / "overlay.qcow2"
    secret.write_bytes(b"secret".ljust(MIB))
    making = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", overlay, "8M"]
    subprocess.run(making, check=True)
    base = bench.driver.create_volume(bench.volume("base", format="raw"))
    if busy:
        monkeypatch.setattr(libvirt_volume, "refresh", lambda _pool: False)
    with open(base.path, "r+b") as file:
        file.write(overlay.read_bytes())
    spec = bench.volume("copy", backing_path=base.path, backing_format="raw", clone=CloneMode.FULL)
    with pytest.raises(errors.StrangeFormat):
        bench.driver.create_volume(spec)
    others = [path for path in Path(bench.pool.path).iterdir() if path.name != base.name]
    assert not any(b"secret" in path.read_bytes() for path in others)


def test_a_volume_is_read_in_parts_to_its_end(bench: Bench) -> None:
    """Red when read_volume ignores the offset, or does not end."""
    made = bench.driver.create_volume(bench.volume(format="raw", capacity_bytes=5 * MIB))
    parts, at = [], 0
    while part := bench.driver.read_volume(made.pool, made.name, at, LONGEST_READ):
        parts.append(len(part))
        at += len(part)
    assert parts == [LONGEST_READ, 5 * MIB - LONGEST_READ] and made.length_bytes == at
    for offset, length in ((-1, 1), (0, 0), (0, LONGEST_READ + 1)):
        with pytest.raises(errors.InvalidSpec):
            bench.driver.read_volume(made.pool, made.name, offset, length)


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_what_is_read_is_the_file_byte_by_byte(bench: Bench, image: Path) -> None:
    made = bench.driver.upload_image(bench.pool.name, bench.volume("image").name, str(image))
    content, at = b"", 0
    while part := bench.driver.read_volume(made.pool, made.name, at, MIB):
        content += part
        at += len(part)
    assert content == image.read_bytes() and len(content) == made.length_bytes


def test_who_uses_a_volume_is_told(bench: Bench) -> None:
    """Red when volume_users looks at what runs alone."""
    spare = bench.driver.create_volume(bench.volume("spare"))
    domain = bench.domain()
    bench.driver.define(domain)
    (disk,), seed = domain.disks, domain.seed_path or ""
    for path in (disk.path, seed):
        assert bench.driver.volume_users(bench.pool.name, path.rpartition("/")[2]) == (domain.name,)
    assert bench.driver.volume_users(spare.pool, spare.name) == ()
    bench.driver.attach_disk(domain.uuid, DiskSpec(spare.path, "vdb"))
    assert bench.driver.volume_users(spare.pool, spare.name) == (domain.name,)


def test_who_uses_a_pool_is_told(bench: Bench) -> None:
    """Red when pool_users looks at one volume alone, or tells who uses nothing of it."""
    bench.driver.create_volume(bench.volume("a-spare"))
    assert bench.driver.pool_users(bench.pool.name) == ()
    domain = replace(bench.domain(), seed_path=None)
    bench.driver.define(domain)
    other = replace(domain, name=f"{bench.prefix}-other", uuid=str(uuid.uuid4()), disks=(), nics=())
    bench.driver.define(other)
    bench.driver.create_volume(bench.volume("z-spare"))
    assert bench.driver.pool_users(bench.pool.name) == (domain.name,)
    with pytest.raises(errors.PoolNotFound):
        bench.driver.pool_users(f"{bench.prefix}-none")


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_a_file_system_is_mounted_and_fills_up(bench: Bench, device: str, image: Path) -> None:
    """Red when ensure_pool or remove_pool formats or empties a device, or a full one is told otherwise."""
    name = f"{bench.prefix}-fs"
    spec = PoolSpec(name, str(uuid.uuid4()), f"{POOL_ROOT}/{name}", PoolKind.FS, device)
    bench.driver.ensure_pool(spec)
    try:
        bench.driver.ensure_pool(spec)
        info = bench.driver.refresh_pool(name)
        assert (info.kind, info.active) == ("fs", True) and 0 < info.capacity_bytes <= 24 * MIB
        kept = bench.driver.upload_image(name, "kept.qcow2", str(image))
        full = replace(bench.volume("full", backing_path=kept.path), pool=name, clone=CloneMode.FULL)
        filler = Path(spec.path) / "filler"
        filler.write_bytes(secrets.token_bytes(info.available_bytes - 4 * MIB))
        bench.driver.refresh_pool(name)
        with pytest.raises(errors.PoolFull):
            bench.driver.create_volume(replace(full, capacity_bytes=16 * MIB))
        filler.unlink()
        bench.driver.remove_pool(name)
        assert not Path(spec.path).is_mount()
        bench.driver.ensure_pool(spec)
        assert "kept.qcow2" in [volume.name for volume in bench.driver.list_volumes(name)]
    finally:
        bench.driver.remove_pool(name)
        Path(spec.path).rmdir()
