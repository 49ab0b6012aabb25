"""Host, operation, machine, counters: whoever locks in another order waits for others for ever.

Each pair is crossed where it died of a deadlock on PostgreSQL; SQLite has one writer and shows nothing.
"""

import time
import uuid
from datetime import timedelta
from functools import partial

import pytest
from django.db import transaction
from django.utils import timezone

from networks.models import Port
from portal.accounts.models import Membership
from portal.core.errors import Denied
from portal.drivers.observations import AddressesSeen, Snapshot
from portal.drivers.types import AddressInfo, DomainInfo, DomainState, PoolInfo
from portal.hosts import observations, removal
from portal.hosts.models import Health, Host, PoolAttachment, StoragePool
from portal.hosts.watcher import Watcher
from portal.operations import ledger, revisions
from portal.operations.models import Counter, Operation
from portal.operations.policies.judging import Verdict
from portal.operations.services import claim
from portal.operations.states import State
from portal.operations.transitions import move
from tests.factories import GIB, make_host
from tests.racing import cross
from tests.vms.test_changes import add, consent, finish, machine, off, resize  # noqa: F401 (a fixture)
from tests.vms.test_cloning import MAC, clone, original  # noqa: F401 (a fixture)
from vms import extending, power
from vms.exports import services as exports
from vms.models import Status, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("trail_that_can_be_flushed")]


def lowered(cast, asked, **sizes):
    return partial(
        revisions.lower_and_approve,
        actor=cast.approver,
        operation=asked,
        spec_hash=asked.spec_hash,
        sizes=sizes,
        reason="less",
    )


def ended(operation):
    """Return how a worker ends `operation`, which it has."""
    running = claim(operation.pk, worker="worker")
    return partial(move, running, State.SUCCEEDED, actor="worker")


def locking_ahead(cast):
    """Return what begins an approval of something new: everything is locked that it might take."""
    told = {"kind": "test.files", "requester": cast.requester, "state": State.AWAITING_APPROVAL}
    asked = Operation.objects.create(**told, spec="{}", token=uuid.uuid4())
    return transaction.atomic(partial(ledger.lock_ahead, asked))


def binned(cast, vm):
    return power.bin_machine(actor=cast.requester, machine=vm, confirm_name=vm.name)


def purging(cast, vm):
    VirtualMachine.objects.filter(pk=vm.pk).update(status=Status.BINNED)
    vm.refresh_from_db()
    return power.purge_machine(actor=cast.requester, machine=vm, confirm_name=vm.name)


def pool_seen(place):
    return PoolInfo(place.pool.name, str(place.pool.uuid), place.path, True, 10 * GIB, GIB, 9 * GIB)


def snapshot(*domains, pools=()):
    return Snapshot(time.time(), 1, domains, {}, pools, (), None)


def without_errors(results):
    assert not [result for result in results if isinstance(result, Exception)], results


@pytest.mark.parametrize("change", ["resize", "clone"])
def test_an_export_and_a_change_that_is_lowered_and_approved(cast, original, monkeypatch, change):  # noqa: F811
    """Red when ledger.lock_ahead() locks no subject, and for a clone when lock_machine() knows no source."""
    if change == "resize":
        approval = lowered(cast, resize(cast.requester, original, vcpu=4), vcpu=3)
    else:
        approval = lowered(cast, clone(cast.requester, original), lease=29 * 86400)
    export = partial(exports.export_machine, actor=cast.requester, machine=original)
    begun, approved = cross(monkeypatch, export, approval, ledger, "hold")
    assert isinstance(begun, Operation) and isinstance(approved, Denied), (begun, approved)


@pytest.mark.parametrize("act", ["restoring", "binning"])
def test_the_bin_and_a_clone_that_is_lowered_and_approved(cast, original, monkeypatch, act):  # noqa: F811
    """Red when lock_machine() does not lock what a clone is made of."""
    approval = lowered(cast, clone(cast.requester, original), lease=29 * 86400)
    ending = binned(cast, original)
    if act == "restoring":
        finish(ending)
        restored = partial(power.restore_machine, actor=cast.requester, machine=original)
        without_errors(cross(monkeypatch, restored, approval, ledger, "take_again"))
    else:
        done, approved = cross(monkeypatch, ended(ending), approval, ledger, "lock")
        assert done is None and isinstance(approved, Denied), (done, approved)


def test_an_edit_that_a_policy_approves_and_another_request_of_the_same_person(cast, original, monkeypatch):  # noqa: F811
    """Red when revisions.edit() locks no subject: it has the person, whom the other waits for."""
    VirtualMachine.objects.update(lease_until=timezone.now() + timedelta(days=5))
    original.refresh_from_db()
    asked = extending.request_extension(
        actor=cast.requester, machine=original, days=3, why="x", token=uuid.uuid4()
    )
    monkeypatch.setattr(Verdict, "auto", property(lambda verdict: True))
    edit = partial(
        extending.edit_extension,
        actor=cast.requester,
        operation=asked,
        days=2,
        why="y",
        spec_hash=asked.spec_hash,
    )
    edited, other = cross(
        monkeypatch, edit, partial(add, cast.requester, original), ledger, "lock_ahead"
    )
    assert edited.state == State.QUEUED and isinstance(other, Denied | Operation), (edited, other)


def test_an_end_that_takes_of_one_and_gives_back_of_another(cast, machine, monkeypatch):  # noqa: F811
    """Red when move() does not lock_to_end(): counters are then locked in two rounds."""
    Counter.objects.create(scope=machine.host.scope, resource="vcpu", limit=8)
    off(machine)
    asked = resize(cast.requester, machine, vcpu=2, memory=GIB // 2)
    consent(cast, asked)
    without_errors(cross(monkeypatch, ended(asked), locking_ahead(cast), ledger, "reduce"))


@pytest.mark.parametrize("told", ["list", "addresses"])
def test_the_watcher_and_the_end_of_a_machine(cast, original, monkeypatch, told):  # noqa: F811
    """Red when move() does not lock_to_end(), and for addresses when the observer locks no machine."""
    VirtualMachine.objects.update(observed_state="running")
    worker = ended(purging(cast, original))
    if told == "list":
        watcher = partial(observations.note, original.host_id, snapshot())
        without_errors(cross(monkeypatch, worker, watcher, power, "forget"))
        return
    lease = {str(original.uuid): (AddressInfo(MAC, "10.213.77.20", 24),)}
    watcher = partial(observations.note, original.host_id, AddressesSeen(time.time(), 1, lease))
    cards = type(Port.objects)
    without_errors(cross(monkeypatch, watcher, worker, cards, "bulk_update", after=True))


def test_a_machine_is_free_while_the_watcher_waits_to_count_its_host(cast, machine, monkeypatch):  # noqa: F811
    """Red on PostgreSQL when write() does all in one transaction."""
    place = PoolAttachment.objects.get(host=machine.host)
    info = DomainInfo("example", str(machine.uuid), DomainState.RUNNING, 1, GIB)
    watcher = partial(observations.note, machine.host_id, snapshot(info, pools=(pool_seen(place),)))

    def locking():
        with transaction.atomic():
            return VirtualMachine.objects.select_for_update(nowait=True).get(pk=machine.pk)

    without_errors(cross(monkeypatch, watcher, locking, observations, "_write_size", limit=0.3))


@pytest.mark.parametrize("hosts", [1, 2])
def test_the_watcher_and_an_approval_of_everything(cast, machine, monkeypatch, hosts):  # noqa: F811
    """Red when _write_room() locks no counters, and for two hosts when flush() writes in one transaction."""
    other = machine.host if hosts == 1 else make_host("other", "fake://other/")
    places = [
        PoolAttachment.objects.create(host=host, pool=StoragePool.objects.create(), path=f"/{host.pk}")
        for host in (other, machine.host)
    ]
    # They are seen against the order of their counters.
    for place in reversed(places):
        Counter.objects.create(scope=place.pool.scope, resource="disk", limit=GIB)
    watcher = Watcher()
    for host in (other, machine.host):
        watcher._hosts[host.uri] = host.pk
        seen = [pool_seen(place) for place in places if place.host == host]
        watcher.hear(host.uri, snapshot(pools=tuple(seen)))
    crossed = cross(
        monkeypatch, watcher.flush, locking_ahead(cast), observations, "note_pool", after=True
    )
    without_errors(crossed)
    assert not watcher._pending


def test_a_lost_host_that_is_removed_and_a_machine_that_is_restored(cast, original, monkeypatch):  # noqa: F811
    """Red when remove_host() locks no machines before the counters."""
    Membership.objects.filter(user=cast.admin).update(project=None)
    finish(binned(cast, original))
    Host.objects.update(observed_health=Health.STALE)
    host = Host.objects.get()
    remove = partial(
        removal.remove_host, actor=cast.admin, host=host, confirm_name=host.name, give_up=True
    )
    restore = partial(power.restore_machine, actor=cast.requester, machine=original)
    removed, restored = cross(monkeypatch, remove, restore, ledger, "lock", after=True)
    assert removed is None and isinstance(restored, Denied), (removed, restored)
