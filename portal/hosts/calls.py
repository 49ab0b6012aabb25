"""Call a host's driver from a worker: one pool of killable children a host and process."""

import threading
from typing import Any

from portal.drivers.pool import HostPool
from portal.hosts.models import Host

_lock = threading.Lock()
_pools: dict[str, HostPool] = {}


def call(host_id: int, verb: str, *args: Any, timeout: float = 30.0) -> Any:
    """Call the driver's `verb` on a host and return its answer within `timeout` seconds.

    Raises DriverError, and Host.DoesNotExist for a host that was removed.
    """
    uri = Host.objects.values_list("uri", flat=True).get(pk=host_id)
    with _lock:
        pool = _pools.setdefault(uri, HostPool(uri))
    return pool.call(verb, *args, timeout=timeout)
