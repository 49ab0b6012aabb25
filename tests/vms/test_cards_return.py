"""A card whose end fails is given back as it was: model, order of boot, limits, cable, on both sides."""

import pytest

from portal.drivers.errors import CallTimeout, GuestIgnores
from portal.drivers.libvirt.xml.places import without_card
from portal.operations.models import StepRecord
from portal.operations.states import State
from tests.vms.test_moving import work
from tests.vms.test_rewiring import MAC, change, here, look  # noqa: F401 (a fixture)
from vms import noted
from vms.changes.devices import nics

pytestmark = [pytest.mark.database, pytest.mark.django_db]
OWN = {
    "model": "e1000e",
    "boot_order": 2,
    "link": "down",
    "mtu": 9000,
    "limits": {"inbound": {"average": 1000}, "outbound": {"average": 500, "peak": 900}},
    "address": {"type": "pci", "domain": "0x0000", "bus": "0x07", "slot": "0x00", "function": "0x0"},
}


@pytest.fixture
def card(here):  # noqa: F811
    """What sets the card apart from a new one, which the machine runs with."""
    here.driver.destroy(here.uuid)
    seen = here.driver.definition(here.uuid)
    places = {"devices": {"interfaces": [OWN]}, "os": {"boot": [None, None]}}
    here.driver.redefine(here.uuid, places, seen.digest)
    here.driver.start(here.uuid)
    look(here)
    return here


def sides(here):  # noqa: F811
    """Return the card as it is defined, and as it runs."""
    look(here)
    found = noted.of(here.machine)
    return [nics.by_mac(side).get(MAC) for side in (found.observed_persistent, found.observed_running)]


def fails(here, monkeypatch, *, both):  # noqa: F811
    """Let the guest let go of the card after it was given up, or (`both`) the host answer too late."""
    done = here.driver.detach_nic

    def detach(uuid, mac):
        if both:
            done(uuid, mac)
            raise CallTimeout("too late")
        domain = here.driver._get(uuid)
        domain.running = without_card(domain.running, mac)
        raise GuestIgnores("it holds it")

    monkeypatch.setattr(here.driver, "detach_nic", detach)


def remove(cast, here):  # noqa: F811
    ended = work(nics.remove_card(actor=cast.requester, machine=here.machine, mac=MAC))
    assert ended.state == State.FAILED, list(StepRecord.objects.values_list("name", "error_raw"))
    return ended


@pytest.mark.parametrize("both", [False, True], ids=["heeded-late", "answered-late"])
def test_a_card_comes_back_just_as_it_was(cast, card, monkeypatch, both):
    """Red when DetachCard.undo() passes CardWas(None, None): a virtio card came back."""
    before = sides(card)
    assert before[0] == before[1] and {**before[0], **OWN} == before[0]
    fails(card, monkeypatch, both=both)
    remove(cast, card)
    assert sides(card) == before


@pytest.mark.parametrize("both", [False, True], ids=["heeded-late", "answered-late"])
def test_a_card_that_waits_for_another_model_runs_as_it_ran(cast, card, monkeypatch, both):
    """Red when DetachCard.undo() passes None for `names.get("ran")`: it would run as it is only defined."""
    change(card, {"model": "rtl8139", "boot_order": 1})
    before = sides(card)
    assert [one["model"] for one in before] == ["rtl8139", "e1000e"]
    fails(card, monkeypatch, both=both)
    remove(cast, card)
    assert sides(card) == before


def test_a_card_that_the_portal_knows_nothing_of_comes_back_as_a_new_one(cast, card, monkeypatch):
    """Red when what nobody saw keeps the card from coming back."""
    noted.Definition.objects.all().delete()
    fails(card, monkeypatch, both=True)
    remove(cast, card)
    assert [one["model"] for one in sides(card)] == ["virtio", "virtio"]
