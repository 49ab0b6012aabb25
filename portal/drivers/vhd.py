"""Read the footer of a VHD, which Virtual PC, Hyper-V and Azure write; not for changing one.

Format: Microsoft's Virtual Hard Disk Image Format Specification, 1.0. A dynamic one has a copy of the footer
at its beginning; a fixed one is a raw disk with the footer behind it.
"""

import struct
from pathlib import Path

from portal.drivers.errors import DependsOnAnother, InvalidSpec

MAGIC = b"conectix"
SECTOR = 512
#: size of the disk; kind; the complement of the sum of all other bytes. Big-endian.
_SIZE, _KIND, _SUM = struct.Struct(">Q"), struct.Struct(">I"), struct.Struct(">I")
_SIZE_AT, _KIND_AT, _SUM_AT = 48, 60, 64
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4


def is_one(head: bytes, tail: bytes) -> bool:
    """Tell whether a file is a VHD by its beginning, or by its last sector, which holds for a fixed one.

    Any raw disk may have the word there, but not by chance a whole footer of its own size.
    """
    return head.startswith(MAGIC) or (_is_footer(tail) and _kind(tail) == _FIXED)


def _is_footer(sector: bytes) -> bool:
    if len(sector) < SECTOR or not sector.startswith(MAGIC):
        return False
    (told,) = _SUM.unpack_from(sector, _SUM_AT)
    rest = sum(sector) - sum(sector[_SUM_AT : _SUM_AT + _SUM.size])
    return bool(told == ~rest & 0xFFFFFFFF)


def _kind(footer: bytes) -> int:
    return int(_KIND.unpack_from(footer, _KIND_AT)[0])


def capacity_bytes(path: str) -> int:
    """Return the size of the disk inside, in bytes.

    Raises DependsOnAnother for what is based on another file, InvalidSpec for what is damaged or cut off,
    OSError.
    """
    with Path(path).open("rb") as file:
        head = file.read(SECTOR)
        length = file.seek(0, 2)
        file.seek(max(0, length - SECTOR))
        tail = file.read(SECTOR)
    fixed = not head.startswith(MAGIC)
    footer = tail if fixed else head
    if not _is_footer(footer):
        raise InvalidSpec("its header is damaged")
    if _kind(footer) == _DIFFERENCING:
        raise DependsOnAnother("the VHD that it is the difference to")
    if _kind(footer) != (_FIXED if fixed else _DYNAMIC):
        raise InvalidSpec(f"a VHD of the kind {_kind(footer)}")
    size = int(_SIZE.unpack_from(footer, _SIZE_AT)[0])
    if fixed and size > length - SECTOR:
        raise InvalidSpec("it ends before its content does")
    return size // SECTOR * SECTOR
