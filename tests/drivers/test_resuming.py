"""A paused domain is resumed whatever a libvirtd that was just started thinks of it, by fakes of libvirt."""

from types import SimpleNamespace

import libvirt
import pytest

from portal.drivers.errors import InvalidState
from portal.drivers.libvirt import domain as domains
from portal.drivers.libvirt.domain import Domains
from portal.drivers.types import DomainState
from tests.drivers.test_plugging import error

OWN = "7a4b7a52-6d4b-4c0e-8f53-1d1c0f0d6e11"


class Paused:
    """A domain that is told as `states` in turn, and cannot be resumed."""

    def __init__(self, *states):
        self.states, self.asked = list(states), 0

    def lookupByUUIDString(self, _uuid):  # noqa: N802 (libvirt's name)
        return self

    def isActive(self):  # noqa: N802 (libvirt's name)
        return True

    def resume(self):
        self.asked += 1
        raise error(libvirt.VIR_ERR_OPERATION_INVALID, "domain is already running")


@pytest.fixture(autouse=True)
def described(monkeypatch):
    monkeypatch.setattr(domains, "describe", lambda domain: SimpleNamespace(state=domain.states.pop(0)))


def test_one_that_ran_already_is_resumed():
    """Red when the refusal of a libvirtd that knows better by now fails the call."""
    domain = Paused(DomainState.PAUSED, DomainState.RUNNING)
    Domains(domain).resume(OWN)
    assert domain.asked == 1


@pytest.mark.parametrize("state", [DomainState.PAUSED, DomainState.CRASHED])
def test_one_that_stays_paused_is_refused(state):
    """Red when every refusal is taken for success."""
    with pytest.raises(InvalidState):
        Domains(Paused(DomainState.PAUSED, state)).resume(OWN)
