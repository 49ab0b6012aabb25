"""What hot plugging of each kind of device shares. Not for: what a device is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from xml.etree import ElementTree as ET

import libvirt

from portal.drivers.errors import GuestIgnores, NoSlot
from portal.drivers.libvirt.xml.build import parse

#: Seconds a guest gets to give memory back, or to let a device go.
PATIENCE = 15.0
LOOK_EVERY = 0.3
CONFIG, LIVE = libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_AFFECT_LIVE
_NO_SLOT = "No more available PCI slots"
#: Finds a device in a definition, None where it is not.
Find = Callable[[ET.Element], ET.Element | None]


@contextmanager
def slots() -> Iterator[None]:
    """Raise NoSlot where libvirt found no place for a device."""
    try:
        yield
    except libvirt.libvirtError as error:
        if _NO_SLOT in str(error):
            raise NoSlot(str(error)) from error
        raise


def definitions(domain: libvirt.virDomain) -> Iterator[tuple[int, str]]:
    """Yield what a domain is defined as and, of one that is on, what it runs as; each after its flag."""
    yield CONFIG, domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    if domain.isActive():
        yield LIVE, domain.XMLDesc()


def detach(domain: libvirt.virDomain, find: Find, name: str) -> None:
    """Detach a device, from what runs first: a guest that keeps it keeps it defined too. Idempotent.

    Raises GuestIgnores, which calls the device `name`.
    """
    if domain.isActive():
        unplug(domain, find, name)
    if (there := find(parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))) is not None:
        domain.detachDeviceFlags(ET.tostring(there, encoding="unicode"), CONFIG)


def unplug(domain: libvirt.virDomain, find: Find, name: str) -> None:
    """Take a device from what runs, and wait for the guest to let go. Idempotent. Raises GuestIgnores."""
    if (there := find(parse(domain.XMLDesc()))) is None:
        return
    try:
        domain.detachDeviceFlags(ET.tostring(there, encoding="unicode"), LIVE)
    except libvirt.libvirtError as error:
        # An earlier call may have asked the guest already, and it may let go at this very moment.
        gone = error.get_error_code() == libvirt.VIR_ERR_DEVICE_MISSING
        if not gone and "in the process of unplug" not in str(error):
            raise
    if not wait_until(lambda: find(parse(domain.XMLDesc())) is None):
        raise GuestIgnores(f"{name} is still there {PATIENCE:g} s after the guest was asked")


def wait_until(condition: Callable[[], bool]) -> bool:
    """Wait for PATIENCE at most; return whether the condition holds."""
    end = time.monotonic() + PATIENCE
    while not (done := condition()) and time.monotonic() < end:
        time.sleep(LOOK_EVERY)
    return done
