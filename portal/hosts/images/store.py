"""Where files lie that people hand in. Not for: what they are.

`parts` is written by the web process: what it holds may change until the worker has copied it. `images` is
the worker's own; what is checked there stays as it was checked.
"""

import errno
import fcntl
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from uuid import UUID

from django.conf import settings

from portal.hosts.models import Upload

PIECE = 1 << 20
#: Bytes that are left free on the portal's own disk, whatever is handed in: its database lies there.
SPARE = 1 << 30
_SUFFIXES = frozenset({".part", ".taken", ".disk", ".iso", ".qcow2"})


class WrongOffset(Exception):
    """The chunk does not follow what is there; `offset` is where the next one begins."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the file has {offset} bytes")
        self.offset = offset


class StoreFull(Exception):
    """The portal's disk takes no more."""


class Stream(Protocol):
    """Where a chunk comes from."""

    def read(self, size: int, /) -> bytes: ...


def part_of(upload: Upload) -> Path:
    """Return where the file lies while a browser sends it."""
    return Path(settings.UPLOADS) / "parts" / f"{upload.token}.part"


def taken_of(upload: Upload) -> Path:
    """Return where the worker's copy lies, as it came."""
    return Path(settings.UPLOADS) / "images" / f"{upload.token}.taken"


def unpacked_of(upload: Upload) -> Path:
    """Return where the disk of an appliance lies before it is an image."""
    return Path(settings.UPLOADS) / "images" / f"{upload.token}.disk"


def image_of(upload: Upload) -> Path:
    """Return where the image lies in the end."""
    suffix = "iso" if upload.wanted["kind"] == "iso" else "qcow2"
    return Path(settings.UPLOADS) / "images" / f"{upload.token}.{suffix}"


def length(path: Path) -> int:
    """Return the length of a file, 0 when it is not there."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def free_bytes() -> int:
    """Return how many bytes may still be handed in."""
    folder = Path(settings.UPLOADS)
    while not folder.exists():
        folder = folder.parent
    return max(0, shutil.disk_usage(folder).free - SPARE)


def append(upload: Upload, offset: int, stream: Stream) -> int:
    """Write what `stream` has behind the first `offset` bytes; return the length then.

    Of two at a time the second waits, and finds another length. Never grows beyond the size that was told.
    Raises WrongOffset, and StoreFull, with which the file is as before: a chunk is less than what stays free.
    """
    path = part_of(upload)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        there = file.seek(0, os.SEEK_END)
        if there != offset:
            raise WrongOffset(there)
        if not free_bytes():
            raise StoreFull(os.strerror(errno.ENOSPC))
        try:
            return _copy(file, stream, upload.file_size - there) + there
        except OSError as error:
            file.truncate(offset)
            raise StoreFull(error.strerror) from error


def open_part(upload: Upload) -> BinaryIO:
    """Open what was sent, for the worker. Raises OSError, also for what is no plain file.

    The web process owns the folder: what is there may be a link to what the worker alone may read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(os.open(part_of(upload), flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{part_of(upload)} is no plain file")
    return file


def _copy(file: Any, stream: Stream, most: int) -> int:
    """Write at most `most` bytes of `stream`; return how many. Raises OSError."""
    copied = 0
    while copied < most and (piece := stream.read(min(PIECE, most - copied))):
        view = memoryview(piece)
        while view:
            view = view[file.write(view) :]
        copied += len(piece)
    return copied


def remove(*paths: Path) -> None:
    """Delete files. Idempotent."""
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()


def keep(upload: Upload) -> None:
    """See that the image of an upload is on disk, and delete what else came of it. Idempotent."""
    with suppress(FileNotFoundError):
        descriptor = os.open(image_of(upload), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    forget(upload)


def found() -> dict[Path, UUID]:
    """Return every file that came of an upload, with the token in its name."""
    files = {}
    for path in Path(settings.UPLOADS).glob("*/*"):
        if path.parent.name in {"parts", "images"} and path.suffix in _SUFFIXES:
            with suppress(ValueError):
                files[path] = UUID(path.stem)
    return files


def clear(*uploads: Upload) -> None:
    """Delete everything that came of uploads, the images as well. Idempotent."""
    for upload in uploads:
        forget(upload)
        remove(image_of(upload))


def forget(upload: Upload) -> None:
    """Delete everything that came of an upload but its image. Idempotent."""
    remove(part_of(upload), taken_of(upload), unpacked_of(upload))
