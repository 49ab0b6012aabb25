"""A step that fails with an error of the portal's own: it is undone, said, and not retried hot."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, OperationalError
from django.utils import timezone

from portal.audit.models import AuditEntry
from portal.operations import runner, services
from portal.operations.messages import OTHER, sentence
from portal.operations.models import Counter, Operation
from portal.operations.registry import Kind, Step, StepFailed, register
from portal.operations.states import State
from portal.operations.transitions import StaleAttempt
from tests.conftest import let_heartbeats_lapse
from tests.operations.asking import approved

pytestmark = [pytest.mark.database, pytest.mark.django_db]


class Table(Step):
    """Lays one thing on a table; `does` and `undoes` are raised instead, `then` runs when each was laid."""

    laid: list[str] = []
    then = staticmethod(lambda name: None)
    does: Exception | None = None
    undoes: Exception | None = None

    def __init__(self, name):
        self.name = self.title = name

    def do(self, context):
        Table.laid.append(self.name)
        Table.then(self.name)
        if Table.does and self.name == "knife":
            raise Table.does

    def undo(self, context):
        if Table.undoes:
            raise Table.undoes
        if self.name in Table.laid:
            Table.laid.remove(self.name)


LAY = Kind("test.table", "Lay a table", (Table("fork"), Table("knife")))
register(LAY)


@pytest.fixture
def table():
    Table.laid, Table.does, Table.undoes, Table.then = [], None, None, lambda name: None
    return Table


@pytest.fixture
def quota(cast):
    return Counter.objects.create(scope=f"project:{cast.project.pk}", resource="memory", limit=4 << 30)


@pytest.fixture
def running(cast, quota, table):
    return services.claim(approved(cast, quota, LAY).pk, worker="worker")


def carry_on(operation):
    runner.carry_on(operation, worker="worker")
    operation.refresh_from_db()
    return operation


def reap(after):
    """Return what a reaper takes over that looks `after` from now."""
    Operation.objects.update(heartbeat_at=services.F("heartbeat_at") - after)
    taken = services.take_over_lapsed(worker="reaper")
    Operation.objects.exclude(pk__in=[item.pk for item in taken]).update(
        heartbeat_at=services.F("heartbeat_at") + after
    )
    return taken


def test_what_is_done_is_written_before_the_next_step_acts(running, table):
    """Red when _intend does not mark the step before."""
    seen = {}

    def look(name):
        seen[name] = list(running.steps.order_by("index").values_list("name", "stage"))

    table.then = look
    assert carry_on(running).state == State.SUCCEEDED
    assert seen == {
        "fork": [("fork", "intended")],
        "knife": [("fork", "done"), ("knife", "intended")],
    }


def test_the_next_step_does_not_act_for_a_worker_that_lost_the_operation(running, table):
    """Red when _intend does not check. Whoever has it now does that step anew, which does no harm."""
    table.then = lambda name: reap(timedelta(minutes=1)) if table.laid == ["fork"] else None
    with pytest.raises(StaleAttempt):
        runner.carry_on(running, worker="worker")
    assert table.laid == ["fork"]
    assert list(running.steps.values_list("name", "stage")) == [("fork", "intended")]
    running.refresh_from_db()
    assert carry_on(running).state == State.SUCCEEDED and table.laid == ["fork", "fork", "knife"]


def test_whatever_a_stranger_says_can_be_kept(running, table):
    """Red when the text is kept as it came: PostgreSQL refuses a NUL, every database half a character."""
    table.does = StepFailed("pool_full", "a\0b \udcff é")
    assert carry_on(running).state == State.FAILED
    assert running.steps.get(name="knife").error_raw == "a\ufffdb ? é"


def unfit():
    return TypeError("NetworkSpec.__init__() got an unexpected keyword argument 'colour'")


@pytest.mark.parametrize("error", [unfit(), IntegrityError("the colour is taken")])
def test_an_error_that_no_step_should_raise_is_undone_and_said(running, quota, table, caplog, error):
    """Red when _patiently lets an unexpected Exception pass: it would be `running` for ever."""
    table.does = error
    operation = carry_on(running)
    assert operation.state == State.FAILED and table.laid == []
    quota.refresh_from_db()
    assert (quota.held, quota.used) == (0, 0)
    failed = operation.steps.get(name="knife")
    assert failed.error_code == "internal" and "colour" in failed.error_raw
    assert sentence("internal") != OTHER
    assert "Traceback" in caplog.text and "colour" in caplog.text


@pytest.mark.parametrize("error", [OperationalError("the database is away"), KeyboardInterrupt()])
def test_what_says_nothing_about_the_step_leaves_it_to_the_next_worker(running, table, error):
    """Red when PASSES lacks the database's errors, or when BaseException is caught."""
    table.does = error
    with pytest.raises(type(error)):
        carry_on(running)
    running.refresh_from_db()
    assert running.state == State.RUNNING
    table.does = None
    let_heartbeats_lapse()
    [taken] = services.take_over_lapsed(worker="reaper")
    assert carry_on(taken).state == State.SUCCEEDED


def test_a_step_that_this_version_has_no_more_is_said_and_not_forgotten(running, quota, table):
    """Red when _undo_all looks its steps up outside of _patiently."""
    table.does = unfit()
    running.steps.create(index=9, name="spoon", stage=runner.Stage.DONE)
    operation = carry_on(running)
    assert operation.state == State.UNDOING and runner.leftovers(operation)[-1] == "spoon"
    assert operation.steps.get(name="spoon").error_code == "internal"


def test_what_cannot_be_undone_is_tried_ever_less_often_until_it_can(running, quota, table):
    """Red when carry_on does not rest(), or rests as long each time, or within the heartbeat's block."""
    table.does, table.undoes = unfit(), ValueError("no such thing")
    carry_on(running)
    waits = []
    for _turn in range(9):
        for seconds in range(15, 1000, 15):
            if taken := reap(timedelta(seconds=seconds + 1)):
                waits.append(seconds)
                carry_on(taken[0])
                break
    assert waits == [15, 30, 60, 120, 240, 480, 615, 615, 615]
    running.refresh_from_db()
    assert running.state == State.UNDOING and runner.leftovers(running) == ["fork", "knife"]
    quota.refresh_from_db()
    assert quota.held == 1 << 30
    table.undoes = None
    [taken] = reap(timedelta(hours=1))
    assert carry_on(taken).state == State.FAILED and table.laid == []


def test_what_may_pass_by_itself_is_tried_as_often_as_ever(running, table, monkeypatch):
    """Red when carry_on rests whatever the failure was."""
    monkeypatch.setattr(runner, "PATIENCE", -1.0)
    table.does, table.undoes = unfit(), StepFailed("call_timeout", retryable=True)
    operation = carry_on(running)
    for _turn in range(3):
        [taken] = reap(timedelta(seconds=16))
        operation = carry_on(taken)
    assert operation.state == State.UNDOING
    assert operation.heartbeat_at <= timezone.now()


def test_the_trail_tells_the_first_takeover_in_each_state(running, table):
    """Red when _record_takeover does not look for an earlier one, or looks at those of another state."""
    let_heartbeats_lapse()
    services.take_over_lapsed(worker="reaper")
    let_heartbeats_lapse()
    [operation] = services.take_over_lapsed(worker="reaper")
    table.does, table.undoes = unfit(), ValueError("no such thing")
    for _turn in range(4):
        carry_on(operation)
        let_heartbeats_lapse()
        [operation] = services.take_over_lapsed(worker="reaper")
    assert operation.attempt == 7
    told = AuditEntry.objects.filter(verb="operation.taken_over", target_id=str(operation.pk))
    assert [entry.after for entry in told] == [
        {"attempt": 2, "state": "running"},
        {"attempt": 4, "state": "undoing"},
    ]
