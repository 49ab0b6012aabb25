"""Look at the volume descriptor of an ISO 9660 image; not for its files.

Format: ECMA-119, 8.4.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from portal.drivers.errors import InvalidSpec

#: Where the sector of the first volume descriptor begins. The 16 before it are for boot loaders, or empty.
DESCRIPTOR_AT = 16 * 2048
MARK = b"CD001"
_VOLUME_BLOCKS_AT, _BLOCK_SIZE_AT = 80, 128


@dataclass(frozen=True, slots=True)
class Iso:
    """An ISO file: its length in bytes, and what it is called, '' for nothing."""

    length_bytes: int
    label: str


def is_iso(path: str) -> bool:
    """Tell whether a file has the mark of an ISO 9660 image. Raises OSError."""
    with Path(path).open("rb") as file:
        file.seek(DESCRIPTOR_AT + 1)
        return file.read(len(MARK)) == MARK


def inspect(path: str) -> Iso:
    """Return a file's length and label.

    Raises InvalidSpec when it cannot be read, is no ISO, or ends before the volume does.
    """
    try:
        with Path(path).open("rb") as file:
            length = file.seek(0, 2)
            file.seek(DESCRIPTOR_AT)
            head = file.read(2048)
    except OSError as error:
        raise InvalidSpec(f"{path}: {error.strerror}") from error
    if len(head) < 2048 or head[1:6] != MARK:
        raise InvalidSpec(f"{path} is no ISO 9660 image")
    (blocks,) = struct.unpack_from("<I", head, _VOLUME_BLOCKS_AT)
    (size,) = struct.unpack_from("<H", head, _BLOCK_SIZE_AT)
    if blocks * size > length:
        raise InvalidSpec(f"{path} has {length} bytes of a volume of {blocks * size}")
    return Iso(length, head[40:72].decode("ascii", "replace").strip())
