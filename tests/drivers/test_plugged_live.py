"""On which boards libvirt takes a watchdog and a channel into what runs, and what it says else."""

import uuid

import libvirt
import pytest

from portal.drivers import errors
from portal.drivers.inspection import Kind, inspect
from portal.drivers.registry import driver_for
from tests.drivers.contract.bench import LIVE_URI

pytestmark = pytest.mark.live
DOG = {"model": "i6300esb", "action": "reset"}
AGENT = {"type": "unix", "target": {"type": "virtio", "name": "org.qemu.guest_agent.0"}}
CARD = "<interface type='user'><model type='virtio'/></interface>"
BRIDGE = "<controller type='pci' model='pcie-to-pci-bridge'/>"
PORTS = "<controller type='pci' index='0' model='pcie-root'/>" + 4 * (
    "<controller type='pci' model='pcie-root-port'/>"
)


@pytest.fixture
def connection():
    made = libvirt.open(LIVE_URI)
    yield made
    for domain in made.listAllDomains():
        if domain.name().startswith("gttest-plug-"):
            if domain.isActive():
                domain.destroy()
            domain.undefine()
    made.close()


@pytest.fixture
def driver():
    made = driver_for(LIVE_URI)
    yield made
    made.close()


def started(connection, board, devices=""):
    """Start a domain whose processors stand still; return it."""
    own = uuid.uuid4()
    domain = connection.defineXML(
        f"<domain type='qemu'><name>gttest-plug-{own.hex[:8]}</name><uuid>{own}</uuid>"
        f"<memory unit='MiB'>32</memory><os><type arch='x86_64' machine='{board}'>hvm</type></os>"
        f"<features><acpi/></features><devices>{devices}</devices></domain>"
    )
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    return domain


def runs_with(domain, kind):
    return inspect(Kind.DOMAIN, domain.XMLDesc().encode()).understood["devices"].get(kind, [])


@pytest.mark.parametrize(
    ("board", "devices"), [("pc", ""), ("q35", PORTS), ("q35", PORTS + BRIDGE)], ids=["pc", "ports", "bridge"]
)
def test_a_watchdog_comes_on_each_board(connection, driver, board, devices):
    """Red when free_port is not asked: libvirt finds no slot on q35 without a bridge to the older PCI."""
    domain = started(connection, board, devices)
    driver.plug_device(domain.UUIDString(), "watchdogs", DOG)
    assert runs_with(domain, "watchdogs") == [DOG]
    with pytest.raises(errors.DriverError):
        driver.plug_device(domain.UUIDString(), "watchdogs", {**DOG, "model": "ib700"})
    assert runs_with(domain, "watchdogs") == [DOG]


@pytest.mark.parametrize("board", ["pc", "q35"])
def test_a_channel_comes_and_goes_on_each_board(connection, driver, board):
    domain = started(connection, board, "<controller type='virtio-serial'/>")
    driver.plug_device(domain.UUIDString(), "channels", AGENT)
    assert [one["target"] for one in runs_with(domain, "channels")] == [AGENT["target"]]
    driver.unplug_device(domain.UUIDString(), "channels", AGENT)
    assert runs_with(domain, "channels") == []


def test_where_each_slot_is_taken_it_is_said(connection, driver):
    """Red when NoSlot is another error, or a port counts as free that a card is in."""
    domain = started(connection, "q35")
    with pytest.raises(libvirt.libvirtError, match="No more available PCI slots"):
        for _card in range(40):
            domain.attachDeviceFlags(CARD, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    before = domain.XMLDesc()
    with pytest.raises(errors.NoSlot):
        driver.plug_device(domain.UUIDString(), "watchdogs", DOG)
    assert domain.XMLDesc() == before
