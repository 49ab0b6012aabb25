"""Power and the bin: who may what when, and that a machine is restored or deleted, never both."""

from datetime import timedelta
from functools import partial

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from networks.models import Port
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.hosts.models import Health, Host
from portal.operations.models import Counter, Operation, Reservation, StepRecord
from portal.operations.services import claim
from portal.operations.states import State
from portal.operations.transitions import move
from tests.factories import GIB, make_host, make_machine, make_network
from tests.racing import race
from vms import power, tasks
from vms.models import Observed, Status, VirtualMachine

pytestmark = pytest.mark.database


@pytest.fixture
def machine(cast):
    return make_machine(cast, "example", make_host(), observed_state=Observed.RUNNING)


@pytest.fixture
def binned(machine):
    until = timezone.now() + timedelta(days=3)
    VirtualMachine.objects.update(status=Status.BINNED, bin_until=until)
    machine.refresh_from_db()
    return machine


@pytest.fixture
def counted(machine):
    """What the machine takes of its host, in use."""
    found = {}
    for resource, amount in (("memory", GIB), ("disk", 2 * GIB)):
        found[resource] = Counter.objects.create(
            scope="host:1", resource=resource, limit=4 * GIB, used=amount
        )
        Reservation.objects.create(
            operation=machine.built_by, counter=found[resource], amount=amount, stage=Reservation.Stage.USED
        )
    return found


def used(counted):
    return {name: Counter.objects.get(pk=counter.pk).used for name, counter in counted.items()}


def finish(operation):
    """Bring an operation to its good end without a host."""
    running = claim(operation.pk, worker="worker")
    move(running, State.SUCCEEDED, actor="worker")


@pytest.mark.django_db
@pytest.mark.parametrize("state", Observed)
def test_a_verb_fits_some_states_and_says_why_not_the_others(cast, machine, state):
    """Red when state_forbids() leaves the observed state aside."""
    VirtualMachine.objects.update(observed_state=state)
    machine.refresh_from_db()
    for name, verb in power.VERBS.items():
        Operation.objects.exclude(pk=machine.built_by_id).update(state=State.FAILED)
        if state in verb.states:
            assert power.act(actor=cast.requester, machine=machine, verb=name).kind == f"vm.{name}"
        else:
            with pytest.raises(
                Denied, match=f"The machine is {machine.get_observed_state_display().lower()}"
            ):
                power.act(actor=cast.requester, machine=machine, verb=name)


@pytest.mark.django_db
def test_nobody_acts_on_a_machine_of_somebody_else_or_behind_a_host_that_is_away(cast, machine):
    with pytest.raises(Denied, match="Only the owner"):
        power.act(actor=cast.auditor, machine=machine, verb="suspend")
    Host.objects.update(observed_health=Health.STALE)
    with pytest.raises(Denied, match="does not answer"):
        power.act(actor=cast.requester, machine=machine, verb="suspend")


@pytest.mark.django_db
def test_what_was_binned_meanwhile_is_neither_binned_again_nor_started(cast, binned):
    """Red when _begin_unless_forbidden() trusts the row that the page read."""
    binned.status = Status.ACTIVE
    with pytest.raises(Denied, match="in the bin"):
        power.bin_machine(actor=cast.requester, machine=binned, confirm_name="example")
    with pytest.raises(Denied, match="in the bin"):
        power.act(actor=cast.requester, machine=binned, verb="shutdown")
    VirtualMachine.objects.all().delete()
    with pytest.raises(Denied, match="gone"):
        power.act(actor=cast.requester, machine=binned, verb="shutdown")


@pytest.mark.django_db
def test_the_bin_keeps_the_disk_and_gives_the_rest_back_until_it_is_restored(cast, machine, counted):
    """Red when settle_bin() keeps nothing, or restore_machine() takes nothing again."""
    with pytest.raises(Denied, match="name exactly"):
        power.bin_machine(actor=cast.requester, machine=machine, confirm_name="exampel")
    finish(power.bin_machine(actor=cast.requester, machine=machine, confirm_name="example"))
    machine.refresh_from_db()
    assert machine.status == Status.BINNED
    assert timedelta(days=6) < machine.bin_until - timezone.now() < timedelta(days=8)
    assert used(counted) == {"memory": 0, "disk": 2 * GIB}
    power.restore_machine(actor=cast.requester, machine=machine)
    machine.refresh_from_db()
    assert (machine.status, machine.bin_until) == (Status.ACTIVE, None)
    assert used(counted) == {"memory": GIB, "disk": 2 * GIB}
    assert AuditEntry.objects.filter(verb="machine.restored").count() == 1


@pytest.mark.django_db
def test_there_must_be_room_for_what_is_restored(cast, machine, counted):
    finish(power.bin_machine(actor=cast.requester, machine=machine, confirm_name="example"))
    Counter.objects.filter(resource="memory").update(limit=0)
    machine.refresh_from_db()
    with pytest.raises(Denied):
        power.restore_machine(actor=cast.requester, machine=machine)
    machine.refresh_from_db()
    assert machine.status == Status.BINNED and used(counted)["memory"] == 0


@pytest.mark.django_db
def test_what_is_deleted_for_good_gives_everything_back(cast, binned, counted):
    """Red when settle_purge() leaves the port, the row or what is in use."""
    Port.objects.create(
        domain_uuid=binned.uuid, network=make_network(), host=binned.host, mac="52:54:00:00:00:01"
    )
    finish(power.purge_machine(actor=cast.requester, machine=binned, confirm_name="example"))
    assert not VirtualMachine.objects.exists() and not Port.objects.exists()
    assert used(counted) == {"memory": 0, "disk": 0}


@pytest.mark.django_db
@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.LOST])
def test_what_is_being_deleted_for_good_is_not_restored(cast, binned, state):
    """Red when restore_machine() looks at no operation: it says "is back", and then the disk goes."""
    begun = power.purge_machine(actor=cast.requester, machine=binned, confirm_name="example")
    Operation.objects.filter(pk=begun.pk).update(state=state)
    with pytest.raises(Denied, match="being deleted for good"):
        power.restore_machine(actor=cast.requester, machine=binned)
    with pytest.raises(Denied, match="not finished yet"):
        power.purge_machine(actor=cast.requester, machine=binned, confirm_name="example")
    binned.refresh_from_db()
    assert binned.status == Status.BINNED


@pytest.mark.django_db
@pytest.mark.parametrize(("step", "whole"), [("off", True), ("undefine", False), ("volumes", False)])
def test_a_deletion_that_failed_on_its_way_leaves_nothing_to_restore(client, cast, binned, step, whole):
    """Red when restore_machine() looks at unfinished operations alone: it says "is back", without a disk."""
    begun = power.purge_machine(actor=cast.requester, machine=binned, confirm_name="example")
    StepRecord.objects.create(operation=begun, index=0, name=step, stage=StepRecord.Stage.UNDONE)
    Operation.objects.filter(pk=begun.pk).update(state=State.FAILED, finished_at=timezone.now())
    client.force_login(cast.requester)
    page = client.get(reverse("vms:detail", args=[binned.pk])).content.decode()
    assert ("only deleted" in page) is not whole
    if whole:
        power.restore_machine(actor=cast.requester, machine=binned)
    else:
        with pytest.raises(Denied, match="deleted for good already"):
            power.restore_machine(actor=cast.requester, machine=binned)
        # What is left of it can go.
        assert power.purge_machine(actor=cast.requester, machine=binned, confirm_name="example")


@pytest.mark.django_db
def test_what_could_not_be_deleted_for_good_is_tried_again_after_a_day(cast, binned):
    """Red when PURGE_AGAIN is not asked: its owner would hear of the failure every ten minutes."""
    VirtualMachine.objects.update(bin_until=timezone.now() - timedelta(seconds=1))
    assert power.purge_what_is_due() == 1
    failed = Operation.objects.filter(kind="vm.purge")
    failed.update(state=State.FAILED, finished_at=timezone.now())
    assert power.purge_what_is_due() == 0
    failed.update(finished_at=timezone.now() - power.PURGE_AGAIN - timedelta(seconds=1))
    assert power.purge_what_is_due() == 1


@pytest.mark.django_db
def test_what_was_restored_meanwhile_is_not_deleted_for_good(cast, binned):
    """Red when purge_machine() trusts the row that the page read."""
    power.restore_machine(actor=cast.requester, machine=VirtualMachine.objects.get())
    with pytest.raises(Denied, match="Only a machine in the bin"):
        power.purge_machine(actor=cast.requester, machine=binned, confirm_name="example")
    assert not Operation.objects.filter(kind="vm.purge").exists()


@pytest.mark.django_db
def test_the_bin_is_emptied_of_what_is_due_by_the_scheduler(cast, binned):
    """Red when purge_what_is_due() records the owner."""
    other = make_machine(cast, "later", binned.host, image=binned.image, status=Status.BINNED)
    VirtualMachine.objects.filter(pk=other.pk).update(bin_until=timezone.now() + timedelta(days=1))
    assert power.purge_what_is_due() == 0
    VirtualMachine.objects.filter(pk=binned.pk).update(bin_until=timezone.now() - timedelta(seconds=1))
    tasks.empty_bin()
    assert power.purge_what_is_due() == 0
    begun = Operation.objects.get(kind="vm.purge")
    assert begun.subject == binned.topic and begun.requester == binned.owner
    assert AuditEntry.objects.get(verb="operation.begun").actor_name == "scheduler"


@pytest.mark.django_db
def test_what_was_binned_anew_meanwhile_is_not_due(binned, monkeypatch):
    """Red when purge_what_is_due() locks the machine without looking at its date again."""
    VirtualMachine.objects.update(bin_until=timezone.now() - timedelta(seconds=1))
    look = power._in_the_bin

    def bin_anew_and_look(machine, *args, **wanted):
        VirtualMachine.objects.update(bin_until=timezone.now() + timedelta(days=7))
        return look(machine, *args, **wanted)

    monkeypatch.setattr(power, "_in_the_bin", bin_anew_and_look)
    assert power.purge_what_is_due() == 0 and not Operation.objects.filter(kind="vm.purge").exists()


@pytest.mark.django_db
def test_the_page_says_why_a_machine_cannot_be_had_back(client, cast, binned):
    """Red when the page leaves out no_restore: a button that can only refuse."""
    client.force_login(cast.requester)
    address = reverse("vms:detail", args=[binned.pk])
    assert "cannot be restored" not in client.get(address).content.decode()
    power.purge_machine(actor=cast.requester, machine=binned, confirm_name="example")
    # The button that takes it out and the one that deletes it for good, each with its reason twice.
    assert client.get(address).content.decode().count("cannot be restored any more") == 4


@pytest.mark.django_db
def test_one_that_somebody_takes_meanwhile_does_not_keep_the_others(cast, binned, monkeypatch):
    """Red when a refusal ends the round."""
    make_machine(cast, "second", binned.host, image=binned.image, status=Status.BINNED)
    VirtualMachine.objects.update(bin_until=timezone.now() - timedelta(seconds=1))
    begin = power._begin

    def refuse_the_first(actor, machine, *args, **options):
        if machine.pk == binned.pk:
            raise Denied("Another change to this machine is not finished yet; wait for it.")
        return begin(actor, machine, *args, **options)

    monkeypatch.setattr(power, "_begin", refuse_the_first)
    assert power.purge_what_is_due() == 1


@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_of_restoring_and_deleting_at_once_one_happens(cast, binned):
    """Red on PostgreSQL when _in_the_bin() locks nothing: both would be told that it worked."""
    acts = [
        partial(power.restore_machine, actor=cast.requester, machine=binned),
        partial(power.purge_machine, actor=cast.requester, machine=binned, confirm_name="example"),
    ]
    results = race(acts * 10)
    connection.close()
    refused = [result for result in results if isinstance(result, Denied)]
    assert len(refused) == 19, results
    restored = VirtualMachine.objects.get().status == Status.ACTIVE
    assert restored != Operation.objects.filter(kind="vm.purge").exists()
