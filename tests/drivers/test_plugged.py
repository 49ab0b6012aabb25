"""Where a device of the older PCI comes while a domain runs. Not for: what libvirt makes of it."""

import pytest

from portal.drivers import errors
from portal.drivers.fake import FakeDriver
from portal.drivers.libvirt.xml.build import parse
from portal.drivers.libvirt.xml.plugged import free_port
from portal.drivers.types import Accelerator, DiskSpec, DomainSpec

PORT = (
    "<controller type='pci' index='{0}' model='pcie-root-port'>"
    "<address type='pci' bus='0x00' slot='0x02'/></controller>"
)
DISK = "<disk><address type='pci' domain='0x0000' bus='{0}' slot='0x00' function='0x0'/></disk>"


def port_of(*devices):
    found = free_port(parse(f"<domain><devices>{''.join(devices)}</devices></domain>"))
    return found and found["bus"]


def test_it_is_a_root_port_that_nothing_is_in():
    """Red when a port counts as free by its own address, or a disk's drive address as a port's device."""
    ports = [PORT.format(index) for index in (1, 2, 18)]
    assert port_of(*ports) == "0x1"
    assert port_of(*ports, DISK.format("0x01"), DISK.format("0x2")) == "0x12"
    assert port_of(*ports, *(DISK.format(bus) for bus in ("0x01", "0x02", "0x12"))) is None
    drive = "<disk><address type='drive' controller='0' bus='1' target='0' unit='0'/></disk>"
    assert port_of(PORT.format(1), drive) == "0x1"


@pytest.mark.parametrize("odd", ["", "<controller type='pci' model='pcie-root-port'/>", PORT.format("x"),
                                 "<controller type='pci' index='1' model='pci-bridge'/>"])  # fmt: skip
def test_of_what_is_odd_none_is_free(odd):
    assert port_of(odd, DISK.format("mars")) is None


def test_the_fake_has_no_place_when_it_is_told_so():
    driver, uuid = FakeDriver(), "11111111-2222-4333-8444-555555555555"
    disks = (DiskSpec("/a.qcow2"),)
    driver.define(DomainSpec("a", uuid, 1, 64 << 20, disks, accelerator=Accelerator.EMULATION))
    driver.start(uuid)
    driver.plugs = False
    before = driver.definition(uuid)
    with pytest.raises(errors.NoSlot):
        driver.plug_device(uuid, "watchdogs", {"model": "i6300esb", "action": "reset"})
    assert driver.definition(uuid) == before
