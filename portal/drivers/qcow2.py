"""Read the header of a qcow2 file; not for changing one.

Format: QEMU's docs/interop/qcow2.txt.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from portal.drivers.errors import InvalidSpec

MAGIC = b"QFI\xfb"
SECTOR = 512
_HEADER = struct.Struct(">4sIQIIQ")  # magic, version, backing name's offset, its size, cluster bits, size
_FEATURES = struct.Struct(">Q")
_FEATURES_AT = 72
_EXTERNAL_DATA = 1 << 2


@dataclass(frozen=True, slots=True)
class Qcow2:
    """A self-contained qcow2 file: its length and the size of the disk inside, in bytes."""

    length_bytes: int
    capacity_bytes: int


def inspect(path: str) -> Qcow2:
    """Return a file's length and virtual size.

    Raises InvalidSpec when it cannot be read, is no qcow2, or names another file: a backing file or
    an external data file would let whoever made the image read any file of the host.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(SECTOR)
            length = file.seek(0, 2)
    except OSError as error:
        raise InvalidSpec(f"{path}: {error.strerror}") from error
    if len(head) < SECTOR or not head.startswith(MAGIC):
        raise InvalidSpec(f"{path} is no qcow2 image")
    _magic, version, backing, _size, _bits, capacity = _HEADER.unpack_from(head)
    features = _FEATURES.unpack_from(head, _FEATURES_AT)[0] if version >= 3 else 0
    if backing or features & _EXTERNAL_DATA:
        raise InvalidSpec(f"{path} depends on another file")
    return Qcow2(length, capacity)
