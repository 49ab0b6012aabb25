"""Ports of machines on hosts, and those of a host that lead to machines. Not for: opening them."""

import secrets

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from networks.models import Port
from portal.core.errors import Denied
from portal.hosts.models import Host

#: Below Linux's own range for outgoing connections (32768 and up), above what services use.
FIRST, LAST = 22000, 31999


def on_host(host: Host) -> str:
    """Return how many network cards of machines are on networks of `host`, in a sentence; '' for none."""
    count = Port.objects.filter(host=host).count()
    words = ngettext(
        "%(count)d network card is on its networks.", "%(count)d network cards are on its networks.", count
    )
    return words % {"count": count} if count else ""


def free_ssh_port(host: Host) -> int:
    """Return a port of `host` that no machine has. Joins the transaction; racing callers meet a constraint.

    Random, so that a number which another program took is hardly asked for twice. Raises Denied.
    """
    taken = set(Port.objects.filter(host=host, ssh_port__isnull=False).values_list("ssh_port", flat=True))
    free = [number for number in range(FIRST, LAST + 1) if number not in taken]
    if not free:
        sentence = _("%(host)s has no port left for another machine with a network of its own.")
        raise Denied(sentence % {"host": host})
    return secrets.choice(free)
