"""`python -m tests.bench [ROW…]`: measure the rows (all, or those whose names begin so) and print a table.

Wants what scripts/bench sets up. Each group of rows is measured by a process of its own on a state of its
own, which is removed afterwards. Writes var/bench.json; ends with 0 when every row holds.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from tests.bench.measure import Row, table

ROOT = Path(__file__).resolve().parents[2]
GROUP_LIMIT = 900  # seconds


def _lists() -> Iterator[Row]:
    from tests.bench import lists

    return lists.measure()


def _audit() -> Iterator[Row]:
    from tests.bench import audit

    return audit.measure()


def _build() -> Iterator[Row]:
    from tests.bench import build

    return build.measure()


def _live() -> Iterator[Row]:
    from tests.bench import live

    return live.measure()


def _frozen() -> Iterator[Row]:
    from tests.bench import frozen

    return frozen.measure()


def _copies() -> Iterator[Row]:
    from tests.bench import copies

    return copies.measure()


def _upload() -> Iterator[Row]:
    from tests.bench import upload

    return upload.measure()


def _deploy() -> Iterator[Row]:
    from tests.bench import deploy

    return deploy.measure()


#: Name of the group (its rows' names begin with it) -> what measures it, imported where Django is set up.
GROUPS: Mapping[str, Callable[[], Iterator[Row]]] = {
    "build": _build,
    "copies": _copies,
    "upload": _upload,
    "deploy": _deploy,
    "live": _live,
    "frozen": _frozen,
    "audit.sqlite": _audit,
    "audit.postgresql": _audit,
    "lists.sqlite": _lists,
    "lists.postgresql": _lists,
}


def _chosen(asked: list[str]) -> list[str]:
    """Return the groups that hold a row whose name begins as one of `asked` (all when nothing is)."""
    return [
        group
        for group in GROUPS
        if not asked or any(group.startswith(name) or name.startswith(f"{group}.") for name in asked)
    ]


def _measure_here(group: str) -> None:
    """Measure one group in this process and print a line of JSON a row."""
    import django

    django.setup()
    for row in GROUPS[group]():
        print("row", json.dumps(row.as_dict()), flush=True)


def _new_database(name: str) -> str:
    """Make a database on the bench's PostgreSQL and return its URL."""
    url = os.environ["BENCH_POSTGRESQL"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return url.replace("/postgres?", f"/{name}?")


def _measure(group: str, images: Path) -> Iterator[Row]:
    """Measure one group in a process and a state of its own. Raises RuntimeError when it fails."""
    with tempfile.TemporaryDirectory(prefix="gttest-bench-") as state:
        Path(state).chmod(0o755)
        (Path(state) / "images").symlink_to(images)
        env = {
            **os.environ,
            "GATEHOUSE_STATE": state,
            "DJANGO_SETTINGS_MODULE": "portal.settings",
        }
        if group.endswith("postgresql"):
            env["DATABASE_URL"] = _new_database(group.replace(".", "_"))
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench", "--group", group],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
            timeout=GROUP_LIMIT,
            check=False,
        )
        for line in done.stdout.splitlines():
            if line.startswith("row "):
                yield Row(**json.loads(line.removeprefix("row ")))
            else:
                print(line)
        if done.returncode:
            raise RuntimeError(f"the group {group} ended with {done.returncode}")


def main(asked: list[str]) -> int:
    """Measure and report. Returns 0 when every row holds, 1 when one does not or a group failed."""
    groups = _chosen(asked)
    if not groups:
        print(f"No row begins so. The groups are: {', '.join(GROUPS)}")
        return 2
    rows: list[Row] = []
    failed = []
    for group in groups:
        began = time.monotonic()
        print(f"Measuring {group}", flush=True)
        try:
            rows += _measure(group, Path(os.environ["GATEHOUSE_IMAGES"]))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed.append(group)
            print(error)
        print(f"  took {time.monotonic() - began:.0f} s", flush=True)
    rows = [row for row in rows if not asked or any(row.name.startswith(name) for name in asked)]
    print(table(rows))
    kept = ROOT / "var" / "bench.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps([row.as_dict() for row in rows], indent=1) + "\n")
    broken = [row.name for row in rows if not row.holds]
    print(f"{len(rows) - len(broken)} of {len(rows)} rows hold.")
    if broken:
        print(f"Not: {', '.join(broken)}")
    if failed:
        print(f"Not measured: {', '.join(failed)}")
    return 1 if broken or failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--group"]:
        _measure_here(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
