"""An appliance as one file: packing it, and reading what may come from anybody. Not for: the descriptor."""

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from portal.drivers.errors import InvalidSpec
from portal.drivers.ova import descriptor
from portal.drivers.ova.appliance import Appliance

CHUNK = 1 << 20
#: What one archive may hold; beyond it is no machine.
MOST_FILES = 256
#: Bytes of headers that are read of an archive, and of anything at once.
MOST_HEADERS, MOST_AT_ONCE = 4 << 20, 2 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()@+=-]{0,199}")
_LINE = re.compile(r"(SHA1|SHA256|SHA512) ?\((.{1,200})\) ?= ?([0-9a-fA-F]{40,128})\s*")
Check = Callable[[], None]


def _nothing() -> None:
    """Stop nobody."""


def pack(
    target: Path,
    appliance: Appliance,
    files: Mapping[str, Path],
    extra: Mapping[str, bytes],
    check: Check = _nothing,
) -> dict[str, str]:
    """Write an appliance to the file `target` and return the SHA-256 of each thing in it, by name.

    `files` are the disks by the names that the descriptor has for them, `extra` small files beside them. A
    manifest with the same checksums goes in. Constant memory; `check` is called between two pieces and ends
    it by raising. What is half written is left to the caller. Raises OSError.
    """
    sizes = {name: path.stat().st_size for name, path in files.items()}
    sizes |= {name: len(content) for name, content in extra.items()}
    told = descriptor.write(appliance, sizes)
    first = f"{appliance.name}.ovf"
    plain = {first: told, **extra}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in plain.items()}
    for name, path in files.items():
        sums[name] = sha256_of(path, check)
    manifest = "".join(f"SHA256({name})= {value}\n" for name, value in sums.items()).encode()
    kind = tarfile.USTAR_FORMAT if _fits(sizes) else tarfile.GNU_FORMAT
    with tarfile.open(target, "w", format=kind) as tar:
        # The descriptor first and the manifest next: who reads a stream knows at once what comes.
        for name, content in {first: told, f"{appliance.name}.mf": manifest, **extra}.items():
            tar.addfile(_entry(name, len(content)), io.BytesIO(content))
        for name, path in files.items():
            with path.open("rb") as file:
                tar.addfile(_entry(name, sizes[name]), _Checked(file, check))  # type: ignore[arg-type]
    return sums


class _Checked:
    """A file whose reader is asked to stop now and then."""

    def __init__(self, file: IO[bytes], check: Check) -> None:
        self._file, self._check = file, check

    def read(self, size: int) -> bytes:
        self._check()
        return self._file.read(size)


def _fits(sizes: Mapping[str, int]) -> bool:
    """Tell whether ustar's eleven octal digits hold every size (8 GiB)."""
    return all(size < 8**11 for size in sizes.values())


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


class Archive:
    """An archive that somebody brought, looked at without unpacking anything of it."""

    def __init__(self, tar: tarfile.TarFile, length: int) -> None:
        self._tar, self._length = tar, length
        self._members = dict(self._looked_at())

    def _looked_at(self) -> Iterator[tuple[str, tarfile.TarInfo]]:
        seen: set[str] = set()
        while (member := self._tar.next()) is not None:
            # Some tools write the folder that they packed.
            name = member.name.removeprefix("./")
            if not member.isreg() or not _NAME.fullmatch(name):
                raise InvalidSpec(f"the archive holds {member.name[:80]!r}, which is no plain file in it")
            if name in seen or len(seen) >= MOST_FILES:
                raise InvalidSpec(f"the archive holds {name!r} twice, or more than {MOST_FILES} files")
            if member.issparse():
                raise InvalidSpec(f"{name!r} is packed as a sparse file")
            if member.size < 0 or member.offset_data + member.size > self._length:
                raise InvalidSpec(f"the archive is cut off in {name!r}, which would have {member.size} bytes")
            seen.add(name)
            yield name, member

    def appliance(self) -> Appliance:
        """Return what the descriptor says, wherever in the archive it stands.

        Raises InvalidSpec, also when it is another than the manifest says, or a disk's file is not there.
        """
        names = self.descriptors()
        if len(names) != 1:
            raise InvalidSpec(f"the archive holds {len(names)} descriptors (.ovf) instead of one")
        content = self._small(names[0], descriptor.LONGEST)
        algorithm, wanted = self.checksums().get(names[0], ("sha256", ""))
        _compare(names[0], algorithm, hashlib.new(algorithm, content).hexdigest(), wanted)
        found = descriptor.read(content)
        for disk in found.disks:
            if disk.file not in self._members:
                raise InvalidSpec(f"{disk.file[:80]!r} is not in the archive")
        return found

    def descriptors(self) -> list[str]:
        """Return the names of what could be its descriptor."""
        return [name for name in self._members if name.lower().endswith(".ovf")]

    def size_of(self, name: str) -> int:
        """Return the bytes of a file. Raises InvalidSpec when it is not there."""
        if name not in self._members:
            raise InvalidSpec(f"{name[:80]!r} is not in the archive")
        return self._members[name].size

    def checksums(self) -> dict[str, tuple[str, str]]:
        """Return (algorithm, hexadecimal digest) by file as the manifest has it; nothing without one."""
        found: dict[str, tuple[str, str]] = {}
        for name in self._members:
            if name.lower().endswith(".mf"):
                text = self._small(name, descriptor.LONGEST).decode("utf-8", "replace")
                for line in filter(None, text.splitlines()):
                    matched = _LINE.fullmatch(line)
                    if matched is None:
                        raise InvalidSpec(f"the manifest's line {line[:80]!r} is no checksum")
                    found[matched[2]] = matched[1].lower(), matched[3].lower()
        return found

    def _small(self, name: str, most: int) -> bytes:
        if self._members[name].size > most:
            raise InvalidSpec(f"{name!r} is longer than {most >> 20} MiB")
        with self._open(name) as file:
            return file.read(most)

    def _open(self, name: str) -> IO[bytes]:
        file = self._tar.extractfile(self._members[name])
        if file is None:
            raise InvalidSpec(f"{name!r} is no file")
        return file

    def unpack(self, name: str, target: Path, check: Check = _nothing) -> str:
        """Write the file `name` to `target`, compare it with the manifest, and return its SHA-256.

        Raises InvalidSpec when it is cut off or another than the manifest says. Constant memory.
        """
        algorithm, wanted = self.checksums().get(name, ("sha256", ""))
        sums = {kind: hashlib.new(kind) for kind in {algorithm, "sha256"}}
        try:
            with self._open(name) as file, target.open("wb") as out:
                for piece in _pieces(file, check):
                    out.write(piece)
                    for one in sums.values():
                        one.update(piece)
        except tarfile.ReadError as error:
            raise InvalidSpec(f"the archive is cut off in {name!r}") from error
        _compare(name, algorithm, sums[algorithm].hexdigest(), wanted)
        return sums["sha256"].hexdigest()


def _compare(name: str, algorithm: str, found: str, wanted: str) -> None:
    if wanted and found != wanted:
        raise InvalidSpec(f"{name!r} is not what the manifest says: its {algorithm.upper()} differs")


class _Guarded:
    """A stranger's archive as `tarfile` reads it, which believes every header.

    Headers may ask for gigabytes at once, lie one in the other without end, or lead back to where they
    were; each of those ends here.
    """

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file, self._length = file, length
        #: Bytes that may still be read; None when all headers are.
        self.headers: int | None = MOST_HEADERS

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MOST_AT_ONCE:
            raise InvalidSpec(f"a header of the archive would have {size} bytes")
        if self.headers is not None:
            self.headers -= size
            if self.headers < 0:
                raise InvalidSpec(f"the archive's headers have more than {MOST_HEADERS >> 20} MiB")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        if not 0 <= offset <= self._length:
            raise InvalidSpec("the archive is cut off, or says a size that is none")
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open an archive. Raises InvalidSpec for what is none, or holds more than plain files; OSError."""
    with path.open("rb") as file:
        length = path.stat().st_size
        guarded = _Guarded(file, length)
        try:
            # Without a compression: one that unpacks to a thousand times its size is no appliance either.
            tar = tarfile.TarFile(mode="r", fileobj=guarded)  # type: ignore[arg-type]
            archive = Archive(tar, length)
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            # Of other errors than its own, tarfile lets those through that a header makes of its numbers.
            raise InvalidSpec(f"this is no OVA archive: {error}") from error
        guarded.headers = None
        with tar:
            yield archive


def _pieces(file: IO[bytes], check: Check) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        check()
        yield piece


def sha256_of(path: Path, check: Check = _nothing) -> str:
    """Return a file's SHA-256, in constant memory; `check` ends it by raising. Raises OSError."""
    made = hashlib.sha256()
    with path.open("rb") as file:
        for piece in _pieces(file, check):
            made.update(piece)
    return made.hexdigest()
