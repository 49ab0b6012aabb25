"""Look at the volume descriptor of an ISO 9660 image, and where files of it lie. Not for: writing one.

Format: ECMA-119, 8.4 and 9.1; longer names by Rock Ridge (RRIP 4.1.4). Nothing in a CD is believed: of each
folder a limited part is read, no link is followed, and what would lie beyond the file is not there.
"""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from portal.drivers.errors import InvalidSpec

#: Where the sector of the first volume descriptor begins. The 16 before it are for boot loaders, or empty.
DESCRIPTOR_AT = 16 * 2048
MARK = b"CD001"
_VOLUME_BLOCKS_AT, _BLOCK_SIZE_AT, _ROOT_AT = 80, 128, 156
_BLOCK = 2048
#: Bytes of one folder that are read: some ten thousand names.
MOST_OF_FOLDER = 1 << 20
_FOLDER = 0x02
_NO_PLAIN_FILE = 0x8C  # an associated file, one of records, one in several pieces
_LEAST_RECORD = 34


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


@dataclass(frozen=True, slots=True)
class Piece:
    """Where something lies in the ISO's file, in bytes."""

    at: int
    length: int


@dataclass(frozen=True, slots=True)
class _Record:
    """One entry of a folder."""

    name: str
    piece: Piece
    is_folder: bool


def find(path: str, names: Collection[str]) -> dict[str, Piece]:
    """Return where those of the files `names` lie that are there, whole and plain. Raises OSError.

    A name is as in `install.amd/vmlinuz`. Empty for what is no ISO, or has blocks of another size than CDs.
    """
    with Path(path).open("rb") as file:
        length = file.seek(0, 2)
        file.seek(DESCRIPTOR_AT)
        head = file.read(_BLOCK)
        plain = head[1:6] == MARK and len(head) == _BLOCK
        if not plain or struct.unpack_from("<H", head, _BLOCK_SIZE_AT) != (_BLOCK,):
            return {}
        root = next(_records(head[_ROOT_AT : _ROOT_AT + _LEAST_RECORD]), None)
        if root is None or not root.is_folder:
            return {}
        folders = {"": _listing(file, root.piece)}
        found = {}
        for name in names:
            record = _record_of(file, folders, name)
            if record is None or record.is_folder or not record.piece.length:
                continue
            if record.piece.at + record.piece.length <= length:
                found[name] = record.piece
        return found


def _record_of(file: BinaryIO, folders: dict[str, dict[str, _Record]], name: str) -> _Record | None:
    """Return the entry called `name`; `folders` keeps what was read of folders by their names."""
    above, _slash, last = name.rpartition("/")
    if above not in folders:
        folder = _record_of(file, folders, above)
        there = folder is not None and folder.is_folder
        folders[above] = _listing(file, folder.piece) if folder is not None and there else {}
    return folders[above].get(last.casefold())


def _listing(file: BinaryIO, piece: Piece) -> dict[str, _Record]:
    """Return the entries of a folder by name in small letters, the first of each."""
    file.seek(piece.at)
    listing: dict[str, _Record] = {}
    for record in _records(file.read(min(piece.length, MOST_OF_FOLDER))):
        listing.setdefault(record.name.casefold(), record)
    return listing


def _records(content: bytes) -> Iterator[_Record]:
    """Yield the folders and plain files of a folder's content, up to what makes no sense."""
    at = 0
    while at < len(content):
        size = content[at]
        if not size:
            # An entry does not go over the end of a block.
            at = (at // _BLOCK + 1) * _BLOCK
            continue
        entry = content[at : at + size]
        if size < _LEAST_RECORD or len(entry) < size or 33 + entry[32] > size:
            return
        at += size
        attributes, (block,), (length,) = entry[1], *(struct.unpack_from("<I", entry, n) for n in (2, 10))
        flags, interleaved, named = entry[25], entry[26] or entry[27], entry[33 : 33 + entry[32]]
        linked, long_name = _rock_ridge(entry[33 + entry[32] + (entry[32] + 1) % 2 :])
        if linked or interleaved or flags & _NO_PLAIN_FILE:
            continue
        short = named.decode("ascii", "replace").partition(";")[0].removesuffix(".")
        place = Piece((block + attributes) * _BLOCK, length)
        yield _Record(long_name or short, place, bool(flags & _FOLDER))


def _rock_ridge(fields: bytes) -> tuple[bool, str]:
    """Return whether an entry is a symbolic link, and its own long name, '' for none."""
    linked, name, at = False, b"", 0
    while at + 4 <= len(fields):
        size = fields[at + 2]
        if size < 4:
            break
        kind, field = fields[at : at + 2], fields[at : at + size]
        linked = linked or kind == b"SL"
        if kind == b"NM":
            name += field[5:]
        at += size
    return linked, name.decode("utf-8", "replace")
