"""A disk moves to another pool of its host: who may, what it takes, what becomes of it whatever happens."""

from types import SimpleNamespace

import pytest
from django.urls import reverse as url

from portal.core.errors import Denied
from portal.drivers.errors import CallTimeout, PoolFull
from portal.drivers.fake import FakeDriver
from portal.drivers.types import DiskSpec, DomainSpec, PoolSpec, VolumeSpec
from portal.hosts import steps
from portal.hosts.models import PoolAttachment, StoragePool
from portal.operations import ledger, runner, services
from portal.operations.live import progress
from portal.operations.messages import sentence
from portal.operations.models import Counter, Operation, StepRecord
from portal.operations.states import State
from tests.factories import GIB, make_host, make_machine, make_place
from tests.vms.sharers import use_too
from vms import power
from vms.changes import moving
from vms.models import Disk, Observed

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def host(cast, monkeypatch):
    """A fake host with two pools, and a machine on it that runs with a disk of 2 GiB in the first."""
    driver = FakeDriver()
    here = SimpleNamespace(driver=driver, before=lambda verb, args: None)

    def call(_host, verb, *args, timeout=0):
        here.before(verb, args)
        return getattr(driver, verb)(*args)

    monkeypatch.setattr(steps, "call", call)
    monkeypatch.setattr(moving, "LOOK_EVERY", 0)
    monkeypatch.setattr(runner, "PATIENCE", 0)
    here.row = make_host()
    place = make_place(here.row, "first", "/first")
    other = PoolAttachment.objects.create(
        host=here.row,
        pool=StoragePool.objects.create(name="second"),
        path="/second",
        observed_available=9 * GIB,
    )
    here.place, here.other = place, other
    for pool in (place, other):
        driver.ensure_pool(PoolSpec(pool.pool.name, str(pool.pool.uuid), pool.path))
        Counter.objects.create(scope=pool.pool.scope, resource="disk", limit=4 * GIB)
    machine = make_machine(cast, "example", here.row, observed_state=Observed.RUNNING)
    here.machine = machine
    path = driver.create_volume(VolumeSpec("first", "example-vda.qcow2", 2 * GIB)).path
    here.disk = machine.disks.create(pool=place, volume_name="example-vda.qcow2", capacity=2 * GIB)
    driver.define(DomainSpec("example", str(machine.uuid), 1, GIB, disks=(DiskSpec(path),)))
    driver.start(str(machine.uuid))
    ledger.hold(machine.built_by, {(place.pool.scope, "disk"): 2 * GIB})
    ledger.use(machine.built_by)
    look(here)
    return here


def look(host):
    """Let the portal see what the machine is."""
    names = {"host": host.row.pk, "uuid": str(host.machine.uuid)}
    context = SimpleNamespace(identifiers=names)
    moving.Move().look(context)
    state = host.driver.domain_info(str(host.machine.uuid)).state.value
    type(host.machine).objects.filter(pk=host.machine.pk).update(observed_state=state)
    host.machine.refresh_from_db()


def move(cast, host, **changes):
    return moving.move_disk(**{"actor": cast.operator, "disk": host.disk, "to": host.other} | changes)


def work(operation):
    """Let a worker carry the operation out."""
    claimed = services.claim(operation.pk, worker="worker")
    runner.carry_on(claimed, worker="worker")
    return Operation.objects.get(pk=operation.pk)


def taken(host):
    """Return what is held and used of each pool, in GiB."""
    found = {}
    for pool in (host.place, host.other):
        row = Counter.objects.get(scope=pool.pool.scope, resource="disk")
        found[pool.pool.name] = (row.held // GIB, row.used // GIB)
    return found


def files(host):
    """Return the file of the disk in the definition and in what runs, '' where it is off."""
    found = host.driver.definition(str(host.machine.uuid))
    texts = (found.persistent, found.running)
    return ["/second" if "/second/" in text else "/first" if text else "" for text in texts]


def volumes(host):
    return [len(host.driver.list_volumes(pool)) for pool in ("first", "second")]


def has_moved(host):
    host.disk.refresh_from_db()
    return host.disk.pool == host.other


def test_a_disk_moves_while_the_machine_runs(cast, host):
    """Red when the old room is not given back, the row of the disk stays, or the old volume does."""
    begun = move(cast, host)
    assert taken(host) == {"first": (0, 2), "second": (2, 0)}
    assert begun.frozen["pinned"]["settings"] == [["Pool", "first", "second"]]
    assert work(begun).state == State.SUCCEEDED
    assert files(host) == ["/second", "/second"] and volumes(host) == [0, 1]
    assert has_moved(host) and taken(host) == {"first": (0, 0), "second": (0, 2)}
    there = host.driver.volume_info("second", host.disk.volume_name)
    assert there.capacity_bytes == 2 * GIB
    assert power.volumes_of(host.machine)[0] == ["second", host.disk.volume_name]
    ledger.give_back(host.machine.built_by)
    assert taken(host)["second"] == (0, 0)


def test_a_disk_moves_back_again(cast, host):
    """Red when the name of the volume is the same each time: what an earlier move left would be taken."""
    work(move(cast, host))
    has_moved(host)
    first = host.disk.volume_name
    work(move(cast, host, to=host.place))
    work(move(cast, host, disk=Disk.objects.get(pk=host.disk.pk)))
    assert has_moved(host) and host.disk.volume_name != first
    assert taken(host) == {"first": (0, 0), "second": (0, 2)} and volumes(host) == [0, 1]


def test_a_disk_moves_while_the_machine_is_off(cast, host):
    host.driver.destroy(str(host.machine.uuid))
    look(host)
    assert work(move(cast, host)).state == State.SUCCEEDED
    assert files(host) == ["/second", ""] and volumes(host) == [0, 1] and has_moved(host)


@pytest.mark.parametrize("verb", ["disk_copy", "finish_copy"])
def test_a_machine_that_goes_off_meanwhile_is_copied_anew(cast, host, verb):
    """Red when a mirror whose domain went off is taken for a copy: its last writes may be missing."""
    seen = []

    def before(called, _args):
        seen.append(called)
        if called == verb and "begin_copy" in seen and "destroy" not in seen:
            seen.append("destroy")
            host.driver.destroy(str(host.machine.uuid))

    host.before = before
    assert work(move(cast, host)).state == State.SUCCEEDED
    # Deleted and cloned from the beginning, after the mirror was gone.
    assert "create_volume" in seen[seen.index("destroy") :]
    assert files(host) == ["/second", ""] and has_moved(host) and volumes(host) == [0, 1]


def test_a_machine_that_somebody_starts_meanwhile_keeps_what_it_writes(cast, host):
    """Red when a file that was copied while it was off is put under a machine that runs."""
    host.driver.destroy(str(host.machine.uuid))
    look(host)
    seen = []

    def before(called, args):
        if called == "finish_copy" and args[-1] and not seen:
            seen.append(called)
            host.driver.start(str(host.machine.uuid))

    host.before = before
    assert work(move(cast, host)).state == State.SUCCEEDED
    assert seen and files(host) == ["/second", "/second"] and has_moved(host)


def test_the_page_says_how_far_the_copy_is(cast, host):
    """Red when the step does not tell, or the whole does not count it."""
    shown = []

    def before(called, _args):
        if called == "disk_copy":
            shown.append(progress(Operation.objects.get(kind=moving.KIND)))

    host.before = before
    work(move(cast, host))
    told = [(one["percent"], one["steps"][1]["percent"]) for one in shown]
    assert told == [(33, None), (33, None), (50, 50)]


def cancel_at(cast, host, verb, after):
    """Carry a move out that somebody cancels at the first call of `verb`, or the first one after it."""
    begun, seen = move(cast, host), []
    # Somebody lowers the limit meanwhile: what was given back would not be had again.
    Counter.objects.filter(scope=host.other.pool.scope).update(limit=GIB)

    def before(called, _args):
        if seen == [verb] or (called == verb and not after and not seen):
            seen.extend([verb, "cancelled"][len(seen) :])
            services.cancel(actor=cast.operator, operation=begun)
        elif called == verb and not seen:
            seen.append(verb)

    host.before = before
    return work(begun)


@pytest.mark.parametrize("verb", ["create_volume", "begin_copy", "disk_copy"])
def test_what_is_cancelled_leaves_the_disk_where_it_was(cast, host, verb):
    """Red when the copy is not aborted, or its half stays."""
    host.driver.copies_end = False
    assert cancel_at(cast, host, verb, after=False).state == State.CANCELLED
    assert files(host) == ["/first", "/first"] and volumes(host) == [1, 0]
    assert not has_moved(host) and taken(host) == {"first": (0, 2), "second": (0, 0)}
    assert not host.driver._copies


@pytest.mark.parametrize(("verb", "after"), [("finish_copy", True), ("delete_volume", False)])
def test_what_is_cancelled_too_late_goes_on_to_its_end(cast, host, verb, after):
    """Red when the volume is deleted that the machine works with, or its room is given back or asked for."""
    ended = cancel_at(cast, host, verb, after=after)
    assert ended.state == State.CANCELLED
    assert files(host) == ["/second", "/second"] and volumes(host) == [0, 1]
    assert has_moved(host) and taken(host) == {"first": (0, 0), "second": (0, 2)}
    shown = [step["remark"] for step in progress(ended)["steps"]]
    assert any("too late" in remark for remark in shown)
    work(move(cast, host, to=host.place))
    assert taken(host) == {"first": (0, 2), "second": (0, 0)}


@pytest.mark.parametrize("verb", ["create_volume", "begin_copy", "disk_copy", "finish_copy", "definition"])
def test_a_worker_that_dies_anywhere_loses_nothing(cast, host, verb):
    """Red when a step takes what an earlier one made for another's. Each call is made, and then it dies."""

    class Died(BaseException):
        pass

    begun = services.claim(move(cast, host).pk, worker="worker")
    calls = []

    def before(called, args):
        calls.append(called)
        if called == verb and calls.count(verb) == 1:
            getattr(host.driver, called)(*args)
            raise Died

    host.before = before
    with pytest.raises(Died):
        runner.carry_on(begun, worker="worker")
    runner.carry_on(Operation.objects.get(pk=begun.pk), worker="reaper")
    assert Operation.objects.get(pk=begun.pk).state == State.SUCCEEDED
    assert files(host) == ["/second", "/second"] and volumes(host) == [0, 1]
    assert has_moved(host) and taken(host) == {"first": (0, 0), "second": (0, 2)}


@pytest.mark.parametrize("when", ["create_volume", "finish_copy"])
def test_a_disk_with_snapshots_stays_and_says_why(cast, host, when):
    """Red when has_snapshots is no word for a copy that is none: the way back would never end."""
    held, uuid = host.driver.snapshots, str(host.machine.uuid)
    host.before = lambda called, _args: held.add(uuid) if called == when else None
    begun = work(move(cast, host))
    assert begun.state == State.FAILED and not has_moved(host) and volumes(host) == [1, 0]
    assert StepRecord.objects.get(operation=begun, name="move").error_code == "has_snapshots"


def test_a_full_pool_is_told_by_its_name(cast, host):
    """Red when the code of the driver is passed on, which says nothing of which pool."""

    def before(called, _args):
        if called == "begin_copy":
            raise PoolFull("no room")

    host.before = before
    begun = move(cast, host)
    assert work(begun).state == State.FAILED
    step = StepRecord.objects.get(operation=begun, name="move")
    assert "The pool second has no room" in sentence(step.error_code, step.error_raw)
    assert files(host) == ["/first", "/first"] and volumes(host) == [1, 0]
    assert taken(host) == {"first": (0, 2), "second": (0, 0)}


@pytest.mark.parametrize(("room", "code"), [(0, "target_pool_full"), (GIB, "copy_ended")])
def test_a_copy_that_ends_by_itself_says_why(cast, host, room, code):
    """Red when a copy that failed is begun again for ever."""
    host.driver.copies_end = False

    def before(called, _args):
        if called == "disk_copy" and host.driver._copies:
            host.driver._copies.clear()
            host.driver.pool_bytes = room

    host.before = before
    begun = move(cast, host)
    assert work(begun).state == State.FAILED
    assert StepRecord.objects.get(operation=begun, name="move").error_code == code
    assert not has_moved(host) and volumes(host) == [1, 0]


def test_an_old_file_that_cannot_be_deleted_takes_nothing_back(cast, host):
    """Red when the operation fails: the disk would have to go back, and cannot."""

    def before(called, args):
        if called == "delete_volume" and args[0] == "first":
            raise PoolFull("whatever")

    host.before = before
    begun = move(cast, host)
    assert work(begun).state == State.SUCCEEDED
    assert StepRecord.objects.get(operation=begun, name="old").remark == "old_disk_left"
    assert has_moved(host) and taken(host)["second"] == (0, 2)


@pytest.mark.parametrize(("late", "state"), [(False, State.SUCCEEDED), (True, State.CANCELLED)])
def test_an_old_file_that_the_machine_names_again_stays(cast, host, late, state):
    """Red when Move.undo deletes the old file without the look that DeleteOld takes."""
    old = DiskSpec("/first/example-vda.qcow2", "vdb", serial="again")
    host.driver.attach_disk(str(host.machine.uuid), old)
    ended = cancel_at(cast, host, "finish_copy", after=True) if late else work(move(cast, host))
    assert ended.state == state and has_moved(host) and volumes(host) == [1, 1]
    if not late:
        assert StepRecord.objects.get(operation=ended, name="old").remark == "old_disk_left"


@pytest.mark.parametrize("how", ["domain", "volume"])
def test_an_old_file_that_others_use_stays(cast, host, how):
    """Red when only the machine's own definition is asked, or only one pool. The domain is none of ours."""
    use_too(host.driver, "/first/example-vda.qcow2", how)
    begun = move(cast, host)
    assert work(begun).state == State.SUCCEEDED and has_moved(host)
    assert StepRecord.objects.get(operation=begun, name="old").remark == "old_disk_left"
    assert host.driver.volume_info("first", "example-vda.qcow2")


def test_a_host_that_is_away_at_the_end_is_waited_for(cast, host):
    """Red when an answer that is missing counts as a disk that did not move."""

    def before(called, _args):
        if called == "delete_volume":
            raise CallTimeout("late")

    host.before = before
    begun = move(cast, host)
    state = work(begun).state
    assert state in {State.UNDOING, State.LOST}
    host.before = lambda called, args: None
    runner.carry_on(Operation.objects.get(pk=begun.pk), worker="reaper")
    assert has_moved(host) and files(host) == ["/second", "/second"] and volumes(host) == [0, 1]
    assert taken(host) == {"first": (0, 0), "second": (0, 2)}


def test_who_moves_a_disk_and_where_to(cast, host):
    """Red when the owner may, the room is not asked of the ledger, or another host's pool is taken."""
    with pytest.raises(Denied, match="Only an operator"):
        move(cast, host, actor=cast.requester)
    with pytest.raises(Denied, match="in this pool already"):
        move(cast, host, to=host.place)
    foreign = make_place(make_host("elsewhere", "fake://elsewhere/"), "third", "/third")
    with pytest.raises(Denied, match="has this pool no more"):
        move(cast, host, to=foreign)
    Counter.objects.filter(scope=host.other.pool.scope).update(limit=GIB)
    with pytest.raises(Denied, match="not enough disk left"):
        move(cast, host)
    assert not Operation.objects.filter(kind=moving.KIND).exists()
    Counter.objects.filter(scope=host.other.pool.scope).update(limit=None)
    begun = move(cast, host, actor=cast.admin)
    with pytest.raises(Denied, match="Another change"):
        move(cast, host)
    with pytest.raises(Denied, match="Another change"):
        power.act(actor=cast.requester, machine=host.machine, verb="shutdown")
    assert begun.lane == host.row.scope


def test_a_seed_stays_where_it_was_written(cast, host):
    """Red when the seed is looked for beside the disk that moved."""
    built = host.machine.built_by
    built.identifiers = {"pool": "first", "seed": "example-seed.iso"}
    built.save()
    work(move(cast, host))
    host.machine.refresh_from_db()
    assert power.volumes_of(host.machine)[1] == ["first", "example-seed.iso"]


def test_the_page_offers_what_can_be(cast, host, client):
    """Red when the owner is shown it, or a clone's full size goes unsaid."""
    there = url("vms:disk", args=[host.machine.pk, "vda"])
    client.force_login(cast.requester)
    assert "Move to another pool" not in client.get(there).content.decode()
    client.force_login(cast.operator)
    page = client.get(there).content.decode()
    assert "second, 4.0 GiB left" in page or "second, 4 GiB left" in page
    assert "The machine goes on meanwhile" in page and "shares its image" not in page
    answer = client.post(url("vms:disk_move", args=[host.machine.pk, "vda"]), {"pool": host.place.pk})
    assert answer.status_code == 422
    posted = {"pool": host.other.pk, "seen": client.get(there).context["carried"]}
    answer = client.post(url("vms:disk_move", args=[host.machine.pk, "vda"]), posted)
    begun = Operation.objects.get(kind=moving.KIND)
    assert answer.url == url("operations:detail", args=[begun.pk])
    back = f'href="{url("vms:detail", args=[host.machine.pk])}"'
    page = client.get(answer.url).content.decode()
    assert "Pool" in page and back in page
    begun.subject = "vms.machine:0"
    begun.save(update_fields=["subject"])
    assert "what this is about" not in client.get(answer.url).content.decode()
