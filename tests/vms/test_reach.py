"""The ways to a machine that its page shows, and networks that machines have of their own."""

import socket
import threading
import uuid
from dataclasses import replace
from types import SimpleNamespace

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction

from networks import ports
from networks.models import Network, Port
from portal.core.errors import Denied
from portal.drivers.fake import FakeDriver
from portal.drivers.types import DomainState
from portal.hosts import enrolment
from portal.hosts.models import Host
from portal.operations.messages import OTHER, sentence
from portal.operations.registry import StepContext, StepFailed
from portal.operations.services import decide
from portal.operations.states import State
from tests import factories
from vms import building, placement, reach, specs
from vms.models import CatalogueItem, Observed, Status, VirtualMachine
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def own(cast):
    """A host without bridges, and a machine on a network of its own that was approved."""
    host = factories.make_host("laptop", "qemu:///session", bridges=False)
    attachment = factories.make_place(host)
    image = attachment.images.get().image
    network = Network.objects.create(name="own", title="By itself", kind=Network.Kind.USER)
    catalogue = factories.make_catalogue(image, network)
    operation = request_machine(
        actor=cast.requester,
        project=cast.project,
        wish=factories.make_wish(catalogue),
        token=uuid.uuid4(),
    )
    decide(actor=cast.approver, operation=operation, spec_hash=operation.spec_hash, approved=True)
    operation.refresh_from_db()
    return operation


def _context(operation):
    return StepContext(operation.frozen, operation.identifiers, lambda: None)


def test_a_machine_of_its_own_network_gets_a_port_of_its_host(own):
    """Red when place() asks for bridges whatever the network is, or the card is on one."""
    assert own.state == State.QUEUED
    port = Port.objects.get(domain_uuid=own.identifiers["uuid"])
    assert ports.FIRST <= port.ssh_port <= ports.LAST
    context = _context(own)
    (nic,) = specs.domain_spec(context).nics
    assert (nic.mac, nic.network, nic.ssh_port) == (port.mac, "", port.ssh_port)


def test_no_two_machines_of_a_host_get_one_port(own):
    port = Port.objects.get(domain_uuid=own.identifiers["uuid"])
    with pytest.raises(IntegrityError), transaction.atomic():
        Port.objects.create(
            network=port.network, host=port.host, domain_uuid=uuid.uuid4(), mac="52:54:00:00:00:02",
            ssh_port=port.ssh_port,
        )


def _approve_another(cast, own, name):
    """Ask for another machine like `own` and approve it."""
    wish = factories.make_wish(
        SimpleNamespace(
            item=CatalogueItem.objects.get(),
            flavour=CatalogueItem.objects.get().flavours.get(),
            network=Network.objects.get(name="own"),
        ),
        name=name,
    )
    asked = request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())
    return decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)


@pytest.mark.parametrize("what", ["mac", "ssh_port"])
def test_what_another_machine_drew_is_drawn_again(own, cast, monkeypatch, what):
    """Red when place() makes the rows once, or calls the name taken whatever was."""
    taken = Port.objects.get()
    macs, numbers = iter([taken.mac, "52:54:00:00:00:03"]), iter([taken.ssh_port, ports.FIRST - 1])
    if what == "mac":
        monkeypatch.setattr(placement, "mac", lambda: next(macs))
    else:
        monkeypatch.setattr(ports, "free_ssh_port", lambda host: next(numbers))
    asked = _approve_another(cast, own, "another")
    assert asked.state == State.QUEUED and VirtualMachine.objects.count() == 2
    made = Port.objects.get(domain_uuid=VirtualMachine.objects.get(name="another").uuid)
    assert asked.identifiers["mac"] == made.mac and asked.identifiers["ssh_port"] == made.ssh_port


def test_no_name_is_blamed_for_a_port_that_stays_taken(own, cast, monkeypatch):
    """Red when the last IntegrityError is told as a name that is taken, or the draws have no end."""
    taken = Port.objects.get()
    monkeypatch.setattr(placement, "mac", lambda: taken.mac)
    with pytest.raises(Denied, match="Too many machines"):
        _approve_another(cast, own, "another")
    assert VirtualMachine.objects.count() == 1


def test_a_host_without_bridges_takes_no_machine_of_a_shared_network(own, cast):
    """Red when candidates() does not look at `bridges`."""
    catalogue = CatalogueItem.objects.get()
    network = factories.make_network()
    catalogue.networks.add(network)
    wish = factories.make_wish(
        SimpleNamespace(item=catalogue, flavour=catalogue.flavours.get(), network=network),
        name="shared",
    )
    asked = request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())
    with pytest.raises(Denied, match="give its network"):
        decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)


def _fake_calls(monkeypatch, driver):
    def call(_host, verb, *args, timeout=0.0):
        return getattr(driver, verb)(*args)

    monkeypatch.setattr("portal.hosts.steps.call", call)


def test_waiting_ends_when_the_guest_of_an_own_network_answers(own, monkeypatch):
    """Red when MakeNetwork makes such a network, or the wait looks for a lease alone."""
    driver = FakeDriver()
    _fake_calls(monkeypatch, driver)
    context = _context(own)
    driver.define(specs.domain_spec(context))
    driver.start(own.identifiers["uuid"])
    building.MakeNetwork().do(context)
    building.WaitForAddress().do(context)
    machine = VirtualMachine.objects.get(uuid=own.identifiers["uuid"])
    # Every guest has this address on its own network: it says nothing to anybody.
    assert machine.observed_address is None


class Silent(FakeDriver):
    """Has no address to tell, and `states` for the guest, one a look; the last one stays."""

    def __init__(self, *states):
        super().__init__()
        self.states, self.looks = list(states), 0

    def addresses(self, uuid):
        if self.states == [DomainState.RUNNING]:
            return super().addresses(uuid)
        return ()

    def domain_info(self, uuid):
        self.looks += 1
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return replace(super().domain_info(uuid), state=state)


def _wait(own, monkeypatch, driver):
    _fake_calls(monkeypatch, driver)
    monkeypatch.setattr(building, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(reach, "speaks_ssh", lambda port: False)
    context = _context(own)
    states, driver.states = driver.states, [DomainState.RUNNING]
    driver.define(specs.domain_spec(context))
    driver.start(own.identifiers["uuid"])
    driver.states, driver.looks = states, 0
    building.WaitForAddress().do(context)


@pytest.mark.parametrize(
    ("state", "code", "looks"),
    [
        (DomainState.SHUTOFF, "guest_stopped", 1),
        (DomainState.CRASHED, "guest_crashed", 1),
        (DomainState.PAUSED, "guest_paused", 2),
    ],
)
def test_a_guest_that_will_never_be_up_is_not_waited_for(own, monkeypatch, state, code, looks):
    """Red when the wait lacks the state: it says after 300 s that there is no address."""
    monkeypatch.setattr(building, "BOOT_LIMIT", 2.0)
    driver = Silent(state)
    with pytest.raises(StepFailed) as failed:
        _wait(own, monkeypatch, driver)
    assert (failed.value.code, driver.looks) == (code, looks)
    assert sentence(code) != OTHER


def test_a_guest_that_is_paused_for_a_moment_is_waited_for(own, monkeypatch):
    """Red when one look at a paused guest is enough, or `before` is not kept from look to look."""
    paused, running = DomainState.PAUSED, DomainState.RUNNING
    driver = Silent(paused, running, paused, running, running)
    _wait(own, monkeypatch, driver)
    assert driver.looks == 4


def test_only_a_word_of_ssh_counts_as_an_answer():
    """Red when a connection is enough: the emulator takes it for a guest that is not up."""
    for word, expected in ((b"SSH-2.0-x\r\n", True), (b"", False)):
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()

            def answer(server=server, word=word):
                link, _ = server.accept()
                link.sendall(word)
                link.close()

            threading.Thread(target=answer, daemon=True).start()
            assert reach.speaks_ssh(server.getsockname()[1]) is expected
    assert not reach.speaks_ssh(1)


def _machine(own, **host):
    machine = VirtualMachine.objects.get(uuid=own.identifiers["uuid"])
    machine.status, machine.observed_state = Status.ACTIVE, Observed.RUNNING
    for name, value in host.items():
        setattr(machine.host, name, value)
    return machine


def _ways(machine, kind=Network.Kind.NAT, address="10.0.0.5"):
    port = Port(network=Network(kind=kind), observed_address=address, ssh_port=22022)
    return [way.command for way in reach.ways(machine, [port])]


def test_the_ways_depend_on_the_network_and_the_host(own, settings):
    """Red when a jump is left out, or a LAN's machine is shown with one."""
    settings.PUBLIC_URL = "http://127.0.0.1:8000"
    local = _machine(own)
    assert _ways(local) == ["ssh root@10.0.0.5"]
    assert _ways(local, Network.Kind.USER) == ["ssh -p 22022 root@127.0.0.1"]
    settings.PUBLIC_URL = "https://portal.example.org"
    assert _ways(local)[0] == "ssh -J portal.example.org root@10.0.0.5"
    far = _machine(own, uri="qemu+ssh://gatehouse@rack-1.example.org:2222/system")
    assert _ways(far)[0] == "ssh -J rack-1.example.org root@10.0.0.5"
    told = _machine(own, jump="guest@jump.example.org:2200")
    assert _ways(told)[0] == "ssh -J guest@jump.example.org:2200 root@10.0.0.5"
    assert _ways(told, Network.Kind.USER)[0] == "ssh -J guest@jump.example.org:2200 -p 22022 root@127.0.0.1"
    assert _ways(told, Network.Kind.BRIDGE) == ["ssh root@10.0.0.5"]


@pytest.mark.live
def test_the_shown_command_leads_through_the_host_to_its_port(own, second_host, caller):
    """Red when the jump is left out: here nobody listens at that port."""
    machine = _machine(own, jump=f"gate@{second_host.address}")
    (port,) = Port.objects.select_related("network")
    # In the guest's stead: what its emulator does is to listen at this port of the host's loopback.
    told = {
        "ListenAddress": f"127.0.0.1:{port.ssh_port}", "HostKey": "/etc/ssh/ssh_host_ed25519_key",
        "AuthorizedKeysFile": "/etc/ssh/authorized/%u", "StrictModes": "no", "PidFile": "none",
    }
    options = [word for name, value in told.items() for word in ("-o", f"{name}={value}")]
    second_host.run("/usr/sbin/sshd", "-f", "/dev/null", *options)
    for user in ("gate", "root"):
        second_host.authorize(caller.public_key, user)
    far, _near = reach.ways(machine, [port])
    caller.reach(far.command, 10)
    order = "echo $USER $SSH_CONNECTION; hostname"
    user, _client, _from, _server, number, name = caller.call(far.command, order).stdout.split()
    assert (user, int(number), name) == ("root", port.ssh_port, second_host.name)


def test_a_machine_that_is_off_or_has_no_address_has_no_way(own):
    machine = _machine(own)
    assert _ways(machine, address=None) == []
    machine.observed_state = Observed.SHUTOFF
    assert _ways(machine) == _ways(machine, Network.Kind.USER) == []


def test_the_page_shows_the_way(own, cast, client):
    """Red when the page or the live piece leaves the ways out."""
    VirtualMachine.objects.update(status=Status.ACTIVE, observed_state=Observed.RUNNING)
    client.force_login(cast.requester)
    port = Port.objects.get()
    machine = VirtualMachine.objects.get()
    assert f"ssh -p {port.ssh_port} root@127.0.0.1" in client.get(f"/machines/{machine.pk}/").content.decode()
    from vms.live import _heads

    pushed = _heads(cast.requester, [str(machine.pk)])[str(machine.pk)]
    assert f"ssh -p {port.ssh_port} root@127.0.0.1" in pushed


@pytest.mark.parametrize(("bridges", "kind"), [(True, "nat"), (False, "user")])
def test_set_up_offers_the_network_that_the_host_gives(settings, tmp_path, bridges, kind):
    """Red when bootstrap offers NAT whatever the host was seen to make."""
    settings.STATE_DIR = tmp_path
    factories.make_host(bridges=bridges)
    factories.make_image()
    for _ in range(2):
        call_command("bootstrap")
    assert [network.kind for network in Network.objects.all()] == [kind]
    assert [item.networks.get().kind for item in CatalogueItem.objects.all()] == [kind]


def test_set_up_adds_one_when_nothing_that_is_offered_can_be_made(settings, tmp_path):
    """Red when a network that is there keeps bootstrap from looking."""
    settings.STATE_DIR = tmp_path
    factories.make_image()
    call_command("bootstrap")
    factories.make_host(bridges=False)
    call_command("bootstrap")
    assert sorted(Network.objects.values_list("kind", flat=True)) == ["nat", "user"]
    assert CatalogueItem.objects.get().networks.count() == 2


def test_enrolment_notes_what_the_host_makes(monkeypatch, cast):
    """Red when the step fails a host without bridges."""
    host = factories.make_host()
    driver = FakeDriver()
    driver.bridges = False
    _fake_calls(monkeypatch, driver)
    enrolment.ProveBridge().do(StepContext({}, {"host": host.pk}, lambda: None))
    host.refresh_from_db()
    assert (host.bridges, host.bridge_proof) == (False, "A fake bridge was refused.")


def test_an_admin_says_where_people_jump_from(chief, client):
    """Red when the service takes what ssh would read as an option."""
    host = factories.make_host()
    client.force_login(chief)
    page = f"/hosts/{host.pk}/jump/"
    assert client.post(page, {"jump": "guest@jump.example.org:2200"}).status_code == 302
    assert Host.objects.get(pk=host.pk).jump == "guest@jump.example.org:2200"
    for hostile in ("-oProxyCommand=x", "a b", "a;b", "a@b@c", "$(x)"):
        assert client.post(page, {"jump": hostile}).status_code == 422, hostile
    assert Host.objects.get(pk=host.pk).jump == "guest@jump.example.org:2200"
