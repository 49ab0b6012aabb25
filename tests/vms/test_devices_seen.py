"""Two people who have the page of a card or a disk open: the second sees what the first changed."""

import pytest
from django.core import signing
from django.urls import reverse as url

from networks.models import Port
from portal.operations.models import Operation
from portal.operations.states import State
from tests.factories import make_network
from tests.vms import test_buses as devices
from tests.vms.test_moving import work
from tests.vms.test_rewiring import MAC, here, rewire  # noqa: F401 (here: a fixture)
from vms.changes.devices import buses, cardmodels, nics, rewiring

pytestmark = [pytest.mark.database, pytest.mark.django_db]
#: A fixture: a machine that runs on a fake host with a disk and a card.
machine = devices.machine
KINDS = (buses.BUS, cardmodels.MODEL, nics.LINK, nics.REMOVE, rewiring.REWIRE)
PLACES = {"disk": "vda", "card": MAC}


def page(client, machine, what):
    """Return what the page of the disk or the card carries, for the second person to press with."""
    address = url(f"vms:{what}", args=[machine.machine.pk, PLACES[what]])
    return {"seen": client.get(address).context["carried"]}


def press(client, machine, name, posted, **values):
    what = "disk" if name == "disk_bus" else "card"
    return client.post(url(f"vms:{name}", args=[machine.machine.pk, PLACES[what]]), {**posted, **values})


def refused(answer, *changes, where="changes"):
    """Look that a press was refused, with just these changes, and return what to press with now."""
    text = answer.content.decode()
    assert answer.status_code == 422 and "Somebody changed this while you looked" in text
    told = [(one.label, one.before, one.after) for one in answer.context[where]]
    assert told == list(changes) and "since you opened it" in text
    assert all(f"<del>{was}</del>" in text and f"<ins>{now}</ins>" in text for _label, was, now in changes)
    return {"seen": answer.context["carried"]}


def carries(answer, address):
    """Tell whether the form of a page that posts to `address` carries what the page showed."""
    [form] = [one for one in answer.content.decode().split("<form ") if f'action="{address}"' in one]
    return f'name="seen" value="{answer.context["carried"]}"' in form


def done(operation):
    assert work(operation).state == State.SUCCEEDED


def begun(kind):
    return Operation.objects.filter(kind=kind, state=State.QUEUED).get()


@pytest.fixture
def second(client, cast):
    client.force_login(cast.operator)
    return client


def test_a_bus_that_somebody_changed_is_shown_before_it_goes(cast, machine, second):
    """Red when set_bus() does not check what was seen, or the page signs the old for ever."""
    posted = page(second, machine, "disk")
    done(devices.set_bus(cast.requester, machine, "sata"))
    answer = press(second, machine, "disk_bus", posted, bus="scsi")
    posted = refused(answer, ("Bus", "virtio", "sata"), where="bus_changes")
    assert '<option value="scsi" selected>' in answer.content.decode()
    assert press(second, machine, "disk_bus", posted, bus="scsi").status_code == 302
    done(begun(buses.BUS))


def test_a_model_that_somebody_changed_is_shown_before_it_goes(cast, machine, second):
    """Red when set_model() does not check what was seen."""
    posted = page(second, machine, "card")
    done(devices.set_model(cast.requester, machine, "e1000e"))
    answer = press(second, machine, "card_model", posted, model="rtl8139")
    posted = refused(answer, ("Model", "virtio", "e1000e"))
    assert '<option value="rtl8139" selected>' in answer.content.decode()
    assert press(second, machine, "card_model", posted, model="rtl8139").status_code == 302
    done(begun(cardmodels.MODEL))


def test_a_network_that_somebody_changed_is_shown_before_it_goes(cast, machine, second):
    """Red when rewire_card() does not check what was seen, or titles are not looked up."""
    third = make_network(79)
    posted = page(second, machine, "card")
    done(rewire(cast.requester, machine))
    answer = press(second, machine, "card_network", posted, network=third.pk)
    posted = refused(answer, ("Network", "Example 77", "Example 78"))
    assert press(second, machine, "card_network", posted, network=third.pk).status_code == 302
    done(begun(rewiring.REWIRE))


def test_a_cable_comes_to_no_network_that_was_not_seen(cast, machine, second):
    """Red when set_link() checks the link alone: it would be plugged in on a network that nobody saw."""
    done(nics.set_link(actor=cast.requester, machine=machine.machine, mac=MAC, up=False))
    posted = page(second, machine, "card")
    done(rewire(cast.requester, machine))
    answer = press(second, machine, "card_link", posted, up="1")
    posted = refused(answer, ("Network", "Example 77", "Example 78"))
    assert press(second, machine, "card_link", posted, up="1").status_code == 302
    done(begun(nics.LINK))


def test_a_cable_that_somebody_plugged_in_is_told(cast, machine, second):
    """Red when the link is not among what the page carries."""
    posted = page(second, machine, "card")
    done(nics.set_link(actor=cast.requester, machine=machine.machine, mac=MAC, up=False))
    refused(press(second, machine, "card_link", posted, up="0"), ("Link", "Up", "Down"))
    assert not Operation.objects.filter(kind=nics.LINK, state=State.QUEUED).exists()


def test_no_card_is_removed_from_a_network_that_was_not_seen(cast, machine, second):
    """Red when remove_card() does not check what was seen."""
    posted = page(second, machine, "card")
    done(rewire(cast.requester, machine))
    answer = press(second, machine, "card_remove", posted)
    posted = refused(answer, ("Network", "Example 77", "Example 78"))
    assert press(second, machine, "card_remove", posted).status_code == 302
    done(begun(nics.REMOVE))


def give(cast, machine):
    done(nics.add_card(actor=cast.requester, machine=machine.machine, network=machine.away))
    return Port.objects.exclude(mac=MAC).get().mac


def test_no_card_is_removed_by_who_did_not_read_that_it_is_the_last(cast, machine, second):
    """Red when remove_card() compares the card alone: the page warned of nothing when it was opened."""
    other = give(cast, machine)
    posted = page(second, machine, "card")
    done(nics.remove_card(actor=cast.requester, machine=machine.machine, mac=other))
    answer = press(second, machine, "card_remove", posted)
    posted = refused(answer, ("The machine's last card", "no", "yes"))
    assert "It is the machine's last network card" in answer.content.decode()
    assert press(second, machine, "card_remove", posted).status_code == 302
    done(begun(nics.REMOVE))


def test_another_card_keeps_nobody_from_removing_what_was_the_last(cast, machine, second):
    """Red when it counts that there are more cards by now: the machine keeps one more than was thought."""
    posted = page(second, machine, "card")
    give(cast, machine)
    assert press(second, machine, "card_remove", posted).status_code == 302
    done(begun(nics.REMOVE))


def test_a_card_that_somebody_added_keeps_a_second_from_coming_unseen(cast, machine, second):
    """Red when add_card() does not check what was seen: the machine would get one more than both wanted."""
    cards = url("vms:cards", args=[machine.machine.pk])
    posted = {"seen": second.get(cards).context["carried"], "network": machine.away.pk}
    mac = give(cast, machine)
    answer = second.post(cards, posted)
    text = answer.content.decode()
    assert answer.status_code == 422 and "Somebody changed this while you looked" in text
    [change] = answer.context["changes"]
    told = (change.label, change.before, change.after)
    assert told == (f"Network card {mac}", "", "Example 78") and "<ins>Example 78</ins>" in text
    posted["seen"] = answer.context["carried"]
    assert second.post(cards, posted).status_code == 302
    done(begun(nics.ADD))


@pytest.mark.parametrize("name", ["card_network", "card_link", "card_model", "card_remove"])
def test_each_button_carries_what_the_page_showed(machine, second, name):
    """Red when a form has no such field: each press of it would be refused."""
    answer = second.get(url("vms:card", args=[machine.machine.pk, MAC]))
    address = url(f"vms:{name}", args=[machine.machine.pk, MAC])
    assert carries(answer, address)


def test_a_card_that_is_gone_is_told(cast, machine, second):
    """Red when a button of its page is answered with 404."""
    posted = page(second, machine, "card")
    done(nics.remove_card(actor=cast.requester, machine=machine.machine, mac=MAC))
    for name in "card_network", "card_link", "card_model", "card_remove":
        answer = press(second, machine, name, posted, network=machine.away.pk)
        assert "has this card no more" in second.get(answer.url).content.decode()


def test_a_change_of_something_else_stops_nobody(cast, machine, second):
    """Red when a press compares more than what it changes, as the digest of the whole definition."""
    disk, card = page(second, machine, "disk"), page(second, machine, "card")
    seen = machine.driver.definition(machine.uuid)
    machine.driver.redefine(machine.uuid, {"description": "another"}, seen.digest)
    done(nics.set_link(actor=cast.requester, machine=machine.machine, mac=MAC, up=False))
    done(devices.set_model(cast.requester, machine, "e1000e"))
    press(second, machine, "disk_bus", disk, bus="sata")
    done(begun(buses.BUS))
    press(second, machine, "card_network", card, network=machine.away.pk)
    done(begun(rewiring.REWIRE))
    card = page(second, machine, "card")
    done(nics.set_link(actor=cast.requester, machine=machine.machine, mac=MAC, up=True))
    press(second, machine, "card_model", card, model="e1000")
    done(begun(cardmodels.MODEL))


@pytest.mark.parametrize("name", ["disk_bus", "card_model", "card_network"])
def test_what_the_first_made_so_too_begins_nothing(cast, machine, second, name):
    """Red when what is so already is a clash, or begins anything."""
    posted = page(second, machine, "disk" if name == "disk_bus" else "card")
    done(devices.set_bus(cast.requester, machine, "sata"))
    done(devices.set_model(cast.requester, machine, "e1000e"))
    done(rewire(cast.requester, machine))
    wanted = {"bus": "sata", "model": "e1000e", "network": machine.away.pk}
    answer = press(second, machine, name, posted, **wanted)
    assert "it is so already" in second.get(answer.url).content.decode()
    assert not Operation.objects.filter(kind__in=KINDS, state=State.QUEUED).exists()


def test_what_nobody_signed_counts_as_nothing_seen(machine, second):
    """Red when a press without what was seen goes on."""
    for forged in "", "x", signing.dumps({"bus": "virtio"}, salt="another"):
        answer = press(second, machine, "disk_bus", {"seen": forged}, bus="sata")
        assert [one.before for one in answer.context["bus_changes"]] == [""]
    assert not Operation.objects.filter(kind=buses.BUS).exists()
