"""Back the portal up and restore it. Not for: machines' disks, which lie on the hosts.

A backup holds secrets: the signing key, the keys to hosts, hashes of passwords. It is written with mode 600.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone

from portal.audit import services as audit
from portal.upkeep import archive, databases, environment
from portal.upkeep.archive import Manifest
from portal.upkeep.errors import UpkeepError

#: In the state folder while a restore is not finished; nothing starts on such a state.
UNFINISHED = "restore.unfinished"
#: Backups made by themselves before an upgrade; older ones are removed.
KEPT = 3
_BEFORE_UPGRADE = "before-upgrade-"
#: The portal as the target of entries about itself.
_PORTAL = audit.Rowless("portal", "Gatehouse")


@dataclass(frozen=True)
class Restored:
    """What a restore did: the folder that what was there went to, and the faults of the audit chain."""

    manifest: Manifest
    replaced: Path | None
    faults: list[str]


def _state() -> Path:
    return Path(settings.STATE_DIR)


@contextmanager
def _staging(near: Path) -> Iterator[Path]:
    """A folder that only this user reads, on the disk of `near`, gone at the end."""
    try:
        near.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=near))
    except OSError as error:
        raise UpkeepError(f"{near} cannot be written: {error.strerror}.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def back_up(*, actor: str, target: Path, images: bool = True) -> Manifest:
    """Write a backup to `target` while the portal runs, and record it. Raises UpkeepError.

    It is whole or it is not there. `images`: also the guest images that the catalogue offers.
    """
    if target.exists():
        raise UpkeepError(f"{target} exists already; choose another name.")
    with _staging(target.parent.absolute()) as folder:
        copied = folder / databases.file_name()
        try:
            content = databases.copy_to(copied)
        except OSError as error:
            raise UpkeepError(f"The database could not be copied: {error.strerror}.") from error
        files = {f"database/{copied.name}": copied, **dict(archive.state_files(_state(), images=images))}
        # Beside the state's own files, so that a restore puts it there.
        files[f"{archive.STATE}/{environment.FILE}"] = folder / environment.FILE
        (folder / environment.FILE).write_text(environment.text())
        (folder / environment.FILE).chmod(0o600)
        manifest = Manifest(
            format=archive.FORMAT,
            made_at=timezone.now().isoformat(timespec="seconds"),
            database=connection.vendor,
            head=content.head,
            migrations=content.migrations,
            secret_key_elsewhere=not (_state() / "secret_key").exists(),
            files={name: archive.digest(path) for name, path in files.items()},
        )
        archive.write(target, manifest, files)
    with transaction.atomic():
        after = {"head": content.head, "images": images}
        audit.record(actor=actor, verb="portal.backed_up", target=_PORTAL, after=after)
    return manifest


def back_up_before_upgrade(*, actor: str) -> Path | None:
    """Back up what an upgrade is about to migrate, without images; None when nothing is to migrate.

    Keeps the newest KEPT of its own. Raises UpkeepError, also where a newer version migrated already: this
    one would work on a database that it does not understand; and where a restore was interrupted.
    """
    if (_state() / UNFINISHED).exists():
        raise UpkeepError(
            "A restore was interrupted and is not finished: run it again with the same file. "
            "Nothing was changed."
        )
    if databases.is_empty():
        return None
    applied, ours = _migrations()
    if newer := _newer(applied):
        raise UpkeepError(
            f"The database was migrated by a newer version (it has {newer}). Nothing was changed. "
            "Start that version, or restore the backup that it made before it migrated "
            f"({_state() / 'backups'}; docs/operate.md says how)."
        )
    if applied >= ours:
        return None
    folder = _state() / "backups"
    stamp = timezone.now().strftime("%Y%m%d-%H%M%S")
    target = folder / f"{_BEFORE_UPGRADE}{stamp}-{secrets.token_hex(2)}.tar.gz"
    back_up(actor=actor, target=target, images=False)
    made = sorted(folder.glob(f"{_BEFORE_UPGRADE}*.tar.gz"), key=lambda path: path.stat().st_mtime_ns)
    for old in made[:-KEPT]:
        old.unlink()
    return target


def _migrations() -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return the migrations that the database has, and those that this version has."""
    loader = MigrationLoader(connection)
    return set(loader.applied_migrations), set(loader.disk_migrations)


def _newer(applied: Iterable[Sequence[str]]) -> str:
    """Return one of the migrations `applied` that this version does not know, '' when it knows them all.

    Of apps that it does not have it says nothing: they may have been taken out.
    """
    apps_here = {app.label for app in apps.get_app_configs()}
    known = set(MigrationLoader(None).disk_migrations)
    found = ((app, name) for app, name in applied if app in apps_here and (app, name) not in known)
    return ".".join(min(found, default=()))


def restore(*, actor: str, source: Path, replace: bool = False) -> Restored:
    """Make the portal what the backup `source` holds, migrate it forward and verify its audit chain.

    Nothing is changed unless the whole backup is sound, fits this version and engine, and the place is empty
    or `replace` is said; then what was there is kept in a folder of its own. Interrupted, it can be run
    again. Nothing of the portal may run meanwhile. Raises UpkeepError.
    """
    state, marker = _state(), _state() / UNFINISHED
    with _staging(state.absolute() / "backups") as folder:
        manifest = archive.unpack(source, folder)
        _check_fits(manifest)
        copied = folder / "database" / databases.file_name()
        databases.check(copied)
        if not (replace or marker.exists()) and not _is_new():
            raise UpkeepError(
                f"There is a portal in {state} already. Nothing was changed. "
                "Say --replace to set it aside and restore over it."
            )
        marker.touch(mode=0o600)
        replaced = None if _is_new() else _set_aside(state)
        _copy_state(folder / archive.STATE, state)
        databases.put_back(copied, replaced=replaced)
    call_command("migrate", verbosity=0, interactive=False)
    faults = list(audit.verify())
    with transaction.atomic():
        after = {"made_at": manifest.made_at, "head": manifest.head, "faults": len(faults)}
        audit.record(actor=actor, verb="portal.restored", target=_PORTAL, after=after)
    marker.unlink()
    return Restored(manifest, replaced, faults)


def _check_fits(manifest: Manifest) -> None:
    if manifest.database != connection.vendor:
        raise UpkeepError(
            f"The backup is of {manifest.database}, this portal uses {connection.vendor}: "
            "set DATABASE_URL for the same engine. Nothing was changed."
        )
    if newer := _newer(manifest.migrations):
        raise UpkeepError(
            f"The backup is of a newer version (it has {newer}). Nothing was changed. "
            "Restore it with the version that made it."
        )


def _is_new() -> bool:
    """Tell whether nothing is here that a restore would lose; the key that a first start makes is nothing."""
    files = [name for name, _path in archive.state_files(_state(), images=False)]
    kept = {f"{archive.STATE}/secret_key", f"{archive.STATE}/{UNFINISHED}"}
    return databases.is_empty() and set(files) <= kept


def _set_aside(state: Path) -> Path:
    """Move the state's files into a folder of their own and return it. The images stay: they are large."""
    stamp = timezone.now().strftime("%Y%m%d-%H%M%S")
    folder = state / "backups" / f"replaced-{stamp}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True, mode=0o700)
    for name, path in list(archive.state_files(state, images=False)):
        if path.name == UNFINISHED:
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
    return folder


def _copy_state(source: Path, state: Path) -> None:
    for path in sorted(source.rglob("*")) if source.exists() else []:
        if path.is_file():
            target = state / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
