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

from portal.drivers import iso9660, sandbox, vmdk
from portal.drivers.errors import DriverError, InvalidSpec
from portal.drivers.qcow2 import MAGIC, HeaderFacts, header_facts

SECTOR = 512
#: Where a PC's disk says that it can be booted, and what stands there.
_BOOT_MARK_AT, _BOOT_MARK = 510, b"\x55\xaa"
#: Other formats by how their files begin.
_FOREIGN = (
    (b"KDMV", "VMDK"),
    (b"# Disk DescriptorFile", "VMDK"),
    (b"COWD", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"QED\0", "QED"),
    (b"LUKS\xba\xbe", "LUKS"),
    (b"WithoutFreeSpace", "Parallels"),
    (b"WithouFreSpacExt", "Parallels"),
)
_VDI_AT, _VDI = 64, b"\x7f\x10\xda\xbe"
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
    """A file that is taken: `qcow2`, `raw`, `vmdk` or `iso`, its length and the size of the disk in bytes."""

    format: str
    length_bytes: int
    capacity_bytes: int


def judge(
    path: str, *, iso: bool, most_capacity: int, packed: bool = False, check: Check = _nothing
) -> Judged:
    """Return what the file is. Raises Unfit with the reason, SandboxMissing, ProgramCut, OSError.

    A disk that came `packed` in an appliance may be a VMDK, which is what others make appliances of.
    `check` is called each second while QEMU looks whether a file is whole, and ends that by raising.
    """
    with Path(path).open("rb") as file:
        head = file.read(1024)
        length = file.seek(0, 2)
    if not length:
        raise Unfit("image_empty")
    _refuse_packed(head)
    if iso:
        # A CD has 32 KiB before its own first word, and a host's pool believes what stands there: a qcow2
        # header would name any file of the host as what the volume stands on.
        if head.startswith(MAGIC):
            raise Unfit("iso_invalid")
        _refuse_foreign(head)
        return _judge_iso(path)
    if head.startswith(MAGIC):
        return _judge_qcow2(path, length, most_capacity, check)
    if packed and head.startswith(vmdk.MAGIC):
        return _judge_vmdk(path, length, most_capacity, check)
    _refuse_foreign(head)
    if iso9660.is_iso(path):
        raise Unfit("image_is_iso")
    if head[_BOOT_MARK_AT : _BOOT_MARK_AT + 2] != _BOOT_MARK:
        raise Unfit("image_unknown")
    capacity = -(-length // SECTOR) * SECTOR
    _check_capacity(capacity, most_capacity)
    return Judged("raw", length, capacity)


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
    if head[_VDI_AT : _VDI_AT + len(_VDI)] == _VDI:
        raise Unfit("image_foreign", "VDI")


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


def _judge_vmdk(path: str, length: int, most_capacity: int, check: Check) -> Judged:
    try:
        capacity = vmdk.capacity_bytes(path)
    except InvalidSpec as error:
        raise Unfit("image_damaged", error.raw.replace(path, "the file")) from error
    _check_capacity(capacity, most_capacity)
    _check_info(path, "vmdk", capacity)
    _check_whole(path, "vmdk", max(length, capacity), check)
    return Judged("vmdk", length, capacity)


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
    argv = ["qemu-img", "check", "--output=json", "-f", form, path]
    try:
        sandbox.run(argv, reads=[path], seconds=_seconds(size), check=check)
    except sandbox.ProgramFailed as error:
        if error.status == _LEAKS:
            return
        if _BROKEN in error.raw:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path) from error
        raise Unfit("image_corrupt", error.raw.rpartition("\n")[2].replace(path, "the file")) from error


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
            ["qemu-img", "info", "--output=json", "-f", form, path], reads=[path], seconds=INFO_SECONDS
        )
        found: dict[str, object] = json.loads(said)
    except sandbox.ProgramFailed as error:
        raise Unfit("image_damaged", error.raw.replace(path, "the file")) from error
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
) -> None:
    """Write the disk `source` as a qcow2 file `target`, on disk when this returns. Replaces a half one.

    `form` is what the source was judged to be. What is packed may unpack to a thousand times its length: the
    target never has more than `room_bytes`. `check` is called each second and ends it by raising.
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
            ["qemu-img", "convert", "-f", form, "-O", "qcow2", source, target],
            reads=[source],
            writes=[target],
            seconds=_seconds(capacity_bytes),
            file_bytes=longest,
            check=check,
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
