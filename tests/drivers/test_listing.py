"""A list of domains costs one call, not one a domain, and tells the state of now."""

import uuid

import libvirt
import pytest

from portal.drivers.libvirt.listing import EVERY, Listing
from portal.drivers.types import DomainState

RUNNING, OFF = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_SHUTOFF


def error(code):
    """An error as libvirt raises it."""
    made = libvirt.libvirtError("no")
    made.err = (code, 0, "no", 2, None, None, None, 0, 0)
    return made


class Domain:
    """What libvirt-python gives: name, UUID and ID are at hand, `info` asks the host."""

    def __init__(self, name, host):
        self._name, self._uuid, self._host = name, str(uuid.uuid4()), host
        self.id, self.state, self.vcpus, self.gone, self.saved = 1, RUNNING, 1, False, False

    def name(self):
        return self._name

    def UUIDString(self):  # noqa: N802 (libvirt's name)
        return self._uuid

    def ID(self):  # noqa: N802 (libvirt's name)
        return self.id

    def hasManagedSaveImage(self):  # noqa: N802 (libvirt's name)
        return self.saved

    def info(self):
        self._host.calls += 1
        if self.gone:
            raise error(libvirt.VIR_ERR_NO_DOMAIN)
        return [self.state, 1024, 1024, self.vcpus, 0]


class Connection:
    """A host that counts what it is asked."""

    def __init__(self, count=40, statistics=True):
        self.calls, self.statistics = 0, statistics
        self.domains = [Domain(f"vm{number:02}", self) for number in range(count)]

    def getAllDomainStats(self, groups, flags):  # noqa: N802 (libvirt's name)
        self.calls += 1
        if not self.statistics:
            raise error(libvirt.VIR_ERR_NO_SUPPORT)
        assert groups == libvirt.VIR_DOMAIN_STATS_STATE  # other groups hang on a frozen guest
        return [(domain, {"state.state": domain.state}) for domain in self.domains]

    def listAllDomains(self, flags=0):  # noqa: N802 (libvirt's name)
        self.calls += 1
        assert flags in {0, libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE}
        return [domain for domain in self.domains if domain.saved or not flags]


def cost(host, listing):
    before = host.calls
    found = listing.all()
    return host.calls - before, found


def test_lists_after_the_first_cost_one_call_and_a_few():
    """Red when the sizes of all are read each time."""
    host = Connection()
    listing = Listing(host)
    assert cost(host, listing)[0] == 41
    costs = [cost(host, listing)[0] for _ in range(EVERY)]
    assert sum(costs) == EVERY + 40  # in a round each is read once more
    assert max(costs) < 12


def test_states_are_those_of_now_and_sizes_follow():
    """Red when the state is kept with the sizes, or a start does not read them again."""
    host = Connection(3)
    listing = Listing(host)
    listing.all()
    first = host.domains[0]
    first.state = OFF
    assert [info.state for info in listing.all()][0] is DomainState.SHUTOFF
    first.state, first.id, first.vcpus = RUNNING, 7, 4
    assert [info.vcpus for info in listing.all()] == [4, 1, 1]
    host.domains[1].vcpus = 2
    seen = [[info.vcpus for info in listing.all()] for _ in range(EVERY)]
    assert seen[-1] == [4, 2, 1]


def test_what_is_saved_is_told_by_one_more_call_for_all_that_are_off():
    """Red when each is asked, or those that run are taken for saved while they are restored."""
    host = Connection(6)
    for domain in host.domains[:4]:
        domain.state, domain.saved = OFF, domain in host.domains[:2]
    host.domains[5].saved = True
    listing = Listing(host)
    told = [DomainState.SAVED] * 2 + [DomainState.SHUTOFF] * 2 + [DomainState.RUNNING] * 2
    assert [info.state for info in listing.all()] == told
    spent, found = cost(host, listing)
    assert [info.state for info in found] == told and spent <= 2 + 6


def test_what_is_gone_is_left_out_and_forgotten():
    host = Connection(3)
    listing = Listing(host)
    host.domains[1].gone = True
    assert [info.name for info in listing.all()] == ["vm00", "vm02"]
    host.domains.pop(0)
    assert [info.name for info in listing.all()] == ["vm02"]


@pytest.mark.parametrize("times", [1, 3])
def test_a_host_without_statistics_is_asked_for_each(times):
    """Red when the refusal is an error, or is provoked again each time."""
    host = Connection(3, statistics=False)
    listing = Listing(host)
    for _ in range(times):
        assert [info.state for info in listing.all()] == [DomainState.RUNNING] * 3
    assert host.calls == 1 + 4 * times


def test_other_errors_are_told():
    host = Connection(1)
    host.getAllDomainStats = lambda groups, flags: (_ for _ in ()).throw(error(libvirt.VIR_ERR_NO_CONNECT))
    with pytest.raises(Exception, match="no"):
        Listing(host).all()
