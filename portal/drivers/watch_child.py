"""The child's side of `watch`: look at one host until the socket closes. Not to be imported.

Four threads share a connection, because a hung call must not hide that the rest of the host answers: one
beats, one lists domains, one reads definitions, one everything (a hung storage pool holds only that one).
None uses a call that waits for a guest or its emulator. A connection that broke never heals: the process
ends, and its parent starts another.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from portal.drivers import frames
from portal.drivers.base import HypervisorDriver
from portal.drivers.errors import DomainNotFound, DriverError, HostUnreachable, InvalidState
from portal.drivers.observations import (
    AddressesSeen,
    Changes,
    DefinitionsSeen,
    DomainChanged,
    DomainList,
    Heartbeat,
    HostLost,
    Observation,
    ObservationFailed,
    Snapshot,
    Started,
)
from portal.drivers.reading import MOST, DefinitionSeen, Rounds
from portal.drivers.registry import driver_for
from portal.drivers.types import AddressInfo, DomainInfo, DomainState

BEAT_SECONDS = 1.0
LIST_SECONDS = 2.5
SNAPSHOT_SECONDS = 10.0
DEFINITION_SECONDS = 2.5
SOONEST_LIST_SECONDS = 0.3  # after a change that says too little
GENTLE = 5  # a list that took t is not made again within 5 t
BATCH_SECONDS = 0.02
OPEN_BACKOFF_SECONDS = (0.1, 4.0)  # the parent must hear something within its limit of silence
MOST_LEASES = 50  # looked up a round for machines that wait for their first address


class Clock:
    """Moments that only grow, also when the wall clock is set back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at, self._sequence = 0.0, 0

    def now(self) -> tuple[float, int]:
        """Return the arguments of an `Observation` that begins now."""
        with self._lock:
            self._at = max(time.time(), self._at + 1e-6)
            self._sequence = max(time.monotonic_ns(), self._sequence + 1)
            return self._at, self._sequence


class Outbox:
    """Send messages from many threads, changes in batches."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock = sock
        self._clock = clock
        self._sending = threading.Lock()
        self._arrived = threading.Condition()
        self._changes: list[DomainChanged] = []
        threading.Thread(target=self._deliver, name="changes", daemon=True).start()

    def send(self, message: Observation) -> None:
        """Send at once; end the process when the parent is gone."""
        try:
            with self._sending:
                frames.send(self._sock, message)
        except OSError:
            os._exit(0)

    def add(self, uuid: str, name: str, state: DomainState | None) -> None:
        """Send a change within some 20 ms, with those that come meanwhile."""
        with self._arrived:
            self._changes.append(DomainChanged(*self._clock.now(), uuid, name, state))
            self._arrived.notify()

    def _deliver(self) -> None:
        batch_ended = 0.0
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._changes)
            # The first change after a quiet time goes at once; only a burst waits.
            time.sleep(max(0.0, batch_ended + BATCH_SECONDS - time.monotonic()))
            with self._arrived:
                batch, self._changes = tuple(self._changes), []
            self.send(Changes(batch[0].observed_at, batch[0].sequence, batch))
            batch_ended = time.monotonic()


class Session:
    """Watch one host over one connection until it breaks."""

    def __init__(self, driver: HypervisorDriver, outbox: Outbox, clock: Clock) -> None:
        self._driver = driver
        self._outbox = outbox
        self._clock = clock
        self._over = threading.Event()
        self._closed = threading.Event()
        self._list_now = threading.Event()
        self._end = HostUnreachable("the connection closed")
        self._addressed: set[str] = set()
        self._rounds = Rounds()

    def run(self) -> HostUnreachable:
        """Watch, and return what ended it."""
        self._try("events", lambda: self._driver.on_lifecycle(self._changed, self._closed.set))
        for loop in (self._list_domains, self._take_snapshots, self._read_definitions):
            threading.Thread(target=loop, name=loop.__name__, daemon=True).start()
        while not self._over.is_set():
            moment = self._clock.now()
            if self._try("ping", self._ping):
                self._outbox.send(Heartbeat(*moment))
            # libvirt says so at once when the wire breaks; the next ping then finds the reason.
            self._closed.wait(BEAT_SECONDS)
        return self._end

    def _ping(self) -> bool:
        self._driver.ping()
        return True

    def _changed(self, uuid: str, name: str, state: DomainState | None, unsure: bool) -> None:
        self._outbox.add(uuid, name, state)
        self._rounds.touched(uuid)
        if unsure:
            self._list_now.set()

    def _try(self, what: str, look: Callable[[], Any]) -> Any:
        """Return what was seen; None, having told the parent, when the host would not say."""
        try:
            return look()
        except HostUnreachable as error:
            self._end = error
            self._over.set()
        except DriverError as error:
            self._outbox.send(ObservationFailed(*self._clock.now(), what, error.raw))
        return None

    def _list_domains(self) -> None:
        while not self._over.is_set():
            moment, start = self._clock.now(), time.monotonic()
            domains = self._try("domains", self._driver.list_domains)
            if domains is not None:
                self._outbox.send(DomainList(*moment, domains))
                self._rounds.listed([domain.uuid for domain in domains])
                self._find_addresses(domains)
            rest = GENTLE * (time.monotonic() - start)
            self._over.wait(max(SOONEST_LIST_SECONDS, rest))
            self._list_now.wait(max(0.0, LIST_SECONDS - SOONEST_LIST_SECONDS))
            self._list_now.clear()

    def _find_addresses(self, domains: tuple[DomainInfo, ...]) -> None:
        """Look for the first lease of machines that started, sooner than the next snapshot would."""
        running = [domain.uuid for domain in domains if domain.state is DomainState.RUNNING]
        self._addressed &= set(running)
        waiting = [uuid for uuid in reversed(running) if uuid not in self._addressed]
        moment = self._clock.now()
        found = self._try("addresses", lambda: self._leases(waiting[:MOST_LEASES]))
        if found:
            self._addressed |= set(found)
            self._outbox.send(AddressesSeen(*moment, found))

    def _leases(self, uuids: list[str]) -> dict[str, tuple[AddressInfo, ...]]:
        found = {}
        for uuid in uuids:
            try:
                found[uuid] = self._driver.leases(uuid)
            except (DomainNotFound, InvalidState):
                continue  # it went while we looked
        return {uuid: addresses for uuid, addresses in found.items() if addresses}

    def _read_definitions(self) -> None:
        while not self._over.is_set():
            moment, start = self._clock.now(), time.monotonic()
            found = self._try("definitions", self._definitions)
            if found:
                self._outbox.send(DefinitionsSeen(*moment, found))
            # A full round says that others wait.
            pause = SOONEST_LIST_SECONDS if found and len(found) >= MOST else DEFINITION_SECONDS
            self._over.wait(max(pause, GENTLE * (time.monotonic() - start)))

    def _definitions(self) -> dict[str, DefinitionSeen]:
        found = {}
        for uuid in self._rounds.next():
            try:
                found[uuid] = DefinitionSeen.of(self._driver.definition(uuid))
            except (DomainNotFound, InvalidState):
                continue  # it went while we looked
            except HostUnreachable:
                raise
            except DriverError as error:
                # One that cannot be told must not hide the others.
                self._outbox.send(ObservationFailed(*self._clock.now(), f"definition of {uuid}", error.raw))
        return found

    def _take_snapshots(self) -> None:
        while not self._over.is_set():
            moment = self._clock.now()
            domains = self._try("domains", self._driver.list_domains)
            if domains is not None:
                self._take_snapshot(moment, domains)
            self._over.wait(SNAPSHOT_SECONDS)

    def _take_snapshot(self, moment: tuple[float, int], domains: tuple[DomainInfo, ...]) -> None:
        running = [domain.uuid for domain in domains if domain.state is DomainState.RUNNING]
        addresses = self._try("addresses", lambda: self._leases(running)) or {}
        pools = self._try("pools", self._driver.list_pools)
        networks = self._try("networks", self._driver.list_networks)
        host = self._try("host", self._driver.host_info)
        if not self._over.is_set():
            self._outbox.send(Snapshot(*moment, domains, addresses, pools, networks, host))


def _open(uri: str, outbox: Outbox, clock: Clock) -> HypervisorDriver:
    """Return a driver, tried again and again; opening may hang, and then the parent kills us."""
    pause, longest = OPEN_BACKOFF_SECONDS
    while True:
        moment = clock.now()
        outbox.send(Started(*moment))
        try:
            return driver_for(uri)
        except DriverError as error:
            outbox.send(HostLost(*moment, error.raw, error.code))
        time.sleep(pause)
        pause = min(longest, pause * 2)


def _end_with_parent(sock: socket.socket) -> None:
    """The parent never writes: the socket becomes readable when it is gone."""
    try:
        sock.recv(1)
    finally:
        os._exit(0)


def _end_at_once(failure: threading.ExceptHookArgs) -> None:
    """Let no thread die alone: the parent sees the end of the process and starts another."""
    sys.__excepthook__(failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)
    os._exit(1)


def main(descriptor: int, uri: str) -> None:
    """Watch `uri` and report over the socket `descriptor` until the connection or the parent is gone."""
    sock, clock = socket.socket(fileno=descriptor), Clock()
    threading.excepthook = _end_at_once
    threading.Thread(target=_end_with_parent, args=(sock,), daemon=True).start()
    outbox = Outbox(sock, clock)
    end = Session(_open(uri, outbox, clock), outbox, clock).run()
    outbox.send(HostLost(*clock.now(), end.raw, end.code))
    os._exit(0)  # hung calls and libvirt's own threads must not hold us


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
