"""Call a host's driver from a worker: one pool of killable children a host and process."""

import threading
from typing import Any

from portal.drivers.errors import HostRemoved
from portal.drivers.pool import HostPool
from portal.hosts.connections import connection_uri
from portal.hosts.models import Host

_lock = threading.Lock()
_pools: dict[int, HostPool] = {}


def call(host_id: int, verb: str, *args: Any, timeout: float = 30.0) -> Any:
    """Call the driver's `verb` on a host and return its answer within `timeout` seconds.

    Raises DriverError, of a host that was removed HostRemoved.
    """
    # Without what was seen of it, which is long: every step of every operation comes by here.
    host = Host.objects.filter(pk=host_id).only("uri", "host_key").first()
    if host is None:
        raise HostRemoved(f"there is no host {host_id}")
    return _pool(host).call(verb, *args, timeout=timeout)


def close_removed() -> None:
    """End this process's connections to hosts that were removed. Idempotent."""
    with _lock:
        known = list(_pools)
    if not known:
        return
    gone = set(known) - set(Host.objects.filter(pk__in=known).values_list("pk", flat=True))
    with _lock:
        pools = [_pools.pop(pk) for pk in gone if pk in _pools]
    for pool in pools:
        pool.close()


def _pool(host: Host) -> HostPool:
    uri = connection_uri(host)
    with _lock:
        pool = _pools.get(host.pk)
        if pool is None or pool.uri != uri:
            # Another key or host key: connections by the old ones end when their calls do.
            if pool is not None:
                pool.close()
            pool = _pools[host.pk] = HostPool(uri)
    return pool
