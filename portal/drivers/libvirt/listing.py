"""List all domains in few round trips; not for single ones."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import libvirt

from portal.drivers.domainkinds import XEN_HOST
from portal.drivers.libvirt.domain import STATES, describe
from portal.drivers.libvirt.errors import translated
from portal.drivers.libvirt.saving import saved_uuids
from portal.drivers.types import DomainInfo, DomainState

#: Listings after which a domain's sizes are read again: they change rarely, and cost a round trip each.
EVERY = 30


class Listing:
    """The domains of one connection, whose names and states come by one call.

    That group of statistics does not hang on a frozen guest, unlike those that hold the sizes. Sizes are
    read when a domain is new or was started since, and of each anew in one of `EVERY` listings.
    """

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection
        self._known: dict[tuple[str, int], DomainInfo] = {}
        self._turn = 0
        self._gives_states = True

    @translated()
    def all(self) -> tuple[DomainInfo, ...]:
        """Return every domain by name; one that vanishes meanwhile is left out."""
        self._turn = (self._turn + 1) % EVERY
        known: dict[tuple[str, int], DomainInfo] = {}
        for domain, state in self._states():
            # All of it came with the list: neither asks the host.
            key = (domain.UUIDString(), domain.ID())
            info = self._known.get(key)
            if info is None or state is None or int(key[0][:8], 16) % EVERY == self._turn:
                try:
                    known[key] = describe(domain)
                except libvirt.libvirtError as error:
                    if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                        raise
                continue
            known[key] = DomainInfo(domain.name(), info.uuid, state, info.vcpus, info.memory_bytes)
        self._known = known
        return tuple(sorted(known.values(), key=lambda info: info.name))

    def _states(self) -> Iterator[tuple[libvirt.virDomain, DomainState | None]]:
        """Yield each domain with its state; None where the host gives none by the list (Xen, LXC).

        Xen's list holds the host itself, which is no domain of anybody's.
        """
        if self._gives_states:
            try:
                stats = self._connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                    raise
                self._gives_states = False
            else:
                yield from self._with_saved([(domain, _state(values)) for domain, values in stats])
                return
        for domain in self._connection.listAllDomains():
            if domain.UUIDString() != XEN_HOST:
                yield domain, None

    def _with_saved(
        self, found: Sequence[tuple[libvirt.virDomain, DomainState | None]]
    ) -> Iterator[tuple[libvirt.virDomain, DomainState | None]]:
        """Yield `found`, with what is saved among what is off told as that, by one more call."""
        off = any(state is DomainState.SHUTOFF for _domain, state in found)
        saved = saved_uuids(self._connection) if off else frozenset()
        for domain, state in found:
            is_saved = state is DomainState.SHUTOFF and domain.UUIDString() in saved
            yield domain, DomainState.SAVED if is_saved else state


def _state(values: Mapping[str, Any]) -> DomainState | None:
    told = values.get("state.state")
    return None if told is None else STATES.get(told, DomainState.UNKNOWN)
