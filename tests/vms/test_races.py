"""Many people at once, through the services that pages call, with real placement: nothing is taken twice."""

import threading
import uuid

import pytest
from django.db import connection

from networks.models import Port
from portal.accounts.models import Membership
from portal.core.errors import Denied
from portal.hosts.limits import set_limits
from portal.hosts.models import Host
from portal.hosts.removal import remove_host
from portal.operations import ledger
from portal.operations import services as operations
from portal.operations.models import Counter, Operation, Reservation
from portal.operations.states import State
from portal.operations.transitions import move
from tests import factories
from tests.racing import race
from vms import power
from vms.models import VirtualMachine
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("trail_that_can_be_flushed")]
LIMIT = 30


@pytest.fixture
def catalogue(cast):
    """A tiny machine to ask for, and one host that holds its image."""
    place = factories.make_place(factories.make_host())
    return factories.make_catalogue(place.images.get().image, factories.make_network())


def ask(cast, catalogue, name, token=None):
    wish = factories.make_wish(catalogue, name=name)
    return request_machine(
        actor=cast.requester, project=cast.project, wish=wish, token=token or uuid.uuid4()
    )


def approve(cast, operation):
    return operations.decide(
        actor=cast.approver, operation=operation, spec_hash=operation.spec_hash, approved=True
    )


def room(scope, resource, limit):
    return Counter.objects.create(scope=scope, resource=resource, limit=limit)


def count(results, kind):
    return sum(isinstance(result, kind) for result in results)


@pytest.mark.slow
def test_hundred_racing_requests_for_machines_get_the_quota_of_ten(cast, catalogue):
    """Red when request_machine asks quota_amounts for nothing."""
    quota = room(f"project:{cast.project.pk}", "machines", 10)
    memory = room(f"project:{cast.project.pk}", "memory", 50 * factories.GIB)
    results = race([lambda n=n: ask(cast, catalogue, f"vm-{n}") for n in range(100)])
    assert (count(results, Operation), count(results, Denied)) == (10, 90)
    quota.refresh_from_db()
    memory.refresh_from_db()
    assert (quota.held, memory.held) == (10, 10 * catalogue.flavour.memory)
    assert Operation.objects.count() == 10
    assert Reservation.objects.values("operation").distinct().count() == 10


@pytest.mark.slow
@pytest.mark.parametrize(("memory_for", "disk_for"), [(10, 100), (100, 10)])
def test_hundred_racing_approvals_place_ten_machines_on_a_host_for_ten(
    cast, catalogue, memory_for, disk_for
):
    """Red when place() leaves the host's memory, or the pool's disk, out of its amounts."""
    waiting = [ask(cast, catalogue, f"vm-{n}") for n in range(100)]
    host = Host.objects.get()
    memory = room(host.scope, "memory", memory_for * catalogue.flavour.memory)
    disk = room(host.pools.get().pool.scope, "disk", disk_for * catalogue.flavour.disk)
    results = race([lambda operation=operation: approve(cast, operation) for operation in waiting])
    assert (count(results, Operation), count(results, Denied)) == (10, 90)
    memory.refresh_from_db()
    disk.refresh_from_db()
    # Who was refused holds nothing of the second counter either, and has no row.
    assert (memory.held, disk.held) == (10 * catalogue.flavour.memory, 10 * catalogue.flavour.disk)
    assert VirtualMachine.objects.count() == Port.objects.values("mac").distinct().count() == 10
    assert Operation.objects.filter(state=State.QUEUED).count() == 10
    assert Operation.objects.filter(state=State.AWAITING_APPROVAL).count() == 90


@pytest.mark.slow
def test_of_an_approval_and_a_withdrawal_at_once_one_wins(cast, catalogue):
    """Red when withdraw() sets the state without asking for the one that it saw."""
    memory = room(Host.objects.get().scope, "memory", 100 * catalogue.flavour.memory)
    quota = room(f"project:{cast.project.pk}", "machines", 100)
    for number in range(10):
        waiting = ask(cast, catalogue, f"vm-{number}")
        ways = [
            lambda waiting=waiting: approve(cast, waiting),
            lambda waiting=waiting: operations.withdraw(actor=cast.requester, operation=waiting),
        ]
        results = race(ways[:: 1 if number % 2 else -1])
        waiting.refresh_from_db()
        assert waiting.state in {State.QUEUED, State.CANCELLED}, results
    queued = Operation.objects.filter(state=State.QUEUED).count()
    memory.refresh_from_db()
    quota.refresh_from_db()
    assert memory.held == queued * catalogue.flavour.memory and quota.held == queued
    assert VirtualMachine.objects.count() == Port.objects.count() == queued


@pytest.mark.slow
@pytest.mark.parametrize("removal_first", [False, True])
def test_of_an_approval_and_the_removal_of_its_host_at_once_one_wins(cast, catalogue, removal_first):
    """Red on PostgreSQL when remove_host() looks at the machines before it locks the counters."""
    Membership.objects.filter(user=cast.admin).update(project=None)
    for number in range(5):
        host, waiting = Host.objects.get(maintenance=False), ask(cast, catalogue, f"vm-{number}")
        set_limits(host)
        ways = [
            lambda waiting=waiting: approve(cast, waiting),
            lambda host=host: remove_host(actor=cast.admin, host=host, confirm_name=host.name),
        ]
        results = race(ways[:: -1 if removal_first else 1])
        assert count(results, Denied) == 1 and count(results, Exception) == 1, results
        kept = Host.objects.filter(pk=host.pk).exists()
        ports = Port.objects.filter(host=host.pk)
        assert ports.count() == VirtualMachine.objects.filter(host=host.pk).count()
        assert VirtualMachine.objects.filter(name=f"vm-{number}").exists() is kept
        assert Counter.objects.filter(scope=host.scope, held__gt=0).exists() is kept
        Host.objects.update(maintenance=True)
        following = factories.make_host(f"rack-{number}", f"fake:///{number}")
        factories.make_place(following, image=catalogue.item.image)


def overtaken(slow, fast, after):
    """Run `fast` to its end when `slow` has made `after` statements, unless it is inside a transaction then.

    Returns what both returned or raised.
    """
    paused, go, made = threading.Event(), threading.Event(), []

    def look(execute, sql, *rest):
        answer = execute(sql, *rest)
        made.append(sql)
        if len(made) == after and not connection.in_atomic_block and not sql.startswith("BEGIN"):
            paused.set()
            go.wait(LIMIT)
        return answer

    def held_up():
        with connection.execute_wrapper(look):
            try:
                return slow()
            finally:
                paused.set()

    def overtaking():
        paused.wait(LIMIT)
        try:
            return fast()
        finally:
            go.set()

    return race([held_up, overtaking])


@pytest.mark.parametrize("after", range(1, 4))
def test_a_withdrawal_that_is_overtaken_by_the_approval_is_refused(cast, catalogue, after):
    """Red when move() no longer asks for the state that it saw."""
    waiting = ask(cast, catalogue, "vm")
    withdrawal, approval = overtaken(
        lambda: operations.withdraw(actor=cast.requester, operation=waiting),
        lambda: approve(cast, waiting),
        after,
    )
    if isinstance(withdrawal, Denied):
        assert "too late" in str(withdrawal.reason)
    waiting.refresh_from_db()
    won = waiting.state == State.QUEUED
    assert isinstance(withdrawal, Denied) is won and isinstance(approval, Denied) is not won
    assert VirtualMachine.objects.exists() is won


@pytest.mark.parametrize("after", range(1, 12))
def test_a_second_click_gets_the_request_of_the_first(cast, catalogue, after):
    """Red when request_machine looks for the token before it looks whether the name is taken."""
    token = uuid.uuid4()
    one = lambda: ask(cast, catalogue, "vm", token)  # noqa: E731
    results = overtaken(one, one, after)
    assert count(results, Operation) == 2, results
    assert Operation.objects.count() == 1


def test_a_form_sent_many_times_at_once_makes_one_request(cast, catalogue):
    """Red when request_operation creates without looking at the token."""
    quota = room(f"project:{cast.project.pk}", "machines", 10)
    token = uuid.uuid4()
    results = race([lambda: ask(cast, catalogue, "vm", token)] * 10)
    assert count(results, Operation) == 10, results
    assert Operation.objects.count() == 1
    quota.refresh_from_db()
    assert quota.held == 1


@pytest.mark.slow
def test_a_click_while_a_worker_ends_a_change_to_the_machine_stops_neither(cast, catalogue, monkeypatch):
    """The worker has the operation and wants the machine, the click has the machine.

    Red on PostgreSQL, by a deadlock, when begin_operation finds the unfinished one only by inserting.
    """
    approve(cast, ask(cast, catalogue, "vm"))
    VirtualMachine.objects.update(status="active", observed_state="running")
    Operation.objects.update(state=State.SUCCEEDED)
    machine = VirtualMachine.objects.get()
    ending = power.bin_machine(actor=cast.requester, machine=machine, confirm_name="vm")
    Operation.objects.filter(pk=ending.pk).update(state=State.RUNNING)
    ending.refresh_from_db()
    moved, go = threading.Event(), threading.Event()

    def lock_late(operation):
        moved.set()
        # SQLite lets nobody write meanwhile.
        go.wait(1.5)
        return lock(operation)

    lock = ledger.lock_to_end
    monkeypatch.setattr(ledger, "lock_to_end", lock_late)

    def worker():
        return move(ending, State.SUCCEEDED, actor="worker")

    def click():
        moved.wait(LIMIT)
        return power.act(actor=cast.requester, machine=machine, verb="reboot")

    ended, clicked = race([worker, click])
    assert ended is None and isinstance(clicked, Denied), (ended, clicked)
    machine.refresh_from_db()
    assert machine.status == "binned"
