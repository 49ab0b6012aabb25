"""What a watch reports of a host; not for deciding what it means.

Every message says when its observation *began*, so that an older one cannot overwrite a newer one that
happened to arrive first: `observed_at` in seconds since 1970 (never standing still within one watch), and
`sequence`, which grows from message to message and from one watch to the next until this machine restarts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import (
    AddressInfo,
    DomainInfo,
    DomainState,
    HostInfo,
    NetworkInfo,
    PoolInfo,
)

Addresses = Mapping[str, tuple[AddressInfo, ...]]


@dataclass(frozen=True, slots=True)
class Observation:
    """The moment at which an observation began."""

    observed_at: float
    sequence: int


@dataclass(frozen=True, slots=True)
class Started(Observation):
    """The watch's process runs and tries to open a connection; a watch keeps this to itself."""


@dataclass(frozen=True, slots=True)
class Heartbeat(Observation):
    """The host answered a cheap call just now; sent each second."""


@dataclass(frozen=True, slots=True)
class DomainChanged(Observation):
    """The host told of a change. `state` is None when the domain is gone from the host."""

    uuid: str
    name: str
    state: DomainState | None


@dataclass(frozen=True, slots=True)
class Changes(Observation):
    """The changes of some 20 ms in the order in which the host told them."""

    changes: tuple[DomainChanged, ...]


@dataclass(frozen=True, slots=True)
class DomainList(Observation):
    """Every domain of the host, every two to three seconds (less often on a slow host)."""

    domains: tuple[DomainInfo, ...]


@dataclass(frozen=True, slots=True)
class AddressesSeen(Observation):
    """Leases of running domains that had none before, by UUID."""

    addresses: Addresses


@dataclass(frozen=True, slots=True)
class DefinitionsSeen(Observation):
    """What some domains are defined as and run as, by UUID; a host with many tells them in turns."""

    definitions: Mapping[str, DefinitionSeen]


@dataclass(frozen=True, slots=True)
class Snapshot(Observation):
    """Everything of the host: at the start and every ten seconds.

    `addresses` holds the leases of running domains by UUID. `pools`, `networks` and `host` are None when
    the host refused to tell (an `ObservationFailed` says why).
    """

    domains: tuple[DomainInfo, ...]
    addresses: Addresses
    pools: tuple[PoolInfo, ...] | None
    networks: tuple[NetworkInfo, ...] | None
    host: HostInfo | None


@dataclass(frozen=True, slots=True)
class HostTold(Observation):
    """What a host said of itself when it was asked, and what pools it has; None for what was not asked."""

    host: HostInfo | None = None
    pools: tuple[PoolInfo, ...] | None = None


@dataclass(frozen=True, slots=True)
class ObservationFailed(Observation):
    """The host answers but would not tell one thing; `reason` is its own text, for operators."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class HostLost(Observation):
    """The host cannot be reached or the connection broke; said once, then tried again and again.

    `code` is the driver's word for it (`DriverError.code`), `reason` the host's own text, for operators.
    """

    reason: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class HostSilent(Observation):
    """The host takes calls and answers none; said once, then tried again and again."""

    silent_seconds: float
