"""Rows `lists.*`: the list of machines and a machine's page at 10,000 machines on 100 hosts.

The time is what a client on loopback waits from the request to the last byte of the answer of the real web
process (uvicorn, every middleware, a signed-in session) on a connection that is kept open. Nobody watches the
hundred hosts meanwhile: they exist in the database alone.
"""

import re
import time
from collections.abc import Iterator

from django.db import connection

from tests.bench import estate
from tests.bench.measure import Row, p95
from tests.bench.portal import Person, started

MACHINES, HOSTS = 10_000, 100
WARM, SAMPLES = 5, 40
LIST_LIMIT, DETAIL_LIMIT = 60.0, 40.0  # ms
SORTS = ("name", "state", "host", "size", "owner", "lease")


def measure() -> Iterator[Row]:
    """Yield the rows of the database that the settings name.

    Red when vms.views.machines walks `found` instead of a page of it (`list(found)`), or when live.visible
    leaves select_related out.
    """
    database = connection.vendor
    with started() as portal:
        # A hundred children that look for hosts that are not there would take the processors.
        portal.stop("watcher")
        made = estate.machines(MACHINES, estate.hosts([f"fake:///rack-{n}" for n in range(HOSTS)]))
        _analyse()
        for who in ("requester", "admin"):
            person = Person(portal, who)
            for name, paths in _pages(person).items():
                worst = max((_p95(person, path), path) for path in paths)
                yield Row(
                    f"lists.{database}.{who}.{name}",
                    worst[0],
                    "ms",
                    LIST_LIMIT,
                    f"p95 of {SAMPLES}" + (f", the slowest of {len(paths)}: {worst[1]}" if paths[1:] else ""),
                )
            mine = [vm.pk for vm in made if vm.owner.username == "requester"]
            slowest = max(_p95(person, f"/machines/{pk}/") for pk in mine[:3])
            yield Row(f"lists.{database}.{who}.detail", slowest, "ms", DETAIL_LIMIT, f"p95 of {SAMPLES}")


def _analyse() -> None:
    """Let PostgreSQL know what it holds, as its own daemon does within a minute."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


def _pages(person: Person) -> dict[str, list[str]]:
    last = _last_page(person)
    return {
        "first_page": ["/machines/"],
        "search": ["/machines/?q=42", "/machines/?q=b-0"],
        "sorted": [f"/machines/?sort={way}{sort}" for sort in SORTS for way in ("", "-")],
        "last_page": [f"/machines/?page={last}", f"/machines/?sort=-host&page={last}"],
    }


def _last_page(person: Person) -> int:
    """Return the number of the last page, as the paginator links it."""
    return max(int(number) for number in re.findall(r"[?&]page=(\d+)", person.get("/machines/")))


def _p95(person: Person, path: str) -> float:
    """Return the time of a page in milliseconds."""
    for _ in range(WARM):
        person.get(path)
    samples = []
    for _ in range(SAMPLES):
        began = time.perf_counter()
        person.get(path)
        samples.append((time.perf_counter() - began) * 1000)
    return p95(samples)
