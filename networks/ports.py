"""Ports of hosts that lead to machines on networks of their own. Not for: opening them."""

import secrets

from networks.models import Port
from portal.core.errors import Denied
from portal.hosts.models import Host

#: Below Linux's own range for outgoing connections (32768 and up), above what services use.
FIRST, LAST = 22000, 31999


def free_ssh_port(host: Host) -> int:
    """Return a port of `host` that no machine has. Joins the transaction; racing callers meet a constraint.

    Random, so that a number which another program took is hardly asked for twice. Raises Denied.
    """
    taken = set(Port.objects.filter(host=host, ssh_port__isnull=False).values_list("ssh_port", flat=True))
    free = [number for number in range(FIRST, LAST + 1) if number not in taken]
    if not free:
        raise Denied(f"{host} has no port left for another machine with a network of its own.")
    return secrets.choice(free)
