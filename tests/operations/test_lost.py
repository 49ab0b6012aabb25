"""An operation whose host goes away waits for it; one that somebody cancels is taken back."""


import pytest
from django.urls import reverse

from portal.accounts.models import Notice
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.operations import live, runner, services
from portal.operations.models import Counter, StepRecord
from portal.operations.registry import Kind, Step, StepFailed, register
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from tests.operations.asking import approved

pytestmark = [pytest.mark.database, pytest.mark.django_db]
LANE = "host:7"


class Shelf(Step):
    """Puts its name on a shelf, unless the host is away; `then` runs in the middle of doing it."""

    made: list[str] = []
    away = False
    then = None

    def __init__(self, name):
        self.name = self.title = name

    def _reach(self):
        if Shelf.away:
            raise StepFailed("host_unreachable", "no route", retryable=True, away=True)

    def do(self, context):
        self._reach()
        if self.name not in Shelf.made:
            Shelf.made.append(self.name)
        if Shelf.then and self.name == "second":
            Shelf.then()
            context.check()

    def undo(self, context):
        self._reach()
        if self.name in Shelf.made:
            Shelf.made.remove(self.name)


STEPS = (Shelf("first"), Shelf("second"), Shelf("third"))
WAITS = Kind("test.shelf", "Fill a shelf", STEPS, cancellable=True)
QUICK = Kind("test.quick", "Fill it now or never", STEPS, waits_for_host=False)
register(WAITS)
register(QUICK)


@pytest.fixture(autouse=True)
def shelf():
    Shelf.made, Shelf.away, Shelf.then = [], False, None
    yield Shelf


@pytest.fixture
def running(cast):
    """Return a maker of claimed operations of a kind; one GiB of the project's quota each."""
    quota = Counter.objects.create(scope=f"project:{cast.project.pk}", resource="memory", limit=4 << 30)

    def make(kind=WAITS):
        operation = approved(cast, quota, kind)
        operation.refresh_from_db()
        operation.lane = LANE
        operation.save(update_fields=["lane"])
        return services.claim(operation.pk, worker="worker")

    make.quota = quota
    return make


def carry_on(operation):
    operation.refresh_from_db()
    runner.carry_on(operation, worker="worker")
    operation.refresh_from_db()
    return operation.state


def held(quota):
    quota.refresh_from_db()
    return quota.held, quota.used


def test_a_host_that_goes_away_makes_it_lost_and_its_return_lets_it_finish(running, shelf):
    """Red when _move_on does not look at `away`, or when find_lost moves nothing."""
    operation = running()
    shelf.then = lambda: setattr(shelf, "away", True)
    carry_on(operation)
    assert operation.state == State.LOST and operation.lost_from == State.RUNNING
    assert runner.leftovers(operation) == ["first", "second", "third"]
    assert held(running.quota) == (1 << 30, 0)
    shelf.away, shelf.then = False, None
    assert services.find_lost(lanes=["host:8"], worker="watch") == 0
    assert services.find_lost(lanes=[LANE], worker="watch") == 1
    assert services.find_lost(lanes=[LANE], worker="watch") == 0
    assert carry_on(operation) == State.SUCCEEDED
    assert shelf.made == ["first", "second", "third"]
    assert held(running.quota) == (0, 1 << 30)
    assert not StepRecord.objects.filter(operation=operation).exclude(error_code="").exists()


def test_a_host_away_while_undoing_keeps_the_reservation_until_nothing_is_left(running, shelf):
    """Red when lost_from is not kept: it would begin to build again."""
    operation = running()

    def fail():
        shelf.away = True
        raise StepFailed("pool_full", "no space")

    shelf.then = fail
    carry_on(operation)
    assert operation.state == State.LOST and operation.lost_from == State.UNDOING
    assert held(running.quota) == (1 << 30, 0)
    shelf.away = False
    services.find_lost(lanes=[LANE], worker="watch")
    assert carry_on(operation) == State.FAILED
    assert shelf.made == [] and held(running.quota) == (0, 0)


def test_what_nobody_wants_later_fails_at_once(running, shelf):
    """Red when _move_on ignores waits_for_host, or keeps a host whose leftovers cannot be taken back now."""
    shelf.then = lambda: setattr(shelf, "away", True)
    operation = running(QUICK)
    carry_on(operation)
    # What was done of it is taken back once the host returns, and until then the host can be given up.
    assert (operation.state, operation.lost_from) == (State.LOST, State.UNDOING)
    shelf.away = False
    services.find_lost(lanes=[LANE], worker="watch")
    assert carry_on(operation) == State.FAILED and shelf.made == []


def test_cancelling_takes_back_what_was_made(running, cast, shelf):
    """Red when _check does not tell a cancelled operation, or when the runner ends it as failed."""
    operation = running()
    shelf.then = lambda: services.cancel(actor=cast.requester, operation=operation)
    assert carry_on(operation) == State.CANCELLED
    assert shelf.made == [] and held(running.quota) == (0, 0)


def test_cancelling_at_the_very_end_is_heard(running, cast, shelf, monkeypatch):
    """Red when _turn lets StaleAttempt pass without a look."""
    operation = running()
    note = runner._note

    def cancel_before_the_end(given, record, stage, failure=None):
        note(given, record, stage, failure)
        if record.name == "third" and stage == runner.Stage.DONE:
            services.cancel(actor=cast.requester, operation=operation)

    monkeypatch.setattr(runner, "_note", cancel_before_the_end)
    assert carry_on(operation) == State.CANCELLED
    assert shelf.made == []


def test_a_lost_one_that_is_cancelled_is_taken_back_when_the_host_returns(running, cast, shelf):
    """Red when _cancel_lost leaves lost_from as it was."""
    operation = running()
    shelf.then = lambda: setattr(shelf, "away", True)
    carry_on(operation)
    services.cancel(actor=cast.requester, operation=operation)
    with pytest.raises(Denied, match="already"):
        services.cancel(actor=cast.requester, operation=operation)
    shelf.away, shelf.then = False, None
    services.find_lost(lanes=[LANE], worker="watch")
    assert carry_on(operation) == State.CANCELLED
    assert shelf.made == [] and held(running.quota) == (0, 0)


def test_only_the_requester_or_an_operator_cancels_and_only_what_can_be(running, cast):
    operation = running()
    with pytest.raises(Denied, match="requester or an operator"):
        services.cancel(actor=cast.auditor, operation=operation)
    quick = running(QUICK)
    with pytest.raises(Denied, match="cannot be cancelled while it is carried out"):
        services.cancel(actor=cast.operator, operation=quick)
    assert services.cancel(actor=cast.operator, operation=operation).state == State.CANCELLING
    with pytest.raises(Denied, match="queued or running"):
        services.cancel(actor=cast.operator, operation=services.Operation.objects.get(pk=operation.pk))


@pytest.fixture
def queued(running, cast):
    """A request that waits for a worker, with a GiB of quota."""
    operation = running()
    services.Operation.objects.filter(pk=operation.pk).update(state=State.QUEUED, attempt=0)
    operation.refresh_from_db()
    return operation


def test_an_operator_ends_what_no_worker_has_and_it_gives_back_what_it_held(running, queued, cast, client):
    """Red when why_not_cancel refuses what is queued, cancel() only asks a worker, or nobody is told."""
    with pytest.raises(Denied, match="requester or an operator"):
        services.cancel(actor=cast.auditor, operation=queued)
    labels = [item["label"] for item in live.actions(cast.operator, queued)]
    assert labels == ["Cancel"] and live.actions(cast.auditor, queued) == []
    client.force_login(cast.operator)
    client.post(reverse("operations:cancel", args=[queued.pk]))
    queued.refresh_from_db()
    assert queued.state == State.CANCELLED and held(running.quota) == (0, 0)
    assert services.claim(queued.pk, worker="worker") is None
    assert "operator cancelled:" in Notice.objects.get(person=cast.requester, kind="operation.ended").text
    entry = AuditEntry.objects.get(verb="operation.cancelled")
    assert entry.actor_name == "operator" and entry.before["state"] == "queued"


def test_a_claim_at_the_moment_of_the_cancelling_wins(running, queued, cast, monkeypatch):
    """Red when _cancel_queued sets the state without asking for the one that it saw."""

    def claimed_meanwhile(actor, operation):
        assert services.claim(operation.pk, worker="worker")
        return ""

    monkeypatch.setattr(services, "why_not_cancel", claimed_meanwhile)
    with pytest.raises(Denied, match="began with it"):
        services.cancel(actor=cast.operator, operation=queued)
    queued.refresh_from_db()
    assert queued.state == State.RUNNING and held(running.quota) == (1 << 30, 0)


def test_a_lost_operation_keeps_others_off_its_subject(running, cast, shelf):
    """Red when the constraint's condition leaves out `lost`."""
    operation = running()
    operation.subject = "vms.machine:1"
    operation.save(update_fields=["subject"])
    shelf.then = lambda: setattr(shelf, "away", True)
    carry_on(operation)
    with pytest.raises(Denied, match="not finished"):
        services.begin_operation(
            actor=cast.requester,
            project=cast.project,
            spec=RequestSpec(QUICK.name, {}, {}),
            subject="vms.machine:1",
            title="Fill it",
            identifiers={},
            lane=LANE,
        )
