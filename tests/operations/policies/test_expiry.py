"""Requests that nobody decides on expire."""

from datetime import timedelta

import pytest
from django.utils import timezone

from portal.core.errors import Denied
from portal.operations import revisions, tasks
from portal.operations.models import Counter, Demand
from portal.operations.policies import demands
from portal.operations.states import State
from tests.conftest import make_spec
from tests.operations.policies.conftest import decide, inbox, state

pytestmark = [pytest.mark.database, pytest.mark.django_db]


def test_undecided_requests_expire_and_give_their_quota_back(cast, policy, ask):
    """Red when `expire_due` does not ask for the time: all of them would go."""
    policy("a day", expires_days=1)
    quota = Counter.objects.create(scope=f"project:{cast.project.pk}", resource="machines", limit=5)
    old, new, decided = (ask(amounts={(quota.scope, "machines"): 1}) for _ in range(3))
    assert old.demand.expires_at - timezone.now() > timedelta(hours=23)
    decide(cast.approver, decided)
    for operation in (old, decided):
        Demand.objects.filter(operation=operation).update(expires_at=timezone.now())
    assert demands.expire_due() == 1 and demands.expire_due() == 0
    tasks.expire()
    assert [state(item) for item in (old, new, decided)] == [
        State.EXPIRED,
        State.AWAITING_APPROVAL,
        State.QUEUED,
    ]
    quota.refresh_from_db()
    assert quota.held == 2


def test_what_has_expired_is_not_approved_before_the_task_comes(cast, policy, ask):
    policy("a day", expires_days=1)
    asked = ask()
    Demand.objects.filter(operation=asked).update(expires_at=timezone.now())
    assert inbox(cast.approver) == set()
    with pytest.raises(Denied, match="has expired"):
        decide(cast.approver, asked)


def test_an_edit_begins_the_time_anew(cast, policy, ask):
    policy("a day", expires_days=1)
    asked = ask()
    Demand.objects.filter(operation=asked).update(expires_at=timezone.now())
    revisions.edit(
        actor=cast.requester, operation=asked, spec_hash=asked.spec_hash, spec=make_spec(vcpu=2)
    )
    assert demands.expire_due() == 0
