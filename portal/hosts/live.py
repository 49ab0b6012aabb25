"""What the rows of hosts show, on the page and by the live socket."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.template.loader import render_to_string

from portal.hosts.models import Host
from portal.hosts.readiness import accelerator, health
from portal.live.panels import Panel, register, row_keys
from portal.operations.models import Counter
from portal.operations.observers import observers

_TITLES = {Counter.Resource.VCPU: "vCPUs", Counter.Resource.MEMORY: "Memory", Counter.Resource.DISK: "Disk"}


@dataclass(frozen=True)
class Usage:
    """How much of one resource is promised or in use; bytes but for vCPUs."""

    resource: str
    title: str
    taken: int
    limit: int

    @property
    def is_size(self) -> bool:
        """Tell whether the numbers are bytes."""
        return self.resource != Counter.Resource.VCPU

    @property
    def percent(self) -> int:
        """The share in use, at most 100."""
        return min(100, round(100 * self.taken / self.limit)) if self.limit else 100 if self.taken else 0


@dataclass(frozen=True)
class Row:
    """A host with what its row shows."""

    host: Host
    health: tuple[str, str]
    accelerator: tuple[str, str]
    machines: int
    usages: list[Usage]


def visible(user: Any) -> QuerySet[Any]:
    """Return the hosts whose pages `user` may open."""
    return Host.objects.restrict(user, "operate")


def rows(hosts: Sequence[Host]) -> list[Row]:
    """Return the rows of `hosts` in their order, with a constant number of queries."""
    pools = {
        host.pk: [attachment.pool.scope for attachment in host.pools.all()] for host in hosts
    }
    scopes = [host.scope for host in hosts] + [scope for found in pools.values() for scope in found]
    counters: dict[str, list[Counter]] = {}
    for counter in Counter.objects.filter(scope__in=scopes, resource__in=list(_TITLES)):
        counters.setdefault(counter.scope, []).append(counter)
    counts: dict[int, int] = {}
    for observer in observers():
        for pk, count in observer.machines([host.pk for host in hosts]).items():
            counts[pk] = counts.get(pk, 0) + count
    return [
        Row(
            host,
            health(host),
            accelerator(host),
            counts.get(host.pk, 0),
            _usages([c for scope in (host.scope, *pools[host.pk]) for c in counters.get(scope, ())]),
        )
        for host in hosts
    ]


def _usages(counters: Sequence[Counter]) -> list[Usage]:
    found = []
    for resource, title in _TITLES.items():
        of_it = [counter for counter in counters if counter.resource == resource]
        taken = sum(counter.taken for counter in of_it)
        found.append(Usage(str(resource), title, taken, sum(counter.limit or 0 for counter in of_it)))
    return found


def _render(user: Any, ids: Sequence[str]) -> dict[str, str]:
    found = visible(user).filter(pk__in=row_keys(ids)).prefetch_related("pools__pool")
    return {str(row.host.pk): render_to_string("hosts/row.html", {"row": row}) for row in rows(list(found))}


def register_panels() -> None:
    """Make the panels known to the live socket."""
    register(Panel("hosts.row", _render, lambda identity: [f"hosts.host:{identity}"]))
