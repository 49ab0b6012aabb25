"""Observers: who owns a model hears here what the watcher saw of it. Not for: watching.

The watcher lives in `portal.hosts`, below the rooms that own what runs on hosts, so those register.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import AddressInfo, DomainState


@dataclass(frozen=True, slots=True)
class DomainSeen:
    """What was seen of one domain; `state` None when it is gone, `began` when the observation began."""

    uuid: str
    state: DomainState | None
    began: datetime


@dataclass(frozen=True, slots=True)
class DefinitionAt:
    """What was seen of one domain's definition; `began` when the observation began."""

    seen: DefinitionSeen
    began: datetime


class Observer(ABC):
    """Write what was seen. Every method joins the caller's transaction and is idempotent.

    An observation that began earlier never overwrites one that began later.
    """

    @abstractmethod
    def domains(
        self, host_id: int, seen: Sequence[DomainSeen], complete: bool, began: datetime
    ) -> None:
        """Take the domains of a host: all of them when `complete`, else those that changed."""

    @abstractmethod
    def addresses(self, host_id: int, addresses: Mapping[str, tuple[AddressInfo, ...]]) -> None:
        """Take the addresses that were seen, by the domain's UUID; others are as before."""

    @abstractmethod
    def definitions(self, host_id: int, definitions: Mapping[str, DefinitionAt]) -> None:
        """Take the definitions that were seen, by the domain's UUID; others are as before."""

    @abstractmethod
    def host_stale(self, host_id: int, began: datetime) -> None:
        """Say that nobody knows what a host's domains do; the next complete list tells."""

    @abstractmethod
    def managed(self, host_id: int) -> set[str]:
        """Return the UUIDs of the host's domains that this observer's room counts in the ledger."""

    @abstractmethod
    def machines(self, host_ids: Sequence[int]) -> Mapping[int, int]:
        """Return how many machines each host has, for lists; one query."""


_observers: list[Observer] = []


def register(observer: Observer) -> None:
    """Let `observer` hear what is seen from now on."""
    _observers.append(observer)


def observers() -> Sequence[Observer]:
    """Return everybody who wants to hear."""
    return tuple(_observers)
