"""Leases that end: who is told when, what is switched off and binned, and that nothing happens twice."""

import importlib
import uuid
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone

from portal.accounts.models import Notice, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.errors import CallTimeout
from portal.drivers.fake import FakeDriver
from portal.drivers.types import Accelerator, DiskSpec, DomainSpec, DomainState
from portal.hosts.models import Health, Host
from portal.operations import tasks as worker
from portal.operations.models import Operation
from portal.operations.observers import DomainSeen
from portal.operations.services import decide
from portal.operations.states import State
from tests.factories import make_catalogue, make_host, make_machine, make_network, make_place, make_wish
from tests.racing import race
from vms import leases, power, tasks
from vms.models import Observed, Status, VirtualMachine
from vms.observer import MachineObserver
from vms.services import request_machine

pytestmark = pytest.mark.database
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def machine(cast):
    return make_machine(cast, "example", make_host(), observed_state=Observed.RUNNING)


def leave(left, **changes):
    """Let every lease have `left` to go, as when time had passed."""
    VirtualMachine.objects.update(lease_until=timezone.now() + left, **changes)


def told():
    return list(Notice.objects.filter(kind=leases.LEASE).order_by("pk").values_list("text", flat=True))


def begun():
    """Return the kinds of what the scheduler began, in order."""
    return list(
        Operation.objects.filter(kind__startswith="vm.").order_by("pk").values_list("kind", flat=True)
    )


def finish(state=State.SUCCEEDED, ago=timedelta(0)):
    """End whatever is under way, some time ago."""
    left = Operation.objects.filter(state=State.QUEUED)
    left.update(state=state, finished_at=timezone.now() - ago)


@pytest.fixture
def ended(machine):
    """A machine whose lease ended a while ago, of which its owner was told."""
    leave(-HOUR)
    leases.end()
    machine.refresh_from_db()
    return machine


# Before the end


@pytest.mark.django_db
def test_the_owner_is_told_once_each_time_the_end_comes_nearer(machine):
    """Red when warn() does not keep what it told, or forgets the greater days once a smaller is over."""
    for left, warnings in ((15, 0), (14, 1), (13, 1), (8, 1), (7, 2), (2, 2), (1, 3), (0.5, 3)):
        leave(left * DAY - MINUTE if left < 15 else left * DAY)
        for _again in range(2):
            tasks.keep_leases()
        assert len(told()) == warnings, left
    assert told() == [f"The lease of example ends in {days}." for days in ("14 days", "7 days", "1 day")]
    assert begun() == []


@pytest.mark.django_db
def test_a_scheduler_that_slept_over_several_days_tells_of_one(machine):
    """Red when warn() tells of each of WARN_DAYS that is over."""
    leave(14 * HOUR)
    assert leases.warn() == 1 and leases.warn() == 0
    assert told() == ["The lease of example ends in 1 day."]


@pytest.mark.parametrize(
    ("lease", "kept"), [(30, None), (14, 14), (10, 14), (7, 7), (3, 7), (1, 1), (0.1, 1), (15, None)]
)
def test_a_short_lease_is_warned_of_by_what_lies_ahead_alone(lease, kept):
    """Red when nearest() returns the farthest: a lease of three days would be told of as it begins."""
    assert leases.nearest(lease * DAY) == kept


@pytest.mark.django_db
def test_a_machine_is_placed_with_what_its_lease_never_had_ahead(cast):
    """Red when placement leaves lease_warned empty: the owner would be told as soon as it is built."""
    place = make_place(make_host())
    catalogue = make_catalogue(place.images.get().image, make_network())
    wish = make_wish(catalogue, lease_days=3)
    asked = request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())
    decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)
    VirtualMachine.objects.update(status=Status.ACTIVE)
    assert leases.warn() == 0
    leave(DAY - MINUTE)
    assert leases.warn() == 1


@pytest.mark.django_db
def test_the_date_in_a_notice_is_the_owners(cast, machine):
    """Red when the notice is written in the scheduler's zone."""
    User.objects.filter(pk=cast.requester.pk).update(time_zone="Asia/Tokyo")
    leave(3 * DAY)
    leases.warn()
    assert "JST" in Notice.objects.get().detail and Notice.objects.get().person == cast.requester


@pytest.mark.django_db
@pytest.mark.parametrize("status", [Status.BUILDING, Status.BINNED])
@pytest.mark.parametrize("left", [DAY, -9 * DAY])
def test_what_is_built_or_in_the_bin_is_left_alone(machine, status, left):
    """Red when _active() asks for no status."""
    leave(left, status=status)
    tasks.keep_leases()
    machine.refresh_from_db()
    assert told() == [] and begun() == [] and machine.lease_bin_at is None


@pytest.mark.django_db
def test_a_round_takes_first_what_ends_first_and_the_next_takes_the_others(cast, machine, monkeypatch):
    make_machine(cast, "later", machine.host, image=machine.image)
    leave(DAY - MINUTE)
    VirtualMachine.objects.filter(name="later").update(lease_until=timezone.now() + DAY)
    monkeypatch.setattr(leases, "BATCH", 1)
    assert [leases.warn(), leases.warn(), leases.warn()] == [1, 1, 0]
    assert ["example" in text for text in told()] == [True, False]


# The end


@pytest.mark.django_db
def test_at_the_end_the_guest_is_asked_and_forced_off_when_it_does_not_heed(machine):
    """Red when switch_off() forces at once, never, or again and again."""
    leave(-MINUTE)
    for _again in range(2):
        tasks.keep_leases()
    assert begun() == ["vm.shutdown"] and told() == ["The lease of example ended."]
    finish(ago=leases.PATIENCE - MINUTE)
    tasks.keep_leases()
    assert begun() == ["vm.shutdown"]
    leave(-HOUR)
    Operation.objects.filter(kind="vm.shutdown").update(
        created_at=timezone.now() - 10 * MINUTE, finished_at=timezone.now() - leases.PATIENCE
    )
    tasks.keep_leases()
    assert begun() == ["vm.shutdown", "vm.destroy"]
    finish()
    tasks.keep_leases()
    assert begun() == ["vm.shutdown", "vm.destroy"] and len(told()) == 1


@pytest.mark.django_db
def test_what_the_scheduler_does_says_so_in_the_trail(machine):
    """Red when begin_by_itself() does not name the scheduler: the trail would say that the owner did it."""
    leave(-DAY)
    tasks.keep_leases()
    finish()
    VirtualMachine.objects.update(lease_bin_at=timezone.now() - MINUTE, observed_state=Observed.SHUTOFF)
    tasks.keep_leases()
    assert begun() == ["vm.shutdown", "vm.bin"]
    verbs = ("machine.lease_ended", "operation.begun")
    entries = AuditEntry.objects.filter(verb__in=verbs).values_list("actor_name", "actor_id")
    assert list(entries) == [("scheduler", "")] * 3
    assert Operation.objects.get(kind="vm.bin").requester == machine.owner


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "kinds"),
    [
        (Observed.PAUSED, ["vm.destroy"]),
        (Observed.SHUTOFF, []),
        (Observed.CRASHED, []),
        (Observed.UNKNOWN, []),
        (Observed.MISSING, []),
    ],
)
def test_only_what_runs_is_switched_off_and_what_hears_nothing_is_not_asked(ended, state, kinds):
    VirtualMachine.objects.update(observed_state=state)
    leases.switch_off()
    assert begun() == kinds


@pytest.mark.django_db
def test_a_guest_that_shuts_down_by_itself_gets_its_time(ended):
    """Red when switch_off() forces off whoever is just shutting down."""
    VirtualMachine.objects.update(observed_state=Observed.SHUTTING_DOWN)
    leases.switch_off()
    assert begun() == []
    VirtualMachine.objects.update(lease_bin_at=ended.lease_bin_at - leases.PATIENCE)
    leases.switch_off()
    assert begun() == ["vm.destroy"]


@pytest.mark.django_db
def test_what_failed_is_tried_again_later_and_at_last_forced(ended):
    """Red when _failed() is not asked: each round would begin what cannot be done, and tell the owner."""
    for tried in (["vm.shutdown"], ["vm.shutdown"] * 2, ["vm.shutdown"] * 2 + ["vm.destroy"]):
        assert leases.switch_off() == 1 and begun() == tried
        finish(State.FAILED, ago=leases.TRY_AGAIN - MINUTE)
        assert leases.switch_off() == 0
        over = timezone.now() - leases.TRY_AGAIN - MINUTE
        Operation.objects.filter(state=State.FAILED).update(finished_at=over)


@pytest.mark.django_db
def test_what_was_asked_before_the_end_counts_for_nothing(ended):
    """Red when _way_off() looks at any shutdown: the guest would be forced off without being asked."""
    leave(HOUR)
    power.act(actor=ended.owner, machine=ended, verb="shutdown")
    finish()
    Operation.objects.update(created_at=timezone.now() - DAY)
    leave(-HOUR)
    leases.switch_off()
    assert begun() == ["vm.shutdown", "vm.shutdown"]


@pytest.mark.django_db
def test_a_host_that_is_away_keeps_nobody_else_and_nothing_is_tried_there(cast, machine, monkeypatch):
    """Red when _over() takes machines behind hosts that do not answer: they would fill every round."""
    monkeypatch.setattr(leases, "BATCH", 1)
    away = make_host("away", "fake:///away", observed_health=Health.STALE)
    make_machine(cast, "behind", away, image=machine.image, observed_state=Observed.RUNNING)
    leave(-9 * DAY, lease_bin_at=timezone.now() - DAY)
    VirtualMachine.objects.filter(name="behind").update(lease_until=timezone.now() - 10 * DAY)
    for _again in range(2):
        tasks.keep_leases()
        finish()
    done = Operation.objects.filter(kind__in=("vm.shutdown", "vm.destroy", "vm.bin"))
    assert set(done.values_list("subject", flat=True)) == {machine.topic}


@pytest.mark.django_db
def test_one_that_somebody_works_on_waits_and_keeps_nobody_else(cast, machine, monkeypatch):
    """Red when a refusal ends the round."""
    make_machine(cast, "second", machine.host, image=machine.image, observed_state=Observed.RUNNING)
    leave(-HOUR)
    leases.end()
    begin = power._begin

    def refuse_the_first(actor, one, *args, **options):
        if one.pk == machine.pk:
            raise Denied("Another change to this machine is not finished yet; wait for it.")
        return begin(actor, one, *args, **options)

    monkeypatch.setattr(power, "_begin", refuse_the_first)
    assert leases.switch_off() == 1


# After it


@pytest.mark.django_db
@pytest.mark.parametrize("verb", ["start", "reboot", "resume"])
def test_what_makes_it_run_is_refused_with_what_to_do_and_the_button_says_the_same(client, cast, ended, verb):
    """Red when state_forbids() does not ask for the lease."""
    VirtualMachine.objects.update(observed_state=power.VERBS[verb].states[0])
    ended.refresh_from_db()
    with pytest.raises(Denied, match="ask for an extension"):
        power.act(actor=cast.requester, machine=ended, verb=verb)
    client.force_login(cast.requester)
    page = client.get(reverse("vms:detail", args=[ended.pk]))
    denied = {button["name"]: button["denied"] for button in page.context["power_buttons"]}
    assert "ask for an extension" in denied[verb] and denied[verb] in page.content.decode()
    assert "extension" not in power.state_forbids(ended, "destroy")


@pytest.mark.django_db
def test_after_the_days_of_grace_it_goes_into_the_bin_and_from_there_for_good(machine):
    """Red when put_into_bin() counts from the lease's end: one told late would have no days of grace."""
    leave(-30 * DAY, observed_state=Observed.SHUTOFF)
    tasks.keep_leases()
    machine.refresh_from_db()
    assert machine.lease_bin_at - timezone.now() > leases.GRACE_DAYS * DAY - MINUTE and begun() == []
    VirtualMachine.objects.update(lease_bin_at=timezone.now() - MINUTE)
    for _again in range(2):
        tasks.keep_leases()
    assert begun() == ["vm.bin"]
    assert told()[1:] == ["example goes into the bin: its lease ended and was not extended."]
    finish(State.FAILED)
    assert leases.put_into_bin() == 0
    Operation.objects.update(finished_at=timezone.now() - leases.TRY_AGAIN - MINUTE)
    assert leases.put_into_bin() == 1


@pytest.mark.django_db
def test_what_is_taken_out_of_the_bin_has_its_days_of_grace_anew(cast, ended):
    """Red when restore_machine() leaves the date: the next round would put it back."""
    until = timezone.now() + 3 * DAY
    VirtualMachine.objects.update(
        status=Status.BINNED,
        bin_until=until,
        lease_bin_at=timezone.now() - DAY,
        observed_state=Observed.SHUTOFF,
    )
    power.restore_machine(actor=cast.requester, machine=ended)
    tasks.keep_leases()
    ended.refresh_from_db()
    assert begun() == [] and ended.lease_bin_at > timezone.now() + 6 * DAY
    assert told() == ["The lease of example ended."] * 2


@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_several_schedulers_at_once_do_everything_once(cast, machine):
    """Red on PostgreSQL when _each() does not look again behind the lock."""
    other = make_machine(cast, "other", machine.host, image=machine.image, observed_state=Observed.SHUTOFF)
    leave(-9 * DAY)
    VirtualMachine.objects.filter(pk=other.pk).update(lease_bin_at=timezone.now() - MINUTE)
    soon = make_machine(cast, "soon", machine.host, image=machine.image)
    VirtualMachine.objects.filter(pk=soon.pk).update(lease_until=timezone.now() + DAY)
    results = race([leases.keep] * 10, at_once=10)
    connection.close()
    assert results == [None] * 10
    assert sorted(begun()) == ["vm.bin", "vm.shutdown"]
    assert sorted(told()) == [
        "The lease of example ended.",
        "The lease of soon ends in 1 day.",
        "other goes into the bin: its lease ended and was not extended.",
    ]
    assert AuditEntry.objects.filter(verb="machine.lease_ended").count() == 1


@pytest.mark.django_db
def test_leases_of_before_get_a_week_by_the_migration(machine):
    """Red when the migration leaves what is over: an upgrade would switch machines off without a warning."""
    leave(-90 * DAY)
    migration = importlib.import_module("vms.migrations.0007_lease")
    migration.give_a_week(apps, None)
    machine.refresh_from_db()
    assert 6 * DAY < machine.lease_until - timezone.now() <= 7 * DAY
    tasks.keep_leases()
    assert told() == ["The lease of example ends in 7 days."] and begun() == []


# The pages


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("left", "words"),
    [(9 * DAY, ""), (6 * DAY, "Lease ends soon"), (-HOUR, "Lease ended"), (-8 * DAY, "Lease ended")],
)
def test_the_list_and_the_page_say_that_a_lease_ends_or_ended(client, cast, machine, left, words):
    """Red when lease_ends_soon or lease_ended is always false."""
    leave(left, observed_state=Observed.SHUTOFF)
    leases.end()
    client.force_login(cast.requester)
    for address in (reverse("vms:list"), reverse("vms:detail", args=[machine.pk])):
        page = client.get(address).content.decode()
        assert [word in page for word in ("Lease ends soon", "Lease ended")] == [
            word == words for word in ("Lease ends soon", "Lease ended")
        ]
    assert ("Goes into the bin on" in page and "switched off and cannot be started" in page) is (
        left < 0 * DAY
    )


# All of it, on a host


class Deaf(FakeDriver):
    """A guest that does not heed what it is asked."""

    def shutdown(self, uuid):
        self._get(uuid)


@pytest.fixture
def real(machine, monkeypatch):
    """The machine on a driver, with a worker and a watcher that are called by hand."""
    driver, uuid = Deaf(), str(machine.uuid)
    disk = DiskSpec("/example.qcow2")
    driver.define(
        DomainSpec(
            "example", uuid, 1, 64 << 20, (disk,), (), "/example.iso", accelerator=Accelerator.EMULATION
        )
    )
    driver.start(uuid)
    failing = []

    def call(_host, verb, *args, timeout):
        if verb in failing:
            raise CallTimeout(f"{verb} took too long")
        return getattr(driver, verb)(*args)

    monkeypatch.setattr("portal.hosts.steps.call", call)

    def work():
        """Let the worker do what is queued and the watcher look; return what was done."""
        done = []
        for operation in Operation.objects.filter(state=State.QUEUED):
            worker.carry_out(operation.pk)
            operation.refresh_from_db()
            done.append((operation.kind, operation.state))
        began = timezone.now()
        seen = DomainSeen(uuid, driver.domain_info(uuid).state, began)
        with transaction.atomic():
            MachineObserver().domains(machine.host_id, [seen], True, began)
        return done

    return SimpleNamespace(driver=driver, uuid=uuid, work=work, failing=failing)


@pytest.mark.django_db
def test_a_machine_goes_all_the_way_from_its_leases_end_into_the_bin(cast, machine, real):
    """Red when any part of the way is left out, or the worker cannot carry it out."""
    leave(-MINUTE)
    tasks.keep_leases()
    assert real.work() == [("vm.shutdown", State.SUCCEEDED)]
    assert real.driver.domain_info(real.uuid).state is DomainState.RUNNING
    Operation.objects.update(finished_at=timezone.now() - leases.PATIENCE)
    tasks.keep_leases()
    assert real.work() == [("vm.destroy", State.SUCCEEDED)]
    machine.refresh_from_db()
    assert machine.observed_state == Observed.SHUTOFF
    tasks.keep_leases()
    assert real.work() == []
    VirtualMachine.objects.update(lease_bin_at=timezone.now())
    tasks.keep_leases()
    assert real.work() == [("vm.bin", State.SUCCEEDED)]
    machine.refresh_from_db()
    assert machine.status == Status.BINNED and machine.bin_until > timezone.now() + 6 * DAY
    tasks.keep_leases()
    assert real.work() == []


@pytest.mark.django_db
def test_a_host_that_goes_away_in_the_middle_is_asked_again_when_it_is_back(machine, real):
    """Red when the scheduler waits for an operation that ended, or asks a host that is away."""
    leave(-MINUTE)
    real.failing.append("shutdown")
    Host.objects.update(observed_health=Health.UP)
    tasks.keep_leases()
    Host.objects.update(observed_health=Health.STALE)
    assert real.work() == [("vm.shutdown", State.FAILED)]
    Operation.objects.update(finished_at=timezone.now() - leases.TRY_AGAIN - MINUTE)
    tasks.keep_leases()
    assert real.work() == []
    real.failing.clear()
    Host.objects.update(observed_health=Health.UP)
    tasks.keep_leases()
    assert real.work() == [("vm.shutdown", State.SUCCEEDED)]
