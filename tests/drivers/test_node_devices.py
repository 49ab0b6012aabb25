"""What a host says of its PCI and USB devices (libvirt's formatnode.html)."""

from types import SimpleNamespace

import libvirt
import pytest

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt import host as libvirt_host
from portal.drivers.libvirt.host import host_devices
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


NONSENSE = (
    CARD.replace("<bus>2", "<bus>two"),
    CARD.replace("<bus>2", "<bus>-2"),
    CARD.replace("<slot>16", f"<slot>0x{'f' * 100_000}"),
    CARD.replace("<slot>16", f"<slot>{'9' * 5_000}"),
    CARD.replace("number='31'", "number='x'"),
    CARD.replace("number='31'", "number=''"),
    STICK.replace("0x058f", "x"),
    "<!DOCTYPE device [<!ENTITY a 'a'>]>" + CARD,
    "<device>",
    "",
)


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_what_nobody_can_read_is_refused(text):
    """Red when a number is read without a guard: what is raised then ends the process that asks."""
    with pytest.raises(InvalidSpec):
        host_device(text)


def test_a_name_is_kept_short():
    """Red when a host can fill the portal's database with the name of a device."""
    told = host_device(STICK.replace("Flash Disk", "Flash\n" * 100_000))
    assert told is not None and len(told.label) < 250 and "\n" not in told.label


@pytest.fixture
def host(monkeypatch):
    """A connection; `tell` sets what its devices say of themselves, an error among it is raised."""
    connection = libvirt.open("test:///default")

    class Device:
        def __init__(self, text):
            self.text = text

        def XMLDesc(self):  # noqa: N802 (libvirt's name)
            if isinstance(self.text, Exception):
                raise self.text
            return self.text

    def tell(texts):
        monkeypatch.setattr(connection, "listAllDevices", lambda flags: [Device(text) for text in texts])

    yield SimpleNamespace(connection=connection, tell=tell)
    connection.close()


def test_one_that_says_nonsense_does_not_hide_the_others(host):
    """Red when one device ends the list: one that was unplugged, or whose words are no UTF-8."""
    gone, garbled = libvirt.libvirtError("gone"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")
    host.tell([CARD, *NONSENSE, gone, garbled, STICK])
    assert [one.key for one in host_devices(host.connection)] == ["pci:0000:02:10.7", "usb:058f:6387"]


def test_a_slow_host_is_not_asked_for_ever(host, monkeypatch):
    """Red when each device is waited for: one with hundreds of them could not be enrolled."""
    asked, clock = [], iter(range(100))
    monkeypatch.setattr(libvirt_host, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))

    def slow(text):
        asked.append(text)
        return host_device(text)

    monkeypatch.setattr(libvirt_host, "host_device", slow)
    host.tell([CARD] * 90)
    assert len(host_devices(host.connection)) == len(asked) == libvirt_host.DEVICE_PATIENCE + 1


def test_a_host_that_lists_none_has_none(host, monkeypatch):
    def refused(_flags):
        raise libvirt.libvirtError("unsupported")

    monkeypatch.setattr(host.connection, "listAllDevices", refused)
    assert host_devices(host.connection) == ()
