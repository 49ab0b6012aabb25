"""The keeper: writes what browsers send into files that the web process can only read, and digests them.

The web process serves strangers, so what it could still change must not be judged, or it could be changed
after that. It therefore passes each chunk on to this part, which runs as whom the worker runs as, in the
process of the console broker (`manage.py consoles`), and which alone writes to `sent`. When all of a file is
there, the worker *seals* it (`store.seal`): the right to write is taken from it, under the lock under which
every chunk is written, and from then on the keeper refuses to write to it. So nobody has to make a copy.

What this stands on: the folder and its files belong to the worker's user, and the group, which the web
process is of, may read there and nothing else; so the web process has no descriptor that could write, no
mapping, and no name of its own that it could put in place of a file. A hard link that it makes elsewhere has
the same owner and mode. The socket lies in a folder of the worker's too, so that whoever asks for a digest
asks the keeper. Nothing here believes the database, to which the web process writes.

Leaving the web process a descriptor, and taking it away by a lease of the kernel's (F_SETLEASE), would not
do: an open() that passed the check of the mode before it was changed counts as a writer only afterwards,
and a page that a direct read was begun into is written to when nobody has the file open any more.

The digest is made of what is acknowledged, by a reader that follows the file, while the next chunk comes. It
lives in memory; without it, after a restart, the worker computes it.

Not for: what passes on the socket (`passing`), and what a file is (`importing`).
"""

import fcntl
import hashlib
import logging
import os
import socketserver
import stat
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings

from portal.hosts.images import passing, store

_log = logging.getLogger(__name__)
#: Uploads whose digests are kept at a time; of the others the worker computes them.
MOST_DIGESTS = 64
#: Connections at a time; a chunk more is answered as while the keeper is away.
MOST_TALKS = 64
#: Bytes that may be missing of a digest that is asked for; the worker, which can be cancelled, does the rest.
MOST_BEHIND = 64 << 20
#: Seconds that one chunk may take; of one that takes longer what came counts, and the browser goes on there.
CHUNK_SECONDS = 600.0
#: Seconds to wait for whoever writes to the same file: less than who asks is ready to wait.
LOCK_SECONDS = 20.0


class Sealed(Exception):
    """The file is with the worker; nothing is written to it any more."""


class Digest:
    """The SHA-256 of a file as far as it was read."""

    def __init__(self, path: Path) -> None:
        self._path, self._found, self._at = path, hashlib.sha256(), 0
        self._turn = threading.Lock()

    def follow(self, length: int) -> None:
        """Read on until `length`, which is acknowledged and so stays. Idempotent."""
        with self._turn, suppress(FileNotFoundError), self._path.open("rb", buffering=0) as file:
            self._read(file, length)

    def whole(self) -> tuple[int, str]:
        """Return the length of the file and its SHA-256; '' where it is not sealed, or much of it unread."""
        with self._turn, self._path.open("rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            length = found.st_size
            # What is not acknowledged may still be taken back, and must not be in the digest.
            if found.st_mode & stat.S_IWUSR or length - self._at > MOST_BEHIND:
                return length, ""
            self._read(file, length)
            return length, self._found.hexdigest() if self._at == length else ""

    def _read(self, file: Any, length: int) -> None:
        buffer = memoryview(bytearray(store.PIECE))
        file.seek(self._at)
        while self._at < length and (got := file.readinto(buffer[: min(store.PIECE, length - self._at)])):
            self._found.update(buffer[:got])
            self._at += got


class Keeper:
    """Listens on a Unix socket (mode 0660), each connection one chunk or one question. One a site."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digests: OrderedDict[UUID, Digest] = OrderedDict()
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="digest")
        self._server: _Server | None = None

    def start(self) -> None:
        """Make the folder, and listen in threads of its own. Raises OSError."""
        store.make_folder("sent")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        server = self._server = _Server(self, self.path)
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True, name="keeper").start()

    def stop(self) -> None:
        """Listen no more. A chunk under way ends with the process; what came of it is kept. Idempotent."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            self.path.unlink(missing_ok=True)

    def answer(self, talk: passing.Talk) -> None:
        """Answer one connection."""
        question = talk.question()
        if question.verb == "digest":
            length, sha256 = self._digest(question.token)
            talk.answer(length=length, sha256=sha256)
            return
        try:
            there = self._take(talk, question.token, question.offset)
        except store.WrongOffset as wrong:
            talk.answer(wrong=wrong.offset)
        except store.StoreFull as full:
            talk.answer(full=str(full))
        except Sealed:
            talk.answer(sealed=True)
        else:
            talk.answer(there=there)

    def _take(self, talk: passing.Talk, token: UUID, offset: int) -> int:
        with _opened(token) as file:
            _lock(file)
            there = _may_grow(file, offset)
            talk.answer(go=True)
            try:
                there += _copy(talk, file)
            except OSError as error:
                if not talk.broken:
                    file.truncate(offset)
                    raise store.StoreFull(error.strerror) from error
                there = os.fstat(file.fileno()).st_size
        self._readers.submit(self._known(token, new=not offset).follow, there)
        return there

    def _known(self, token: UUID, *, new: bool) -> Digest:
        """Return the digest of a file; a `new` one may have the name of one that was deleted."""
        with self._lock:
            if new or token not in self._digests:
                self._digests[token] = Digest(store.kept_of(token))
            self._digests.move_to_end(token)
            while len(self._digests) > MOST_DIGESTS:
                self._digests.popitem(last=False)
            return self._digests[token]

    def _digest(self, token: UUID) -> tuple[int, str]:
        try:
            return self._known(token, new=False).whole()
        except FileNotFoundError:
            return 0, ""


def _opened(token: UUID) -> Any:
    """Open a file for more of it; make it. Raises Sealed."""
    path = store.kept_of(token)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise Sealed from error
    return os.fdopen(descriptor, "r+b", buffering=0)


def _lock(file: Any) -> None:
    """Wait for whoever writes to the file. Raises WrongOffset where that takes long: it grows meanwhile."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise store.WrongOffset(os.fstat(file.fileno()).st_size) from None
            time.sleep(0.02)


def _may_grow(file: Any, offset: int) -> int:
    """Return the length of a file that is locked. Raises Sealed, WrongOffset, StoreFull."""
    found = os.fstat(file.fileno())
    # The mode says it to root too, whom no mode keeps out. A file without a name was thrown away meanwhile.
    if not found.st_mode & stat.S_IWUSR or not found.st_nlink:
        raise Sealed
    if found.st_size != offset:
        raise store.WrongOffset(found.st_size)
    if not store.free_bytes():
        raise store.StoreFull("no more than the spare is free")
    if not offset:
        group = Path(settings.UPLOADS).stat().st_gid
        if found.st_gid != group:
            os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), 0o640)
    return found.st_size


def _copy(talk: passing.Talk, file: Any) -> int:
    """Write what comes behind what is there, a chunk at most; return how many bytes. Raises OSError."""
    buffer, copied = memoryview(bytearray(store.PIECE)), 0
    file.seek(0, os.SEEK_END)
    until = time.monotonic() + CHUNK_SECONDS
    while copied < passing.MOST_CHUNK and time.monotonic() < until:
        got = talk.read_into(buffer[: min(store.PIECE, passing.MOST_CHUNK - copied)])
        if not got:
            break
        view = buffer[:got]
        while view:
            view = view[file.write(view) :]
        copied += got
    return copied


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = MOST_TALKS

    def __init__(self, keeper: Keeper, path: Path) -> None:
        super().__init__(str(path), _Handler, bind_and_activate=False)
        self.keeper, self.room = keeper, threading.BoundedSemaphore(MOST_TALKS)
        self.server_bind()
        path.chmod(0o660)  # before anybody can connect: nobody listens yet
        self.server_activate()


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        if not self.server.room.acquire(blocking=False):
            return
        try:
            self.server.keeper.answer(passing.Talk(self.request))
        except (ValueError, OSError) as error:
            _log.warning("a chunk was dropped: %s", error)
        finally:
            self.server.room.release()
