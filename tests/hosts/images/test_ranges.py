"""Which addresses the portal may fetch from: public ones, and those that somebody allowed who may."""

import ipaddress

import pytest

from portal.hosts.images import ranges

PUBLIC = ["93.184.216.34", "2606:4700::1111", "2001:4860:4860::8888", "2001:200::1", "::ffff:93.184.216.34"]
EVERYTHING = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address):
    assert ranges.is_allowed(ipaddress.ip_address(address), [])


SPECIAL = [
    "fec0::1",  # site-local
    "feff:ffff::1",
    "100::1",  # discard
    "2001:2::1",  # benchmarking
    "2001:db8::1",  # documentation
    "3fff::1",
    "3fff:fff::1",
    "2001:10::1",  # ORCHID
    "2001:20::1",
    "2001:30::1",  # drones' tags
    "2001:1::1",  # PCP's and TURN's anycast
    "2001:1::2",
    "192.0.0.9",
    "192.0.0.10",
    "192.88.99.1",  # relays of 6to4
    "168.63.129.16",  # Azure's WireServer
    "5f00::1",  # SRv6's segments
    "64:ff9b:1::a00:1",  # NAT64 of a network's own
    "::10.0.0.1",
    "::ffff:0:10.0.0.1",
    "ff0e::1",
]


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_are_refused_unless_their_network_is_allowed(address):
    """Red when `is_public` does not look at `is_site_local`, or at `_NOBODY`."""
    found = ipaddress.ip_address(address)
    assert not ranges.is_allowed(found, [])
    assert ranges.is_allowed(found, [ipaddress.ip_network(address)])


PRIVATE = ["10.1.2.3", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fd12:3456::1", "::ffff:10.0.0.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_allowed_where_an_admin_opened_its_network(address):
    """Red when what admins opened does not count, or an IPv4 address is compared as it is written."""
    found = ipaddress.ip_address(address)
    assert not ranges.is_allowed(found, []) and not ranges.is_closed(found)
    assert ranges.is_allowed(found, [], ranges.PRIVATE)
    assert not ranges.is_allowed(found, [], [ipaddress.ip_network("10.99.0.0/16")])


CLOSED = [
    "127.0.0.1",
    "0.0.0.0",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2002:a00:1::",
    "169.254.169.254",
    "fe80::1",
    "100.100.100.200",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "2002:a9fe:a9fe::",
    "255.255.255.255",
    "224.0.0.1",
]


@pytest.mark.parametrize("address", [*CLOSED, *SPECIAL])
def test_what_is_closed_stays_so_whatever_an_admin_opened(address):
    """Red when what admins opened is not held against what they may open: a row may be of any making."""
    found = ipaddress.ip_address(address)
    assert ranges.is_closed(found) and not ranges.is_allowed(found, [], EVERYTHING)


@pytest.mark.parametrize("address", CLOSED)
def test_whoever_runs_the_portal_may_allow_that_too(address):
    assert ranges.is_allowed(ipaddress.ip_address(address), EVERYTHING)


@pytest.mark.parametrize(
    "text",
    ["", "a", "10", "10.0.0.0/33", "10.0.0.0/8/8", "010.0.0.0/8", "10.0.0.0/-1", "10.0.0.0/255.0.0.0"]
    + ["fd00::/129", "10.0.0.0/8 ", "fe80::1%eth0", "\u0661\u0660.0.0.0/8", "localhost", "1.2.3", ":::"]
    + ["x" * 9999],
)
def test_what_is_no_network_is_none(text):
    assert ranges.parsed(text) is None


def test_networks_of_both_kinds_are_compared():
    """Red when two of different versions raise, or a network counts as held by itself."""
    own = [*EVERYTHING, *ranges.PRIVATE]
    small = ipaddress.ip_network("10.2.0.0/16")
    assert ranges.lies_in(small, ranges.PRIVATE) == ranges.PRIVATE[0]
    assert ranges.lies_in(EVERYTHING[0], ranges.PRIVATE) is None
    assert ranges.held_by(ranges.PRIVATE[0], [small, *own]) == [small]
