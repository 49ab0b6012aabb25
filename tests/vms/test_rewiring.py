"""The network of a card: who may bring it where, and what becomes of its row whatever happens."""

from types import SimpleNamespace

import pytest
from django.urls import reverse as url
from django.utils import timezone

from networks import services as networks
from networks.models import Network, Port
from portal.core.errors import Denied
from portal.drivers.errors import AlreadyExists, DriverError, GuestIgnores, NotSupported
from portal.drivers.fake import FakeDriver
from portal.drivers.types import Accelerator, DomainSpec, NicSpec
from portal.hosts import steps
from portal.hosts.models import Host
from portal.operations import runner, services
from portal.operations.messages import sentence
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from tests.factories import GIB, make_catalogue, make_host, make_machine, make_network, make_place
from tests.vms.test_moving import work
from vms import noted
from vms.changes.devices import nics, rewiring
from vms.models import Observed, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]
MAC = "52:54:00:00:00:01"


@pytest.fixture
def here(cast, monkeypatch):
    """A machine that runs on a fake host with a card on one network, and another that its item offers."""
    driver = FakeDriver()
    found = SimpleNamespace(driver=driver, before=lambda verb: None)

    def call(_host, verb, *args, timeout=0):
        found.before(verb)
        return getattr(driver, verb)(*args)

    monkeypatch.setattr(steps, "call", call)
    monkeypatch.setattr(runner, "PATIENCE", 0)
    host = make_host()
    place = make_place(host)
    image = place.images.get().image
    found.home, found.away = make_network(77), make_network(78)
    make_catalogue(image, found.home).item.networks.add(found.away)
    machine = make_machine(cast, "example", host, image, item_name="Tiny", observed_state=Observed.RUNNING)
    found.machine, found.uuid = machine, str(machine.uuid)
    Port.objects.create(network=found.home, host=host, domain_uuid=machine.uuid, mac=MAC)
    driver.ensure_network(found.home.spec)
    card = NicSpec(MAC, found.home.spec.name)
    told = {"nics": (card,), "accelerator": Accelerator.EMULATION}
    driver.define(DomainSpec("example", found.uuid, 1, GIB, **told))
    driver.start(found.uuid)
    look(found)
    return found


def look(here):
    """Let the portal see what the machine is."""
    noted.note(here.machine.host_id, here.uuid, here.driver.definition(here.uuid), timezone.now())


def rewire(actor, here, network=None):
    doing = {"machine": here.machine, "mac": MAC, "network": network or here.away}
    return rewiring.rewire_card(actor=actor, **doing)


def on(here):
    """Return the network of the card in the definition and in what runs."""
    look(here)
    found = noted.of(here.machine)
    sides = (found.observed_persistent, found.observed_running)
    return [nics.by_mac(side)[MAC]["source"]["network"].removeprefix("gatehouse-") for side in sides]


def row():
    port = Port.objects.get(mac=MAC)
    return port.network.name, port.joining and port.joining.name, port.observed_address


def change(here, card):
    """Change the card's definition, as others would by virsh."""
    seen = here.driver.definition(here.uuid)
    here.driver.redefine(here.uuid, {"devices": {"interfaces": [card]}}, seen.digest)
    look(here)


def test_a_card_comes_to_another_network_now_and_later_and_its_address_goes(cast, here):
    """Red when settle() keeps the address of the network that was left, or no host makes the other."""
    Port.objects.update(observed_address="10.213.77.9")
    VirtualMachine.objects.update(observed_address="10.213.77.9")
    begun = rewire(cast.requester, here)
    assert row() == ("example77", "example78", "10.213.77.9")
    assert begun.frozen["pinned"]["settings"] == [[f"Network of {MAC}", "Example 77", "Example 78"]]
    assert work(begun).state == State.SUCCEEDED
    assert on(here) == ["example78", "example78"] and row() == ("example78", None, None)
    here.machine.refresh_from_db()
    assert here.machine.observed_address is None
    assert work(rewire(cast.requester, here, here.home)).state == State.SUCCEEDED
    assert on(here) == ["example77", "example77"] and row() == ("example77", None, None)


@pytest.mark.parametrize("made", [True, False])
def test_a_failure_leaves_the_card_on_its_network(cast, here, made):
    """Red when Rewire has no undo, or settle() believes the wish. `made`: the host heeded it all the same."""
    done = here.driver.rewire_nic

    def failing(uuid, mac, to, was):
        if to.network == here.away.spec.name:
            if made:
                done(uuid, mac, to, was)
            raise DriverError("the host is out of breath")
        done(uuid, mac, to, was)

    here.driver.rewire_nic = failing
    assert work(rewire(cast.requester, here)).state == State.FAILED
    assert on(here) == ["example77", "example77"] and row() == ("example77", None, None)


def test_a_worker_that_dies_after_the_call_leaves_it_to_the_next(cast, here):
    """Red when what is so already is an error."""

    class Died(BaseException):
        pass

    begun = services.claim(rewire(cast.requester, here).pk, worker="worker")
    calls = []

    def before(verb):
        calls.append(verb)
        if verb == "definition" and calls.count(verb) == 1:
            raise Died

    here.before = before
    with pytest.raises(Died):
        runner.carry_on(begun, worker="worker")
    assert on(here) == ["example78", "example78"]
    runner.carry_on(Operation.objects.get(pk=begun.pk), worker="reaper")
    assert Operation.objects.get(pk=begun.pk).state == State.SUCCEEDED
    assert on(here) == ["example78", "example78"] and row() == ("example78", None, None)


@pytest.mark.parametrize(("error", "code"), [(NotSupported, "card_stays"), (AlreadyExists, "card_elsewhere")])
def test_what_the_host_refuses_is_said(cast, here, error, code):
    """Red when the words are those of a host that can nothing, or of another thing of that name."""

    def refuse(*_args):
        raise error("not this one")

    here.driver.rewire_nic = refuse
    begun = rewire(cast.requester, here)
    assert work(begun).state == State.FAILED
    record = StepRecord.objects.get(operation=begun, name="rewire")
    assert record.error_code == code and "othing was changed" in sentence(code, "x")
    assert on(here) == ["example77", "example77"] and row() == ("example77", None, None)


def test_the_network_is_one_that_a_new_card_could_be_on(cast, here):
    """Red when networks_for() is not asked, or the network that the card is on begins anything."""
    other, own = make_network(79), make_network(80, kind=Network.Kind.USER)
    assert rewire(cast.requester, here, here.home) is None
    for network in other, own:
        with pytest.raises(Denied, match="not on offer") as denied:
            rewire(cast.requester, here, network)
        assert denied.value.field == "network"
    with pytest.raises(Denied, match="not on offer"):
        rewire(cast.operator, here, own)
    assert rewire(cast.operator, here, other).state == State.QUEUED
    with pytest.raises(Denied, match="not finished yet"):
        rewire(cast.operator, here)


@pytest.mark.parametrize("who", ["approver", "auditor"])
def test_who_may_not_use_a_machine_rewires_nothing(cast, here, who):
    with pytest.raises(Denied, match="Only the owner, an operator or an admin"):
        rewire(getattr(cast, who), here)
    assert row() == ("example77", None, None)


def test_a_card_of_a_kind_that_the_portal_does_not_know_stays_and_the_page_says_it(cast, client, here):
    """Red when place_of() takes any source for a network."""
    direct = {"type": "direct", "source": {"network": None, "dev": "eth0", "mode": "bridge"}}
    change(here, direct)
    with pytest.raises(Denied, match="kind direct, which the portal brings to no network"):
        rewire(cast.operator, here)
    client.force_login(cast.operator)
    text = client.get(url("vms:card", args=[here.machine.pk, MAC])).content.decode()
    assert "The card is of the kind direct" in text
    change(here, {"type": "network", "source": {"network": "gatehouse-example78", "dev": None, "mode": None}})
    with pytest.raises(Denied, match="another network now than from the next start on"):
        rewire(cast.operator, here)


def test_what_else_keeps_a_card_on_its_network_is_said(cast, here):
    Host.objects.update(bridges=False)
    here.machine.refresh_from_db()
    with pytest.raises(Denied, match="no bridges"):
        rewire(cast.requester, here)
    Host.objects.update(bridges=True)
    foreign = noted.of(here.machine)
    foreign.observed_running["type"] = "lxc"
    foreign.save()
    with pytest.raises(Denied, match="Switch the machine off first"):
        rewire(cast.requester, here)
    Port.objects.update(network=make_network(80, kind=Network.Kind.USER))
    with pytest.raises(Denied, match="part of the machine's emulator"):
        rewire(cast.requester, here)
    Port.objects.all().delete()
    with pytest.raises(Denied, match="has this card no more"):
        rewire(cast.requester, here)


def test_neither_network_is_removed_meanwhile(cast, chief, here):
    """Red when a card that is on its way counts on one of them alone."""
    begun = rewire(cast.requester, here)
    for network in here.home, here.away:
        with pytest.raises(Denied, match="1 network cards"):
            networks.remove_network(actor=chief, network=network, confirm_name=network.name)
    assert work(begun).state == State.SUCCEEDED
    networks.remove_network(actor=chief, network=here.home, confirm_name=here.home.name)


def test_the_page_says_when_and_begins_it(client, cast, here):
    client.force_login(cast.requester)
    card, there = (url(name, args=[here.machine.pk, MAC]) for name in ("vms:card", "vms:card_network"))
    text = client.get(card).content.decode()
    assert "on the other network at once" in text and "Example 78" in text
    wrong = client.post(there, {"network": "999"})
    assert wrong.status_code == 422 and "Change its network" in wrong.content.decode()
    assert client.get(there).status_code == 405
    carried = client.get(card).context["carried"]
    answer = client.post(there, {"network": here.away.pk, "seen": carried})
    begun = Operation.objects.get(kind=rewiring.REWIRE)
    assert answer.url == url("operations:detail", args=[begun.pk])
    assert "Example 77" in client.get(answer.url).content.decode()
    assert work(begun).state == State.SUCCEEDED
    here.driver.destroy(here.uuid)
    look(here)
    VirtualMachine.objects.update(observed_state=Observed.SHUTOFF)
    assert "it starts on the other network" in client.get(card).content.decode()
    unknown = url("vms:card_network", args=[here.machine.pk, "52:54:00:00:00:0f"])
    gone = client.post(unknown, {"network": here.home.pk}, follow=True)
    assert "has this card no more" in gone.content.decode()


def test_a_card_on_a_bridge_that_the_guest_keeps_blocks_nothing(cast, here, monkeypatch):
    """Red when the undo of a removal insists on the network: an adopted card is on a bridge by itself."""
    here.home.kind, here.home.bridge = Network.Kind.BRIDGE, "br9"
    here.home.save()
    here.driver.destroy(here.uuid)
    change(here, {"type": "bridge", "source": {"network": None, "bridge": "br9"}})
    here.driver.start(here.uuid)
    look(here)

    def keeps(*_told):
        raise GuestIgnores("it holds it")

    monkeypatch.setattr(here.driver, "detach_nic", keeps)
    ended = work(nics.remove_card(actor=cast.requester, machine=here.machine, mac=MAC))
    assert ended.state == State.FAILED
