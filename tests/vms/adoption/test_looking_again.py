"""An adopted machine that somebody changed on its host is looked at again, and counted as it is now."""

import pytest
from django.urls import reverse as url
from django.utils import timezone, translation

from networks.models import Port
from portal.core.errors import Denied
from portal.drivers.types import NicSpec, PoolSpec, VolumeSpec
from portal.hosts.models import Health, Host
from portal.hosts.storage.looking import note_volumes
from portal.operations import quotas, scopes
from portal.operations.models import Counter, Operation
from portal.operations.registry import StepContext
from portal.operations.states import State
from portal.operations.transitions import StaleAttempt
from tests import factories
from tests.factories import GIB
from tests.vms.adoption.making import FOLDER, adopted, finish, listed, make, see, taken
from vms.adoption import again, kind
from vms.adoption.services import release_machine
from vms.models import Definition, Status, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]
MAC, OTHER_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"


@pytest.fixture
def network():
    return factories.make_network()


@pytest.fixture
def machine(cast, operator, driver, place, network):
    """An adopted machine of 2 vCPUs, 1 GiB, a disk of 2 GiB and a card."""
    nics = (NicSpec(MAC, network.spec.name),)
    return adopted(operator, make(driver, place.host, disks=["volume-a"], nics=nics), cast)


def redefine(driver, machine, change):
    """Change a machine by other means than the portal, and let the watcher see it."""
    own = str(machine.uuid)
    driver.redefine(own, change, driver.definition(own).digest)
    return see(machine.host, driver, own)


def look(operator, machine):
    digest = Definition.objects.get(uuid=machine.uuid).observed_digest
    return again.look_again(actor=operator, machine=machine, digest=digest)


def shown(machine):
    machine = VirtualMachine.objects.get(pk=machine.pk)
    with translation.override("en"):
        seen = again.outlook(machine, Definition.objects.get(uuid=machine.uuid))
    return {one.label: (one.before, one.after) for one in seen.changes}


def code(failed):
    return failed.steps.exclude(error_code="").get().error_code


def counted(machine):
    """Everything that a machine takes, by scope."""
    rows = [scopes.of_project(machine.project), scopes.of_person(machine.owner), machine.host.scope]
    return [taken(scope) for scope in rows]


def agree(machine):
    """Rows and counters say the same, and nothing is held."""
    machine = VirtualMachine.objects.get(pk=machine.pk)
    size = {"vcpu": machine.vcpus, "memory": machine.memory, "machines": 1}
    disk = sum(machine.disks.values_list("capacity", flat=True))
    whole = size | ({"disk": disk} if disk else {})
    assert counted(machine) == [whole, whole, size]
    assert not Counter.objects.exclude(held=0).exists()


def grown(driver, machine, network):
    """Give a machine more of everything by other means; return what that changes."""
    driver.create_volume(VolumeSpec("example-pool", "volume-b", 3 * GIB))
    source = {"file": f"{FOLDER}/volume-b"}
    disk = {"type": "file", "device": "disk", "source": source, "target": {"dev": "vdb"}}
    card = {"type": "network", "source": {"network": network.spec.name}, "mac": OTHER_MAC}
    devices = {"disks": [{}, disk], "interfaces": [{}, card]}
    redefine(driver, machine, {"vcpus": 3, "memory_bytes": 2 * GIB, "devices": devices})
    return driver


def test_what_was_added_is_shown_written_down_and_counted(operator, driver, machine, network, place):
    """Red when a row, a counter, or a line of what is shown is left out."""
    first = machine.disks.get()
    grown(driver, machine, network)
    assert shown(machine) == {
        "vCPUs": ("2", "3"),
        "Memory": ("1 GiB", "2 GiB"),
        "Disk vdb": ("", "example-pool/volume-b, whose size its host tells"),
        f"Network card {OTHER_MAC}": ("", str(network)),
    }
    note_volumes(place.pk, driver.list_volumes("example-pool"), timezone.now())
    assert shown(machine)["Disk vdb"] == ("", "example-pool/volume-b as vdb, 3 GiB")
    before = driver.definition(str(machine.uuid))
    begun = look(operator, machine)
    assert ["vCPUs", "2", "3"] in begun.frozen["pinned"]["settings"]
    assert finish(begun).state == State.SUCCEEDED
    machine.refresh_from_db()
    assert (machine.vcpus, machine.memory, machine.status) == (3, 2 * GIB, Status.ACTIVE)
    assert list(machine.disks.order_by("target").values_list("volume_name", "target", "capacity")) == [
        ("volume-a", first.target, 2 * GIB),
        ("volume-b", "vdb", 3 * GIB),
    ]
    ports = Port.objects.filter(domain_uuid=machine.uuid)
    assert set(ports.values_list("mac", flat=True)) == {MAC, OTHER_MAC}
    agree(machine)
    assert taken(place.pool.scope) == {"disk": 5 * GIB}
    assert shown(machine) == {} and driver.definition(str(machine.uuid)) == before
    release_machine(actor=operator, machine=machine, confirm_name="old-web")
    assert not Counter.objects.exclude(used=0).exists()


def test_what_was_taken_away_counts_no_more_and_stays_on_the_host(operator, driver, machine, network, place):
    """Red when reduce() is left out, or a disk that is gone keeps its row."""
    shrunk = {"vcpus": 1, "memory_bytes": GIB // 2, "devices": {"disks": [None], "interfaces": [None]}}
    redefine(driver, machine, shrunk)
    assert shown(machine)["Disk vda"] == ("example-pool/volume-a as vda, 2 GiB", "")
    assert shown(machine)[f"Network card {MAC}"] == (str(network), "")
    assert finish(look(operator, machine)).state == State.SUCCEEDED
    machine.refresh_from_db()
    assert (machine.vcpus, machine.memory, machine.disks.count()) == (1, GIB // 2, 0)
    assert not Port.objects.filter(domain_uuid=machine.uuid).exists()
    agree(machine)
    assert taken(place.pool.scope) == {} and driver.volume_info("example-pool", "volume-a")
    release_machine(actor=operator, machine=machine, confirm_name="old-web")
    assert not Counter.objects.exclude(used=0).exists()


def test_what_stays_keeps_what_the_portal_knows_of_it(operator, driver, machine, network, place):
    """Red when rows are made anew: a disk's serial, and which card is the first, would be lost."""
    machine.disks.update(serial="gatehouse-7")
    Port.objects.filter(domain_uuid=machine.uuid).update(observed_address="192.0.2.7")
    before = Port.objects.get(domain_uuid=machine.uuid)
    grown(driver, machine, network)
    moved = {"devices": {"disks": [{"target": {"dev": "vdc"}}, {}]}}
    redefine(driver, machine, moved)
    finish(look(operator, machine))
    disk = machine.disks.get(volume_name="volume-a")
    assert (disk.target, disk.serial) == ("vdc", "gatehouse-7")
    after = Port.objects.get(mac=MAC)
    assert (after.pk, after.observed_address) == (before.pk, "192.0.2.7")


def test_a_device_that_the_portal_gave_it_stays_its_own(operator, driver, machine, place):
    """Red when _given_devices() is left out, or keeps what the machine has no more."""
    pool = factories.make_place(place.host, "group", "")
    type(pool).objects.filter(pk=pool.pk).update(observed_kind="logical")
    given = {"pool": pool, "volume_name": "lv", "capacity": GIB, "device": "/dev/group/lv", "target": "vdb"}
    disk = {"type": "block", "device": "disk", "source": {"dev": "/dev/group/lv"}, "target": {"dev": "vdb"}}
    redefine(driver, machine, {"devices": {"disks": [{}, disk]}})
    machine.disks.create(**given)
    assert shown(machine) == {}
    redefine(driver, machine, {"devices": {"disks": [{}, None]}})
    assert shown(machine) == {"Disk vdb": ("group/lv as vdb, 1 GiB", "")}


def test_a_disk_that_was_grown_there_counts_with_its_size_now(operator, driver, machine, place):
    """Red when sizes are taken from rows: nothing else says that the volume was made larger."""
    driver.resize_volume("example-pool", "volume-a", 4 * GIB)
    assert shown(machine) == {}
    assert finish(look(operator, machine)).state == State.SUCCEEDED
    assert machine.disks.get().capacity == 4 * GIB
    agree(machine)


@pytest.mark.parametrize("resource", ["vcpu", "memory"])
def test_a_quota_that_is_too_small_is_told_before_and_refuses(
    client, cast, operator, chief, driver, machine, network, resource
):
    """Red when the outlook does not look at counters, or a refusal leaves anything behind."""
    limit = {"vcpu": 2, "memory": GIB}[resource]
    quotas.set_quota(actor=chief, scope=scopes.of_project(cast.project), limits={resource: limit})
    grown(driver, machine, network)
    client.force_login(operator)
    page = client.get(url("vms:look_again", args=[machine.pk]))
    assert "left for" in page.context["seen"].short and page.context["seen"].short in page.content.decode()
    with pytest.raises(Denied, match="left for") as denied:
        look(operator, machine)
    assert denied.value.field == resource
    answer = client.post(
        url("vms:look_again", args=[machine.pk]), {"digest": page.context["seen"].definition.observed_digest}
    )
    assert answer.status_code == 422 and "left for" in answer.content.decode()
    agree(machine)
    assert not Operation.objects.filter(kind="vm.look_again").exists()


def test_disks_that_do_not_fit_end_it_and_nothing_is_written(cast, operator, chief, driver, machine, network):
    """Red when rows are written before room is taken, or what was held at once is not given back."""
    quotas.set_quota(actor=chief, scope=scopes.of_project(cast.project), limits={"disk": 4 * GIB})
    grown(driver, machine, network)
    failed = finish(look(operator, machine))
    assert (failed.state, code(failed)) == (State.FAILED, "no_room_anew")
    machine.refresh_from_db()
    assert (machine.vcpus, machine.disks.count(), machine.status) == (2, 1, Status.ACTIVE)
    agree(machine)


def test_only_what_was_seen_is_written_down(operator, driver, machine, network):
    """Red when neither the service nor the step compares the digest."""
    old = Definition.objects.get(uuid=machine.uuid).observed_digest
    grown(driver, machine, network)
    with pytest.raises(Denied, match="changed this machine on its host since you looked"):
        again.look_again(actor=operator, machine=machine, digest=old)
    begun = look(operator, machine)
    driver.redefine(
        str(machine.uuid), {"title": "new"}, driver.definition(str(machine.uuid)).digest
    )
    failed = finish(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "definition_changed")
    agree(machine)


def test_a_machine_that_runs_larger_than_it_was_seen_is_refused(operator, driver, machine, network):
    """Red when the step does not compare sizes: what runs is in no digest."""
    begun = look(operator, machine)
    kept = driver._domains[str(machine.uuid)]
    text = kept.persistent.replace("<vcpu>2<", "<vcpu>4<")
    assert text != kept.persistent
    kept.running, kept.state = text, "running"
    failed = finish(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "definition_changed")


def test_a_worker_may_die_after_it_wrote_everything(operator, driver, machine, network):
    """Red when a second look takes again, or rows and counters are not written in one transaction."""
    grown(driver, machine, network)
    begun = look(operator, machine)
    context = StepContext(begun.frozen, begun.identifiers, lambda: None)
    for _turn in range(2):
        kind.TakeAnew().do(context)
        agree(machine)
    assert finish(begun).state == State.SUCCEEDED
    agree(machine)


def test_a_worker_that_lost_the_operation_writes_nothing(operator, driver, machine, network):
    """Red when take_anew() does not look first: somebody else may have ended the operation."""
    grown(driver, machine, network)
    begun = look(operator, machine)

    def lost():
        raise StaleAttempt

    with pytest.raises(StaleAttempt):
        kind.TakeAnew().do(StepContext(begun.frozen, begun.identifiers, lost))
    assert machine.disks.count() == 1


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"adopted": False}, "portal itself built"),
        ({"status": Status.BINNED}, "in the bin"),
        ({"status": Status.BUILDING}, "being built"),
    ],
)
def test_what_cannot_be_looked_at_says_why(operator, machine, values, why):
    VirtualMachine.objects.update(**values)
    with pytest.raises(Denied, match=why):
        look(operator, machine)


def test_it_waits_for_others_and_for_its_host(operator, driver, machine):
    look(operator, machine)
    with pytest.raises(Denied, match="not finished yet"):
        look(operator, machine)
    Operation.objects.filter(kind="vm.look_again").update(state=State.FAILED, subject="")
    Host.objects.update(observed_health=Health.STALE)
    with pytest.raises(Denied, match="does not answer"):
        look(operator, machine)


def test_what_became_no_machine_is_told(client, operator, driver, machine):
    """Red when a page of a definition that cannot be counted fails."""
    Definition.objects.update(observed_persistent=None)
    with pytest.raises(Denied, match="only while it runs"):
        look(operator, machine)
    client.force_login(operator)
    page = client.get(url("vms:look_again", args=[machine.pk]))
    assert page.status_code == 200 and b"only while it runs" in page.content
    Definition.objects.all().delete()
    page = client.get(url("vms:look_again", args=[machine.pk]))
    assert page.status_code == 200 and b"not known yet" in page.content


def test_operators_of_everything_press_it(client, cast, operator, driver, machine, network):
    """Red when somebody else may, the page does not lead there, or the card of its host is left out."""
    page_of_it, look_again = (url(name, args=[machine.pk]) for name in ("vms:detail", "vms:look_again"))
    client.force_login(cast.requester)
    assert look_again not in client.get(page_of_it).content.decode()
    assert client.get(look_again).status_code == 404
    with pytest.raises(Denied, match="may not look again"):
        look(cast.operator, machine)
    client.force_login(operator)
    assert look_again in client.get(page_of_it).content.decode()
    redefine(driver, machine, {"title": "</title><b>"})
    grown(driver, machine, network)
    page = client.get(look_again)
    text = page.content.decode()
    assert "<ins>3</ins>" in text and "Starts with its host" in text and "</title><b>" not in text
    # What is changed on the page of settings is not changed here.
    assert url("vms:autostart", args=[machine.pk]) not in text
    done = client.post(look_again, {"digest": page.context["seen"].definition.observed_digest})
    assert done.status_code == 302 and Operation.objects.get(kind="vm.look_again").state == State.QUEUED


def test_what_the_guest_is_left_of_its_memory_is_written_down(operator, driver, machine):
    """Red when the balloon is left out: pages and requests would go by what it was."""
    redefine(driver, machine, {"current_memory_bytes": GIB // 2})
    assert shown(machine) == {"Memory left to the guest": ("1 GiB", "512 MiB")}
    assert finish(look(operator, machine)).state == State.SUCCEEDED
    machine.refresh_from_db()
    assert (machine.memory, machine.memory_now) == (GIB, GIB // 2)


def test_a_pool_that_was_taken_over_since_makes_its_disk_count(operator, driver, place, machine):
    """Red when disks that lay elsewhere at the adoption are looked for in the pools of then."""
    listed(place.host, driver)
    other = factories.make_place(place.host, "theirs", "/srv/theirs")
    type(other).objects.filter(pk=other.pk).update(taken_over=True)
    driver.ensure_pool(PoolSpec("theirs", str(other.pool.uuid), "/srv/theirs"))
    driver.create_volume(VolumeSpec("theirs", "old.qcow2", GIB))
    disk = {"type": "file", "source": {"file": "/srv/theirs/old.qcow2"}, "target": {"dev": "vdb"}}
    redefine(driver, machine, {"devices": {"disks": [{}, disk]}})
    assert finish(look(operator, machine)).state == State.SUCCEEDED
    assert machine.disks.get(target="vdb").pool == other
    agree(machine)


def test_a_card_that_went_takes_its_address_along(operator, driver, machine, network, place):
    """Red when the machine keeps the address of a card that it has no more."""
    Port.objects.filter(domain_uuid=machine.uuid).update(observed_address="10.1.1.9")
    VirtualMachine.objects.filter(pk=machine.pk).update(observed_address="10.1.1.9")
    cards = Definition.objects.get(uuid=machine.uuid).observed_persistent["devices"]["interfaces"]
    redefine(driver, machine, {"devices": {"interfaces": [None] * len(cards)}})
    finish(look(operator, machine))
    machine.refresh_from_db()
    assert not Port.objects.filter(domain_uuid=machine.uuid).exists() and machine.observed_address is None


def test_a_pool_that_is_gone_takes_no_disk_along(operator, driver, machine, place):
    """Red when a pool with disks of the machine counts as an empty one once its host has it no more."""
    redefine(driver, machine, {"title": "changed"})
    begun = look(operator, machine)
    driver.remove_pool(place.pool.name)
    assert code(finish(begun)) == "pool_not_found" and machine.disks.exists()
