"""Listen to every host and write what they tell, in batches. Not for: what an observation means.

One process, one thread: `portal.drivers.watch` waits for no host, so neither does this.
"""

import logging
import threading
import time

from django.db import IntegrityError, InterfaceError, OperationalError, close_old_connections

from portal.drivers.errors import HostKeyUnconfirmed, NoIdentity
from portal.drivers.observations import Observation, ObservationFailed
from portal.drivers.watch import SILENCE_SECONDS, Watch
from portal.hosts import connections
from portal.hosts.connections import connection_uri
from portal.hosts.keys import current_key
from portal.hosts.models import Host
from portal.hosts.observations import Seen, write

_log = logging.getLogger(__name__)

READ_HOSTS_SECONDS = 2.0
#: Seconds until a database that was away or locked is asked again.
RETRY_SECONDS = 0.5


def _addresses() -> dict[str, int]:
    """Return what to connect by -> host. A host whose key nobody confirmed is left alone."""
    found, key = {}, current_key()
    for host in Host.objects.all():
        try:
            found[connection_uri(host, key)] = host.pk
        except HostKeyUnconfirmed:
            continue
        except NoIdentity as error:
            _log.error("%s cannot be watched: %s", host, error)
    return found


class Watcher:
    """Watches the hosts that are enrolled, which may come and go. `close` it in the end."""

    def __init__(self, *, silence: float = SILENCE_SECONDS) -> None:
        self._watch = Watch(silence=silence)
        self._hosts: dict[str, int] = {}
        self._pending: dict[int, Seen] = {}
        self._read_at = 0.0
        self._write_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set."""
        while not stop.is_set():
            self.turn(0.5)

    def close(self) -> None:
        """Write what is left, if the database takes it, and end every child. Idempotent."""
        self._watch.close()
        self.flush()

    def turn(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for something to be told, and write it."""
        if time.monotonic() >= self._read_at:
            self._read_hosts()
        try:
            for uri, message in self._watch.events(timeout):
                self.hear(uri, message)
        except Exception:
            # One host's nonsense must not end the watch of the others; the pause keeps it from spinning.
            _log.exception("an observation could not be read")
            time.sleep(RETRY_SECONDS)
        if time.monotonic() >= self._write_at:
            self.flush()

    def _read_hosts(self) -> None:
        self._read_at = time.monotonic() + READ_HOSTS_SECONDS
        try:
            hosts = _addresses()
        except (OperationalError, InterfaceError) as error:
            _log.warning("the list of hosts cannot be read now: %s", error)
            close_old_connections()
            return
        for uri in self._watch.uris - hosts.keys():
            self._watch.remove(uri)
        for uri in hosts.keys() - self._watch.uris:
            self._watch.add(uri)
        for pk in set(self._hosts.values()) - set(hosts.values()):
            connections.forget(pk)
        self._hosts = hosts

    def hear(self, uri: str, message: Observation) -> None:
        """Keep what a host told until the next write."""
        if uri not in self._hosts:
            return
        if isinstance(message, ObservationFailed):
            _log.warning("%s would not tell %s: %s", uri, message.what, message.reason)
            return
        try:
            self._pending.setdefault(self._hosts[uri], Seen()).take(message)
        except Exception:
            _log.exception("an observation of %s makes no sense", uri)

    def flush(self) -> None:
        """Write what hosts told, one after the other. It is kept while the database is locked or away."""
        if not self._pending:
            return
        try:
            hosts = Host.objects.in_bulk(list(self._pending))
            for pk in list(self._pending):
                # One that is not there was removed.
                if pk in hosts:
                    self._write_one(hosts[pk], self._pending[pk])
                del self._pending[pk]
        except (OperationalError, InterfaceError) as error:
            self._write_at = time.monotonic() + RETRY_SECONDS
            _log.warning("observations wait for the database: %s", error)
            # A connection that broke never heals; the next query opens another.
            close_old_connections()

    @staticmethod
    def _write_one(host: Host, seen: Seen) -> None:
        try:
            write(host, seen)
        except (OperationalError, InterfaceError):
            raise
        except IntegrityError as error:
            # As when it was removed meanwhile.
            _log.warning("what %s told is not written: %s", host, error)
        except Exception:
            # Dropped, not tried again: the host's next list says all of it anew.
            _log.exception("what %s told cannot be written", host)
