"""What may be asked, decided and withdrawn, and what the ledger does with it."""

import uuid

import pytest

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.operations import services
from portal.operations.models import Counter, Operation
from portal.operations.states import FINAL, TRANSITIONS, State
from portal.operations.transitions import StaleAttempt, move
from tests.conftest import GIB, make_spec

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def quota(cast):
    return Counter.objects.create(scope=f"project:{cast.project.pk}", resource="memory", limit=4 * GIB)


@pytest.fixture
def asked(cast, quota):
    return services.request_operation(
        actor=cast.requester,
        project=cast.project,
        spec=make_spec(),
        amounts={(quota.scope, "memory"): GIB},
        token=uuid.uuid4(),
    )


def approve(cast, operation, **changes):
    arguments = {"actor": cast.approver, "spec_hash": operation.spec_hash, "approved": True, **changes}
    return services.decide(operation=operation, **arguments)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_a_size_that_is_no_positive_whole_number_is_refused(value):
    with pytest.raises(ValueError, match="vcpu must be a whole number above zero"):
        make_spec(vcpu=value)


@pytest.mark.parametrize("role", ["approver", "operator", "auditor"])
def test_only_requesters_and_admins_may_ask(cast, role):
    with pytest.raises(Denied, match="may not ask"):
        services.request_operation(
            actor=getattr(cast, role),
            project=cast.project,
            spec=make_spec(),
            amounts={},
            token=uuid.uuid4(),
        )
    assert not Operation.objects.exists()


def test_over_quota_leaves_nothing_behind(cast, quota):
    with pytest.raises(Denied, match=r"not enough memory left for the project example: 4,294,967,296 GiB"):
        services.request_operation(
            actor=cast.requester,
            project=cast.project,
            spec=make_spec(),
            amounts={(quota.scope, "memory"): 2**62},
            token=uuid.uuid4(),
        )
    quota.refresh_from_db()
    assert quota.held == 0
    assert not Operation.objects.exists() and not AuditEntry.objects.exists()


def test_nobody_approves_their_own(cast):
    own = services.request_operation(
        actor=cast.admin, project=cast.project, spec=make_spec(), amounts={}, token=uuid.uuid4()
    )
    with pytest.raises(Denied, match="their own"):
        approve(cast, own, actor=cast.admin)


@pytest.mark.parametrize("role", ["requester", "operator", "auditor"])
def test_only_approvers_decide(cast, asked, role):
    with pytest.raises(Denied):
        approve(cast, asked, actor=getattr(cast, role))
    asked.refresh_from_db()
    assert asked.state == State.AWAITING_APPROVAL


def test_an_approval_of_another_hash_is_refused(cast, asked):
    with pytest.raises(Denied, match="changed since"):
        approve(cast, asked, spec_hash=make_spec(vcpu=2).hash())


def test_rejection_needs_a_reason_and_gives_the_quota_back(cast, asked, quota):
    with pytest.raises(Denied, match="reason"):
        approve(cast, asked, approved=False, reason=" ")
    approve(cast, asked, approved=False, reason="too large")
    quota.refresh_from_db()
    assert quota.held == 0


def test_success_turns_held_into_used_once(cast, asked, quota):
    approve(cast, asked)
    operation = services.claim(asked.pk, worker="worker")
    move(operation, State.SUCCEEDED, actor="worker")
    services.ledger.use(operation)
    services.ledger.release(operation)
    quota.refresh_from_db()
    assert (quota.held, quota.used) == (0, GIB)


def test_undone_operation_gives_everything_back(cast, asked, quota):
    approve(cast, asked)
    operation = services.claim(asked.pk, worker="worker")
    move(operation, State.UNDOING, actor="worker")
    quota.refresh_from_db()
    assert quota.held == GIB
    move(operation, State.FAILED, actor="worker")
    quota.refresh_from_db()
    assert (quota.held, quota.used) == (0, 0)


def test_withdraw_works_until_a_worker_has_it(cast, asked):
    approve(cast, asked)
    services.claim(asked.pk, worker="worker")
    with pytest.raises(Denied, match="too late"):
        services.withdraw(actor=cast.requester, operation=asked)


def test_every_pair_outside_the_table_is_refused(asked):
    for state in State:
        for to in set(State) - TRANSITIONS[state]:
            asked.state = state
            with pytest.raises(ValueError, match="cannot go"):
                move(asked, to, actor="test")
    assert {State.SUCCEEDED, State.FAILED, State.REJECTED, State.EXPIRED, State.CANCELLED} == set(FINAL)


def test_a_move_from_an_outdated_row_is_refused(cast, asked):
    outdated = Operation.objects.get(pk=asked.pk)
    approve(cast, asked)
    with pytest.raises(StaleAttempt):
        move(outdated, State.EXPIRED, actor="scheduler")


def test_lowering_is_nowhere_larger_and_otherwise_the_same():
    asked = make_spec(vcpu=4)
    assert asked.covers(make_spec(vcpu=2))
    assert not asked.covers(make_spec(vcpu=8))
    assert not make_spec().covers(make_spec(lease=3600))
