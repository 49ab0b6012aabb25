"""What a guest's agent says is hostile, and a guest that says nothing costs a bounded time."""

import libvirt
import pytest

from portal.drivers.errors import HostUnreachable
from portal.drivers.libvirt import agent
from portal.drivers.libvirt.errors import translated
from portal.drivers.types import AddressInfo

MAC = "52:54:00:00:00:01"


class Guest:
    """A domain as libvirt's library shows it."""

    def __init__(self, state="connected", cards=None, error=None):
        self.state, self.cards, self.error = state, cards, error
        self.asked, self.limit = 0, None

    def XMLDesc(self):
        target = f"<target type='virtio' name='org.qemu.guest_agent.0' state='{self.state}'/>"
        return f"<domain><devices><channel type='unix'>{target}</channel></devices></domain>"

    def agentSetResponseTimeout(self, seconds):
        self.limit = seconds

    def getTime(self):
        return self.interfaceAddresses(0)

    def interfaceAddresses(self, _source):
        assert self.limit == agent.SECONDS
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.cards


class Failure(libvirt.libvirtError):
    def __init__(self, code, domain=0):
        super().__init__("failed")
        self.err = (code, domain, "failed", 2, None, None, None, 0, 0)


def card(*addresses, mac=MAC):
    return {"hwaddr": mac, "addrs": [{"addr": a, "prefix": 24, "type": 0} for a in addresses]}


def test_a_silent_agent_is_not_asked():
    """Red when the channel's state is not looked at."""
    for state in ("disconnected", ""):
        guest = Guest(state, {})
        assert agent.addresses(guest) == () and not agent.answers(guest)
        assert guest.asked == 0


def test_only_addresses_that_others_can_reach_are_taken():
    """Red when an address is taken as the guest spells it, or loopback is kept."""
    cards = {
        "lo": card("127.0.0.1", "::1", mac="00:00:00:00:00:00"),
        "eth0": card("192.0.2.5", "fe80::1", "2001:DB8::1", "<script>", "999.1.1.1", mac=MAC.upper()),
        "none": {"hwaddr": MAC, "addrs": None},
        "nomac": card("192.0.2.6", mac=None),
    }
    assert agent.addresses(Guest(cards=cards)) == (
        AddressInfo(MAC, "192.0.2.5", 24),
        AddressInfo(MAC, "2001:db8::1", 24),
    )


def test_a_flood_is_cut():
    """Red when MOST is not applied."""
    cards = {f"eth{n}": card(*(f"10.0.{n}.{m}" for m in range(1, 200))) for n in range(200)}
    assert len(agent.addresses(Guest(cards=cards))) == agent.MOST


def test_a_card_of_nonsense_is_left_out():
    assert agent.addresses(Guest(cards={"a": card("10.0.0.1", mac="x' onload='y")})) == ()


@pytest.mark.parametrize("code", [libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_INTERNAL_ERROR])
def test_no_answer_is_no_error(code):
    guest = Guest(error=Failure(code))
    assert agent.addresses(guest) == () and not agent.answers(guest)
    assert guest.asked == 2


def test_a_broken_connection_is_no_silence():
    """Red when every error of libvirt's counts as silence."""
    guest = Guest(error=Failure(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC))
    with pytest.raises(HostUnreachable), translated():
        agent.addresses(guest)
    assert agent.answers(Guest(cards=1))
