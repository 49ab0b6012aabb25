"""Read the header of a qcow2 file; not for changing one.

Format: QEMU's docs/interop/qcow2.txt.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from portal.drivers.errors import InvalidSpec

MAGIC = b"QFI\xfb"
SECTOR = 512
# magic, version, backing name's offset, its size, cluster bits, size, method of encryption
_HEADER = struct.Struct(">4sIQIIQI")
_LONGEST_NAME = 1023
_ENCRYPTED_AT, _SNAPSHOTS_AT = 32, 60
_COUNT = struct.Struct(">I")
_FEATURES = struct.Struct(">Q")
_FEATURES_AT = 72
_CORRUPT, _EXTERNAL_DATA = 1 << 1, 1 << 2


@dataclass(frozen=True, slots=True)
class Qcow2:
    """A self-contained qcow2 file: its length and the size of the disk inside, in bytes."""

    length_bytes: int
    capacity_bytes: int


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """What a header says, taken or not. `backing` is the name of the file below, '' for none.

    It is `corrupt` when QEMU once found it so, and wrote that down.
    """

    version: int
    length_bytes: int
    capacity_bytes: int
    backing: str
    external_data: bool
    encrypted: bool
    corrupt: bool


def header_facts(path: str) -> HeaderFacts:
    """Read a header. Raises InvalidSpec when the file cannot be read or is no qcow2."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(SECTOR)
            length = file.seek(0, 2)
            if len(head) < SECTOR or not head.startswith(MAGIC):
                raise InvalidSpec(f"{path} is no qcow2 image")
            _magic, version, backing, size, _bits, capacity, encrypted = _HEADER.unpack_from(head)
            file.seek(min(backing, length))
            name = file.read(min(size, _LONGEST_NAME)).decode(errors="replace") if backing else ""
    except OSError as error:
        raise InvalidSpec(f"{path}: {error.strerror}") from error
    below = name or ("?" if backing else "")
    external, corrupt = has_external_data(head), _has(head, _CORRUPT)
    return HeaderFacts(version, length, capacity, below, external, bool(encrypted), corrupt)


def has_external_data(head: bytes) -> bool:
    """Tell by the first sector of a qcow2 whether its content lies in another file."""
    return _has(head, _EXTERNAL_DATA)


def _has(head: bytes, feature: int) -> bool:
    if len(head) < SECTOR or not head.startswith(MAGIC):
        return False
    version = _HEADER.unpack_from(head)[1]
    return version >= 3 and bool(_FEATURES.unpack_from(head, _FEATURES_AT)[0] & feature)


def is_encrypted(head: bytes) -> bool:
    """Tell by the first sector of a qcow2 whether its content is encrypted."""
    return _number(head, _ENCRYPTED_AT) > 0


def has_snapshots(head: bytes) -> bool:
    """Tell by the first sector of a qcow2 whether earlier states of the disk are kept in it."""
    return _number(head, _SNAPSHOTS_AT) > 0


def _number(head: bytes, at: int) -> int:
    """Return the number of 32 bits at an offset of a qcow2's first sector, 0 of what is none."""
    if len(head) < SECTOR or not head.startswith(MAGIC):
        return 0
    found: int = _COUNT.unpack_from(head, at)[0]
    return found


def inspect(path: str) -> Qcow2:
    """Return a file's length and virtual size.

    Raises InvalidSpec when it cannot be read, is no qcow2, or names another file: a backing file or
    an external data file would let whoever made the image read any file of the host.
    """
    facts = header_facts(path)
    if facts.backing or facts.external_data:
        raise InvalidSpec(f"{path} depends on another file")
    return Qcow2(facts.length_bytes, facts.capacity_bytes)
