"""Levels of approval: who counts where, and what an edit or a lowering leaves of them."""


import pytest

from portal.accounts.models import Membership, Project, Role, User
from portal.core.errors import Denied
from portal.operations import revisions
from portal.operations.models import Counter, Demand, Operation
from portal.operations.policies import deciders, demands
from portal.operations.policies.rules import Level, Who
from portal.operations.states import State
from tests.conftest import make_spec
from tests.operations.policies.conftest import decide, inbox, named, state

pytestmark = [pytest.mark.database, pytest.mark.django_db]


# Levels


def test_levels_come_one_after_another(cast, chief, policy, ask):
    """Red when `advance` tells that the first level is the last."""
    policy("two levels", Who.PROJECT_APPROVERS, Who.ADMINS)
    asked = ask()
    with pytest.raises(Denied, match="You may not decide"):
        decide(cast.auditor, asked)
    decide(cast.approver, asked)
    with pytest.raises(Denied, match="waits for others"):
        decide(cast.admin, asked)
    assert (state(asked), inbox(cast.approver)) == (State.AWAITING_APPROVAL, set())
    assert asked.pk in inbox(chief)
    assert decide(chief, asked).state == State.QUEUED
    assert list(asked.decisions.order_by("pk").values_list("approver__username", "level")) == [
        ("approver", 1),
        ("chief", 2),
    ]


def test_nobody_serves_two_levels(cast, chief, policy, ask):
    """Red when `waiting_for` does not exclude who approved already."""
    policy("two levels", Who.PROJECT_APPROVERS, Who.PROJECT_APPROVERS)
    asked = ask()
    decide(cast.approver, asked)
    with pytest.raises(Denied, match="approved this request already"):
        decide(cast.approver, asked)
    assert decide(cast.admin, asked).state == State.QUEUED


def test_nobody_counts_twice_on_one_level(cast, another, policy, ask):
    policy("two of them", (Who.PROJECT_APPROVERS, 2))
    asked = ask()
    decide(cast.approver, asked)
    with pytest.raises(Denied, match="approved this request already"):
        decide(cast.approver, asked)
    assert state(asked) == State.AWAITING_APPROVAL
    assert decide(another("second"), asked).state == State.QUEUED


@pytest.mark.parametrize(
    "who, may",
    [
        (Who.PROJECT_APPROVERS, {"approver", "admin", "far", "chief"}),
        (Who.APPROVERS, {"far", "chief"}),
        (Who.PROJECT_ADMINS, {"admin", "chief"}),
        (Who.ADMINS, {"chief"}),
        (Who.PEOPLE, {"auditor"}),
    ],
)
def test_a_level_asks_for_exactly_these(cast, chief, another, policy, ask, who, may):
    """Red when _Rights.level gives a role in one project what asks for it in every project."""
    far = another("far", project=None)
    elsewhere = another("elsewhere", role=Role.ADMIN, project=Project.objects.create(name="other"))
    policy("one", named(cast.auditor) if who == Who.PEOPLE else who)
    asked = ask()
    people = [*vars(cast).values(), chief, far, elsewhere]
    found = {person.username for person in people if isinstance(person, User) and asked.pk in inbox(person)}
    assert found == may
    level = Level(who, 1, (cast.auditor.pk,) if who == Who.PEOPLE else ())
    could = deciders.can_decide(level, cast.project, {cast.requester.pk})
    assert {person.username for person in could} == may


def test_only_the_last_approval_takes_capacity(cast, chief, policy, ask):
    policy("two levels", Who.PROJECT_APPROVERS, Who.ADMINS)
    host = Counter.objects.create(scope="host:1", resource="machines", limit=1)
    asked = ask(takes=[("host:1", "machines", 1)])
    decide(cast.approver, asked)
    host.refresh_from_db()
    assert host.held == 0
    decide(chief, asked)
    host.refresh_from_db()
    assert host.held == 1


def test_without_room_the_last_approval_is_refused_and_may_be_given_later(cast, chief, policy, ask):
    policy("two levels", Who.PROJECT_APPROVERS, Who.ADMINS)
    host = Counter.objects.create(scope="host:1", resource="machines", limit=0)
    asked = ask(takes=[("host:1", "machines", 1)])
    decide(cast.approver, asked)
    with pytest.raises(Denied, match="not enough machines"):
        decide(chief, asked)
    assert asked.decisions.count() == 1
    Counter.objects.filter(pk=host.pk).update(limit=1)
    assert decide(chief, asked).state == State.QUEUED


def test_a_rejection_on_any_level_ends_the_request(cast, chief, policy, ask):
    policy("two levels", Who.PROJECT_APPROVERS, Who.ADMINS)
    quota = Counter.objects.create(scope=f"project:{cast.project.pk}", resource="machines", limit=1)
    asked = ask(amounts={(quota.scope, "machines"): 1})
    decide(cast.approver, asked)
    assert decide(chief, asked, approved=False).state == State.REJECTED
    quota.refresh_from_db()
    assert quota.held == 0


def test_named_people_need_no_role_to_see_and_to_decide(client, cast, policy, ask):
    """Red when DecidersBackend is not among the authentication backends."""
    outsider = User.objects.create(username="outsider")
    policy("named", named(outsider))
    asked = ask()
    with pytest.raises(Denied, match="waits for others"):
        decide(cast.approver, asked)
    client.force_login(outsider, "allauth.account.auth_backends.AuthenticationBackend")
    assert client.get(f"/requests/{asked.pk}/").status_code == 200
    assert Operation.objects.restrict(outsider, "view").get() == asked
    assert not Operation.objects.restrict(outsider, "operate").exists()
    fields = {"decision": "approve", "spec_hash": asked.spec_hash}
    client.post(f"/requests/{asked.pk}/decide/", fields)
    assert state(asked) == State.QUEUED
    assert client.get(f"/requests/{asked.pk}/").status_code == 200


def test_who_lost_the_right_meanwhile_decides_no_more(cast, ask):
    asked = ask()
    Membership.objects.filter(user=cast.approver).delete()
    with pytest.raises(Denied, match="You may not decide"):
        decide(cast.approver, asked)
    User.objects.filter(pk=cast.admin.pk).update(is_active=False)
    cast.admin.refresh_from_db()
    assert inbox(cast.admin) == set()


# Revisions


def test_an_edit_asks_everybody_again_and_perhaps_others(cast, chief, policy, ask):
    """Red when `counting` does not ask for the asked revision."""
    policy("large", Who.PROJECT_APPROVERS, Who.ADMINS, ranges={"vcpu": (2, None)})
    policy("any", (Who.PROJECT_APPROVERS, 2))
    asked = ask()
    decide(cast.approver, asked)
    larger = make_spec(vcpu=4)
    edited = revisions.edit(
        actor=cast.requester, operation=asked, spec_hash=asked.spec_hash, spec=larger
    )
    assert (edited.demand.policy_name, edited.demand.level, edited.asked_revision) == ("large", 1, 2)
    assert Demand.objects.filter(operation=asked).count() == 1
    decide(cast.approver, edited)
    assert decide(chief, edited).state == State.QUEUED
    outdated = demands.summary(edited)["outdated"]
    assert [decision.approver for decision in outdated] == [cast.approver]


def test_a_lowering_keeps_what_others_approved(cast, chief, policy, ask):
    """Red when `_replace` of a lowering raises asked_revision, or `ask` is called for it."""
    policy("large", Who.PROJECT_APPROVERS, Who.ADMINS, ranges={"vcpu": (2, None)})
    asked = ask(vcpu=4)
    decide(cast.approver, asked)
    lowered = revisions.lower_and_approve(
        actor=chief, operation=asked, spec_hash=asked.spec_hash, sizes={"vcpu": 1}
    )
    assert lowered.state == State.QUEUED
    assert list(asked.decisions.order_by("pk").values_list("level", "revision")) == [(1, 1), (2, 2)]
