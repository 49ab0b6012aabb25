"""Copy the whole database out and in, each engine in its own format. Not for: files beside it.

SQLite: its online backup, which is consistent while others write (https://sqlite.org/backup.html).
PostgreSQL: pg_dump's custom format, taken in an exported snapshot, so that what is said of it is true of it.
"""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connection, connections, transaction

from portal.upkeep.errors import UpkeepError

_HEAD = "SELECT seal FROM audit_auditseal ORDER BY id DESC LIMIT 1"
_MIGRATIONS = "SELECT app, name FROM django_migrations ORDER BY app, name"
#: libpq's environment for what Django's settings call otherwise.
_LIBPQ = {
    "NAME": "PGDATABASE",
    "USER": "PGUSER",
    "PASSWORD": "PGPASSWORD",
    "HOST": "PGHOST",
    "PORT": "PGPORT",
}
_LIBPQ_OPTIONS = {"host": "PGHOST", "port": "PGPORT", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}


@dataclass(frozen=True)
class Content:
    """What a copy holds: the end of the audit chain, and [app, name] of each migration that made it."""

    head: str
    migrations: list[list[str]]


def file_name() -> str:
    """Return what the copy is called in an archive; it tells the engine."""
    return "database.sqlite3" if connection.vendor == "sqlite" else "database.pgdump"


def copy_to(target: Path) -> Content:
    """Write a consistent copy of the database to `target` while others go on. Raises UpkeepError."""
    return _copy_sqlite(target) if connection.vendor == "sqlite" else _dump_postgres(target)


def is_empty() -> bool:
    """Tell whether the database holds no table yet."""
    if connection.vendor == "sqlite":
        return not _sqlite_path().exists() or not connection.introspection.table_names()
    return not connection.introspection.table_names()


def check(source: Path) -> None:
    """Read the copy `source` through. Raises UpkeepError when it is damaged."""
    if connection.vendor != "sqlite":
        # Reads the table of contents; each member's checksum is the archive's matter.
        _run(["pg_restore", "--list", str(source)])
        return
    try:
        with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as copy:
            found = copy.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise UpkeepError(f"The database in the backup is damaged: {found}. Nothing was changed.")


def put_back(source: Path, *, replaced: Path | None) -> None:
    """Make the database what `source` holds. What was there goes to the folder `replaced` first.

    Raises UpkeepError. Nobody else may use the database meanwhile.
    """
    if not is_empty():
        if replaced is None:
            raise UpkeepError("The database is not empty, and nothing was said about replacing it.")
        copy_to(replaced / file_name())
    connections.close_all()
    if connection.vendor == "sqlite":
        _put_sqlite(source)
    else:
        _restore_postgres(source)
    connections.close_all()


def _sqlite_path() -> Path:
    return Path(connection.settings_dict["NAME"])


def _copy_sqlite(target: Path) -> Content:
    try:
        with closing(sqlite3.connect(_sqlite_path())) as live, closing(sqlite3.connect(target)) as copy:
            live.backup(copy)
            # WAL would leave two more files beside the copy.
            copy.execute("PRAGMA journal_mode=DELETE")
            head = copy.execute(_HEAD).fetchone()
            migrations = [list(row) for row in copy.execute(_MIGRATIONS)]
    except sqlite3.Error as error:
        raise UpkeepError(f"The database could not be copied: {error}.") from error
    return Content(head[0] if head else "", migrations)


def _put_sqlite(source: Path) -> None:
    path = _sqlite_path()
    staged = path.with_name(path.name + ".restored")
    shutil.copyfile(source, staged)
    staged.chmod(0o640)
    # An old log would be played into the new database.
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.replace(staged, path)


def _libpq() -> dict[str, str]:
    settings: Mapping[str, Any] = connection.settings_dict
    found = {_LIBPQ[key]: settings[key] for key in _LIBPQ if settings.get(key)}
    options = settings.get("OPTIONS", {})
    found |= {_LIBPQ_OPTIONS[key]: options[key] for key in _LIBPQ_OPTIONS if options.get(key)}
    return {**os.environ, **{key: str(value) for key, value in found.items()}}


def _run(arguments: Sequence[str]) -> None:
    try:
        subprocess.run(arguments, env=_libpq(), check=True, capture_output=True, text=True)  # noqa: S603
    except FileNotFoundError as error:
        raise UpkeepError(f"{arguments[0]} is missing: install PostgreSQL's client.") from error
    except subprocess.CalledProcessError as error:
        raise UpkeepError(f"{arguments[0]} failed: {error.stderr.strip()[:500]}") from error


@contextmanager
def _snapshot() -> Iterator[str]:
    """Hold a snapshot that another connection can read by the name that is given."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT pg_export_snapshot()")
        yield cursor.fetchone()[0]


def _dump_postgres(target: Path) -> Content:
    # A transaction that began already has its snapshot.
    connections.close_all()
    with _snapshot() as name, connection.cursor() as cursor:
        cursor.execute(_HEAD)
        head = cursor.fetchone()
        cursor.execute(_MIGRATIONS)
        migrations = [list(row) for row in cursor.fetchall()]
        command = ["pg_dump", "--format=custom", "--no-owner"]
        _run([*command, f"--snapshot={name}", f"--file={target}"])
    return Content(head[0] if head else "", migrations)


def _restore_postgres(source: Path) -> None:
    # What a newer version made would be in the way of migrating to it again.
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"DROP TABLE {connection.ops.quote_name(table)} CASCADE")
    connections.close_all()
    command = ["pg_restore", "--clean", "--if-exists", "--no-owner", "--exit-on-error"]
    _run([*command, "--single-transaction", f"--dbname={connection.settings_dict['NAME']}", str(source)])
