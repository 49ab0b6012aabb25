"""What the page of an operation says while work is done and taken back."""

import uuid

import pytest

from portal.live.panels import find
from portal.operations import live
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from vms.building import CREATE

pytestmark = [pytest.mark.database, pytest.mark.django_db]
STAGES = ("done", "done", "undone", "intended")


@pytest.fixture
def building(cast):
    """An operation of the real kind, whose first steps are as STAGES says."""
    operation = Operation.objects.create(
        kind=CREATE.name, requester=cast.requester, project=cast.project, state=State.RUNNING, spec="{}",
        token=uuid.uuid4(), title="Create example",
    )  # fmt: skip
    steps = CREATE.steps
    for index, (step, stage) in enumerate(zip(steps, STAGES, strict=False)):
        StepRecord.objects.create(operation=operation, index=index, name=step.name, stage=stage)
    return operation


def page(cast, operation):
    return find("operations.progress").render(cast.requester, [str(operation.pk)])[str(operation.pk)]


@pytest.mark.parametrize("state", [State.UNDOING, State.CANCELLING, State.LOST])
def test_what_is_left_on_the_host_is_named_step_by_step(cast, building, state):
    """Red when a step that was undone is named, or one whose end nobody knows is left out."""
    building.state = state
    building.save()
    titles = [step.title for step in CREATE.steps]
    assert live.progress(building)["left"] == [titles[0], titles[1], titles[3]]
    assert f"Still on the host: {titles[0]}, {titles[1]}, {titles[3]}" in page(cast, building)


@pytest.mark.parametrize("state", [State.RUNNING, State.SUCCEEDED, State.FAILED])
def test_otherwise_nothing_is_called_left(cast, building, state):
    building.state = state
    building.save()
    assert "Still on the host" not in page(cast, building)


def test_a_step_that_runs_is_called_so(cast, building):
    shown = page(cast, building)
    assert "Under way" in shown and "Undone" in shown and shown.count("Done") == 2
    assert live.progress(building)["percent"] == round(100 * 2 / len(CREATE.steps))
