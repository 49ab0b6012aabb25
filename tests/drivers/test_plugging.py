"""What is plugged out while the guest, or an earlier call, is at it. Not for: real guests."""

from xml.etree import ElementTree as ET

import libvirt
import pytest

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
