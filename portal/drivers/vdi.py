"""Read the header of a VDI, which VirtualBox writes; not for changing one.

Format: VirtualBox's VDICore.h, version 1.1.
"""

import struct
from pathlib import Path

from portal.drivers.errors import DependsOnAnother, InvalidSpec

MAGIC_AT, MAGIC = 64, b"\x7f\x10\xda\xbe"
SECTOR = 512
#: version; kind of image; where its blocks begin; sizes of the disk and of a block, how many are there;
#: what it is based on, by two UUIDs.
_VERSION, _KIND, _DATA = struct.Struct("<I"), struct.Struct("<I"), struct.Struct("<I")
_SIZES, _BELOW = struct.Struct("<QIIII"), struct.Struct("16s16s")
_VERSION_AT, _KIND_AT, _DATA_AT, _SIZES_AT, _BELOW_AT = 68, 76, 344, 368, 424
_VERSION_1_1 = 0x00010001
#: What stands by itself: a dynamic and a fixed one.
_WHOLE = frozenset({1, 2})


def is_one(head: bytes) -> bool:
    """Tell by its beginning whether a file is a VDI."""
    return head[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC


def capacity_bytes(path: str) -> int:
    """Return the size of the disk inside, in bytes.

    Raises DependsOnAnother for what is based on another file, InvalidSpec for what is damaged or cut off,
    OSError.
    """
    with Path(path).open("rb") as file:
        head = file.read(SECTOR)
        length = file.seek(0, 2)
    if len(head) < SECTOR or not is_one(head):
        raise InvalidSpec("its header is cut off")
    (version,) = _VERSION.unpack_from(head, _VERSION_AT)
    if version != _VERSION_1_1:
        raise InvalidSpec(f"a VDI of the version {version >> 16}.{version & 0xFFFF}")
    (kind,) = _KIND.unpack_from(head, _KIND_AT)
    if kind not in _WHOLE or any(map(any, _BELOW.unpack_from(head, _BELOW_AT))):
        raise DependsOnAnother("the VDI that it was a snapshot of")
    (data,) = _DATA.unpack_from(head, _DATA_AT)
    size, block, _more, _blocks, there = _SIZES.unpack_from(head, _SIZES_AT)
    # QEMU reads zeros where a block ends beyond the file. The last one may be as short as the disk makes it.
    shortest = SECTOR if size % (block or 1) else block
    if there and data + (there - 1) * block + shortest > length:
        raise InvalidSpec("it ends before its content does")
    return int(-(-size // SECTOR) * SECTOR)
