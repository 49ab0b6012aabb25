"""What libvirt's driver for Xen does otherwise, by fakes of libvirt."""

import libvirt
import pytest

from portal.drivers.errors import DomainNotFound
from portal.drivers.libvirt.domain import Domains
from portal.drivers.libvirt.events import Lifecycle
from portal.drivers.libvirt.listing import Listing
from portal.drivers.registry import driver_for
from portal.drivers.types import XEN_HOST
from portal.hosts.addresses import check_uri
from tests.drivers.test_listing import Connection, Domain

UUID = "7a4b7a52-6d4b-4c0e-8f53-1d1c0f0d6e11"


def xen(count=2):
    """A host of Xen with `count` domains, and itself first in every list."""
    host = Connection(count, statistics=False)
    itself = Domain("Domain-0", host)
    itself._uuid = XEN_HOST
    host.domains.insert(0, itself)
    return host


@pytest.mark.parametrize("uri", ["xen:///system", "xen+ssh://gate@rack-1/system", "qemu+ssh://rack-1/system"])
def test_addresses_that_are_accepted_have_a_driver(monkeypatch, uri):
    """Red when the registry of drivers lacks the scheme: such a host could be added and never be reached."""
    monkeypatch.setattr("portal.drivers.libvirt.driver.LibvirtDriver", str)
    assert driver_for(check_uri(uri)) == uri


def test_the_host_itself_is_in_no_list():
    """Red when Xen's list is told as it comes."""
    listing = Listing(xen())
    for _ in range(2):
        assert [info.name for info in listing.all()] == ["vm00", "vm01"]


def test_what_happens_to_the_host_itself_is_no_news():
    """Red when a lifecycle event of Domain-0 becomes a domain's."""
    told, seen = [], []

    class Heard:
        def registerCloseCallback(self, *_args):  # noqa: N802 (libvirt's name)
            pass

        def domainEventRegisterAny(self, _domain, _kind, callback, _context):  # noqa: N802 (libvirt's name)
            told.append(callback)

    Lifecycle(Heard(), lambda *change: seen.append(change[1]), lambda: None)
    for domain in xen(1).domains:
        told[0](None, domain, libvirt.VIR_DOMAIN_EVENT_STARTED, 0, None)
    assert seen == ["vm00"]


class Defined:
    """A domain that is off, of a hypervisor that takes some flags alone, as libxl_driver.c does."""

    def __init__(self, taken):
        self.taken, self.forgotten = taken, False

    def isActive(self):  # noqa: N802 (libvirt's name)
        return 0

    def XMLDesc(self, _flags=0):  # noqa: N802 (libvirt's name)
        return "<domain/>"

    def undefineFlags(self, flags):  # noqa: N802 (libvirt's name)
        if flags & ~self.taken:
            raise libvirt.libvirtError(f"unsupported flags ({flags:#x}) in function undefineFlags")
        self.forgotten = flags & libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE != 0


class Host:
    def __init__(self, kind, taken):
        self.kind, self.domain = kind, Defined(taken)

    def getType(self):  # noqa: N802 (libvirt's name)
        return self.kind

    def lookupByUUIDString(self, _uuid):  # noqa: N802 (libvirt's name)
        return self.domain


@pytest.mark.parametrize(("kind", "taken"), [("Xen", 1), ("QEMU", 0xFF)])
def test_a_domain_is_undefined_by_the_words_its_hypervisor_knows(kind, taken):
    """Red when Xen is told of NVRAM, snapshots and checkpoints, which it refuses."""
    host = Host(kind, taken)
    Domains(host).undefine(UUID)
    assert host.domain.forgotten


@pytest.mark.parametrize("verb", ["destroy", "shutdown", "suspend", "info", "start"])
def test_nothing_is_done_to_the_host_itself(verb):
    """Red when somebody who names Domain-0 switches the host off."""
    with pytest.raises(DomainNotFound):
        getattr(Domains(Host("Xen", 1)), verb)(XEN_HOST)
