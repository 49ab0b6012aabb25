"""Where files lie that people hand in. Not for: what they are.

`sent` is written by the keeper, to which the web process passes what browsers send: what is sealed there
changes no more, and the worker goes on with it as it is. `parts` is written by the web process itself, where
no keeper answers: what it holds may change until the worker has copied it. `images` is the worker's own, with
what it fetched; what is checked there stays as it was checked.
"""

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from uuid import UUID

from django.conf import settings

from portal.hosts.images import passing
from portal.hosts.models import Upload

PIECE = 1 << 20
#: Bytes that are left free on the portal's own disk, whatever is handed in: its database lies there.
SPARE = 1 << 30
#: The mode of a file to which nobody writes any more; the group may read it.
SEALED = 0o440
_SUFFIXES = frozenset({".part", ".fetched", ".taken", ".disk", ".iso", ".qcow2"})


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


def kept_of(token: UUID) -> Path:
    """Return where the keeper writes a file."""
    return Path(settings.UPLOADS) / "sent" / f"{token}.part"


def own_part_of(upload: Upload) -> Path:
    """Return where the web process itself writes a file."""
    return Path(settings.UPLOADS) / "parts" / f"{upload.token}.part"


def is_kept(upload: Upload) -> bool:
    """Tell whether the keeper has the file of an upload.

    A keeper that answered too late leaves an empty file beside one that the web process then began.
    """
    return os.path.lexists(kept_of(upload.token)) and not os.path.lexists(own_part_of(upload))


def part_of(upload: Upload) -> Path:
    """Return where the file lies while a browser sends it, or the worker fetches it."""
    if upload.address:
        return fetched_of(upload)
    return kept_of(upload.token) if is_kept(upload) else own_part_of(upload)


def fetched_of(upload: Upload) -> Path:
    """Return where the worker writes what it fetches; kept as long as what a browser sent."""
    return Path(settings.UPLOADS) / "images" / f"{upload.token}.fetched"


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


def further_of(upload: Upload, number: int) -> Path:
    """Return where a further disk of the image lies in the end; the first one has the number 1."""
    return Path(settings.UPLOADS) / "images" / f"{upload.token}.{number}.qcow2"


def furthers_of(upload: Upload) -> list[Path]:
    """Return the further disks that are there, whole or not."""
    return sorted((Path(settings.UPLOADS) / "images").glob(f"{upload.token}.*.qcow2"))


def make_folder(name: str) -> None:
    """Make a folder of the worker's: the group of the folder above may look, nobody else may write.

    Idempotent; mends one that a generous umask made. Raises OSError.
    """
    above = Path(settings.UPLOADS)
    folder = above / name
    above.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_gid != (group := above.stat().st_gid):
        os.chown(folder, -1, group)
    folder.chmod(0o750)


def length(path: Path) -> int:
    """Return the length of a file, 0 when it is not there, or where the web process does not look."""
    try:
        return path.lstat().st_size
    except (FileNotFoundError, PermissionError):
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
    Raises WrongOffset, StoreFull, with which the file is as before: a chunk is less than what stays free, and
    `passing.Away` where the keeper has the beginning of the file and does not answer.
    """
    if os.path.lexists(own_part_of(upload)):
        return _append_here(upload, offset, stream)
    try:
        told = passing.append(upload.token, offset, _pieces(stream, upload.file_size - offset))
    except passing.Away:
        if is_kept(upload):
            raise
        return _append_here(upload, offset, stream)
    if "wrong" in told:
        raise WrongOffset(int(told["wrong"]))
    if "there" not in told:
        raise StoreFull(told.get("full", "it is sealed"))
    return int(told["there"])


def _pieces(stream: Stream, most: int) -> Iterator[bytes]:
    while most > 0 and (piece := stream.read(min(PIECE, most))):
        yield piece
        most -= len(piece)


def _append_here(upload: Upload, offset: int, stream: Stream) -> int:
    path = own_part_of(upload)
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


def seal(upload: Upload, check: Callable[[], None]) -> None:
    """See that nobody writes any more to what the keeper has, and name it as taken. Idempotent.

    A chunk under way ends before. Raises OSError, also where the file system gives no second name.
    """
    kept = kept_of(upload.token)
    with _open_plain(kept) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                check()
                time.sleep(0.05)
        os.fchmod(file.fileno(), SEALED)
    taken = taken_of(upload)
    remove(taken)
    os.link(kept, taken, follow_symlinks=False)


def name_fetched(upload: Upload) -> None:
    """Name what was fetched as taken; it takes no more room by that. Idempotent. Raises OSError.

    Where the file system gives no second name, it loses its first: to try again is to fetch it again.
    """
    fetched, taken = fetched_of(upload), taken_of(upload)
    remove(taken)
    try:
        os.link(fetched, taken, follow_symlinks=False)
    except OSError:
        os.replace(fetched, taken)


def is_fetched(upload: Upload) -> bool:
    """Tell whether what was fetched is there as whole as when its checksum was right."""
    return bool(upload.sha256) and 0 < upload.file_size == length(fetched_of(upload))


def open_part(upload: Upload) -> BinaryIO:
    """Open what was sent or fetched, for the worker. Raises OSError, also for what is no plain file.

    The web process owns the folder: what is there may be a link to what the worker alone may read.
    """
    return _open_plain(part_of(upload))


def _open_plain(path: Path) -> BinaryIO:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is no plain file")
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
    """Delete files; what the web process may not delete, the worker's sweep does. Idempotent."""
    for path in paths:
        with suppress(FileNotFoundError, PermissionError):
            path.unlink()


def keep(upload: Upload) -> None:
    """See that the image of an upload is on disk, all of it, and delete what else came of it. Idempotent."""
    for path in (image_of(upload), *furthers_of(upload)):
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    forget(upload)


def found() -> dict[Path, UUID]:
    """Return every file that came of an upload, with the token in its name."""
    files = {}
    for path in Path(settings.UPLOADS).glob("*/*"):
        if path.parent.name in {"parts", "sent", "images"} and path.suffix in _SUFFIXES:
            with suppress(ValueError):
                files[path] = UUID(path.name.partition(".")[0])
    return files


def clear(*uploads: Upload) -> None:
    """Delete everything that came of uploads, the images as well. Idempotent."""
    for upload in uploads:
        forget(upload)
        remove(image_of(upload), *furthers_of(upload))


def forget(upload: Upload) -> None:
    """Delete everything that came of an upload but its image. Idempotent."""
    sent = kept_of(upload.token), own_part_of(upload), fetched_of(upload)
    remove(*sent, taken_of(upload), unpacked_of(upload))
