"""Deputies: for whom they decide and when, and who names them."""

from datetime import timedelta

import pytest
from django.utils import timezone

from portal.accounts.models import User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.operations.models import Operation
from portal.operations.policies import deciders, delegations
from portal.operations.policies.rules import Who
from portal.operations.states import State
from tests.operations.policies.conftest import decide, inbox, stand_in, state

pytestmark = [pytest.mark.database, pytest.mark.django_db]


def test_a_deputy_decides_for_who_is_away(client, cast, ask):
    deputy = User.objects.create(username="deputy")
    stand_in(cast.approver, deputy)
    asked = ask()
    assert deciders.waiting_for(deputy).get().decides_for == cast.approver.pk
    client.force_login(deputy, "allauth.account.auth_backends.AuthenticationBackend")
    assert "You decide for approver" in client.get(f"/requests/{asked.pk}/").content.decode()
    decide(deputy, asked)
    decision = asked.decisions.get()
    assert (decision.approver, decision.on_behalf_of) == (deputy, cast.approver)
    entry = AuditEntry.objects.get(verb="operation.approved")
    assert (entry.actor_name, entry.after["on_behalf_of"]) == ("deputy", "approver")


@pytest.mark.parametrize("starts, ends", [(1, 2), (-2, -1)])
def test_a_deputy_decides_nothing_out_of_the_time(cast, ask, starts, ends):
    """Red when `away` does not ask for the time."""
    deputy = User.objects.create(username="deputy")
    stand_in(cast.approver, deputy, starts=starts, ends=ends)
    asked = ask()
    assert inbox(deputy) == set() and not Operation.objects.restrict(deputy, "view").exists()
    with pytest.raises(Denied, match="You may not decide"):
        decide(deputy, asked)


def test_the_requester_decides_for_nobody_on_their_own(cast, ask):
    """Red when `waiting_for` does not exclude the requester."""
    stand_in(cast.approver, cast.requester)
    asked = ask()
    with pytest.raises(Denied, match="their own"):
        decide(cast.requester, asked)
    assert inbox(cast.requester) == set()


def test_the_deputy_of_the_requester_decides_nothing_in_their_name(cast, ask):
    """Red when _Rights.condition does not exclude the requester."""
    deputy = User.objects.create(username="deputy")
    stand_in(cast.admin, deputy)
    own = ask(actor=cast.admin)
    assert inbox(deputy) == set()
    with pytest.raises(Denied):
        decide(deputy, own)
    assert ask().pk in inbox(deputy)


def test_a_deputys_deputy_decides_nothing(cast, ask):
    second, third = (User.objects.create(username=name) for name in ("second", "third"))
    stand_in(cast.approver, second)
    stand_in(second, third)
    ask()
    assert len(inbox(second)) == 1 and inbox(third) == set()


def test_a_deputy_and_who_is_away_are_one_voice(cast, another, policy, ask):
    """Red when `_served` leaves out on_behalf_of."""
    policy("two of them", (Who.PROJECT_APPROVERS, 2))
    deputy = another("deputy")
    outsider = User.objects.create(username="outsider")
    stand_in(cast.approver, deputy)
    stand_in(cast.approver, outsider)
    asked = ask()
    decide(outsider, asked)
    for person in (outsider, cast.approver):
        with pytest.raises(Denied, match="approved this request already"):
            decide(person, asked)
    # The other deputy is an approver too, and decides in their own name.
    decide(deputy, asked)
    assert [item.on_behalf_of for item in asked.decisions.order_by("pk")] == [cast.approver, None]
    assert state(asked) == State.QUEUED


def test_who_stands_in_for_two_is_one_voice(cast, policy, ask):
    """Red when `waiting_for` does not exclude what the person decided on in anybody's name."""
    policy("two of them", (Who.PROJECT_APPROVERS, 2))
    deputy = User.objects.create(username="deputy")
    stand_in(cast.approver, deputy)
    stand_in(cast.admin, deputy)
    asked = ask()
    decide(deputy, asked)
    assert inbox(deputy) == set() and asked.pk in inbox(cast.admin)
    with pytest.raises(Denied, match="approved this request already"):
        decide(deputy, asked)


def test_a_deputy_of_somebody_deactivated_decides_nothing(cast, ask):
    deputy = User.objects.create(username="deputy")
    stand_in(cast.approver, deputy)
    User.objects.filter(pk=cast.approver.pk).update(is_active=False)
    ask()
    assert inbox(deputy) == set()


def test_naming_a_deputy_and_ending_it(cast):
    today = timezone.localdate()
    made = delegations.delegate(actor=cast.approver, deputy=cast.auditor, first=today, last=today)
    assert deciders.away(cast.auditor) == [cast.approver.pk]
    assert made.ends_at - made.starts_at == timedelta(days=1)
    delegations.end_delegation(actor=cast.approver, delegation=made)
    delegations.end_delegation(actor=cast.approver, delegation=made)
    assert deciders.away(cast.auditor) == []
    verbs = AuditEntry.objects.order_by("pk").values_list("verb", flat=True)
    assert list(verbs) == ["delegation.made", "delegation.ended"]


@pytest.mark.parametrize(
    "actor, deputy, first, last, sentence",
    [
        ("requester", "auditor", 0, 1, "nothing to hand over"),
        ("approver", "approver", 0, 1, "for yourself"),
        ("approver", "gone", 0, 1, "deactivated"),
        ("approver", "auditor", 2, 1, "before the first"),
        ("approver", "auditor", -3, -1, "over already"),
        ("approver", "auditor", 0, 366, "at most 366 days"),
        ("approver", "auditor", 6, 8, "auditor stands in for you at that time"),
    ],
)
def test_a_deputy_that_cannot_be_named_is_explained(cast, actor, deputy, first, last, sentence):
    cast.gone = User.objects.create(username="gone", is_active=False)
    today = timezone.localdate()
    day = timedelta(days=1)
    delegations.delegate(
        actor=cast.approver, deputy=cast.auditor, first=today + 5 * day, last=today + 7 * day
    )
    with pytest.raises(Denied, match=sentence):
        delegations.delegate(
            actor=getattr(cast, actor),
            deputy=getattr(cast, deputy),
            first=today + first * day,
            last=today + last * day,
        )


def test_only_who_is_away_or_an_admin_of_all_ends_it(cast, chief):
    made = stand_in(cast.approver, cast.auditor)
    for person in (cast.auditor, cast.admin):
        with pytest.raises(Denied, match="Only who is away"):
            delegations.end_delegation(actor=person, delegation=made)
    delegations.end_delegation(actor=chief, delegation=made)
    assert deciders.away(cast.auditor) == []
