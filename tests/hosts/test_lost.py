"""Whether a failing call means that the host is away, and who goes on when it is back."""

import uuid

import pytest

from portal.drivers.errors import CallTimeout, PoolFull
from portal.hosts import steps, tasks
from portal.hosts.enrolment import MakePool
from portal.hosts.models import Health, Host
from portal.operations.models import Operation
from portal.operations.registry import StepContext, StepFailed
from portal.operations.states import State

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def host():
    return Host.objects.create(name="rack-1", uri="fake:///lost", observed_health=Health.UP)


@pytest.mark.parametrize(
    ("health", "error", "away"),
    [
        (Health.STALE, CallTimeout("hangs"), True),
        (Health.UP, CallTimeout("hangs"), False),
        (Health.NEW, CallTimeout("hangs"), False),
        (Health.STALE, PoolFull("no space"), False),
    ],
)
def test_a_host_is_away_when_the_watcher_says_so_and_the_call_may_succeed_later(
    host, monkeypatch, health, error, away
):
    """Red when `away` is the error's `retryable` alone, or the host's health alone."""
    Host.objects.update(observed_health=health)

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(steps, "call", fail)
    context = StepContext(spec={}, identifiers={"host": host.pk}, check=lambda: None)
    with pytest.raises(StepFailed) as failure:
        MakePool().call(context, "ping")
    assert failure.value.away is away


def test_lost_operations_go_on_when_their_own_host_is_back(cast, host):
    """Red when the task takes every host."""
    away = Host.objects.create(name="rack-2", uri="fake:///away", observed_health=Health.STALE)
    lost = [
        Operation.objects.create(
            kind="vm.create",
            requester=cast.requester,
            project=cast.project,
            state=State.LOST,
            lost_from=State.UNDOING,
            spec="{}",
            token=uuid.uuid4(),
            lane=where.scope,
        )
        for where in (host, away)
    ]
    tasks.find_lost_operations()
    states = [Operation.objects.get(pk=operation.pk).state for operation in lost]
    assert states == [State.UNDOING, State.LOST]
