"""Judge an image file that somebody handed in: what it is, and why the portal does not take it.

First its bytes are read by the portal's own code; only what passes is opened by QEMU's tools, in a sandbox.
Not for: whose it is and what becomes of it.
"""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from portal.drivers import iso9660, sandbox, vdi, vhd, vhdx, vmdk
from portal.drivers.errors import DependsOnAnother, DriverError, InvalidSpec
from portal.drivers.qcow2 import MAGIC, HeaderFacts, header_facts

SECTOR = 512
#: Where a PC's disk says that it can be booted, and what stands there.
_BOOT_MARK_AT, _BOOT_MARK = 510, b"\x55\xaa"
#: Formats that become qcow2, as QEMU calls them: the size of the disk inside, by the portal's own reading.
_CAPACITY: dict[str, Callable[[str], int]] = {
    "vmdk": vmdk.capacity_bytes,
    "vdi": vdi.capacity_bytes,
    "vpc": vhd.capacity_bytes,
    "vhdx": vhdx.capacity_bytes,
}
#: How people call them.
_NAMES = {"vmdk": "VMDK", "vdi": "VDI", "vpc": "VHD", "vhdx": "VHDX"}
#: Formats whose tables `qemu-img check` goes through.
_TABLES = frozenset({"qcow2", "vmdk", "vdi", "vhdx"})
_PIECES = "VMDK in several files"
#: Formats that are not taken, by how their files begin.
_FOREIGN = (
    (vmdk.TEXT, _PIECES),
    (b"COWD", "VMDK of ESX"),
    (b"QED\0", "QED"),
    (b"LUKS\xba\xbe", "LUKS"),
    (b"WithoutFreeSpace", "Parallels"),
    (b"WithouFreSpacExt", "Parallels"),
)
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
)
_TAR_AT, _TAR = 257, b"ustar"
INFO_SECONDS = 30.0
#: Bytes a second that a conversion, or a check, reads at the very least.
SLOWEST = 20 << 20
#: What a program says that met a full disk, or a broken one (its language is C's).
_NO_ROOM, _BROKEN = ("No space left on device", "Disk quota exceeded"), "Input/output error"
#: How `qemu-img check` ends where it found nothing but room that is taken and not used.
_LEAKS = 3
Check = Callable[[], None]


def _nothing() -> None:
    """Stop nobody."""


class Unfit(DriverError):
    """The file is not taken; `code` selects the sentence, `raw` is the word in it."""

    def __init__(self, code: str, raw: str = "") -> None:
        super().__init__(raw)
        self.code = code  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Judged:
    """A file that is taken, its length and the size of the disk in bytes.

    `format` is `iso`, or QEMU's word: what is neither that nor `qcow2` becomes a qcow2 by `to_qcow2`.
    """

    format: str
    length_bytes: int
    capacity_bytes: int


def judge(
    path: str, *, iso: bool, most_capacity: int, raw: bool = False, check: Check = _nothing
) -> Judged:
    """Return what the file is. Raises Unfit with the reason, SandboxMissing, ProgramCut, OSError.

    What a person says is `raw` is a disk byte for byte: nobody asks what a guest may have written there.
    `check` is called each second while QEMU looks whether a file is whole, and ends that by raising.
    """
    head, tail, length = _ends_of(path)
    if not length:
        raise Unfit("image_empty")
    if raw:
        return _judge_raw(length, most_capacity)
    _refuse_packed(head)
    other = _other_format(head, tail)
    if iso:
        # A CD has 32 KiB before its own first word, and a host's pool believes what stands there: a qcow2
        # header would name any file of the host as what the volume stands on.
        if head.startswith(MAGIC):
            raise Unfit("iso_invalid")
        if other:
            raise Unfit("image_foreign", _NAMES[other])
        _refuse_foreign(head)
        return _judge_iso(path)
    if head.startswith(MAGIC):
        return _judge_qcow2(path, length, most_capacity, check)
    if other:
        return _judge_other(path, other, length, most_capacity, check)
    _refuse_foreign(head)
    if iso9660.is_iso(path):
        raise Unfit("image_is_iso")
    if head[_BOOT_MARK_AT : _BOOT_MARK_AT + 2] != _BOOT_MARK:
        raise Unfit("image_unknown")
    return _judge_raw(length, most_capacity)


def _other_format(head: bytes, tail: bytes) -> str:
    """Return which of the formats that are converted a file has by its first and last bytes, '' for none."""
    if head.startswith(vmdk.MAGIC):
        return "vmdk"
    if head.startswith(vhdx.MAGIC):
        return "vhdx"
    if vdi.is_one(head):
        return "vdi"
    return "vpc" if vhd.is_one(head, tail) else ""


def looks_otherwise(path: str) -> bool:
    """Tell whether what is said to be a raw disk begins, or ends, like another format. Raises OSError."""
    head, tail, _length = _ends_of(path)
    return head.startswith(MAGIC) or begins_as_tar(head) or bool(_other_format(head, tail))


def _ends_of(path: str) -> tuple[bytes, bytes, int]:
    """Return how a file begins, its last sector, and its length. Raises OSError."""
    with Path(path).open("rb") as file:
        head = file.read(1024)
        length = file.seek(0, 2)
        file.seek(max(0, length - SECTOR))
        return head, file.read(SECTOR), length


def is_tar(path: str) -> bool:
    """Tell whether the file begins as a tar archive does, which an appliance is. Raises OSError."""
    with Path(path).open("rb") as file:
        return begins_as_tar(file.read(SECTOR))


def begins_as_tar(head: bytes) -> bool:
    """Tell whether a file that begins with `head`, 262 bytes at least, is a tar archive."""
    return head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR


def _refuse_packed(head: bytes) -> None:
    for magic, name in _PACKED:
        if head.startswith(magic):
            raise Unfit("image_packed", name)
    if begins_as_tar(head):
        raise Unfit("image_packed", "tar")


def _refuse_foreign(head: bytes) -> None:
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            raise Unfit("image_foreign", name)


def _judge_iso(path: str) -> Judged:
    if not iso9660.is_iso(path):
        raise Unfit("iso_invalid")
    try:
        found = iso9660.inspect(path)
    except InvalidSpec as error:
        raise Unfit("image_cut") from error
    return Judged("iso", found.length_bytes, found.length_bytes)


def _check_capacity(capacity: int, most: int) -> None:
    if not SECTOR <= capacity <= most:
        raise Unfit("image_huge", f"{capacity / (1 << 30):.1f} GiB")


def _judge_qcow2(path: str, length: int, most_capacity: int, check: Check) -> Judged:
    try:
        facts = header_facts(path)
    except InvalidSpec as error:
        raise Unfit("image_damaged", "its header is cut off") from error
    _refuse_by_header(facts)
    _check_capacity(facts.capacity_bytes, most_capacity)
    _check_info(path, "qcow2", facts.capacity_bytes)
    _check_whole(path, "qcow2", max(length, facts.capacity_bytes), check)
    return Judged("qcow2", length, facts.capacity_bytes)


def _judge_raw(length: int, most_capacity: int) -> Judged:
    capacity = -(-length // SECTOR) * SECTOR
    _check_capacity(capacity, most_capacity)
    return Judged("raw", length, capacity)


def _judge_other(path: str, form: str, length: int, most_capacity: int, check: Check) -> Judged:
    try:
        capacity = _CAPACITY[form](path)
    except DependsOnAnother as error:
        if form == "vmdk":
            raise Unfit("image_foreign", _PIECES) from error
        raise Unfit("image_backed", error.raw) from error
    except InvalidSpec as error:
        raise Unfit("image_damaged", error.raw.replace(path, "the file")) from error
    _check_capacity(capacity, most_capacity)
    _check_info(path, form, capacity)
    if form in _TABLES:
        _check_whole(path, form, max(length, capacity), check)
    return Judged(form, length, capacity)


def _source(path: str, form: str) -> list[str]:
    """Return how QEMU's tools are told of a file that has the format `form`."""
    if form == "vpc":
        # By itself it would believe the old geometry, which is smaller than the disk.
        name = path.replace(",", ",,")
        told = f"driver=vpc,force_size_calc=current_size,file.driver=file,file.filename={name}"
        return ["--image-opts", told]
    return ["-f", form, path]


def _check_info(path: str, form: str, capacity: int) -> None:
    """Raise Unfit unless QEMU makes of it what was checked: nothing that reads it later asks again."""
    info = _info(path, form)
    if info.get("format") != form or info.get("virtual-size") != capacity:
        raise Unfit("image_damaged", "QEMU reads another size in it")
    if info.get("backing-filename") or info.get("full-backing-filename"):
        raise Unfit("image_backed", str(info.get("backing-filename")))
    if info.get("encrypted"):
        raise Unfit("image_encrypted")


def _seconds(size: int) -> float:
    """Return how long QEMU may take to go through `size` bytes."""
    return 120.0 + size / SLOWEST


def _check_whole(path: str, form: str, size: int, check: Check) -> None:
    """Raise Unfit when QEMU finds that what the file's tables speak of is not there, or belongs to two."""
    argv = ["qemu-img", "check", "--output=json", *_source(path, form)]
    try:
        sandbox.run(argv, reads=[path], seconds=_seconds(size), check=check)
    except sandbox.ProgramFailed as error:
        if error.status == _LEAKS:
            return
        if _BROKEN in error.raw:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path) from error
        raise Unfit("image_corrupt", _line_of(error.raw, path)) from error


def _line_of(said: str, path: str) -> str:
    """Return the line of QEMU's complaints that says most."""
    lines = said.splitlines() or [""]
    line = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[0])
    return line.replace(path, "the file")


def _refuse_by_header(facts: HeaderFacts) -> None:
    if facts.version not in {2, 3}:
        raise Unfit("image_foreign", "QCOW1")
    if facts.backing:
        raise Unfit("image_backed", facts.backing)
    if facts.external_data:
        raise Unfit("image_external")
    if facts.encrypted:
        raise Unfit("image_encrypted")
    if facts.corrupt:
        raise Unfit("image_corrupt", "it is marked as corrupt")


def _info(path: str, form: str) -> dict[str, object]:
    try:
        said = sandbox.run(
            ["qemu-img", "info", "--output=json", *_source(path, form)], reads=[path], seconds=INFO_SECONDS
        )
        found: dict[str, object] = json.loads(said)
    except sandbox.ProgramFailed as error:
        raise Unfit("image_damaged", _line_of(error.raw, path)) from error
    except ValueError as error:
        raise Unfit("image_damaged", "QEMU said nothing of it") from error
    return found


def to_qcow2(
    source: str,
    target: str,
    capacity_bytes: int,
    *,
    form: str = "raw",
    room_bytes: int | None = None,
    check: Check = _nothing,
    progress: Callable[[int], None] = lambda percent: None,
) -> None:
    """Write the disk `source` as a qcow2 file `target`, on disk when this returns. Replaces a half one.

    `form` is what the source was judged to be. What is packed may unpack to a thousand times its length: the
    target never has more than `room_bytes`. `check` is called each second and ends it by raising; `progress`
    is told the percent.
    Raises Unfit when it cannot be done, OSError (ENOSPC) when there is no room for it, SandboxMissing,
    ProgramCut.
    """
    with open(target, "wb"):
        pass
    # A disk that is full of data, with the tables that say where it lies.
    most = capacity_bytes + capacity_bytes // 1000 + (16 << 20)
    longest = most if room_bytes is None else min(most, room_bytes)
    try:
        sandbox.run(
            ["qemu-img", "convert", "-p", *_source(source, form), "-O", "qcow2", target],
            reads=[source],
            writes=[target],
            seconds=_seconds(capacity_bytes),
            file_bytes=longest,
            check=check,
            progress=progress,
        )
    except sandbox.ProgramFailed as error:
        full = any(words in error.raw for words in _NO_ROOM)
        if full or (longest < most and sandbox.TOO_LONG in error.raw):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target) from error
        raise Unfit("image_unconverted", error.raw.replace(source, "the file")) from error
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
