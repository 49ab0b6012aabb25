"""Another size and other disks: what may be asked, by whom, what it takes, and what becomes of it."""

import uuid
from decimal import Decimal

import pytest
from django.urls import reverse as url
from django.utils import timezone

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.inspection import Kind, changed
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.types import DiskSpec, DomainDefinition, DomainSpec
from portal.hosts.models import Health, Host
from portal.operations import ledger, quotas, revisions, scopes, words
from portal.operations import services as operations
from portal.operations.models import Counter, Operation, Reservation
from portal.operations.registry import kind_of
from portal.operations.services import claim
from portal.operations.states import State
from portal.operations.transitions import move
from tests.factories import GIB, MIB, make_catalogue, make_host, make_machine, make_network, make_place
from vms import naming, noted
from vms.changes import cloning, disks, resizing
from vms.editing import Clash
from vms.models import Disk, Observed, Status, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def machine(cast):
    """A machine that runs with 1 vCPU, 1 GiB and one disk of 2 GiB, counted as one that was built."""
    host = make_host()
    place = make_place(host)
    found = make_machine(
        cast, "example", host, place.images.get().image, observed_state=Observed.RUNNING
    )
    found.disks.create(pool=place, volume_name="example-vda.qcow2", capacity=2 * GIB)
    Counter.objects.create(scope=host.scope, resource="memory", limit=8 * GIB)
    Counter.objects.create(scope=place.pool.scope, resource="disk", limit=10 * GIB)
    amounts = {(host.scope, "memory"): GIB, (place.pool.scope, "disk"): 2 * GIB}
    person = cast.requester
    member = scopes.of_member(cast.project, person)
    for scope in scopes.of_project(cast.project), scopes.of_person(person), member:
        amounts |= {(scope, "vcpu"): 1, (scope, "memory"): GIB, (scope, "disk"): 2 * GIB}
    ledger.hold(found.built_by, amounts)
    ledger.use(found.built_by)
    see(found)
    return found


def see(machine, change=None, *, running=True):
    """Let the portal see what a machine is defined as, and runs as before a `change`."""
    spec = DomainSpec(
        name="example",
        uuid=str(machine.uuid),
        vcpus=machine.vcpus,
        vcpu_ceiling=4,
        memory_bytes=machine.memory,
        disks=(DiskSpec("/example.qcow2"),),
        seed_path="/example.iso",
    )
    text = changed(Kind.DOMAIN, DomainElement.to_xml(spec).encode(), {})
    told = DomainDefinition(changed(Kind.DOMAIN, text.encode(), change or {}), text if running else "")
    noted.note(machine.host_id, str(machine.uuid), told, timezone.now())


def off(machine):
    VirtualMachine.objects.update(observed_state=Observed.SHUTOFF)
    machine.refresh_from_db()


def resize(actor, machine, *, seen=None, why="more work", token=None, **sizes):
    return resizing.request_resize(
        actor=actor,
        machine=machine,
        sizes={**resizing.sizes_of(machine), **sizes},
        seen=seen or resizing.sizes_of(machine),
        why=why,
        token=token or uuid.uuid4(),
    )


def add(actor, machine, capacity=GIB):
    return disks.request_disk(
        actor=actor, machine=machine, capacity=capacity, why="data", token=uuid.uuid4()
    )


def grow(actor, disk, capacity, *, seen=None):
    return disks.request_growth(
        actor=actor,
        disk=disk,
        capacity=capacity,
        seen=seen or disk.capacity,
        why="data",
        token=uuid.uuid4(),
    )


def consent(cast, asked):
    return operations.decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)


def finish(operation, to=State.SUCCEEDED):
    running = claim(operation.pk, worker="worker")
    for state in ([] if to == State.SUCCEEDED else [State.UNDOING]) + [to]:
        move(running, state, actor="worker")


def used(resource):
    rows = Counter.objects.filter(resource=resource)
    # A member's counter shows no other amounts than its project's here.
    shown = {row.scope: (row.held, row.used) for row in rows if row.held or row.used}
    return {scope.partition(":")[0]: amounts for scope, amounts in sorted(shown.items(), reverse=True)}


# Size


@pytest.mark.parametrize(
    "ask",
    [
        lambda cast, machine, why: disks.add_spec(machine, GIB, why),
        lambda cast, machine, why: disks.grow_spec(machine, machine.disks.get(), 3 * GIB, why),
        lambda cast, machine, why: resize(cast.requester, machine, vcpu=2, why=why),
        lambda cast, machine, why: cloning.spec_of(machine, "twin", 3, why),
    ],
)
def test_what_it_is_for_can_be_read_by_who_approves(cast, machine, ask):
    """Red when a change is asked for with words that no page can show, as no new machine can be."""
    with pytest.raises(Denied, match="a character that cannot be shown") as refused:
        ask(cast, machine, "bell \x07 and more")
    assert refused.value.field == "why"


def test_more_is_held_when_asked_and_when_approved_and_is_the_machines_in_the_end(cast, machine):
    """Red when hand_over() leaves the request's reservations beside the machine's, or counts them twice."""
    asked = resize(cast.requester, machine, vcpu=2, memory=3 * GIB)
    assert asked.state == State.AWAITING_APPROVAL and asked.subject == ""
    assert used("memory")["project"] == (2 * GIB, GIB) and used("memory")["host"] == (0, GIB)
    consent(cast, asked)
    assert used("memory")["host"] == (2 * GIB, GIB)
    finish(asked)
    assert set(used("memory").values()) == {(0, 3 * GIB)}
    machine.refresh_from_db()
    assert (machine.vcpus, machine.memory) == (2, 3 * GIB)
    assert not Reservation.objects.filter(operation=asked).exists()
    assert Reservation.objects.get(counter__scope=machine.host.scope).amount == 3 * GIB
    # And all of it comes back with the machine.
    ledger.give_back(machine.built_by)
    assert used("memory") == used("vcpu") == {}


def test_what_fails_gives_back_what_it_held(cast, machine):
    asked = resize(cast.requester, machine, memory=3 * GIB)
    consent(cast, asked)
    finish(asked, State.FAILED)
    assert set(used("memory").values()) == {(0, GIB)}
    machine.refresh_from_db()
    assert machine.memory == GIB


def test_less_needs_nobody_and_gives_back(cast, machine):
    """Red when reduce() is left out of settle(), or a smaller size waits for an approver."""
    finish(consent(cast, resize(cast.requester, machine, vcpu=4, memory=2 * GIB)))
    machine.refresh_from_db()
    with pytest.raises(Denied, match="only while it is off"):
        resize(cast.requester, machine, memory=GIB)
    off(machine)
    see(machine, running=False)
    begun = resize(cast.requester, machine, vcpu=1, memory=GIB, why="")
    assert begun.state == State.QUEUED and begun.subject == machine.topic
    finish(begun)
    assert set(used("memory").values()) == {(0, GIB)} and set(used("vcpu").values()) == {(0, 1)}
    machine.refresh_from_db()
    assert (machine.vcpus, machine.memory) == (1, GIB)


@pytest.mark.parametrize(
    ("sizes", "field", "sentence"),
    [
        ({"vcpu": 0}, "vcpu", "1 to 288"),
        ({"vcpu": 289}, "vcpu", "1 to 288"),
        ({"memory": 32 * MIB}, "memory", "needs at least"),
        ({"memory": -GIB}, "memory", "needs at least"),
        ({"memory": GIB + 1}, "memory", "whole MiB"),
        ({}, "", "has this size already"),
        ({"memory": 20 * GIB}, "", "not enough memory left"),
    ],
    ids=str,
)
def test_a_size_that_cannot_be_is_refused_at_its_field(cast, chief, machine, sizes, field, sentence):
    quotas.set_quota(actor=chief, scope=scopes.of_project(cast.project), limits={"memory": 10 * GIB})
    with pytest.raises(Denied, match=sentence) as denied:
        resize(cast.requester, machine, **sizes)
    assert denied.value.field == (field or denied.value.field)
    assert not Operation.objects.filter(kind="vm.resize").exists() and used("memory")["project"] == (0, GIB)


def test_more_needs_a_reason_and_less_none(cast, machine):
    with pytest.raises(Denied, match="what it is needed for") as denied:
        resize(cast.requester, machine, vcpu=2, why=" ")
    assert denied.value.field == "why"


@pytest.mark.parametrize(
    ("change", "sizes", "sentence"),
    [
        ({"vcpus": 2, "cpu": {"topology": {"sockets": 2}}}, {"vcpu": 4}, "laid out"),
        ({"memory_ceiling_bytes": 8 * GIB, "memory_slots": 4}, {"memory": 2 * GIB}, "made of modules"),
    ],
)
def test_what_a_definition_does_not_allow_is_said(cast, machine, change, sizes, sentence):
    see(machine, change)
    with pytest.raises(Denied, match=sentence):
        resize(cast.requester, machine, **sizes)


@pytest.mark.parametrize(
    ("defined", "vcpus", "change"),
    [
        ({"vcpus": 4, "current_vcpus": 1}, 2, {"vcpus": 4, "current_vcpus": 2}),
        ({"vcpus": 4, "current_vcpus": 1}, 4, {"vcpus": 4, "current_vcpus": None}),
        ({"vcpus": 1}, 2, {"vcpus": 8, "current_vcpus": 2}),
        ({"vcpus": 16, "current_vcpus": 2}, 32, {"vcpus": 32, "current_vcpus": None}),
        ({"vcpus": 4, "current_vcpus": 3}, 1, {"vcpus": 4, "current_vcpus": 1}),
    ],
)
def test_the_ceiling_stays_and_grows_where_it_must(defined, vcpus, change):
    assert resizing.change_to({**defined, "memory_bytes": GIB}, {"vcpu": vcpus, "memory": GIB}) == change


def test_an_approver_gives_less_and_never_less_than_there_is(cast, machine):
    """Red when check_lowered() lets a growth become a shrinking, or nothing."""
    asked = resize(cast.requester, machine, vcpu=4, memory=4 * GIB)
    doing = {"actor": cast.approver, "operation": asked}
    with pytest.raises(Denied, match="Not less than"):
        revisions.lower(**doing, spec_hash=asked.spec_hash, sizes={"memory": GIB // 2})
    with pytest.raises(Denied, match="Nothing would be left"):
        revisions.lower(**doing, spec_hash=asked.spec_hash, sizes={"memory": GIB, "vcpu": 1})
    lowered = revisions.lower(**doing, spec_hash=asked.spec_hash, sizes={"memory": 2 * GIB})
    assert used("memory")["project"] == (GIB, GIB)
    finish(consent(cast, lowered))
    machine.refresh_from_db()
    assert (machine.vcpus, machine.memory) == (4, 2 * GIB)
    assert lowered.identifiers == {} and Operation.objects.get(pk=asked.pk).identifiers["change"][
        "memory_bytes"
    ] == 2 * GIB


def test_only_one_such_request_waits_and_the_first_click_counts(cast, machine):
    token = uuid.uuid4()
    first = resize(cast.requester, machine, vcpu=2, token=token)
    assert resize(cast.requester, machine, vcpu=2, token=token) == first
    with pytest.raises(Denied, match="waits for approval already"):
        resize(cast.operator, machine, vcpu=3)
    assert used("vcpu")["project"] == (1, 1)


def test_a_request_that_waits_bars_no_other_machine_that_got_the_old_name(cast, machine):
    """Red when requests are told apart by their titles."""
    naming.rename_machine(
        actor=cast.requester, machine=machine, name="renamed", labels="", seen=naming.named(machine)
    )
    machine.refresh_from_db()
    other = make_machine(cast, "example", machine.host, machine.image, observed_state=Observed.RUNNING)
    see(other)
    resize(cast.requester, other, vcpu=2)
    resize(cast.requester, machine, vcpu=2)
    with pytest.raises(Denied, match="waits for approval already"):
        resize(cast.requester, machine, vcpu=3)


def test_two_disks_grow_by_requests_of_their_own(cast, machine):
    first = machine.disks.get()
    second = machine.disks.create(pool=first.pool, target="vdb", volume_name="b", capacity=GIB)
    grow(cast.requester, first, 4 * GIB)
    with pytest.raises(Denied, match="waits for approval already"):
        grow(cast.requester, first, 5 * GIB)
    grow(cast.requester, second, 4 * GIB)


def test_policies_read_what_the_machine_costs_with_all_its_disks(cast, machine):
    """Red when a request to change a disk pins no cost, or `after` leaves out the other disks."""
    item = make_catalogue(machine.image, make_network(78)).item
    item.cost_month_gib = Decimal(1)
    item.save()
    item.flavours.create(name="middle", vcpus=2, memory=GIB, disk=GIB, cost_month=10)
    VirtualMachine.objects.update(item_name=item.name)
    machine.refresh_from_db()
    machine.disks.create(pool=machine.disks.get().pool, target="vdb", volume_name="b", capacity=3 * GIB)

    def cost(asked):
        return asked.frozen["pinned"]["cost_month"]

    # 10 for the size, and 5 GiB of disks of which it has one: 14, and what comes to that.
    assert cost(resize(cast.requester, machine, vcpu=2)) == "14.00"
    assert cost(add(cast.requester, machine, 2 * GIB)) == "16.00"
    assert cost(grow(cast.requester, machine.disks.get(target="vdb"), 4 * GIB)) == "15.00"


def test_what_changed_before_the_approval_must_be_asked_anew(cast, machine):
    """Red when place() does not look at the size again: it would hold too little."""
    asked = resize(cast.requester, machine, memory=4 * GIB)
    VirtualMachine.objects.update(memory=2 * GIB)
    with pytest.raises(Denied, match="another size by now"):
        consent(cast, asked)
    VirtualMachine.objects.update(memory=GIB, status=Status.BINNED)
    with pytest.raises(Denied, match="in the bin"):
        consent(cast, asked)
    VirtualMachine.objects.all().update(status=Status.ACTIVE)
    Operation.objects.filter(pk=machine.built_by_id).update(subject=machine.topic, state=State.RUNNING)
    with pytest.raises(Denied, match="Another change to this machine"):
        consent(cast, asked)
    assert Operation.objects.get(pk=asked.pk).state == State.AWAITING_APPROVAL
    Operation.objects.filter(pk=machine.built_by_id).update(state=State.SUCCEEDED)
    consent(cast, asked)


def test_a_host_without_room_refuses_the_approval(cast, machine):
    asked = resize(cast.requester, machine, memory=12 * GIB)
    [sight] = kind_of("vm.resize").asking.outlooks([asked]).values()
    assert sight.place == machine.host.name and "not enough memory left" in sight.warnings[0]
    with pytest.raises(Denied, match="not enough memory"):
        consent(cast, asked)


@pytest.mark.parametrize("who", ["approver", "auditor"])
def test_who_may_not_use_a_machine_changes_nothing_of_it(cast, machine, who):
    actor, disk = getattr(cast, who), machine.disks.get()
    for call in (
        lambda: resize(actor, machine, vcpu=2),
        lambda: add(actor, machine),
        lambda: grow(actor, disk, 3 * GIB),
        lambda: disks.remove_disk(actor=actor, disk=disk, confirm_name="vda"),
    ):
        with pytest.raises(Denied, match="Only the owner, an operator or an admin"):
            call()


def test_an_operator_asks_and_the_owner_pays(cast, machine):
    """Red when the quota of who asks is taken, or only requesters may ask."""
    consent(cast, resize(cast.operator, machine, memory=2 * GIB))
    mine, theirs = (scopes.of_person(person) for person in (cast.requester, cast.operator))
    assert Counter.objects.get(scope=mine, resource="memory").held == GIB
    assert not Counter.objects.filter(scope=theirs).exists()


def test_a_machine_whose_host_is_away_waits(cast, machine):
    asked = resize(cast.requester, machine, vcpu=2)
    Host.objects.update(observed_health=Health.STALE)
    with pytest.raises(Denied, match="does not answer"):
        resize(cast.requester, machine, vcpu=3)
    with pytest.raises(Denied, match="does not answer"):
        consent(cast, asked)


# Disks


def test_a_disk_is_counted_with_its_machine_and_goes_with_it(cast, machine):
    """Red when settle_new() or settle_removal() leaves the ledger as it was."""
    asked = add(cast.requester, machine)
    assert used("disk")["project"] == (GIB, 2 * GIB) and machine.disks.count() == 1
    consent(cast, asked)
    disk = Disk.objects.get(target="vdb")
    assert used("disk")["pool"] == (GIB, 2 * GIB) and disk.capacity == GIB
    finish(asked)
    assert set(used("disk").values()) == {(0, 3 * GIB)}
    # One that somebody attached by hand is in nobody's way.
    see(machine, {"devices": {"disks": [{}, {}, {"target": {"dev": "vdc"}}]}})
    assert disks.free_target(machine) == "vdd"

    begun = disks.remove_disk(actor=cast.requester, disk=disk, confirm_name="vdb")
    finish(begun)
    assert set(used("disk").values()) == {(0, 2 * GIB)} and machine.disks.count() == 1


def test_a_disk_that_was_not_made_is_no_disk(cast, machine):
    asked = add(cast.requester, machine)
    consent(cast, asked)
    finish(asked, State.FAILED)
    assert machine.disks.count() == 1 and set(used("disk").values()) == {(0, 2 * GIB)}


def test_a_disk_grows_and_never_shrinks(cast, machine):
    disk = machine.disks.get()
    for capacity in (GIB, 2 * GIB):
        with pytest.raises(Denied, match="can only grow"):
            grow(cast.requester, disk, capacity)
    with pytest.raises(Denied, match="whole MiB"):
        grow(cast.requester, disk, 3 * GIB + 1)
    with pytest.raises(Denied, match="A disk has"):
        grow(cast.requester, disk, 1 << 60)
    with pytest.raises(Clash):
        grow(cast.requester, disk, 3 * GIB, seen=GIB)
    asked = grow(cast.requester, disk, 5 * GIB)
    told = {fact.label: fact.value for fact in words.facts(asked.frozen)}
    assert told["Disk"] == "2 GiB → 5 GiB" and told["Which disk"] == "vda"
    lowered = revisions.lower(
        actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, sizes={"disk": 4 * GIB}
    )
    finish(consent(cast, lowered))
    disk.refresh_from_db()
    assert disk.capacity == 4 * GIB and set(used("disk").values()) == {(0, 4 * GIB)}


def test_a_full_pool_refuses_the_approval_and_another_takes_the_disk(cast, machine):
    with pytest.raises(Denied, match="not enough disk"):
        consent(cast, add(cast.requester, machine, 9 * GIB))
    assert machine.disks.count() == 1
    make_place(machine.host, "second-pool", "/second", machine.image)
    consent(cast, Operation.objects.get(kind="vm.add_disk"))
    assert Disk.objects.get(target="vdb").pool.pool.name == "second-pool"


def test_a_pool_that_was_taken_over_gets_no_disk_by_itself(cast, machine):
    """Red when _hold() places a disk where somebody else has a pool, or not beside the machine's own."""
    theirs = make_place(machine.host, "theirs", "/srv/theirs", machine.image)
    type(theirs).objects.update(observed_available=GIB)
    type(theirs).objects.filter(pk=theirs.pk).update(observed_available=99 * GIB, taken_over=True)
    with pytest.raises(Denied, match="not enough disk"):
        consent(cast, add(cast.requester, machine, 9 * GIB))
    machine.disks.update(pool=theirs)
    consent(cast, Operation.objects.get(kind="vm.add_disk"))
    assert Disk.objects.get(target="vdb").pool == theirs


def test_the_disk_that_it_starts_from_stays(cast, machine):
    """Red when the order of boot is not looked at: vda is not always the one."""
    disk = machine.disks.get()
    with pytest.raises(Denied, match="starts from this disk"):
        disks.remove_disk(actor=cast.requester, disk=disk, confirm_name="vda")
    other = machine.disks.create(pool=disk.pool, volume_name="b", target="vdb", capacity=GIB)
    order = [{"boot_order": 2}, {}, {"device": "disk", "target": {"dev": "vdb"}, "boot_order": 1}]
    see(machine, {"os": {"boot": None}, "devices": {"disks": order}})
    assert disks.why_kept(machine, disk) == "" and "starts from" in disks.why_kept(machine, other)
    with pytest.raises(Denied, match="name exactly"):
        disks.remove_disk(actor=cast.requester, disk=disk, confirm_name="vdb")


def test_a_machine_of_emulated_devices_has_few_places(cast, machine):
    VirtualMachine.objects.update(devices="emulated")
    machine.refresh_from_db()
    disk = machine.disks.get()
    for letter in "abcd":
        machine.disks.create(pool=disk.pool, volume_name=letter, target=f"sd{letter}", capacity=GIB)
    assert disks.free_target(machine) == "sde"
    machine.disks.create(pool=disk.pool, volume_name="e", target="sde", capacity=GIB)
    with pytest.raises(Denied, match="no place for another disk"):
        add(cast.requester, machine)


# Pages


def posted(page, **changes):
    return {**page.context["form"].initial, **changes}


def test_the_pages_ask_edit_and_say_what_waits(client, cast, machine):
    client.force_login(cast.requester)
    address = url("vms:size", args=[machine.pk])
    page = client.get(address)
    assert "up to 4 while it runs" in page.content.decode()
    answer = client.post(address, posted(page, vcpu=2, memory="1.5", why="<b>work</b>"))
    asked = Operation.objects.get(kind="vm.resize")
    assert answer.url == url("operations:detail", args=[asked.pk])
    shown = client.get(answer.url).content.decode()
    assert "1 → 2" in shown and "1 GiB → 1.5 GiB" in shown and "<b>work" not in shown
    assert f"Resize {machine.name}" in client.get(url("vms:detail", args=[machine.pk])).content.decode()

    edit = f"{address}?edit={asked.pk}"
    form = client.get(edit).context["form"]
    assert (form.initial["vcpu"], form.initial["why"]) == (2, "<b>work</b>")
    client.post(edit, {**form.initial, "vcpu": 3, "memory": "1.5"})
    asked.refresh_from_db()
    assert asked.revision == 2 and asked.frozen["sizes"]["vcpu"] == 3
    assert used("vcpu")["project"] == (2, 1)
    like = client.get(f"{address}?like={asked.pk}")
    assert like.context["form"].initial["vcpu"] == 3 and like.context["edited"] is None


def test_the_second_of_two_people_sees_what_the_first_changed(client, cast, machine):
    client.force_login(cast.requester)
    address = url("vms:size", args=[machine.pk])
    page = client.get(address)
    VirtualMachine.objects.update(vcpus=3)
    answer = client.post(address, posted(page, vcpu=2, memory="1", why="work"))
    text = answer.content.decode()
    assert answer.status_code == 422 and "Somebody changed this while you looked" in text
    assert "<del>1</del>" in text and not Operation.objects.filter(kind="vm.resize").exists()


def test_disks_are_asked_for_grown_and_deleted_on_their_pages(client, cast, machine):
    client.force_login(cast.requester)
    address = url("vms:disk_add", args=[machine.pk])
    assert client.post(address, posted(client.get(address), disk="0", why="x")).status_code == 422
    client.post(address, posted(client.get(address), disk="1", why="data"))
    asked = Operation.objects.get(kind="vm.add_disk")
    finish(consent(cast, asked))
    disk = Disk.objects.get(target="vdb")
    there = url("vms:disk", args=[machine.pk, "vdb"])
    page = client.get(there)
    assert f"/dev/disk/by-id/virtio-{disk.serial}" in page.content.decode()
    client.post(there, posted(page, disk="2", why="more"))
    asked = Operation.objects.get(kind="vm.grow_disk")
    assert asked.frozen["pinned"]["drive"] == "vdb"
    edited = f"{there}?edit={asked.pk}"
    client.post(edited, {**client.get(edited).context["form"].initial, "disk": "3"})
    asked.refresh_from_db()
    assert asked.frozen["sizes"] == {"disk": 3 * GIB}
    finish(consent(cast, asked))

    gone = url("vms:disk_delete", args=[machine.pk, "vdb"])
    client.post(gone, {"confirm_name": "vda"})
    assert not Operation.objects.filter(kind="vm.remove_disk").exists()
    client.post(gone, {"confirm_name": "vdb", "seen": client.get(there).context["carried"]})
    finish(Operation.objects.get(kind="vm.remove_disk"))
    assert client.get(there).status_code == 404
    verbs = set(AuditEntry.objects.values_list("verb", flat=True))
    assert {"operation.requested", "operation.approved", "operation.begun"} <= verbs


def test_strangers_see_no_page_of_a_machine(client, cast, machine, django_user_model):
    client.force_login(django_user_model.objects.create(username="stranger"))
    for name, args in (("size", []), ("disk_add", []), ("disk", ["vda"]), ("disk_delete", ["vda"])):
        answer = client.post(url(f"vms:{name}", args=[machine.pk, *args]))
        assert answer.status_code == 404


@pytest.mark.parametrize(("state", "words"), [("running", "comes while"), ("shutoff", "from its start on")])
def test_the_page_says_before_when_a_new_disk_is_there(client, cast, machine, state, words):
    """Red when a machine that is off is told that its disk comes while it runs."""
    VirtualMachine.objects.update(observed_state=state)
    client.force_login(cast.requester)
    assert words in client.get(url("vms:disk_add", args=[machine.pk])).content.decode()
