"""Racing edits, lowerings and approvals of one request: one wins, and the ledger tells the same story."""

import uuid

import pytest

from portal.core.errors import Denied
from portal.operations import revisions, services
from portal.operations.models import Counter, Operation, RequestRevision
from portal.operations.states import State
from tests.conftest import GIB, make_spec
from tests.racing import race

pytestmark = [
    pytest.mark.database,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]


@pytest.fixture
def quota(cast):
    # Made after the host's, so that giving back quota and then taking capacity goes against their order.
    Counter.objects.create(scope="host:1", resource="machines", limit=100)
    return Counter.objects.create(scope=f"project:{cast.project.pk}", resource="memory", limit=10 * GIB)


def ask(cast, quota, **sizes):
    return services.request_operation(
        actor=cast.requester,
        project=cast.project,
        spec=make_spec(**sizes),
        amounts={(quota.scope, "memory"): make_spec(**sizes).sizes["memory"]},
        token=uuid.uuid4(),
        identifiers={"takes": [("host:1", "machines", 1)]},
    )


def edit_to(cast, operation, **sizes):
    return lambda: revisions.edit(
        actor=cast.requester, operation=operation, spec_hash=operation.spec_hash, spec=make_spec(**sizes)
    )


def approve(actor, operation):
    return lambda: services.decide(
        actor=actor, operation=operation, spec_hash=operation.spec_hash, approved=True
    )


def lowered_and_approved(actor, operation):
    return lambda: revisions.lower_and_approve(
        actor=actor, operation=operation, spec_hash=operation.spec_hash, sizes={"memory": GIB // 2}
    )


@pytest.mark.slow
def test_of_an_edit_and_an_approval_one_wins_and_the_other_gets_a_sentence(cast, quota):
    """Red on PostgreSQL when _waiting does not lock and _replace does not ask for the state and revision."""
    for _ in range(10):
        operation = ask(cast, quota)
        results = race([edit_to(cast, operation, memory=GIB // 4), approve(cast.approver, operation)])
        assert [isinstance(result, Operation) for result in results].count(True) == 1, results
        assert all(isinstance(result, Operation | Denied) for result in results), results
        operation.refresh_from_db()
        won = operation.revision == 1
        assert (operation.state == State.QUEUED) == won
        assert operation.decisions.count() == won
        held = operation.reservations.get(counter=quota).amount
        assert held == operation.frozen["sizes"]["memory"] == (GIB if won else GIB // 4)
    quota.refresh_from_db()
    assert quota.held == sum(quota.reservations.values_list("amount", flat=True))


def test_of_racing_edits_from_the_same_page_one_wins(cast, quota):
    operation = ask(cast, quota)
    results = race([edit_to(cast, operation, memory=GIB * number) for number in range(2, 10)])
    won = [result for result in results if isinstance(result, Operation)]
    quota.refresh_from_db()
    operation.refresh_from_db()
    assert len(won) == 1 and operation.revision == 2
    assert quota.held == won[0].frozen["sizes"]["memory"] == operation.frozen["sizes"]["memory"]
    assert RequestRevision.objects.count() == 2


def test_racing_edits_cannot_oversubscribe_the_quota(cast, quota):
    """Red when rehold writes `held` that it read before."""
    waiting = [ask(cast, quota, memory=GIB // 2) for _ in range(10)]
    race([edit_to(cast, operation, memory=3 * GIB) for operation in waiting])
    quota.refresh_from_db()
    # Each takes 2.5 GiB more of the 5 GiB that are left.
    assert quota.held == 10 * GIB
    assert Operation.objects.filter(revision=2).count() == 2


def test_two_who_lower_and_approve_at_once_make_one_decision(cast, quota):
    operation = ask(cast, quota)
    results = race(
        [lowered_and_approved(cast.approver, operation), lowered_and_approved(cast.admin, operation)]
    )
    assert sum(isinstance(result, Denied) for result in results) == 1, results
    assert operation.decisions.count() == 1
    assert operation.reservations.get(counter=quota).amount == GIB // 2


@pytest.mark.slow
def test_lowering_with_approval_and_ending_operations_do_not_block_each_other(cast, quota):
    """Red on PostgreSQL when lower_and_approve does not lock ahead: each waits for the other's counter."""
    ending = [ask(cast, quota, memory=GIB // 4) for _ in range(12)]
    for operation in ending:
        approve(cast.approver, operation)()
    waiting = [ask(cast, quota, memory=GIB // 2) for _ in range(12)]
    results = race(
        [
            act
            for old, new in zip(ending, waiting, strict=True)
            for act in (
                lambda old=old: services.withdraw(actor=cast.requester, operation=old),
                lambda new=new: revisions.lower_and_approve(
                    actor=cast.approver, operation=new, spec_hash=new.spec_hash, sizes={"memory": GIB // 4}
                ),
            )
        ]
    )
    assert all(isinstance(result, Operation) for result in results), results
    quota.refresh_from_db()
    assert quota.held == 12 * GIB // 4
