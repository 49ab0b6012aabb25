"""What is plugged out while the guest, or an earlier call, is at it. Not for: real guests."""

from xml.etree import ElementTree as ET

import libvirt
import pytest

from portal.drivers.libvirt.hot import Hot
from portal.drivers.libvirt.plugging import detach

RUNS, OFF = "<domain><card/></domain>", "<domain/>"


def error(code, text):
    made = libvirt.libvirtError(text)
    made.err = (code, libvirt.VIR_FROM_QEMU, text, 2, text, None, None, 0, 0)
    return made


class Domain:
    """A domain whose card goes in the moment in which it is asked for."""

    def __init__(self, refusal):
        self.refusal, self.there = refusal, True

    def isActive(self):  # noqa: N802 (libvirt's name)
        return True

    def XMLDesc(self, flags=0):  # noqa: N802
        return RUNS if self.there and not flags else OFF

    def detachDeviceFlags(self, _text, _flags):  # noqa: N802
        self.there = False
        raise self.refusal


def card(domain: ET.Element) -> ET.Element | None:
    return domain.find("card")


def test_what_the_guest_lets_go_at_this_moment_is_detached():
    """Red when VIR_ERR_DEVICE_MISSING is an error: of a call whose answer was lost the guest made it true."""
    detach(Domain(error(libvirt.VIR_ERR_DEVICE_MISSING, "device not found: no device at 08:00.0")), card, "c")
    with pytest.raises(libvirt.libvirtError, match="else"):
        detach(Domain(error(libvirt.VIR_ERR_OPERATION_FAILED, "something else")), card, "c")


class Ballooned:
    """A domain whose guest has 96 MiB, of which libvirt heard nothing, since it was dead then."""

    def __init__(self):
        self.guest, self.told, self.asked = 96 << 10, 128 << 10, []

    def isActive(self):  # noqa: N802
        return True

    def maxMemory(self):  # noqa: N802
        return 128 << 10

    def XMLDesc(self, _flags=0):  # noqa: N802
        return "<domain><devices><memballoon model='virtio'/></devices></domain>"

    def memoryStats(self):  # noqa: N802
        return {"actual": self.guest}

    def info(self):
        return (1, 128 << 10, self.told, 1, 0)

    def setMemoryFlags(self, kib, _flags):  # noqa: N802
        self.asked.append(kib)
        if self.guest != kib:
            self.guest = self.told = kib


def test_libvirt_hears_of_what_a_guest_did_while_it_was_dead(monkeypatch):
    """Red when the guest is asked for what it has already, of which it tells nobody."""
    domain = Ballooned()
    monkeypatch.setattr(Hot, "_get", lambda _self, _uuid: domain)
    assert Hot(None).set_balloon("any", 96 << 20) == 96 << 20
    assert domain.told == domain.asked[-1] == 96 << 10
    domain.asked.clear()
    Hot(None).set_balloon("any", 64 << 20)
    assert domain.asked == [64 << 10]
