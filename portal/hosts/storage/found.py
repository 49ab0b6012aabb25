"""Pools that hosts have and the portal does not know, as they are seen. Not for: taking one over."""

import uuid
from collections.abc import Collection, Iterable
from typing import Any

from portal.drivers.types import PROBE_PREFIX, PoolInfo
from portal.hosts.models import FoundPool, Host

#: Rows of one host at most: what a host says may be anything.
MOST = 200
_LARGEST = (1 << 63) - 1


def values_of(info: PoolInfo) -> dict[str, Any]:
    """Return what a row says of a pool that a host told of."""
    return {
        "observed_name": info.name[:255],
        "observed_kind": info.kind[:32],
        "observed_path": info.path[:4096],
        "observed_source": info.source[:4096],
        "observed_server": info.server[:255],
        "observed_persistent": info.persistent,
        "observed_active": info.active,
        "observed_autostart": info.autostart,
        "observed_capacity": min(info.capacity_bytes, _LARGEST),
        "observed_available": min(info.available_bytes, _LARGEST),
    }


def note_found(host: Host, known: Collection[uuid.UUID], told: Iterable[PoolInfo]) -> bool:
    """Write which of a host's pools are none of those `known`; tell whether that is news. Idempotent.

    Pools of a proof come and go. Of too many only the first by name are written.
    """
    others: dict[uuid.UUID, PoolInfo] = {}
    for info in sorted(told, key=lambda info: info.name):
        own = uuid.UUID(info.uuid)
        if own not in known and not info.name.startswith(PROBE_PREFIX) and len(others) < MOST:
            others[own] = info
    rows = {row.uuid: row for row in host.found_pools.all()}
    gone = [row.pk for own, row in rows.items() if own not in others]
    if gone:
        FoundPool.objects.filter(pk__in=gone).delete()
    made, news = [], bool(gone)
    for own, info in others.items():
        values, row = values_of(info), rows.get(own)
        if row is None:
            made.append(FoundPool(host=host, uuid=own, **values))
        elif any(getattr(row, name) != value for name, value in values.items()):
            news = True
            FoundPool.objects.filter(pk=row.pk).update(**values)
    FoundPool.objects.bulk_create(made, ignore_conflicts=True)
    return news or bool(made)
