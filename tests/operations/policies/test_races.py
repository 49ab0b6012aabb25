"""Deciders and requests at the same moment, in threads of their own, on SQLite and on PostgreSQL."""

import pytest
from django.utils import timezone

from portal.core.errors import Denied
from portal.operations import revisions, services
from portal.operations.models import Counter, Demand, Operation
from portal.operations.policies import demands
from portal.operations.policies.rules import Effect, Who
from portal.operations.states import State
from tests.conftest import GIB
from tests.operations.policies.conftest import decide
from tests.racing import race

pytestmark = [
    pytest.mark.database,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]


@pytest.mark.slow
def test_racing_final_deciders_place_once(cast, another, policy, ask):
    """Red on PostgreSQL when decide() does not lock the request and move() does not ask for its state."""
    policy("two levels", Who.PROJECT_ADMINS, Who.PROJECT_APPROVERS)
    host = Counter.objects.create(scope="host:1", resource="machines", limit=100)
    final = [another(f"approver{number}") for number in range(8)]
    waiting = [ask(takes=[("host:1", "machines", 1)]) for _ in range(5)]
    for operation in waiting:
        decide(cast.admin, operation)
    results = race(
        [
            lambda who=who, operation=operation: decide(who, operation)
            for operation in waiting
            for who in final
        ]
    )
    assert sum(isinstance(result, Operation) for result in results) == 5, results
    assert all(isinstance(result, Operation | Denied) for result in results), results
    host.refresh_from_db()
    assert host.held == 5
    for operation in waiting:
        operation.refresh_from_db()
        assert operation.state == State.QUEUED
        assert list(operation.decisions.order_by("level").values_list("level", flat=True)) == [1, 2]


def test_two_approvers_at_once_on_a_level_of_two_both_count(cast, another, policy, ask):
    """Red on PostgreSQL when decide() does not lock the request: both count one approval, and it waits on."""
    policy("two of them", (Who.PROJECT_APPROVERS, 2))
    people = [another("first"), another("second")]
    for _ in range(8):
        operation = ask()
        results = race([lambda who=who, operation=operation: decide(who, operation) for who in people])
        assert all(isinstance(result, Operation) for result in results), results
        operation.refresh_from_db()
        assert (operation.state, operation.decisions.count()) == (State.QUEUED, 2)


@pytest.mark.slow
def test_two_approvers_at_once_of_two_levels_serve_one_each(cast, another, policy, ask):
    """Red on PostgreSQL when decide() joins the demand to the request that it locks: both serve the first."""
    policy("one after the other", Who.PROJECT_APPROVERS, Who.PROJECT_APPROVERS)
    people = [another("first"), another("second")]
    for _ in range(8):
        operation = ask()
        results = race([lambda who=who, operation=operation: decide(who, operation) for who in people])
        assert all(isinstance(result, Operation) for result in results), results
        operation.refresh_from_db()
        served = sorted(operation.decisions.values_list("level", flat=True))
        assert (operation.state, served) == (State.QUEUED, [1, 2])


def test_nobody_lowers_what_waits_for_others_by_then(cast, another, policy, ask):
    """Red on PostgreSQL when _lower() looks who may decide before it locks the request: both are served."""
    policy("one after the other", Who.PROJECT_APPROVERS, Who.PROJECT_ADMINS)
    second = another("second")
    for _ in range(8):
        operation = ask(memory=2 * GIB)
        seen = {"operation": operation, "spec_hash": operation.spec_hash}
        results = race(
            [
                lambda operation=operation: decide(cast.approver, operation),
                lambda seen=seen: revisions.lower(actor=second, sizes={"memory": GIB}, **seen),
            ]
        )
        assert sorted(isinstance(result, Denied) for result in results) == [False, True], results


def test_one_person_twice_at_once_counts_once(cast, policy, ask):
    """Red on PostgreSQL when decide() looks who may decide before it locks the request."""
    policy("two of them", (Who.PROJECT_APPROVERS, 2))
    for _ in range(8):
        operation = ask()
        results = race([lambda operation=operation: decide(cast.approver, operation)] * 2)
        assert sorted(isinstance(result, Denied) for result in results) == [False, True], results
        operation.refresh_from_db()
        assert (operation.state, operation.decisions.count()) == (State.AWAITING_APPROVAL, 1)


@pytest.mark.slow
def test_racing_requests_do_not_slip_below_a_count_together(cast, policy, ask):
    """Red on PostgreSQL when judge_in_turn does not lock the person: each is told that there is none."""
    policy("first three", effect=Effect.AUTO, ranges={"machines": (None, 2)})
    policy("rest", Who.PROJECT_APPROVERS)
    # Files are owned by nobody, so hold each back from being built: what waits is what counts.
    Counter.objects.create(scope="host:1", resource="machines", limit=0)
    race([lambda: ask(takes=[("host:1", "machines", 1)])] * 12)
    assert Demand.objects.filter(policy_name="first three").count() == 3
    assert sorted(Demand.objects.values_list("machines", flat=True)) == list(range(12))


@pytest.mark.slow
def test_racing_requests_approved_at_once_fill_a_host_and_the_rest_waits(cast, another, policy, ask):
    """Red when `_approve_by_policy` lets Denied through."""
    host = Counter.objects.create(scope="host:1", resource="machines", limit=10)
    quota = Counter.objects.create(scope=f"project:{cast.project.pk}", resource="machines", limit=100)
    policy("at once", effect=Effect.AUTO)
    people = [another(f"requester{number}", role="requester") for number in range(5)]

    def request(person):
        return ask(actor=person, amounts={(quota.scope, "machines"): 1}, takes=[("host:1", "machines", 1)])

    results = race([lambda person=person: request(person) for person in people * 8])
    assert all(isinstance(result, Operation) for result in results), results
    host.refresh_from_db()
    quota.refresh_from_db()
    assert (host.held, quota.held) == (10, 40)
    assert Operation.objects.filter(state=State.QUEUED).count() == 10
    assert Demand.objects.exclude(note="").count() == 30


@pytest.mark.slow
def test_what_is_approved_at_once_and_what_ends_do_not_block_each_other(cast, another, policy, ask):
    """Red on PostgreSQL when `ask` does not lock ahead: each waits for the counter that the other has."""
    # The host's counter is the older one, so that what ends gives back in the other order than one takes.
    Counter.objects.create(scope="host:1", resource="machines", limit=100)
    quota = Counter.objects.create(scope=f"project:{cast.project.pk}", resource="machines", limit=100)
    policy("at once", effect=Effect.AUTO)
    people = [another(f"requester{number}", role="requester") for number in range(12)]

    def request(person):
        return ask(actor=person, amounts={(quota.scope, "machines"): 1}, takes=[("host:1", "machines", 1)])

    ending = [(person, request(person)) for person in people for _ in range(2)]
    results = race(
        [
            act
            for person, old in ending
            for act in (
                lambda person=person, old=old: services.withdraw(actor=person, operation=old),
                lambda person=person: request(person),
            )
        ]
    )
    assert all(isinstance(result, Operation) for result in results), results
    quota.refresh_from_db()
    assert quota.held == len(ending)


def test_racing_expiries_and_a_late_approval_end_it_once(cast, policy, ask):
    """Red when `expire_due` lets StaleAttempt through."""
    policy("a day", expires_days=1)
    for _ in range(8):
        operation = ask()
        Demand.objects.filter(operation=operation).update(expires_at=timezone.now())
        late = lambda operation=operation: decide(cast.approver, operation)  # noqa: E731
        results = race([demands.expire_due, demands.expire_due, late])
        assert sorted(map(str, results[:2])) == ["0", "1"], results
        assert isinstance(results[2], Denied)
        operation.refresh_from_db()
        assert (operation.state, operation.decisions.count()) == (State.EXPIRED, 0)
