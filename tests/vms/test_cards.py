"""Network cards, CDs and limits of disks: what may be done, by whom, and what becomes of it."""

import pytest
from django.db import transaction
from django.urls import reverse as url
from django.utils import timezone

from networks import services as networks
from networks.models import Network, Port
from portal.core.errors import Denied
from portal.core.stale import Changed
from portal.drivers.errors import DomainNotFound
from portal.drivers.inspection import Kind, changed
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.types import Accelerator, AddressInfo, DiskSpec, DomainDefinition, DomainSpec, NicSpec
from portal.hosts import steps
from portal.hosts.models import Health, Host
from portal.operations import words
from portal.operations.models import Operation
from portal.operations.registry import StepContext
from portal.operations.services import claim
from portal.operations.states import State
from portal.operations.transitions import move
from tests.factories import GIB, MIB, make_catalogue, make_host, make_machine, make_network, make_place
from vms import noted, placement
from vms.changes.devices import limits, media, nic_steps, nics
from vms.models import Observed, Status, VirtualMachine
from vms.observer import MachineObserver

pytestmark = [pytest.mark.database, pytest.mark.django_db]
MAC = "52:54:00:00:00:01"
NONE = dict.fromkeys(limits.LIMITS, 0)


@pytest.fixture
def offered():
    """The network of the machine's catalogue item."""
    return make_network(77)


@pytest.fixture
def machine(cast, offered):
    """A machine that runs with one disk, its seed and one card."""
    host = make_host()
    place = make_place(host)
    image = place.images.get().image
    make_catalogue(image, offered)
    found = make_machine(cast, "example", host, image, item_name="Tiny", observed_state=Observed.RUNNING)
    found.disks.create(pool=place, volume_name="example-vda.qcow2", capacity=2 * GIB)
    Port.objects.create(network=offered, host=host, domain_uuid=found.uuid, mac=MAC)
    see(found)
    return found


def see(machine, change=None, *, running=True, before=None):
    """Let the portal see what a machine is defined as (changed by `change`), and what it runs as."""
    seed = media.seed_path(machine)
    spec = DomainSpec(
        name="example",
        uuid=str(machine.uuid),
        vcpus=1,
        memory_bytes=GIB,
        disks=(DiskSpec("/example/example-vda.qcow2"),),
        nics=(NicSpec(MAC, "gatehouse-example77"),),
        seed_path=seed,
        accelerator=Accelerator.EMULATION,
    )
    text = changed(Kind.DOMAIN, DomainElement.to_xml(spec).encode(), {})
    runs = changed(Kind.DOMAIN, text.encode(), before or {}) if running else ""
    told = DomainDefinition(changed(Kind.DOMAIN, text.encode(), change or {}), runs)
    noted.note(machine.host_id, str(machine.uuid), told, timezone.now())


def finish(operation, to=State.SUCCEEDED):
    running = claim(operation.pk, worker="worker")
    for state in ([] if to == State.SUCCEEDED else [State.UNDOING]) + [to]:
        move(running, state, actor="worker")


def add(actor, machine, network):
    return nics.add_card(actor=actor, machine=machine, network=network)


def told(operation):
    return {fact.label: fact.value for fact in words.facts(operation.frozen)}


# Cards


def test_a_card_has_its_row_from_the_beginning_and_loses_it_when_it_fails(cast, machine, offered):
    """Red when settle_new() keeps the row of a card that was not made, or forgets one that was."""
    failed = add(cast.requester, machine, offered)
    port = Port.objects.get(pk=failed.identifiers["port"])
    assert (port.domain_uuid, port.network, port.mac) == (machine.uuid, offered, failed.identifiers["mac"])
    assert failed.frozen["pinned"]["network"]["name"] == offered.spec.name
    finish(failed, State.FAILED)
    assert [card.mac for card in nics.cards_of(machine)] == [MAC]
    done = add(cast.requester, machine, offered)
    finish(done)
    assert Port.objects.filter(mac=done.identifiers["mac"]).exists()
    assert told(done)["Network card"] == f"none → {done.identifiers['mac']}"


def test_who_only_requests_chooses_what_the_item_offers_now_and_operators_any(cast, machine, offered):
    """Red when networks_for() forgets the item, or takes operators for requesters."""
    other = make_network(78)
    with pytest.raises(Denied, match="not on offer") as denied:
        add(cast.requester, machine, other)
    assert denied.value.field == "network"
    assert set(nics.networks_for(cast.operator, machine)) == {offered, other}
    assert set(nics.networks_for(cast.admin, machine)) == {offered, other}
    machine_item = offered.items.get()
    machine_item.offered = False
    machine_item.save()
    with pytest.raises(Denied, match="not on offer"):
        add(cast.requester, machine, offered)
    assert not Operation.objects.filter(kind=nics.ADD).exists() and Port.objects.count() == 1
    assert add(cast.operator, machine, other).state == State.QUEUED


def test_an_item_of_other_projects_offers_nothing(cast, machine, offered):
    """Red when the item is not looked for by right."""
    item = offered.items.get()
    item.every_project = False
    item.save()
    with pytest.raises(Denied, match="not on offer"):
        add(cast.requester, machine, offered)
    item.projects.add(cast.project)
    add(cast.requester, machine, offered)


def test_a_network_of_a_guests_own_is_no_second_card_and_its_card_stays(cast, machine, offered):
    """Red when Kind.USER is not left out."""
    own = make_network(79, kind=Network.Kind.USER)
    offered.items.get().networks.add(own)
    for actor in cast.requester, cast.operator:
        with pytest.raises(Denied, match="not on offer"):
            add(actor, machine, own)
    Port.objects.filter(mac=MAC).update(network=own)
    with pytest.raises(Denied, match="part of the machine's emulator"):
        nics.remove_card(actor=cast.requester, machine=machine, mac=MAC)
    with pytest.raises(Denied, match="part of the machine's emulator"):
        nics.set_link(actor=cast.requester, machine=machine, mac=MAC, up=False)


def test_a_host_without_bridges_and_a_machine_with_many_cards_have_no_more(cast, machine, offered):
    Host.objects.update(bridges=False)
    with pytest.raises(Denied, match="no bridges"):
        add(cast.requester, machine, offered)
    Host.objects.update(bridges=True)
    for number in range(2, nics.MOST_CARDS + 1):
        values = {"network": offered, "host": machine.host, "domain_uuid": machine.uuid}
        Port.objects.create(mac=f"52:54:00:00:00:{number:02x}", **values)
    with pytest.raises(Denied, match="8 network cards at most"):
        add(cast.requester, machine, offered)


def test_a_mac_that_another_has_is_drawn_again(cast, machine, offered, monkeypatch):
    """Red when the clash of two MACs reaches a person."""
    drawn = iter([MAC, MAC, "52:54:00:00:00:09"])
    monkeypatch.setattr(placement, "mac", lambda: next(drawn))
    assert add(cast.requester, machine, offered).identifiers["mac"] == "52:54:00:00:00:09"


def test_one_change_of_a_machine_at_a_time_and_no_row_of_the_second(cast, machine, offered):
    """Red when the row of a card outlives the refusal of its operation."""
    add(cast.requester, machine, offered)
    before = Port.objects.count()
    with pytest.raises(Denied, match="not finished yet"):
        add(cast.requester, machine, offered)
    with pytest.raises(Denied, match="not finished yet"):
        nics.remove_card(actor=cast.requester, machine=machine, mac=MAC)
    assert Port.objects.count() == before


def test_a_card_that_goes_takes_its_address_along(cast, machine, offered):
    """Red when the machine keeps the address of a card that is gone, or loses that of another."""
    second = Port.objects.create(
        network=offered, host=machine.host, domain_uuid=machine.uuid, mac="52:54:00:00:00:02"
    )
    both = {
        str(machine.uuid): (
            AddressInfo(second.mac, "10.213.77.12", 24),
            AddressInfo(MAC, "10.213.77.11", 24),
        )
    }
    with transaction.atomic():
        MachineObserver().addresses(machine.host_id, both)
    machine.refresh_from_db()
    assert machine.observed_address == "10.213.77.11"
    finish(nics.remove_card(actor=cast.requester, machine=machine, mac=MAC), State.FAILED)
    machine.refresh_from_db()
    assert machine.observed_address == "10.213.77.11" and Port.objects.filter(mac=MAC).exists()
    finish(nics.remove_card(actor=cast.requester, machine=machine, mac=MAC))
    machine.refresh_from_db()
    assert machine.observed_address == "10.213.77.12" and not Port.objects.filter(mac=MAC).exists()
    finish(nics.remove_card(actor=cast.requester, machine=machine, mac=second.mac))
    machine.refresh_from_db()
    assert machine.observed_address is None and not Port.objects.exists()
    with pytest.raises(Denied, match="has this card no more"):
        nics.remove_card(actor=cast.requester, machine=machine, mac=MAC)


def test_a_network_with_a_card_on_it_stays(cast, chief, machine, offered):
    other = make_network(78)
    begun = add(cast.operator, machine, other)
    with pytest.raises(Denied, match="1 network cards"):
        networks.remove_network(actor=chief, network=other, confirm_name=other.name)
    finish(begun, State.FAILED)
    networks.remove_network(actor=chief, network=other, confirm_name=other.name)


def test_a_link_knows_its_way_back(cast, machine):
    down = nics.set_link(actor=cast.requester, machine=machine, mac=MAC, up=False)
    assert (down.identifiers["up"], down.identifiers["back"]) == (False, True)
    assert told(down)[f"Link of {MAC}"] == "up → down"
    finish(down)
    see(machine, {"devices": {"interfaces": [{"link": "down"}]}}, running=False)
    [card] = nics.cards_of(machine)
    assert card.linked is False
    up = nics.set_link(actor=cast.requester, machine=machine, mac=MAC, up=True)
    assert (up.identifiers["up"], up.identifiers["back"]) == (True, False)
    finish(up)
    see(machine, {"devices": {"interfaces": [None]}}, running=False)
    with pytest.raises(Denied, match="has this card no more"):
        nics.set_link(actor=cast.requester, machine=machine, mac=MAC, up=False)


@pytest.mark.parametrize("linked", [True, False])
def test_a_card_that_comes_back_has_its_cable_as_it_was(cast, machine, monkeypatch, linked):
    """Red when DetachCard.undo() leaves the link: what was pulled would be on its network again."""
    calls = []

    def call(_host, verb, *args, timeout):
        if verb == "definition":
            raise DomainNotFound("nobody asked")
        calls.append((verb, args[1:]))

    monkeypatch.setattr(steps, "call", call)
    see(machine, {"devices": {"interfaces": [{"link": "up" if linked else "down"}]}}, running=False)
    begun = nics.remove_card(actor=cast.requester, machine=machine, mac=MAC)
    nic_steps.DetachCard().undo(StepContext(begun.frozen, begun.identifiers, check=lambda: None))
    assert [verb for verb, _args in calls] == ["attach_nic", *([] if linked else ["set_link"])]
    assert linked or calls[-1] == ("set_link", (MAC, False))


@pytest.mark.parametrize("who", ["approver", "auditor"])
def test_who_may_not_use_a_machine_changes_nothing_of_it(cast, machine, offered, who):
    actor, disk = getattr(cast, who), machine.disks.get()
    for call in (
        lambda: add(actor, machine, offered),
        lambda: nics.remove_card(actor=actor, machine=machine, mac=MAC),
        lambda: nics.set_link(actor=actor, machine=machine, mac=MAC, up=False),
        lambda: media.change_media(actor=actor, machine=machine, target="sda", seed=False),
        lambda: limits.limit_disk(actor=actor, disk=disk, limits={"total_iops_sec": 9}, seen=NONE),
    ):
        with pytest.raises(Denied, match="Only the owner, an operator or an admin"):
            call()
    assert Port.objects.count() == 1


def test_what_cannot_be_changed_now_is_not(cast, machine, offered):
    Host.objects.update(observed_health=Health.STALE)
    with pytest.raises(Denied, match="does not answer"):
        add(cast.requester, machine, offered)
    Host.objects.update(observed_health=Health.UP)
    VirtualMachine.objects.update(status=Status.BINNED)
    with pytest.raises(Denied, match="in the bin"):
        nics.remove_card(actor=cast.requester, machine=machine, mac=MAC)


def test_a_card_of_somebody_elses_is_shown_and_left(client, cast, machine):
    """Red when only the portal's own cards are listed, or one of another machine can be reached."""
    foreign = {"type": "bridge", "mac": "52:54:00:00:00:0f", "source": {"bridge": "br9"}}
    see(machine, {"devices": {"interfaces": [{}, foreign]}})
    [own, other] = nics.cards_of(machine)
    assert (other.mac, other.place, other.waits, other.port) == ("52:54:00:00:00:0f", "br9", True, None)
    assert own.waits is False
    with pytest.raises(Denied, match="has this card no more"):
        nics.remove_card(actor=cast.requester, machine=machine, mac=other.mac)
    client.force_login(cast.requester)
    assert client.get(url("vms:card", args=[machine.pk, other.mac])).status_code == 404
    page = client.get(url("vms:cards", args=[machine.pk])).content.decode()
    assert "Not made by the portal" in page and "At the next start" in page


def test_a_function_that_a_network_gave_is_on_that_network(machine):
    """Red when only what runs is asked: libvirt prints the function there, and no word of the network."""
    pool = {"type": "network", "mac": "52:54:00:00:00:0f", "source": {"network": "functions"}}
    taken = {"type": "hostdev", "mac": pool["mac"], "host_address": {"type": "pci", "bus": "0x03"}}
    see(
        machine,
        {"devices": {"interfaces": [{}, pool]}},
        before={"devices": {"interfaces": [{}, taken]}},
    )
    assert nics.cards_of(machine)[1].place == "functions"


# Media


def test_the_seed_is_taken_out_and_put_in(cast, machine):
    """Red when the seed's place is another than the builder's, or what is so already begins something."""
    seed = f"/example/{machine.domain_name}-seed.iso"

    def change(seed):
        return media.change_media(actor=cast.requester, machine=machine, target="sda", seed=seed)

    assert change(True) is None
    begun = change(False)
    assert (begun.identifiers["path"], begun.identifiers["back"]) == ("", seed)
    assert told(begun)["In drive sda"].endswith("-seed.iso → none")
    finish(begun)
    # It came out of what is defined; what runs still has it.
    drives = {"devices": {"disks": [{}, {"source": {"file": None}}]}}
    see(machine, drives)
    assert change(False) is not None
    finish(Operation.objects.latest("pk"))
    see(machine, drives, before=drives)
    assert change(False) is None
    back = change(True)
    assert (back.identifiers["path"], back.identifiers["back"]) == (seed, "")
    for target in ("vda", "sdz"):
        with pytest.raises(Denied, match="no such drive"):
            media.change_media(actor=cast.requester, machine=machine, target=target, seed=False)


# Limits


def limit(actor, machine, *, seen=None, **wanted):
    return limits.limit_disk(actor=actor, disk=machine.disks.get(), limits=wanted, seen=seen or NONE)


def test_limits_are_those_of_the_definition_and_go_back(cast, machine):
    """Red when what was seen is not asked for, or what is left empty stays as it was."""
    begun = limit(cast.requester, machine, read_bytes_sec=5 * MIB, total_iops_sec=100)
    wanted = {**NONE, "read_bytes_sec": 5 * MIB, "total_iops_sec": 100}
    assert (begun.identifiers["limits"], begun.identifiers["back"]) == (wanted, NONE)
    assert told(begun)["Reading, MiB/s"] == "none → 5"
    finish(begun)
    see(machine, {"devices": {"disks": [{"limits": {"read_bytes_sec": 5 * MIB, "total_iops_sec": 100}}]}})
    disk = machine.disks.get()
    assert limits.limits_of(disk) == wanted
    with pytest.raises(Changed):
        limit(cast.requester, machine, total_iops_sec=50)
    free = limit(cast.requester, machine, seen=wanted, total_iops_sec=50)
    assert free.identifiers["limits"] == {**NONE, "total_iops_sec": 50}
    assert free.identifiers["back"] == wanted
    # What runs is not limited so: setting the same again makes it so.
    finish(free)
    assert limit(cast.requester, machine, seen=wanted, **wanted) is not None


def test_what_is_so_already_begins_nothing(cast, machine):
    assert limit(cast.requester, machine) is None


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"read_iops_sec": -1}, "read_iops_sec"),
        ({"total_bytes_sec": 10**16}, "total_bytes_sec"),
        ({"total_bytes_sec": 1, "write_bytes_sec": 1}, "total_bytes_sec"),
        ({"total_iops_sec": 1, "read_iops_sec": 1}, "total_iops_sec"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_at_its_field(cast, machine, wanted, field):
    with pytest.raises(Denied) as denied:
        limit(cast.requester, machine, **wanted)
    assert denied.value.field == field
    assert not Operation.objects.filter(kind=limits.LIMIT).exists()


# Pages


def test_the_pages_add_pull_and_remove_a_card(client, cast, machine, offered):
    client.force_login(cast.requester)
    there = url("vms:cards", args=[machine.pk])
    assert there in client.get(url("vms:detail", args=[machine.pk])).content.decode()
    text = client.get(there).content.decode()
    assert MAC in text and "while the machine runs" in text and "Up" in text
    assert client.post(there, {"network": make_network(78).pk}).status_code == 422
    seen = {"seen": client.get(there).context["carried"]}
    answer = client.post(there, {"network": offered.pk, **seen})
    begun = Operation.objects.get(kind=nics.ADD)
    assert answer.url == url("operations:detail", args=[begun.pk])
    assert begun.identifiers["mac"] in client.get(answer.url).content.decode()
    finish(begun, State.FAILED)
    card = url("vms:card", args=[machine.pk, MAC])
    assert "last network card" in client.get(card).content.decode()
    carried = client.get(card).context["carried"]
    client.post(url("vms:card_link", args=[machine.pk, MAC]), {"up": "0", "seen": carried})
    down = Operation.objects.get(kind=nics.LINK)
    assert down.identifiers["up"] is False
    finish(down)
    seen = {"seen": client.get(card).context["carried"]}
    client.post(url("vms:card_remove", args=[machine.pk, MAC]), seen)
    finish(Operation.objects.get(kind=nics.REMOVE))
    assert client.get(card).status_code == 404
    see(machine, {"devices": {"interfaces": [None]}}, running=False)
    assert "The machine has no network card" in client.get(there).content.decode()


def test_the_page_of_drives_ejects_and_inserts(client, cast, machine):
    client.force_login(cast.requester)
    page = url("vms:media", args=[machine.pk])
    text = client.get(page).content.decode()
    assert "own seed" in text and "Insert the seed" not in text
    carried = {"seen": client.get(page).context["carried"]}
    answer = client.post(url("vms:media_change", args=[machine.pk, "sda"]), carried)
    begun = Operation.objects.get(kind=media.CHANGE)
    assert answer.url == url("operations:detail", args=[begun.pk])
    finish(begun)
    see(machine, {"devices": {"disks": [{}, {"source": {"file": None}}]}}, running=False)
    assert "Insert the seed" in client.get(page).content.decode()
    answer = client.post(url("vms:media_change", args=[machine.pk, "sdz"]), follow=True)
    assert "no such drive" in answer.content.decode()


def test_the_disks_page_limits_it_and_shows_what_another_changed(client, cast, machine):
    client.force_login(cast.requester)
    page = url("vms:disk", args=[machine.pk, "vda"])
    there = url("vms:disk_limits", args=[machine.pk, "vda"])
    form = client.get(page).context["limits"]
    seen = {"seen": form.initial["seen"]}
    wrong = client.post(there, {**seen, "total_iops_sec": "5", "read_iops_sec": "5"})
    assert wrong.status_code == 422 and "each by itself" in wrong.content.decode()
    assert client.post(there, {**seen, "total_iops_sec": "many"}).status_code == 422
    answer = client.post(there, {**seen, "read_bytes_sec": "2.5", "total_iops_sec": "7"})
    begun = Operation.objects.get(kind=limits.LIMIT)
    assert answer.url == url("operations:detail", args=[begun.pk])
    assert begun.identifiers["limits"]["read_bytes_sec"] == 5 * MIB // 2
    finish(begun)
    see(machine, {"devices": {"disks": [{"limits": {"read_bytes_sec": 5 * MIB // 2}}]}})
    assert 'value="2.5"' in client.get(page).content.decode()
    late = client.post(there, {**seen, "total_iops_sec": "9"})
    text = late.content.decode()
    assert late.status_code == 422 and "Somebody changed this while you looked" in text and "2.5" in text
    # Looked at again, it is the person's own decision.
    again = {"seen": late.context["limits"]["seen"].value(), "total_iops_sec": "9"}
    client.post(there, again)
    assert Operation.objects.filter(kind=limits.LIMIT).latest("pk").identifiers["limits"] == {
        **NONE,
        "total_iops_sec": 9,
    }


def test_before_the_host_told_of_it_nothing_is_shown_as_if(client, cast, machine):
    """Red when a page takes what is not known yet for none."""
    noted.forget_all_but(machine.host_id, (), timezone.now())
    client.force_login(cast.requester)
    assert "not known yet" in client.get(url("vms:media", args=[machine.pk])).content.decode()
    assert client.get(url("vms:disk", args=[machine.pk, "vda"])).context["limits"] is None
    assert "Not on its host" not in client.get(url("vms:cards", args=[machine.pk])).content.decode()
    for call in (
        lambda: media.change_media(actor=cast.requester, machine=machine, target="sda", seed=False),
        lambda: limit(cast.requester, machine, total_iops_sec=5),
        lambda: nics.set_link(actor=cast.requester, machine=machine, mac=MAC, up=False),
    ):
        with pytest.raises(Denied, match="has not told"):
            call()
    # A POST of that moment is refused as well, and no error of the portal's own.
    answer = client.post(url("vms:disk_limits", args=[machine.pk, "vda"]), {"total_iops_sec": "5"})
    assert answer.status_code == 422 and "has not told" in answer.content.decode()


def test_strangers_see_no_page_of_a_machine(client, machine, django_user_model):
    client.force_login(django_user_model.objects.create(username="stranger"))
    for name, args in (
        ("cards", []),
        ("card_link", [MAC]),
        ("card_remove", [MAC]),
        ("media_change", ["sda"]),
        ("disk_limits", ["vda"]),
    ):
        assert client.post(url(f"vms:{name}", args=[machine.pk, *args])).status_code == 404
    assert client.get(url("vms:card", args=[machine.pk, MAC])).status_code == 404
