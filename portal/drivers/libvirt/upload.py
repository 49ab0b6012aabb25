"""Move bytes into volumes and read them; not for choosing or making volumes."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import libvirt

from portal.drivers.qcow2 import SECTOR
from portal.drivers.types import VolumeDigest

RECEIVED = 262_120  # what one message of libvirt's carries
CHUNK = 64 * 1024  # measured faster than sendAll
READ = 256 * 1024


def _send(stream: libvirt.virStream, chunks: Iterable[bytes]) -> None:
    try:
        for chunk in chunks:
            sent = 0
            while sent < len(chunk):
                sent += stream.send(chunk[sent:])
    except BaseException:
        stream.abort()
        raise
    stream.finish()


def _chunks(file: BinaryIO, most: int | None = None) -> Iterator[bytes]:
    """Yield what follows in a file, of it at most `most` bytes."""
    while chunk := file.read(CHUNK if most is None else min(CHUNK, most)):
        yield chunk
        most = None if most is None else most - len(chunk)


def write(connection: libvirt.virConnect, volume: libvirt.virStorageVol, content: bytes, at: int = 0) -> None:
    """Write bytes at an offset; libvirt has synced them to disk when this returns."""
    stream = connection.newStream()
    volume.upload(stream, at, len(content))
    _send(stream, (content[i : i + CHUNK] for i in range(0, len(content), CHUNK)))


def sync(connection: libvirt.virConnect, volume: libvirt.virStorageVol) -> None:
    """Let all that a volume holds be on disk: libvirt syncs a file or device of which it wrote a part.

    That part is its beginning, as it is.
    """
    write(connection, volume, sector(connection, volume, 0))


def write_file(connection: libvirt.virConnect, volume: libvirt.virStorageVol, source: str, last: int) -> None:
    """Write a file's content, the sector at `last` last, so that a half-written image is no image."""
    with open(source, "rb") as file:
        if last:
            _write_part(connection, volume, 0, _chunks(file, last))
        key = file.read(SECTOR)
        _write_part(connection, volume, last + SECTOR, _chunks(file))
    write(connection, volume, key, last)


def _write_part(
    connection: libvirt.virConnect, volume: libvirt.virStorageVol, at: int, chunks: Iterable[bytes]
) -> None:
    stream = connection.newStream()
    volume.upload(stream, at, 0)
    _send(stream, chunks)


def sector(connection: libvirt.virConnect, volume: libvirt.virStorageVol, at: int) -> bytes:
    """Return up to 512 bytes of a volume from `at` on."""
    return read(connection, volume, at, SECTOR)


def read(connection: libvirt.virConnect, volume: libvirt.virStorageVol, at: int, length: int) -> bytes:
    """Return up to `length` bytes of a volume from an offset on, empty at its end."""
    stream = connection.newStream()
    volume.download(stream, at, length)
    content = bytearray()
    try:
        while part := stream.recv(min(RECEIVED, length - len(content) or 1)):
            content += part
    except libvirt.libvirtError:
        stream.abort()
        raise
    stream.finish()
    return bytes(content)


def digest(
    connection: libvirt.virConnect, volume: libvirt.virStorageVol, copy: BinaryIO | None = None
) -> VolumeDigest:
    """Return the digest of a volume's whole file, of which no more than a chunk is in memory.

    With `copy` it is written there on the way. Raises OSError when that cannot be.
    """
    stream = connection.newStream()
    volume.download(stream, 0, 0)
    found, length = hashlib.sha256(), 0
    try:
        while part := stream.recv(READ):
            found.update(part)
            length += len(part)
            if copy is not None:
                copy.write(part)
    except (libvirt.libvirtError, OSError):
        stream.abort()
        raise
    stream.finish()
    return VolumeDigest(found.hexdigest(), length)
