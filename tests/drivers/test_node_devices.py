"""What a host says of its PCI and USB devices (libvirt's formatnode.html)."""

import libvirt
import pytest

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt.host import readiness
from portal.drivers.libvirt.xml.node_device import host_device
from portal.drivers.types import HostDevice

CARD = """<device><name>pci_0000_02_10_7</name><parent>pci_0000_00_04_0</parent><capability type='pci'>
<class>0x020000</class><domain>0</domain><bus>2</bus><slot>16</slot><function>7</function>
<product id='0x10ca'>82576 Virtual Function</product><vendor id='0x8086'>Intel Corporation</vendor>
<iommuGroup number='31'><address domain='0x0000' bus='0x02' slot='0x10' function='0x7'/></iommuGroup>
</capability></device>"""
STICK = """<device><name>usb_1_5</name><capability type='usb_device'><bus>1</bus><device>4</device>
<product id='0x6387'>Flash Disk</product><vendor id='0x058f'>Alcor &lt;Micro&gt;</vendor>
</capability></device>"""


def test_a_card_and_a_stick_are_told_as_libvirt_writes_them():
    """Red when the address is not the host's own, or the group that goes together is lost."""
    name = "Intel Corporation 82576 Virtual Function"
    assert host_device(CARD) == HostDevice("pci:0000:02:10.7", name, "0000:02:10.7", 31)
    assert host_device(STICK) == HostDevice("usb:058f:6387", "Alcor <Micro> Flash Disk", "1.4")
    bare = host_device(CARD.replace("82576 Virtual Function", "").replace("Intel Corporation", ""))
    assert bare is not None and bare.label == "8086:10ca"


def test_what_holds_the_host_together_is_none():
    """Red when a bridge or a hub of the kernel is offered to guests."""
    assert host_device(CARD.replace("0x020000", "0x060400")) is None
    assert host_device(STICK.replace("0x058f", "0x1d6b")) is None
    assert host_device("<device><capability type='net'/></device>") is None
    assert host_device("<device/>") is None


def test_what_nobody_can_read_is_refused():
    for text in (CARD.replace("<bus>2", "<bus>two"), STICK.replace("0x058f", "x")):
        with pytest.raises(InvalidSpec):
            host_device(text)


def test_one_that_says_nonsense_does_not_hide_the_others(monkeypatch):
    """Red when one device ends the list, or a libvirt that lists none makes a host that is not ready."""
    connection = libvirt.open("test:///default")
    texts = [CARD, CARD.replace("<bus>2", "<bus>two"), STICK]

    class Device:
        def __init__(self, text):
            self.text = text

        def XMLDesc(self):  # noqa: N802 (libvirt's name)
            return self.text

    monkeypatch.setattr(connection, "listAllDevices", lambda flags: [Device(text) for text in texts])
    assert [one.key for one in readiness(connection).devices] == ["pci:0000:02:10.7", "usb:058f:6387"]

    def refused(_flags):
        raise libvirt.libvirtError("unsupported")

    monkeypatch.setattr(connection, "listAllDevices", refused)
    assert readiness(connection).devices == ()
    connection.close()
