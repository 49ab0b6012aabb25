"""A card that is brought to another network by libvirt: both sides, or neither."""

import re

import libvirt
import pytest

from portal.drivers.errors import DriverError
from portal.drivers.libvirt.hot_devices import HotDevices
from portal.drivers.libvirt.plugging import CONFIG, LIVE
from portal.drivers.types import NicPlace

MAC, UUID = "52:54:00:00:00:01", "11111111-2222-4333-8444-555555555555"
HOME, AWAY = NicPlace(network="home"), NicPlace(network="away")


class Domain:
    """A domain that is on, whose definition cannot be changed `failing` times."""

    def __init__(self, failing=0):
        told = f"<mac address='{MAC}'/><source network='home'/><unknown to='us'/>"
        text = f"<domain><devices><interface type='network'>{told}</interface></devices></domain>"
        runs = text.replace("network='home'", "network='home' portid='1' bridge='br1'")
        self.texts = {CONFIG: text, LIVE: runs}
        self.failing, self.calls = failing, []

    def isActive(self):  # noqa: N802 (libvirt's name)
        return True

    def XMLDesc(self, flags=0):  # noqa: N802 (libvirt's name)
        return self.texts[CONFIG if flags & libvirt.VIR_DOMAIN_XML_INACTIVE else LIVE]

    def updateDeviceFlags(self, text, flag):  # noqa: N802 (libvirt's name)
        self.calls.append(flag)
        if flag == CONFIG and self.failing:
            self.failing -= 1
            raise libvirt.libvirtError("no room for the definition")
        self.texts[flag] = f"<domain><devices>{text}</devices></domain>"

    def lookupByUUIDString(self, _uuid):  # noqa: N802 (libvirt's name; it is its own connection)
        return self

    def networks(self):
        return [re.findall(r"<source network=.(\w+)", self.texts[flag]) for flag in (CONFIG, LIVE)]


def test_what_runs_is_put_back_when_the_definition_stays():
    """Red when the second call's failure leaves the first one's work."""
    domain = Domain(failing=1)
    with pytest.raises(DriverError):
        HotDevices(domain).rewire_nic(UUID, MAC, AWAY, HOME)
    assert domain.networks() == [["home"], ["home"]] and domain.calls == [LIVE, CONFIG, LIVE]
    HotDevices(domain).rewire_nic(UUID, MAC, AWAY, HOME)
    assert domain.networks() == [["away"], ["away"]]


def test_what_ran_there_already_is_not_taken_away():
    """Red when a failure takes back what an earlier call made: that one's undo does."""
    domain = Domain()
    HotDevices(domain).rewire_nic(UUID, MAC, AWAY, HOME)
    domain.texts[CONFIG], domain.failing, domain.calls = Domain().texts[CONFIG], 1, []
    with pytest.raises(DriverError):
        HotDevices(domain).rewire_nic(UUID, MAC, AWAY, HOME)
    assert domain.networks() == [["home"], ["away"]] and domain.calls == [CONFIG]


def test_what_nobody_knows_of_a_card_stays_and_its_port_goes():
    """Red when the card is written anew, or a running one keeps the port of the network that it left."""
    domain = Domain()
    HotDevices(domain).rewire_nic(UUID, MAC, AWAY, HOME)
    assert all('<unknown to="us"' in text and "portid" not in text for text in domain.texts.values())
    HotDevices(domain).rewire_nic(UUID, MAC, AWAY, HOME)
    assert domain.calls == [LIVE, CONFIG]


class OnLan(Domain):
    """What runs on the network `away`, a bridge of the host, is of that kind, as libvirt prints it."""

    def updateDeviceFlags(self, text, flag):  # noqa: N802 (libvirt's name)
        super().updateDeviceFlags(text, flag)
        if flag == LIVE and 'network="away"' in text:
            bridged = self.texts[LIVE].replace('type="network"', 'type="bridge"')
            self.texts[LIVE] = bridged.replace('network="away"', 'network="away" portid="2" bridge="br0"')


def test_what_runs_on_a_network_that_is_a_bridge_is_on_that_network():
    """Red when place_of() goes by the kind of the card alone: a worker that died finds it elsewhere."""
    domain = OnLan()
    for _again in range(2):
        HotDevices(domain).rewire_nic(UUID, MAC, AWAY, HOME)
    assert domain.networks() == [["away"], ["away"]]
    HotDevices(domain).rewire_nic(UUID, MAC, HOME, AWAY)
    assert domain.networks() == [["home"], ["home"]]
