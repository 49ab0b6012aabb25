"""Rows `audit.*`: what an entry of the trail adds to the change that it tells of.

A change is a real service in a real database file, on a trail of 20,000 entries: `set_maintenance`, which
locks a row, writes it and rings the bell. Turn and turn about it is made with its entry and without, so that
both see the same machine; which comes first is drawn by lot.
"""

import random
import time
from collections.abc import Iterator
from unittest.mock import patch

from django.core.management import call_command
from django.db import connection, transaction

from portal.accounts.models import Membership, Role, User
from portal.audit import services as audit
from portal.audit.models import AuditEntry
from portal.hosts.models import Host
from portal.hosts.services import set_maintenance
from tests.bench import estate
from tests.bench.measure import Row, median
from tests.bench.portal import redis

TRAIL, PAIRS, WARM = 20_000, 300, 20
LIMIT = 2.0  # ms


def measure() -> Iterator[Row]:
    """Yield the one row of the database that the settings name.

    Red when audit.services.record chains the entry itself (a call of `seal_pending()` before it returns).
    """
    call_command("migrate", verbosity=0, skip_checks=True)
    admin = User.objects.create(username="admin")
    Membership.objects.create(user=admin, project=None, role=Role.ADMIN)
    (host,) = estate.hosts(["fake:///one"])
    _write_trail(admin)
    with redis():
        pairs = [_pair(admin, host) for _ in range(WARM + PAIRS)]
    added = median([recorded - without for recorded, without in pairs[WARM:]])
    yield Row(f"audit.{connection.vendor}.added", added, "ms", LIMIT, f"median of {PAIRS} differences")


def _write_trail(admin: User) -> None:
    with transaction.atomic():
        entry = audit.record(actor=admin, verb="host.maintenance", target=admin)
        values = {
            "at": entry.at,
            "actor_id": entry.actor_id,
            "verb": entry.verb,
            "target_id": entry.target_id,
        }
        AuditEntry.objects.bulk_create((AuditEntry(**values) for _ in range(TRAIL)), batch_size=1000)
    while audit.seal_pending():
        pass


def _pair(admin: User, host: Host) -> tuple[float, float]:
    """Return how long a change takes with its entry and without, in milliseconds."""
    times = {}
    for recorded in random.sample((True, False), 2):
        with patch.object(audit, "record", audit.record if recorded else lambda **_entry: None):
            began = time.perf_counter()
            set_maintenance(actor=admin, host=host, on=True, reason="to measure it")
            times[recorded] = (time.perf_counter() - began) * 1000
    return times[True], times[False]
