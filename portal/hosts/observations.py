"""What hosts told, and the one place where it is written. Not for: listening, which `watcher` does."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db import transaction
from django.db.models import Q

from portal.drivers.observations import (
    AddressesSeen,
    Changes,
    DefinitionsSeen,
    DomainList,
    Heartbeat,
    HostLost,
    HostSilent,
    HostTold,
    Observation,
    Snapshot,
)
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import AddressInfo, DomainInfo, DomainState, HostInfo, PoolInfo
from portal.hosts.limits import note_pool, note_stopped, set_limits
from portal.hosts.models import Health, Host, PoolAttachment
from portal.hosts.storage.found import note_found
from portal.live.publish import publish
from portal.operations import ledger
from portal.operations.observers import DefinitionAt, DomainSeen, observers

#: States in which a domain holds its memory and processors.
_HOLDS = frozenset({DomainState.RUNNING, DomainState.PAUSED, DomainState.SHUTTING_DOWN})
_REASON_LENGTH = 200


def moment(message: Observation) -> datetime:
    """Return when the observation began."""
    return datetime.fromtimestamp(message.observed_at, UTC)


@dataclass
class Seen:
    """What one host told and nobody wrote yet; of each thing only the newest is kept."""

    health: Health | None = None
    health_began: datetime | None = None
    reason: str = ""
    code: str = ""
    stale_began: datetime | None = None
    listed: tuple[DomainInfo, ...] | None = None
    listed_began: datetime | None = None
    changes: dict[str, DomainSeen] = field(default_factory=dict)
    addresses: dict[str, tuple[AddressInfo, ...]] = field(default_factory=dict)
    definitions: dict[str, DefinitionAt] = field(default_factory=dict)
    pools: tuple[PoolInfo, ...] | None = None
    host: HostInfo | None = None

    def take(self, message: Observation) -> None:
        """Keep what `message` tells, unless something newer is kept already."""
        began = moment(message)
        match message:
            case HostLost():
                self._stale(began, message.reason, message.code)
            case HostSilent():
                self._stale(began, f"No answer for {message.silent_seconds:.0f} seconds.", "call_timeout")
            case HostTold():
                self._up(began)
                self.pools = message.pools or self.pools
                self.host = message.host or self.host
            case Changes():
                for change in message.changes:
                    self._change(DomainSeen(change.uuid, change.state, moment(change)))
            case Heartbeat():
                self._up(began)
            case AddressesSeen():
                self.addresses.update(message.addresses)
            case DefinitionsSeen():
                self._define(began, message.definitions)
            case DomainList():
                self._list(began, message.domains)
            case Snapshot():
                self._list(began, message.domains)
                self.addresses.update(message.addresses)
                self.pools = message.pools or self.pools
                self.host = message.host or self.host

    def _stale(self, began: datetime, reason: str, code: str) -> None:
        if self.health_began is None or began > self.health_began:
            # What a host says about itself may hold anything; NUL is the one that databases refuse.
            self.health, self.reason = Health.STALE, reason.replace("\0", "")[:_REASON_LENGTH]
            self.code = code
            self.health_began = self.stale_began = began

    def _up(self, began: datetime) -> None:
        if self.health_began is None or began > self.health_began:
            self.health, self.health_began = Health.UP, began
            self.reason = self.code = ""

    def _list(self, began: datetime, domains: tuple[DomainInfo, ...]) -> None:
        self._up(began)
        if self.listed_began is None or began > self.listed_began:
            self.listed, self.listed_began = domains, began

    def _define(self, began: datetime, definitions: Mapping[str, DefinitionSeen]) -> None:
        for uuid, seen in definitions.items():
            known = self.definitions.get(uuid)
            if known is None or began > known.began:
                self.definitions[uuid] = DefinitionAt(seen, began)

    def _change(self, seen: DomainSeen) -> None:
        known = self.changes.get(seen.uuid)
        if known is None or seen.began > known.began:
            self.changes[seen.uuid] = seen


def now() -> tuple[float, int]:
    """Return the arguments of an `Observation` that begins now."""
    return time.time(), time.monotonic_ns()


def note(host_id: int, message: Observation) -> None:
    """Write what a host answered to somebody else than the watcher, as the watcher would. Idempotent."""
    seen = Seen()
    seen.take(message)
    write(Host.objects.get(pk=host_id), seen)


def write(host: Host, seen: Seen) -> None:
    """Write what `seen` holds of `host`: first what it does, then what it has to give. Idempotent.

    In two transactions, so that nobody who takes of it waits for its machines, or the other way round.
    """
    with transaction.atomic():
        _write_doings(host, seen)
    if seen.host is not None or seen.listed is not None or seen.pools is not None:
        with transaction.atomic():
            _write_room(host, seen)


def _write_doings(host: Host, seen: Seen) -> None:
    _write_health(host, seen)
    for observer in observers():
        if seen.stale_began is not None:
            observer.host_stale(host.pk, seen.stale_began)
        if seen.listed is not None and seen.listed_began is not None:
            began = seen.listed_began
            whole = [DomainSeen(domain.uuid, domain.state, began) for domain in seen.listed]
            observer.domains(host.pk, whole, True, began)
        if seen.changes:
            changed = list(seen.changes.values())
            observer.domains(host.pk, changed, False, max(change.began for change in changed))
        if seen.addresses:
            observer.addresses(host.pk, seen.addresses)
        if seen.definitions:
            observer.definitions(host.pk, seen.definitions)


def _write_room(host: Host, seen: Seen) -> None:
    """Write what the host and its pools can give, their counters locked first and in everybody's order."""
    current = Host.objects.select_for_update(no_key=True).filter(pk=host.pk).first()
    if current is None:
        return
    pools = [] if seen.pools is None else current.pools.select_related("pool")
    ledger.lock([current.scope, *(attachment.pool.scope for attachment in pools)])
    _write_size(current, seen)
    if seen.pools is not None:
        _write_pools(current, {pool.uuid: pool for pool in seen.pools})


def _write_health(host: Host, seen: Seen) -> None:
    if seen.health is None:
        return
    older = Q(observed_at=None) | Q(observed_at__lt=seen.health_began)
    written = Host.objects.filter(older, pk=host.pk).update(
        observed_health=seen.health,
        observed_at=seen.health_began,
        observed_reason=seen.reason,
        observed_code=seen.code,
    )
    if written and (host.observed_health, host.observed_reason) != (seen.health, seen.reason):
        publish(host.topic)


def _write_size(host: Host, seen: Seen) -> None:
    """Write what the host has and what foreign domains take of it; limits follow when it changed."""
    values: dict[str, int] = {}
    if seen.host is not None:
        values |= {"observed_cpus": seen.host.cpus, "observed_memory": seen.host.memory_bytes}
    if seen.listed is not None:
        managed = {uuid for observer in observers() for uuid in observer.managed(host.pk)}
        foreign = [d for d in seen.listed if d.uuid not in managed and d.state in _HOLDS]
        values["observed_foreign_vcpus"] = sum(domain.vcpus for domain in foreign)
        values["observed_foreign_memory"] = sum(domain.memory_bytes for domain in foreign)
    if all(getattr(host, name) == value for name, value in values.items()):
        return
    for name, value in values.items():
        setattr(host, name, value)
    host.save(update_fields=list(values))
    set_limits(host)
    publish(host.topic)


def _write_pools(host: Host, found: Mapping[str, PoolInfo]) -> None:
    # Behind their lock: whoever forgets one holds it as well.
    known = list(PoolAttachment.objects.filter(host=host).select_related("pool"))
    if note_found(host, {attachment.pool.uuid for attachment in known}, found.values()):
        publish(host.topic)
    for attachment in known:
        info = found.get(str(attachment.pool.uuid))
        if info is None:
            continue
        told = {
            "observed_kind": info.kind[:16],
            "observed_active": info.active,
            "observed_autostart": info.autostart,
        }
        changed = any(getattr(attachment, name) != value for name, value in told.items())
        if changed:
            for name, value in told.items():
                setattr(attachment, name, value)
            attachment.save(update_fields=list(told))
        if not info.active:
            note_stopped(attachment)
        elif note_pool(attachment, info):
            changed = True
        if changed:
            publish(host.topic)
