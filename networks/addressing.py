"""Which names, bridges and addresses a network may have. Not for: making it, which hosts do."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.translation import gettext as _

from networks.models import Network
from portal.core.errors import Denied

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
#: The kernel's limit of 15 characters, and nothing that a shell or XML would misread.
_BRIDGE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,14}")
_SMALLEST, _LARGEST = 29, 16
OWN_SUBNET = (Network.Kind.NAT, Network.Kind.ISOLATED)


@dataclass(frozen=True)
class Range:
    """The addresses of a network as they were checked: gateway, prefix, and what DHCP gives away."""

    address: str
    prefix: int
    dhcp_start: str
    dhcp_end: str


def check_name(name: str) -> str:
    """Return a network's name. Raises Denied."""
    if not _NAME.fullmatch(name):
        raise Denied(_("A name has small letters, digits and hyphens, at most 40, and no hyphen at an end."))
    return name


def check_bridge(bridge: str, kind: str) -> str:
    """Return a bridge's name that fits the kind. Raises Denied."""
    if not _BRIDGE.fullmatch(bridge):
        raise Denied(_("A bridge's name has at most 15 letters, digits, _ and -, and begins with a letter."))
    own = Network.objects.filter(bridge=bridge, kind__in=OWN_SUBNET).first()
    if own is not None:
        raise Denied(_("The bridge %(bridge)s belongs to the network %(network)s.") % {
            "bridge": bridge, "network": own,
        })
    if kind in OWN_SUBNET and Network.objects.filter(bridge=bridge).exists():
        raise Denied(_("The bridge %(bridge)s is a LAN's; a network of its own needs another name.") % {
            "bridge": bridge,
        })
    return bridge


def check_range(subnet: str, dhcp_start: str, dhcp_end: str) -> Range:
    """Return the addresses of a network of its own; an empty range is all but the gateway. Raises Denied.

    `subnet` is the gateway with the prefix, or the subnet, whose first address is then the gateway's.
    """
    try:
        asked = ipaddress.IPv4Interface(subnet)
    except ValueError as error:
        raise Denied(_("Write the subnet as 192.168.150.0/24.")) from error
    network = asked.network
    if not _LARGEST <= network.prefixlen <= _SMALLEST:
        raise Denied(_("A subnet is from /16 (65,534 machines) to /29 (5 machines)."))
    if not network.is_private or network.is_loopback or network.is_link_local:
        raise Denied(_("%(subnet)s is not private: use one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16.") % {
            "subnet": network,
        })
    _check_overlap(network, Network.objects.filter(kind__in=OWN_SUBNET))
    gateway = asked.ip if asked.ip != network.network_address else network.network_address + 1
    return _fit(network, gateway, dhcp_start, dhcp_end)


def _check_overlap(network: ipaddress.IPv4Network, others: Iterable[Network]) -> None:
    for other in others:
        taken = ipaddress.IPv4Interface(f"{other.address}/{other.prefix}").network
        if network.overlaps(taken):
            raise Denied(_("%(subnet)s overlaps %(taken)s of the network %(network)s.") % {
                "subnet": network, "taken": taken, "network": other,
            })


def _fit(
    network: ipaddress.IPv4Network, gateway: ipaddress.IPv4Address, dhcp_start: str, dhcp_end: str
) -> Range:
    first_free, last_free = network.network_address + 1, network.broadcast_address - 1
    if not first_free <= gateway <= last_free:
        raise Denied(_("The gateway's address is the subnet's own or its broadcast."))
    if gateway == first_free:
        first_free += 1
    try:
        first = ipaddress.IPv4Address(dhcp_start) if dhcp_start else first_free
        last = ipaddress.IPv4Address(dhcp_end) if dhcp_end else last_free
    except ValueError as error:
        raise Denied(_("Write addresses as 192.168.150.10.")) from error
    if not first_free <= first <= last <= last_free:
        raise Denied(_("The range for machines lies inside %(subnet)s, the smaller address first.") % {
            "subnet": network,
        })
    if first <= gateway <= last:
        raise Denied(_("The range for machines holds the gateway %(gateway)s.") % {"gateway": gateway})
    return Range(str(gateway), network.prefixlen, str(first), str(last))
