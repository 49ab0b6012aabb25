"""A card that libvirt limits: both sides, or neither, and what is left of a half is taken away."""

import libvirt
import pytest

from portal.drivers.errors import DriverError, NoShaping, NotSupported
from portal.drivers.libvirt.errors import translate
from portal.drivers.libvirt.hot_devices import HotDevices
from portal.drivers.libvirt.plugging import CONFIG, LIVE
from portal.drivers.types import BANDWIDTH

MAC, UUID = "52:54:00:00:00:01", "11111111-2222-4333-8444-555555555555"
NONE = dict.fromkeys(BANDWIDTH, 0)
WANTED = NONE | {"outbound_average": 5}
TC = "internal error: Child process (tc qdisc add dev vnet0 parent 1:1 handle 2: sfq perturb 10) unexpected"


class Domain:
    """A domain that is on; each call for a side in `failing` fails once."""

    def __init__(self, *failing, kind="network", ran="<inbound average='7' floor='3'/>"):
        card = f"<interface type='{kind}'><mac address='{MAC}'/><bandwidth>%s</bandwidth></interface>"
        text = f"<domain><devices>{card}</devices></domain>"
        self.texts = {CONFIG: text % "<outbound average='9' peak='8'/>", LIVE: text % ran}
        self.failing, self.calls = list(failing), []

    def isActive(self):  # noqa: N802 (libvirt's name)
        return True

    def XMLDesc(self, flags=0):  # noqa: N802 (libvirt's name)
        return self.texts[CONFIG if flags & libvirt.VIR_DOMAIN_XML_INACTIVE else LIVE]

    def setInterfaceParameters(self, mac, values, flag):  # noqa: N802 (libvirt's name)
        assert mac == MAC
        self.calls.append((flag, {name: value for name, value in values.items() if value}))
        if flag in self.failing:
            self.failing.remove(flag)
            raise libvirt.libvirtError(TC)

    def lookupByUUIDString(self, _uuid):  # noqa: N802 (libvirt's name; it is its own connection)
        return self


LIVELY = (LIVE, {"outbound.average": 5, "inbound.floor": 3})
DEFINED = (CONFIG, {"outbound.average": 5})
BACK = (LIVE, {"inbound.average": 7, "inbound.floor": 3})


def test_each_side_is_limited_and_keeps_its_floor():
    """Red when the floor of one side is taken for both, or none: libvirt sets what is inbound as a whole."""
    domain = Domain()
    HotDevices(domain).limit_nic(UUID, MAC, WANTED)
    assert domain.calls == [LIVELY, DEFINED]


@pytest.mark.parametrize(("failing", "calls"), [(LIVE, [LIVELY]), (CONFIG, [LIVELY, DEFINED])])
def test_what_runs_is_put_back_when_either_side_fails(failing, calls):
    """Red when the half that the host made stays, or the definition is changed before what runs."""
    domain = Domain(failing)
    with pytest.raises(NoShaping, match="sfq"):
        HotDevices(domain).limit_nic(UUID, MAC, WANTED)
    assert domain.calls == [*calls, BACK]


def test_what_cannot_be_put_back_either_hides_nothing():
    """Red when the second error is told in place of the first."""
    domain = Domain(LIVE, LIVE)
    with pytest.raises(NoShaping):
        HotDevices(domain).limit_nic(UUID, MAC, WANTED)


@pytest.mark.parametrize(
    "domain", [Domain(kind="user"), Domain(kind="hostdev"), Domain(ran="<inbound floor='9999999999'/>")]
)
def test_a_card_that_nobody_limits_is_left(domain):
    """Red when libvirt is asked: it takes the limits of such a card, and heeds none."""
    with pytest.raises(NotSupported):
        HotDevices(domain).limit_nic(UUID, MAC, WANTED)
    assert domain.calls == []


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Child process (/usr/sbin/tc filter add dev vnet0) unexpected exit status 2", NoShaping),
        ("Cannot find 'tc' in path: No such file or directory", NoShaping),
        ("Child process (/usr/bin/tctl add) unexpected exit status 2", DriverError),
    ],
)
def test_what_the_program_says_is_told_apart(words, kind):
    assert type(translate(libvirt.libvirtError(words))) is kind
