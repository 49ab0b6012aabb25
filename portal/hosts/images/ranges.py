"""Which addresses the portal may fetch from, and which networks an admin may allow. Knows no Django.

Public addresses are always allowed. Whoever runs the portal allows any other by the environment; an admin
only private networks, and never what is closed here: the portal's own machine, and where clouds tell
passwords to their machines. Not for: looking names up, or connecting, which `fetching` does.
"""

import ipaddress
import re
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: What Python's `is_global` lets through, some versions of it, and no public server has: the IETF's own (PCP
#: and TURN answer there in the network at hand; ORCHIDs), relays of 6to4, documentation (RFC 9637), segments
#: of SRv6, and what Azure tells its machines by (WireServer).
_NOBODY = _networks(
    "192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "3fff::/20", "5f00::/16"
)
#: What admins may allow, or a part of it: networks for private use (RFC 1918, 6598, 4193).
PRIVATE = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
#: The portal's own machine: its database, its Redis and whatever trusts who is on it answer there.
OWN = _networks("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128")
#: Where clouds tell their machines passwords and keys, each by an address of its own; some are private ones.
METADATA = _networks(
    "169.254.0.0/16",
    "fe80::/10",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
)
CLOSED = OWN + METADATA
_WRITTEN = re.compile(r"[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?", re.ASCII)


def is_within(address: Address, networks: Sequence[Network]) -> bool:
    """Tell whether `address` is in any of `networks`."""
    return any(address in network for network in networks)


def meant(address: Address) -> list[Address]:
    """Return the addresses that a packet to `address` may end at: itself, or an IPv4 address within it."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    within = [address.sixtofour, address.teredo[1] if address.teredo else None]
    if address in _NAT64:
        within.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(found for found in within if found is not None)]


def is_allowed(address: Address, networks: Sequence[Network], opened: Sequence[Network] = ()) -> bool:
    """Tell whether the portal may connect to `address`.

    It is public, or in one of `networks`, which whoever runs the portal allows, or in one of `opened`, which
    an admin does: of those counts alone what admins may allow, whatever stands there.
    """
    return all(
        is_public(found)
        or is_within(found, networks)
        or (can_be_opened(found) and is_within(found, opened))
        for found in meant(address)
    )


def can_be_opened(address: Address) -> bool:
    """Tell whether an admin may allow this very address."""
    return is_within(address, PRIVATE) and not is_within(address, CLOSED)


def is_closed(address: Address) -> bool:
    """Tell whether no admin can allow what a packet to `address` may end at."""
    return not all(is_public(found) or can_be_opened(found) for found in meant(address))


def is_public(address: Address) -> bool:
    """Tell whether a public server may have `address`."""
    if address.is_multicast or address.is_reserved or is_within(address, _NOBODY):
        return False
    # Deprecated, and some networks have it within still.
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not site_local


def parsed(text: str) -> Network | None:
    """Return a network as people write it, with bits of a host or not; None for what is none."""
    if not _WRITTEN.fullmatch(text):
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def lies_in(network: Network, others: Sequence[Network]) -> Network | None:
    """Return which of `others` holds all of `network`, None when none does."""
    return next((other for other in others if _holds(other, network)), None)


def held_by(network: Network, others: Sequence[Network]) -> list[Network]:
    """Return those of `others` that lie in `network`, without itself."""
    return [other for other in others if other != network and _holds(network, other)]


def _holds(outer: Network, inner: Network) -> bool:
    if isinstance(outer, ipaddress.IPv4Network) and isinstance(inner, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(outer, ipaddress.IPv6Network) and isinstance(inner, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False
