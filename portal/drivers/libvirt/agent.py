"""Ask the agent inside a guest; not for trusting its answers.

A guest may never answer, and libvirt would then wait for ever: every call here has a limit. That limit
stays with the domain, so a caller who needs longer (freezing file systems) sets its own before.
"""

import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

import libvirt

from portal.drivers.errors import HostUnreachable
from portal.drivers.libvirt.errors import translate
from portal.drivers.libvirt.xml.build import parse
from portal.drivers.types import AddressInfo
from portal.drivers.validation import MAC

CHANNEL = "devices/channel/target[@name='org.qemu.guest_agent.0']"
SECONDS = 2
MOST = 64  # cards and addresses taken from one guest's answer


def _connected(domain: libvirt.virDomain) -> bool:
    """Say whether the agent opened its end; calling one that is not up floods libvirt's log."""
    channel = parse(domain.XMLDesc()).find(CHANNEL)
    return channel is not None and channel.get("state") == "connected"


def _ask(domain: libvirt.virDomain, question: Callable[[], Any]) -> Any:
    """Return the agent's answer, None when there is none."""
    try:
        if not _connected(domain):
            return None
        domain.agentSetResponseTimeout(SECONDS)
        return question()
    except libvirt.libvirtError as error:
        # A guest may be silent, answer nonsense or power off: each is «no answer» and no fault of the host.
        if isinstance(translate(error), HostUnreachable):
            raise
        return None


def answers(domain: libvirt.virDomain) -> bool:
    """Say whether the agent of an active domain answers in time."""
    return _ask(domain, domain.getTime) is not None


def addresses(domain: libvirt.virDomain) -> tuple[AddressInfo, ...]:
    """Return the addresses that the guest tells, without loopback and link-local ones."""
    source = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
    cards = _ask(domain, lambda: domain.interfaceAddresses(source)) or {}
    return tuple(found for card in list(cards.values())[:MOST] for found in _usable(card))[:MOST]


def bring_online(domain: libvirt.virDomain, count: int) -> None:
    """Ask the guest to use `count` virtual processors; Linux leaves those that were plugged in offline."""
    _ask(domain, lambda: domain.setVcpusFlags(count, libvirt.VIR_DOMAIN_VCPU_GUEST))


def vcpus_online(domain: libvirt.virDomain) -> int | None:
    """Return how many virtual processors the guest says it uses, None when it says nothing."""
    told: int | None = _ask(domain, lambda: domain.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST))
    return told


def _usable(card: dict[str, Any]) -> Iterator[AddressInfo]:
    mac = str(card["hwaddr"] or "").lower()
    if not MAC.fullmatch(mac):
        return
    for entry in card["addrs"] or ():
        try:
            address = ipaddress.ip_address(entry["addr"])
        except ValueError:
            continue  # the guest may claim anything
        if not (address.is_loopback or address.is_link_local):
            yield AddressInfo(mac, str(address), entry["prefix"])
