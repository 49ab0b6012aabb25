"""Hear of changes on a libvirt host; not for what they mean to the portal."""

import threading
import time
from collections.abc import Callable

import libvirt

from portal.drivers.domainkinds import XEN_HOST
from portal.drivers.libvirt.errors import translated
from portal.drivers.types import DomainInfo, DomainState

Changed = Callable[[str, str, DomainState | None, bool], None]
Closed = Callable[[], None]

_STATES = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: DomainState.SHUTOFF,
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: DomainState.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_CRASHED: DomainState.CRASHED,
}
_UNSURE = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED,
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED,  # a transient domain is gone then
}
#: In which a domain that is undefined is gone at once.
_OFF = frozenset({DomainState.SHUTOFF, DomainState.SAVED})


class Lifecycle:
    """Turn one connection's lifecycle events into states.

    Defining and undefining say nothing about a domain's state: the last one known is used, and the
    callback's last argument tells that only a new list is sure.
    """

    def __init__(self, connection: libvirt.virConnect, changed: Changed, closed: Closed) -> None:
        self._changed = changed
        self._closed = closed
        self._lock = threading.Lock()
        self._known: dict[str, DomainState] = {}
        self._heard: dict[str, float] = {}
        self._register(connection)

    @translated()
    def _register(self, connection: libvirt.virConnect) -> None:
        connection.registerCloseCallback(self._on_close, None)
        kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        connection.domainEventRegisterAny(None, kind, self._on_event, None)

    def learn(self, domains: tuple[DomainInfo, ...], began: float) -> None:
        """Take the states of a list as known, but for domains that changed since it `began` (monotonic)."""
        known = {domain.uuid: domain.state for domain in domains}
        with self._lock:
            newer = {uuid for uuid, at in self._heard.items() if at >= began}
            known = {uuid: state for uuid, state in known.items() if uuid not in newer}
            self._known = {uuid: s for uuid, s in self._known.items() if uuid in newer} | known
            self._heard = {uuid: self._heard[uuid] for uuid in newer}

    def _on_close(self, _connection: libvirt.virConnect, _reason: int, _context: object) -> None:
        self._closed()

    def _on_event(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        event: int,
        detail: int,
        _context: object,
    ) -> None:
        uuid = domain.UUIDString()
        if uuid == XEN_HOST:
            return
        with self._lock:
            self._heard[uuid] = time.monotonic()
            state = self._state(uuid, event, detail)
            if state is None:
                self._known.pop(uuid, None)
            else:
                self._known[uuid] = state
        self._changed(uuid, domain.name(), state, event in _UNSURE)

    def _state(self, uuid: str, event: int, detail: int) -> DomainState | None:
        known = self._known.get(uuid, DomainState.SHUTOFF)
        if event == libvirt.VIR_DOMAIN_EVENT_UNDEFINED:
            # Undefined while it runs, a domain goes on until it is off.
            return None if known in _OFF else known
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED and detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED:
            # Into a file of somebody's choice, it might be: a new list says so.
            return DomainState.SAVED
        return _STATES.get(event, known)
