"""Devices of a host that machines have for themselves: who gives them, and that no two have one."""

import time
from dataclasses import asdict
from functools import partial

import pytest
from django.db import connection
from django.urls import reverse as url
from django.utils import timezone

from portal.accounts.models import Membership, Role
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.fake import FakeDriver
from portal.drivers.inspection import Kind, inspect
from portal.drivers.types import Accelerator, DiskSpec, DomainDefinition, DomainSpec, HostDevice
from portal.hosts import steps
from portal.operations.models import Operation
from portal.operations.states import State
from tests.factories import MIB, make_host, make_machine
from tests.hosts.conftest import carry_out
from tests.racing import race
from vms import hostdevices, noted, power
from vms.models import Definition, Observed

pytestmark = pytest.mark.database
CARD, SECOND = "pci:0000:02:10.7", "pci:0000:02:10.6"
STICK, MOUSE = "usb:058f:6387", "usb:046d:c52b"
DEVICES = (
    HostDevice(SECOND, "Card 1", "0000:02:10.6", 31),
    HostDevice(CARD, "Card <2>", "0000:02:10.7", 31),
    HostDevice("pci:0000:05:00.0", "Sound", "0000:05:00.0"),
    HostDevice(MOUSE, "Mouse", "1.2"),
    HostDevice(MOUSE, "Mouse", "1.3"),
    HostDevice(STICK, "Stick", "1.4"),
)


@pytest.fixture
def fake(monkeypatch):
    driver = FakeDriver()
    monkeypatch.setattr(steps, "call", lambda host, verb, *args, timeout: getattr(driver, verb)(*args))
    return driver


@pytest.fixture
def host(cast, fake):
    return make_host(readiness={"devices": [asdict(one) for one in DEVICES]})


@pytest.fixture
def machine(cast, fake, host):
    return made(cast, fake, host, "web")


@pytest.fixture
def other(cast, fake, host):
    return made(cast, fake, host, "db")


def made(cast, fake, host, name):
    """A machine with a domain on the fake host, which the portal has seen."""
    vm = make_machine(cast, name, host, observed_state=Observed.SHUTOFF)
    disks = (DiskSpec(f"/{name}.qcow2"),)
    fake.define(DomainSpec(name, str(vm.uuid), 1, 64 * MIB, disks, accelerator=Accelerator.EMULATION))
    see(fake, vm)
    return vm


def see(fake, vm):
    noted.note(vm.host_id, str(vm.uuid), fake.definition(str(vm.uuid)), timezone.now())


def give(chief, vm, key):
    return hostdevices.attach(actor=chief, machine=vm, key=key)


def done(operation):
    return Operation.objects.get(pk=carry_out(operation).pk)


def defined(fake, vm):
    text = fake.definition(str(vm.uuid)).persistent
    return inspect(Kind.DOMAIN, text.encode()).understood["devices"].get("host_devices")


def test_a_machine_gets_devices_and_gives_them_back(fake, machine, chief):
    """Red when the address is written wrongly, or the wrong one of two is taken away."""
    assert done(give(chief, machine, CARD)).state == State.SUCCEEDED
    address = {"domain": "0x0000", "bus": "0x02", "slot": "0x10", "function": "0x7"}
    card = {"mode": "subsystem", "type": "pci", "managed": True, "address": address}
    assert defined(fake, machine) == [card]
    assert done(give(chief, machine, STICK)).state == State.SUCCEEDED
    usb = {"vendor": "0x058f", "product": "0x6387"}
    stick = {"mode": "subsystem", "type": "usb", "managed": True, "usb": usb}
    assert defined(fake, machine) == [card, stick]
    assert [(one.key, one.label) for one in hostdevices.of(machine)] == [(CARD, "Card <2>"), (STICK, "Stick")]
    with pytest.raises(Denied, match="already"):
        give(chief, machine, CARD)
    taken = hostdevices.detach(actor=chief, machine=machine, key=CARD)
    assert done(taken).state == State.SUCCEEDED and defined(fake, machine) == [stick]
    with pytest.raises(Denied, match="not defined with"):
        hostdevices.detach(actor=chief, machine=machine, key=CARD)
    assert AuditEntry.objects.filter(verb="operation.begun", actor_name=chief.username).count() == 3


@pytest.mark.parametrize("key", [CARD, STICK])
def test_a_worker_that_died_took_one_of_several_away(fake, machine, chief, key):
    """Red when do() does not look what the definition is: its places are not those of the change any more."""
    for one in (CARD, STICK, SECOND):
        done(give(chief, machine, one))
    begun = hostdevices.detach(actor=chief, machine=machine, key=key)
    names = begun.identifiers
    fake.redefine(names["uuid"], begun.frozen["pinned"]["change"], names["digest"])
    left = defined(fake, machine)
    assert done(begun).state == State.SUCCEEDED and defined(fake, machine) == left and len(left) == 2
    assert key not in {one.key for one in hostdevices.of(machine)}


def test_what_somebody_else_took_away_is_not_taken_for_done(fake, machine, chief):
    """Red when fewer devices are enough: the device that was to go is there still."""
    for one in (CARD, STICK):
        done(give(chief, machine, one))
    begun = hostdevices.detach(actor=chief, machine=machine, key=CARD)
    names = begun.identifiers
    fake.redefine(names["uuid"], {"devices": {"host_devices": [{}, None]}}, names["digest"])
    left = defined(fake, machine)
    assert done(begun).state == State.FAILED
    assert defined(fake, machine) == left and left[0]["type"] == "pci"


def has_card(fake, vm, **card):
    """Let somebody give a domain a network card that is a device of the host, and let the portal see it."""
    place = {"type": "pci", "domain": "0", "bus": "0x2", "slot": "0x10", "function": "7"}
    change = {"devices": {"interfaces": [{"type": "hostdev", "host_address": place, **card}]}}
    fake.redefine(str(vm.uuid), change, fake.definition(str(vm.uuid)).digest)
    see(fake, vm)


def test_what_another_has_as_a_network_card_is_not_offered(fake, machine, other, chief):
    """Red when _every leaves cards_of out: a virtual function is given to two, and one does not start."""
    has_card(fake, other)
    denied = {one.key: one.denied for one in hostdevices.offers(chief, machine)}
    assert denied[CARD] == "db has it." and "goes together" in denied[SECOND] and denied[STICK] == ""
    for key in (CARD, SECOND):
        with pytest.raises(Denied, match="db has"):
            give(chief, machine, key)


def test_what_a_machine_has_as_a_network_card_it_has_already(fake, machine, chief):
    """Red when attach or offers ask keys_of alone, or a card takes the place of a <hostdev> in detach."""
    has_card(fake, machine)
    assert CARD not in {one.key for one in hostdevices.offers(chief, machine)}
    assert hostdevices.of(machine) == []
    with pytest.raises(Denied, match="already"):
        give(chief, machine, CARD)
    assert done(give(chief, machine, STICK)).state == State.SUCCEEDED
    assert done(hostdevices.detach(actor=chief, machine=machine, key=STICK)).state == State.SUCCEEDED
    assert not defined(fake, machine)


def runs(fake, machine):
    """Start a machine, and let the portal see it."""
    fake.start(str(machine.uuid))
    see(fake, machine)
    machine.__class__.objects.filter(pk=machine.pk).update(observed_state=Observed.RUNNING)
    machine.refresh_from_db()


def test_what_was_taken_from_a_machine_that_runs_is_not_saved_with_it(fake, machine, chief, client):
    """Red when why_not() does not compare: another machine gets the device, and this one does not go on."""
    client.force_login(chief)
    page, many = url("vms:detail", args=[machine.pk]), url("vms:many")
    words = "It runs with a device of its host that was taken away"
    for key in (CARD, STICK):
        done(give(chief, machine, key))
    runs(fake, machine)
    assert power.why_not(chief, machine, "save") == "" and words not in client.get(page).content.decode()
    done(hostdevices.detach(actor=chief, machine=machine, key=CARD))
    with pytest.raises(Denied, match=words):
        power.act(actor=chief, machine=machine, verb="save")
    assert words in client.get(page).content.decode()
    assert words in client.post(many, {"machine": machine.pk, "verb": "save"}).content.decode()
    assert words not in client.post(many, {"machine": machine.pk, "verb": "destroy"}).content.decode()
    assert power.why_not(chief, machine, "shutdown") == ""


def test_what_waits_for_the_next_start_keeps_nobody_from_saving(fake, machine, chief):
    """Red when every difference counts: nobody else gets what the machine is defined with."""
    runs(fake, machine)
    done(give(chief, machine, STICK))
    assert power.act(actor=chief, machine=machine, verb="save").kind == "vm.save"


def test_what_another_has_is_refused_with_its_name(fake, machine, other, chief):
    """Red when another machine's definition is not looked at, or its IOMMU group."""
    done(give(chief, other, CARD))
    with pytest.raises(Denied, match="db has it"):
        give(chief, machine, CARD)
    with pytest.raises(Denied, match="db has a device that goes together with it .*31"):
        give(chief, machine, SECOND)
    # Its own group is no obstacle.
    assert done(give(chief, other, SECOND)).state == State.SUCCEEDED
    done(hostdevices.detach(actor=chief, machine=other, key=CARD))
    done(hostdevices.detach(actor=chief, machine=other, key=SECOND))
    assert done(give(chief, machine, CARD)).state == State.SUCCEEDED


def test_what_is_on_its_way_to_another_is_refused(fake, machine, other, chief):
    """Red when only definitions count: two requests in one moment would give it twice."""
    begun = give(chief, other, STICK)
    with pytest.raises(Denied, match="db has it"):
        give(chief, machine, STICK)
    done(begun)
    with pytest.raises(Denied, match="db has it"):
        give(chief, machine, STICK)


@pytest.mark.parametrize("side", ["observed_persistent", "observed_running"])
@pytest.mark.parametrize(
    "named", [{"usb": {"vendor": "0x058f", "product": "0x6387"}}, {"address": {"bus": "1", "device": "4"}}]
)
def test_a_domain_that_nobody_manages_keeps_what_it_has(fake, host, machine, chief, side, named):
    """Red when foreign domains, what runs alone, or a device by its place on the bus is not looked at."""
    told = {"observed_persistent": None, "observed_running": None}
    told[side] = {"devices": {"host_devices": [{"mode": "subsystem", "type": "usb", **named}]}}
    Definition.objects.create(
        host=host,
        uuid="11111111-2222-4333-8444-555555555555",
        observed_name="theirs",
        observed_digest="d",
        observed_at=timezone.now(),
        **told,
    )
    with pytest.raises(Denied, match="theirs has it"):
        give(chief, machine, STICK)


@pytest.mark.slow
@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_of_two_who_give_it_at_once_one_does(fake, machine, other, chief, monkeypatch):
    """Red on PostgreSQL when the host is not locked: both would find that nobody has it."""
    holders = hostdevices._holders

    def slowly(*args):
        found = holders(*args)
        time.sleep(0.2)
        return found

    monkeypatch.setattr(hostdevices, "_holders", slowly)
    acts = [partial(hostdevices.attach, actor=chief, machine=vm, key=STICK) for vm in (machine, other)]
    results = race(acts)
    connection.close()
    assert len([one for one in results if isinstance(one, Denied)]) == 1, results
    assert Operation.objects.filter(kind="vm.edit").count() == 1


def test_what_cannot_be_given_says_why(fake, machine, chief):
    """Red when a host without an IOMMU, or two devices that look the same, are let through."""
    for key, words in (
        ("pci:0000:05:00.0", "no IOMMU"),
        (MOUSE, "cannot be told apart"),
        ("usb:ffff:ffff", "no such device"),
        ("", "no such device"),
    ):
        with pytest.raises(Denied, match=words):
            give(chief, machine, key)


def test_an_owner_and_a_projects_operator_give_nothing(fake, machine, chief, cast):
    """Red when whoever may use the machine may give it what belongs to the host."""
    done(give(chief, machine, STICK))
    Membership.objects.create(user=cast.requester, project=cast.project, role=Role.OPERATOR)
    for act, key in ((hostdevices.attach, CARD), (hostdevices.detach, STICK)):
        with pytest.raises(Denied, match="You may not give machines devices"):
            act(actor=cast.requester, machine=machine, key=key)


def test_the_page_offers_what_there_is_and_tells_when_it_counts(fake, machine, other, chief, cast, client):
    """Red when a host without devices is told of, what waits for the next start is told as there, or a
    button can be pressed whose click is refused.
    """
    client.force_login(chief)
    page, detail = (url(f"vms:{name}", args=[machine.pk]) for name in ("host_devices", "detail"))
    done(give(chief, other, CARD))
    shown = client.get(page).content.decode()
    assert "Card &lt;2&gt;" in shown and "db has it." in shown and "no IOMMU" in shown
    assert page in client.get(detail).content.decode()
    answer = client.post(url("vms:host_device_give", args=[machine.pk]), {"key": CARD}, follow=True)
    assert "db has it." in answer.content.decode()
    client.post(url("vms:host_device_give", args=[machine.pk]), {"key": STICK})
    done(Operation.objects.order_by("pk").last())
    text = fake.definition(str(machine.uuid)).persistent
    for running, words in ((text, "In use"), ("<domain><name>web</name></domain>", "From the next start on")):
        seen = DomainDefinition(text, running)
        noted.note(machine.host_id, str(machine.uuid), seen, timezone.now())
        machine.__class__.objects.update(observed_state=Observed.RUNNING)
        assert words in client.get(page).content.decode()
    machine.__class__.objects.update(observed_state=Observed.SAVED)
    buttons = client.get(page).content.decode().split("<button ")[1:]
    offered = [one.partition("</button>")[0] for one in buttons if ">Take away<" in one or ">Give<" in one]
    assert len(offered) == len(DEVICES) and all("disabled" in one for one in offered)
    client.force_login(cast.requester)
    shown = client.get(page).content.decode()
    assert (
        "Stick" in shown
        and "Card" not in shown
        and url("vms:host_device_take", args=[machine.pk]) not in shown
    )
    # A host without an IOMMU can give nothing of these.
    machine.host.readiness = {"devices": [asdict(DEVICES[2])]}
    machine.host.save(update_fields=["readiness"])
    Definition.objects.filter(uuid=machine.uuid).update(observed_persistent={}, observed_running=None)
    assert page not in client.get(detail).content.decode()
