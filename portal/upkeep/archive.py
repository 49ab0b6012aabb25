"""A backup as one file: a tar of a manifest, the database and the state folder's files.

The manifest comes first and names every other member with its SHA-256, so that a restore knows before it
changes anything whether all of it is there. Not for: deciding what may be overwritten, which `restore` does.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from portal.upkeep.errors import UpkeepError

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state"
#: In the state folder, but made again by a run, or no state at all. Exports can be as large as all disks, are
#: gone in days, and change while they are packed, which no backup survives.
PASSING = frozenset({"run", "log", "cache", "static", "assets", "backups", "tls", "exports", "bench.json"})
IMAGES = "images"
#: Images that people handed in; what is on its way there, by how it ends, is in no backup.
UPLOADS = "uploads"
PASSING_UPLOADS = frozenset({".part", ".taken"})
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself. `files` holds the SHA-256 of each member by its name."""

    format: int
    made_at: str
    database: str
    head: str
    migrations: list[list[str]]
    secret_key_elsewhere: bool
    files: Mapping[str, str]

    def text(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()


def state_files(state: Path, *, images: bool) -> Iterator[tuple[str, Path]]:
    """Yield (member, file) for what of the state folder belongs into a backup; the database does not."""
    left_out = PASSING if images else PASSING | {IMAGES, UPLOADS}
    for path in sorted(state.rglob("*")):
        relative = path.relative_to(state)
        if relative.parts[0] in left_out or ".sqlite3" in path.name:
            continue
        if relative.parts[0] == UPLOADS and path.suffix in PASSING_UPLOADS:
            continue
        if path.is_file() and not path.is_symlink():
            yield f"{STATE}/{relative.as_posix()}", path


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def write(target: Path, manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Write the archive, mode 600, whole or not at all. Raises UpkeepError."""
    staged = target.with_name(target.name + ".part")
    try:
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            with tarfile.open(fileobj=handle, mode="w:gz", compresslevel=1) as tar:
                _add_manifest(tar, manifest)
                for name, path in files.items():
                    tar.add(path, arcname=name, recursive=False)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(staged, target)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise UpkeepError(f"The backup could not be written: {error.strerror}. Nothing was left.") from error


def _add_manifest(tar: tarfile.TarFile, manifest: Manifest) -> None:
    text = manifest.text()
    member = tarfile.TarInfo(MANIFEST)
    member.size, member.mode = len(text), 0o600
    tar.addfile(member, io.BytesIO(text))


def unpack(source: Path, folder: Path) -> Manifest:
    """Unpack an archive into the empty `folder` and check every member. Raises UpkeepError."""
    try:
        with tarfile.open(source, "r:gz") as tar:
            manifest = _read_manifest(tar)
            for member in tar:
                if member.offset == 0:
                    continue  # the manifest, which was read
                if not member.isreg() or member.name not in manifest.files:
                    raise UpkeepError(f"The backup holds {member.name!r}, which its manifest does not name.")
                _extract(tar, member, folder / member.name)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UpkeepError(f"{source} is no whole backup: {error}. Nothing was changed.") from error
    for name, wanted in manifest.files.items():
        path = folder / name
        if not path.is_file() or digest(path) != wanted:
            raise UpkeepError(f"{name} in the backup is damaged or missing. Nothing was changed.")
    return manifest


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Write one regular member: its bytes and who may read it, never its owner or a link."""
    content = tar.extractfile(member)
    if content is None:
        raise UpkeepError(f"{member.name} in the backup is no file. Nothing was changed.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as handle:
        shutil.copyfileobj(content, handle, _CHUNK)
    target.chmod(member.mode & 0o660 | 0o600)


def _read_manifest(tar: tarfile.TarFile) -> Manifest:
    first = tar.next()
    handle = tar.extractfile(first) if first is not None and first.name == MANIFEST else None
    if handle is None:
        raise UpkeepError("This is no backup of the portal: it has no manifest. Nothing was changed.")
    try:
        found: dict[str, Any] = json.loads(handle.read(_CHUNK * 16))
        manifest = Manifest(**found)
    except (ValueError, TypeError) as error:
        raise UpkeepError("The backup's manifest cannot be read. Nothing was changed.") from error
    if manifest.format != FORMAT:
        raise UpkeepError(f"The backup has format {manifest.format}; this version reads {FORMAT}.")
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UpkeepError(f"The backup names {name!r}, outside of itself. Nothing was changed.")
    return manifest
