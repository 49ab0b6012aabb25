"""Read the metadata of a VHDX, which Hyper-V writes; not for changing one, nor for its log.

Format: Microsoft's [MS-VHDX].
"""

import struct
import uuid
from pathlib import Path
from typing import IO

from portal.drivers.errors import DependsOnAnother, InvalidSpec

MAGIC = b"vhdxfile"
#: Where the two copies of the table of regions lie, and how long such a table is.
_REGIONS_AT, _TABLE = (192 << 10, 256 << 10), 64 << 10
_MOST_ENTRIES = 2047
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
#: signature and number of entries, of the regions and of the metadata; their entries; block size and flags.
_HEAD, _META_HEAD = struct.Struct("<4sII"), struct.Struct("<8sHH")
_REGION, _ITEM = struct.Struct("<16sQII"), struct.Struct("<16sIIII")
_ENTRIES_AT, _META_ENTRIES_AT = 16, 32
_FLAGS, _SIZE = struct.Struct("<II"), struct.Struct("<Q")
_HAS_PARENT = 1 << 1


def capacity_bytes(path: str) -> int:
    """Return the size of the disk inside, in bytes.

    Raises DependsOnAnother for what is based on another file, InvalidSpec for what is damaged or cut off,
    OSError.
    """
    with Path(path).open("rb") as file:
        place = next(filter(None, (_metadata_at(file, at) for at in _REGIONS_AT)), 0)
        if not place:
            raise InvalidSpec("its table of regions is cut off or damaged")
        items = _items(file, place)
        try:
            (_block, flags), (size,) = items[_PARAMETERS], items[_DISK_SIZE]
        except KeyError as error:
            raise InvalidSpec("its metadata lacks the disk's size") from error
    if flags & _HAS_PARENT:
        raise DependsOnAnother("the VHDX that it is the difference to")
    return size


def _metadata_at(file: IO[bytes], at: int) -> int:
    """Return where the metadata lies by the table of regions at `at`, 0 where none is."""
    file.seek(at)
    table = file.read(_TABLE)
    if len(table) < _TABLE:
        return 0
    signature, _sum, count = _HEAD.unpack_from(table)
    if signature != b"regi" or count > _MOST_ENTRIES:
        return 0
    for number in range(count):
        name, place, _length, _needed = _REGION.unpack_from(table, _ENTRIES_AT + number * _REGION.size)
        if uuid.UUID(bytes_le=name) == _METADATA:
            # Beyond that no file has a place.
            return int(place) if place < 1 << 62 else 0
    return 0


def _items(file: IO[bytes], place: int) -> dict[uuid.UUID, tuple[int, ...]]:
    """Return the items of metadata at `place` that are read here."""
    file.seek(place)
    table = file.read(_TABLE)
    if len(table) < _TABLE:
        raise InvalidSpec("its metadata is cut off")
    signature, _reserved, count = _META_HEAD.unpack_from(table)
    if signature != b"metadata" or count > _MOST_ENTRIES:
        raise InvalidSpec("its metadata is damaged")
    found: dict[uuid.UUID, tuple[int, ...]] = {}
    for number in range(count):
        name, at, *_rest = _ITEM.unpack_from(table, _META_ENTRIES_AT + number * _ITEM.size)
        item = uuid.UUID(bytes_le=name)
        form = {_PARAMETERS: _FLAGS, _DISK_SIZE: _SIZE}.get(item)
        if form is not None:
            file.seek(place + at)
            content = file.read(form.size)
            if len(content) < form.size:
                raise InvalidSpec("its metadata is cut off")
            found[item] = form.unpack(content)
    return found
