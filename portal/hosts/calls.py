"""Call a host's driver from a worker: one pool of killable children a host and process."""

import threading
from typing import Any

from portal.drivers.pool import HostPool
from portal.hosts.connections import connection_uri
from portal.hosts.models import Host

_lock = threading.Lock()
_pools: dict[int, HostPool] = {}


def call(host_id: int, verb: str, *args: Any, timeout: float = 30.0) -> Any:
    """Call the driver's `verb` on a host and return its answer within `timeout` seconds.

    Raises DriverError, and Host.DoesNotExist for a host that was removed.
    """
    return _pool(Host.objects.get(pk=host_id)).call(verb, *args, timeout=timeout)


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
