"""A worker killed by SIGKILL at every point of every step: all is there at the end, or nothing is."""

import signal
import uuid

import pytest

from portal.operations import services
from portal.operations.models import Counter
from portal.operations.runner import leftovers
from portal.operations.states import State
from tests.conftest import GIB, let_heartbeats_lapse, make_spec

STEPS = ("disk", "seed", "domain")
pytestmark = [pytest.mark.database, pytest.mark.usefixtures("trail_that_can_be_flushed")]
#: Whose workers `worker` runs.
WORKER = "tests.operations.killed_worker"


@pytest.fixture
def quota(cast):
    return Counter.objects.create(scope=f"project:{cast.project.pk}", resource="memory", limit=4 * GIB)


@pytest.fixture
def queued(cast, quota, tmp_path):
    operation = services.request_operation(
        actor=cast.requester,
        project=cast.project,
        spec=make_spec(),
        amounts={(quota.scope, "memory"): GIB},
        token=uuid.uuid4(),
        identifiers={"folder": str(tmp_path), "takes": []},
    )
    return services.decide(
        actor=cast.approver, operation=operation, spec_hash=operation.spec_hash, approved=True
    )


def made(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("point", [f"{when}:{step}" for step in STEPS for when in ("before", "after")])
def test_a_worker_killed_while_building_is_resumed_to_the_end(worker, queued, quota, tmp_path, point):
    """Red when take_over_lapsed takes nothing, or when carry_on resumes nothing."""
    assert worker(queued.pk, point) == -signal.SIGKILL
    let_heartbeats_lapse()
    assert worker("reap") == 0
    queued.refresh_from_db()
    quota.refresh_from_db()
    assert queued.state == State.SUCCEEDED
    assert made(tmp_path) == sorted(STEPS)
    assert (quota.held, quota.used) == (0, GIB)


@pytest.mark.parametrize(
    "point", [f"{when}:{step}" for step in STEPS for when in ("undo-before", "undo-after")]
)
def test_a_worker_killed_while_undoing_leaves_nothing_in_the_end(worker, queued, quota, tmp_path, point):
    """Red when _undo_all walks over no rows."""
    assert worker(queued.pk, point, failing="domain") == -signal.SIGKILL
    queued.refresh_from_db()
    assert queued.state == State.UNDOING and leftovers(queued)
    let_heartbeats_lapse()
    assert worker("reap") == 0
    queued.refresh_from_db()
    quota.refresh_from_db()
    assert queued.state == State.FAILED
    assert made(tmp_path) == [] and leftovers(queued) == []
    assert (quota.held, quota.used) == (0, 0)


def test_killed_then_failing_at_the_next_takes_back_what_the_dead_worker_made(worker, queued, tmp_path):
    """Red when _intend writes its row after the step instead of before."""
    assert worker(queued.pk, "after:disk") == -signal.SIGKILL
    assert made(tmp_path) == ["disk"] and leftovers(queued) == ["disk"]
    let_heartbeats_lapse()
    assert worker("reap", failing="disk") == 0
    queued.refresh_from_db()
    assert queued.state == State.FAILED
    assert made(tmp_path) == []
