"""Racing requests, approvals, claims and reapers: nothing is taken twice."""

import uuid

import pytest

from portal.core.errors import Denied
from portal.operations import services
from portal.operations.models import Counter, Operation, Reservation
from portal.operations.states import State
from tests.conftest import let_heartbeats_lapse, make_spec
from tests.racing import race

pytestmark = [
    pytest.mark.database,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]


def ask(cast, amounts=None, token=None, takes=()):
    return services.request_operation(
        actor=cast.requester,
        project=cast.project,
        spec=make_spec(),
        amounts=amounts or {},
        token=token or uuid.uuid4(),
        identifiers={"takes": list(takes)},
    )


@pytest.mark.slow
def test_hundred_racing_requests_get_exactly_the_quota_of_ten(cast):
    """Red when ledger.hold's update loses its condition on the limit."""
    quota = Counter.objects.create(scope=f"project:{cast.project.pk}", resource="machines", limit=10)
    results = race([lambda: ask(cast, {(quota.scope, "machines"): 1})] * 100)
    granted = [result for result in results if isinstance(result, Operation)]
    refused = [result for result in results if isinstance(result, Denied)]
    quota.refresh_from_db()
    assert (len(granted), len(refused), quota.held) == (10, 90, 10)
    assert Operation.objects.count() == Reservation.objects.count() == 10


@pytest.mark.slow
def test_hundred_racing_approvals_fill_a_host_for_ten_and_no_more(cast):
    """Red when decide() holds the capacity outside its transaction."""
    host = Counter.objects.create(scope="host:1", resource="machines", limit=10)
    waiting = [ask(cast, takes=[("host:1", "machines", 1)]) for _ in range(100)]

    def approve(operation):
        return lambda: services.decide(
            actor=cast.approver,
            operation=operation,
            spec_hash=operation.spec_hash,
            approved=True,
        )

    results = race([approve(operation) for operation in waiting])
    host.refresh_from_db()
    assert sum(isinstance(result, Denied) for result in results) == 90
    assert host.held == 10
    assert Operation.objects.filter(state=State.QUEUED).count() == 10
    assert Operation.objects.filter(state=State.AWAITING_APPROVAL).count() == 90


def test_doubled_submit_makes_one_request(cast):
    """Red when request_operation creates without looking at the token."""
    token = uuid.uuid4()
    results = race([lambda: ask(cast, token=token)] * 10)
    assert len({result.pk for result in results}) == 1
    assert Operation.objects.count() == 1


def test_two_approvers_at_once_make_one_decision(cast):
    """Red on PostgreSQL when decide() does not lock and move() does not ask for the state it saw."""
    operation = ask(cast)

    def decide(approver):
        return lambda: services.decide(
            actor=approver, operation=operation, spec_hash=operation.spec_hash, approved=True
        )

    results = race([decide(cast.approver), decide(cast.admin)])
    assert sorted(type(result) for result in results if isinstance(result, Denied)) == [Denied]
    assert operation.decisions.count() == 1


def test_of_racing_claims_one_wins(cast):
    operation = ask(cast)
    services.decide(
        actor=cast.approver, operation=operation, spec_hash=operation.spec_hash, approved=True
    )
    results = race([lambda: services.claim(operation.pk, worker="worker")] * 10)
    assert sum(result is not None for result in results) == 1


def test_of_racing_reapers_one_takes_over_and_the_old_worker_is_fenced(cast):
    """Red when beat() no longer asks for the attempt number."""
    operation = ask(cast)
    services.decide(
        actor=cast.approver, operation=operation, spec_hash=operation.spec_hash, approved=True
    )
    old = services.claim(operation.pk, worker="old")
    assert old is not None
    let_heartbeats_lapse()
    taken = race([lambda: services.take_over_lapsed(worker="reaper")] * 5)
    assert [item.pk for result in taken for item in result] == [operation.pk]
    with pytest.raises(services.StaleAttempt):
        services.beat(old)
