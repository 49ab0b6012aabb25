"""Disks as VirtualBox, Hyper-V and Azure write them: which are taken, and what becomes of them."""

import struct
import subprocess
from pathlib import Path

import pytest

from portal.drivers import imagefile, sandbox, vhd
from tests.drivers.test_imagefile import MIB, MOST, disk_bytes, judged, make, put, reason, write

KINDS = {
    "vdi": ("vdi", "static=off"),
    "vdi-fixed": ("vdi", "static=on"),
    "vhd": ("vpc", "subformat=dynamic,force_size=on"),
    "vhd-fixed": ("vpc", "subformat=fixed,force_size=on"),
    "vhdx": ("vhdx", "subformat=dynamic"),
    "vhdx-fixed": ("vhdx", "subformat=fixed"),
}


def disk(path: Path, kind: str, content: bytes = b"") -> str:
    """Make a disk of a kind; what is in it lies beside it as raw."""
    raw, (form, options) = path.with_suffix(".raw"), KINDS[kind]
    raw.write_bytes(content or disk_bytes(3 * MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, "-o", options, raw, path], check=True)
    return str(path)


def seal(path: Path, at: int, content: bytes) -> str:
    """Write into the footer of a VHD, and its copy at the beginning, with a sum that holds."""
    whole = bytearray(path.read_bytes())
    for place in {0, len(whole) - 512} if whole.startswith(vhd.MAGIC) else {len(whole) - 512}:
        footer = whole[place : place + 512]
        footer[at : at + len(content)] = content
        footer[64:68] = bytes(4)
        footer[64:68] = struct.pack(">I", ~sum(footer) & 0xFFFFFFFF)
        whole[place : place + 512] = footer
    path.write_bytes(whole)
    return str(path)


def content_of(path: str, found: imagefile.Judged, target: Path) -> bytes:
    """Return what is in it once it is a qcow2 that is taken itself."""
    imagefile.to_qcow2(path, str(target), found.capacity_bytes, form=found.format)
    assert judged(str(target)).capacity_bytes == found.capacity_bytes
    back = target.with_suffix(".back")
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", target, back], check=True)
    return back.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_each_becomes_a_qcow2_with_the_same_content(tmp_path: Path, kind: str) -> None:
    """Red when one is converted as if it were raw, or its size is read elsewhere."""
    path = disk(tmp_path / "with, a comma", kind)
    found = judged(path)
    assert (found.format, found.capacity_bytes) == (KINDS[kind][0], 3 * MIB)
    assert content_of(path, found, tmp_path / "b") == (tmp_path / "with, a comma.raw").read_bytes()


@pytest.mark.parametrize("kind", ["vhd", "vhd-fixed"])
def test_the_end_of_a_disk_is_not_lost_whoever_wrote_it(tmp_path: Path, kind: str) -> None:
    """Red when QEMU believes the geometry, as it does of what VirtualBox wrote: it ends before the disk."""
    content = disk_bytes(3 * MIB - 512) + b"the very last sector".ljust(512)
    path = disk(tmp_path / "a", kind, content)
    seal(Path(path), 28, b"vbox")
    seal(Path(path), 56, struct.pack(">HBB", 90, 4, 17))
    said = subprocess.run(["qemu-img", "info", "-f", "vpc", path], capture_output=True, text=True, check=True)
    assert f"{3 * MIB} bytes" not in said.stdout
    found = judged(path)
    assert found.capacity_bytes == 3 * MIB and content_of(path, found, tmp_path / "b") == content


@pytest.mark.parametrize("kind", ["vdi", "vdi-fixed", "vhd", "vhdx", "vhdx-fixed"])
def test_half_of_one_is_refused(tmp_path: Path, kind: str) -> None:
    """Red when it is not asked where a VDI's blocks end: QEMU reads zeros beyond the file."""
    path = Path(disk(tmp_path / "a", kind))
    whole = path.read_bytes()
    code, raw = reason(write(path, whole[: len(whole) // 2]))
    assert code in {"image_damaged", "image_corrupt"} and raw
    assert reason(write(path, whole[:300]))[0] in {"image_damaged", "image_unknown"}


def test_what_stands_on_another_is_refused_before_anything_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when the mark of a difference is not looked at: QEMU reads such a VHD as if it were whole."""
    paths = {kind: Path(disk(tmp_path / kind, kind)) for kind in ("vdi", "vhd", "vhdx")}
    monkeypatch.setattr(sandbox, "run", lambda *_a, **_k: pytest.fail("opened by QEMU"))
    assert reason(put(paths["vdi"], 76, struct.pack("<I", 4)))[0] == "image_backed"
    put(paths["vdi"], 76, struct.pack("<I", 1))
    assert reason(put(paths["vdi"], 440, b"x" * 16))[0] == "image_backed"
    assert reason(seal(paths["vhd"], 60, struct.pack(">I", 4)))[0] == "image_backed"
    whole = paths["vhdx"].read_bytes()
    told = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
    table = whole.index(b"metadata\0\0")
    entry = whole.index(told, table)
    (at,) = struct.unpack_from("<I", whole, entry + 16)
    assert reason(put(paths["vhdx"], table + at + 4, struct.pack("<I", 2)))[0] == "image_backed"


@pytest.mark.parametrize(
    ("kind", "at", "content", "code"),
    [
        ("vdi", 368, struct.pack("<Q", 1 << 60), "image_huge"),
        ("vdi", 368, struct.pack("<Q", 0), "image_huge"),
        ("vdi", 376, struct.pack("<I", 0), "image_damaged"),
        ("vdi", 344, struct.pack("<I", (1 << 32) - 1), "image_damaged"),
        ("vdi", 388, struct.pack("<I", (1 << 32) - 1), "image_damaged"),
        ("vdi", 68, struct.pack("<I", 1), "image_damaged"),
        ("vhd", 0, b"conectix".ljust(512, b"x"), "image_damaged"),
        ("vhdx", 192 << 10, bytes(128 << 10), "image_damaged"),
        ("vhdx", (192 << 10) + 8, b"\xff" * 4, "image_damaged"),
        ("vhdx", (192 << 10) + 16 + 16, b"\xff" * 8, "image_damaged"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, kind: str, at: int, content: bytes, code: str) -> None:
    path = Path(disk(tmp_path / "a", kind))
    if kind == "vhdx":
        # The second table of regions is asked where the first is none.
        put(path, 256 << 10, bytes(64 << 10))
    assert reason(put(path, at, content))[0] == code


def test_a_huge_vhd_is_refused(tmp_path: Path) -> None:
    path = Path(disk(tmp_path / "a", "vhd"))
    assert reason(seal(path, 48, struct.pack(">Q", 1 << 60)))[0] == "image_huge"
    assert reason(make(tmp_path / "b", "-f", "vhdx", size="101G"))[0] == "image_huge"


def test_a_raw_disk_that_has_the_word_of_a_vhd_in_its_last_sector_stays_one(tmp_path: Path) -> None:
    """Red when the sum of a fixed VHD's footer is not looked at: the guest's last sector would be cut off."""
    footer = b"conectix".ljust(60, b"\0") + struct.pack(">I", 2)
    raw = write(tmp_path / "a", disk_bytes(MIB - 512) + footer.ljust(512, b"\0"))
    assert judged(raw) == imagefile.Judged("raw", MIB, MIB)


def test_the_sizes_are_those_that_qemu_reads(tmp_path: Path) -> None:
    """Red when a size that is no whole number of sectors, or blocks, is read otherwise."""
    for kind, (form, options) in KINDS.items():
        size = "7340544" if kind != "vhdx-fixed" else "8M"  # 7 MiB and a sector
        path = make(tmp_path / kind, "-f", form, "-o", options, size=size)
        found = imagefile.judge(path, iso=False, most_capacity=MOST)
        assert (found.format, found.capacity_bytes) == (form, 8 * MIB if size == "8M" else 7340544)
