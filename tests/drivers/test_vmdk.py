"""Disks as VMware writes them, also in strangers' appliances: which are taken, and what becomes of them."""

import secrets
import struct
import subprocess
from pathlib import Path

import pytest

from portal.drivers import imagefile, sandbox
from tests.drivers.test_imagefile import GIB, MIB, MOST, disk_bytes, make, write

DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=1
parentCID={parent}
createType="{kind}"
{hint}{extent}
"""


def judged(path: str) -> imagefile.Judged:
    return imagefile.judge(path, iso=False, most_capacity=MOST)


def reason(path: str) -> tuple[str, str]:
    with pytest.raises(imagefile.Unfit) as refused:
        judged(path)
    return refused.value.code, refused.value.raw


def pack(raw: Path, packed: Path, kind: str) -> None:
    told = ["-O", "vmdk", "-o", f"subformat={kind}"]
    subprocess.run(["qemu-img", "convert", *told, raw, packed], check=True)


def sparse(path: Path, **changes: str) -> str:
    """Make a sparse VMDK whose own descriptor, inside it, says something else."""
    made = make(path, "-f", "vmdk", size="1M")
    told = {"parent": "ffffffff", "kind": "monolithicSparse", "hint": "", "extent": 'RW 2048 SPARSE "a"'}
    with path.open("r+b") as file:
        file.seek(SECTOR_OF_DESCRIPTOR)
        file.write(DESCRIPTOR.format(**told | changes).encode().ljust(1024, b"\0"))
    return made


SECTOR_OF_DESCRIPTOR = 512


@pytest.mark.parametrize("kind", ["monolithicSparse", "streamOptimized"])
def test_a_disk_of_one_file_becomes_a_qcow2_with_the_same_content(tmp_path: Path, kind: str) -> None:
    """Red when it is converted as if it were raw."""
    raw, packed, target, back = (tmp_path / name for name in "abcd")
    raw.write_bytes(disk_bytes(2 * MIB))
    pack(raw, packed, kind)
    found = judged(str(packed))
    assert (found.format, found.capacity_bytes) == ("vmdk", 2 * MIB)
    imagefile.to_qcow2(str(packed), str(target), found.capacity_bytes, form=found.format)
    assert imagefile.judge(str(target), iso=False, most_capacity=MOST).capacity_bytes == 2 * MIB
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", target, back], check=True)
    assert back.read_bytes() == raw.read_bytes()


def test_one_that_names_other_files_is_refused_before_anything_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when `vmdk.capacity_bytes` does not look at the kind in the descriptor inside."""
    monkeypatch.setattr(sandbox, "run", lambda *_a, **_k: pytest.fail("opened by QEMU"))
    extent = 'RW 8 FLAT "/etc/shadow" 0'
    flat = DESCRIPTOR.format(parent="ffffffff", kind="monolithicFlat", hint="", extent=extent)
    assert reason(write(tmp_path / "a", flat.encode().ljust(1024)))[0] == "image_foreign"
    # One of several files has the header of a whole one.
    make(tmp_path / "b.vmdk", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse")
    part = str(tmp_path / "b-s001.vmdk")
    assert reason(part) == ("image_foreign", "VMDK in several files")
    other = sparse(tmp_path / "c", kind="twoGbMaxExtentSparse")
    assert reason(other) == ("image_foreign", "VMDK in several files")


def test_one_that_stands_on_another_shows_nothing_of_it(tmp_path: Path) -> None:
    """Red when `_check_info` does not look for a backing file: the sandbox alone would keep it shut."""
    path = sparse(tmp_path / "a", parent="12345678", hint='parentFileNameHint="/etc/shadow"\n')
    code, raw = reason(path)
    assert code in {"image_backed", "image_damaged"} and "root" not in raw


@pytest.mark.parametrize(
    ("at", "content", "code"),
    [
        (12, struct.pack("<Q", (101 * GIB) // 512), "image_huge"),
        (12, struct.pack("<Q", 1 << 60), "image_huge"),
        (12, struct.pack("<Q", 0), "image_damaged"),
        (4, struct.pack("<I", 9), "image_damaged"),
        (20, struct.pack("<Q", 1 << 60), "image_damaged"),
        (44, struct.pack("<I", 0), "image_damaged"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, at: int, content: bytes, code: str) -> None:
    path = Path(make(tmp_path / "a", "-f", "vmdk"))
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)
    assert reason(str(path))[0] == code


def test_what_is_no_more_than_its_magic_is_refused(tmp_path: Path) -> None:
    assert reason(write(tmp_path / "a", b"KDMV"))[0] == "image_damaged"


def test_what_unpacks_to_more_than_there_is_room_for_ends_there(tmp_path: Path) -> None:
    """Red when the room is no limit of what the conversion writes: a small file fills the portal's disk."""
    raw, packed, target = (tmp_path / name for name in "abc")
    # Not zeros, which take no room, but what packs a hundred times.
    raw.write_bytes((b"gatehouse" * (64 * MIB // 9)).ljust(64 * MIB))
    pack(raw, packed, "streamOptimized")
    found = judged(str(packed))
    assert packed.stat().st_size < 4 * MIB
    with pytest.raises(OSError, match="No space left"):
        imagefile.to_qcow2(
            str(packed), str(target), found.capacity_bytes, form=found.format, room_bytes=8 * MIB
        )
    assert target.stat().st_size <= 8 * MIB


@pytest.mark.parametrize("kind", ["monolithicSparse", "streamOptimized"])
def test_half_of_one_is_refused(tmp_path: Path, kind: str) -> None:
    """Red when VMDK is none of `_TABLES`: a half one would be told only while it is converted."""
    raw, packed = tmp_path / "a", tmp_path / "b"
    raw.write_bytes(secrets.token_bytes(4 * MIB))
    pack(raw, packed, kind)
    whole = packed.read_bytes()
    assert judged(write(packed, whole)).format == "vmdk"
    code, found = reason(write(packed, whole[: len(whole) // 2]))
    assert code == "image_corrupt" and found


def test_a_damaged_grain_is_told(tmp_path: Path) -> None:
    raw, packed, target = (tmp_path / name for name in "abc")
    raw.write_bytes(disk_bytes(2 * MIB))
    pack(raw, packed, "streamOptimized")
    whole = packed.read_bytes()
    place = whole.index(b"\x78", 65536)  # a zlib stream begins
    packed.write_bytes(whole[: place + 100] + bytes(1000) + whole[place + 1100 :])
    found = judged(str(packed))
    with pytest.raises(imagefile.Unfit) as refused:
        imagefile.to_qcow2(str(packed), str(target), found.capacity_bytes, form=found.format)
    assert refused.value.code == "image_unconverted"
