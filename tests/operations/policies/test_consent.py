"""What policies do to requests: levels, deputies, at once or never, expiry, and what changes later."""

import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.accounts.models import Membership, Project, Role, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.operations import revisions, services, tasks
from portal.operations.models import Counter, Delegation, Demand, Operation, Policy
from portal.operations.policies import deciders, delegations, demands, judging
from portal.operations.policies import services as policies
from portal.operations.policies.rules import Effect, Level, Rule, Who
from portal.operations.policies.store import rule_of
from portal.operations.states import State
from tests.conftest import GIB, make_spec
from tests.operations.policies.conftest import decide, named

pytestmark = [pytest.mark.database, pytest.mark.django_db]


def state(operation):
    return Operation.objects.get(pk=operation.pk).state


def inbox(person):
    return {operation.pk for operation in deciders.waiting_for(person)}


def stand_in(person, deputy, *, starts=-1, ends=1):
    """Let `deputy` stand in from `starts` to `ends`, in hours from now."""
    now = timezone.now()
    return Delegation.objects.create(
        person=person,
        deputy=deputy,
        starts_at=now + timedelta(hours=starts),
        ends_at=now + timedelta(hours=ends),
    )


# Which policy speaks


def test_without_a_policy_one_approver_of_the_project_decides(cast, ask):
    asked = ask()
    assert (asked.demand.policy_name, asked.demand.level) == ("", 1)
    assert [(level.who, level.needed) for level in asked.demand.levels.all()] == [
        (Who.PROJECT_APPROVERS, 1)
    ]
    assert decide(cast.approver, asked).state == State.QUEUED


def test_the_first_that_matches_speaks(cast, chief, policy, ask):
    """Red when `speaking_order` orders by name or key instead of by position."""
    policy("off", Who.ADMINS, enabled=False)
    policy("small", ranges={"vcpu": (None, 1)})
    large = policy("large", (Who.APPROVERS, 2))
    policy("never reached")
    assert ask().demand.policy_name == "small"
    assert ask(vcpu=2).demand.policy_name == "large"
    policies.move_policy(actor=chief, policy=large, up=True)
    assert ask().demand.policy_name == "large"


def test_conditions_on_project_person_and_kind(cast, policy, ask, another):
    other = Project.objects.create(name="other")
    policy("other project", projects=(other.pk,))
    policy("other person", people=(cast.admin.pk,))
    policy("this kind", kinds=("test.files",))
    assert ask().demand.policy_name == "this kind"
    assert ask(actor=cast.admin).demand.policy_name == "other person"


def test_machines_count_what_a_person_asked_for_and_not_the_request_itself(cast, policy, ask):
    """Red when `machines_of` leaves out what waits."""
    policy("first two", ranges={"machines": (None, 1)})
    assert [ask().demand.policy_name for _ in range(3)] == ["first two", "first two", ""]
    assert [demand.machines for demand in Demand.objects.order_by("pk")] == [0, 1, 2]


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


# At once, and never


def test_what_a_policy_approves_is_queued_at_once_and_says_by_whom(cast, policy, ask):
    policy("small ones", effect=Effect.AUTO, ranges={"vcpu": (None, 1)})
    host = Counter.objects.create(scope="host:1", resource="machines", limit=1)
    asked = ask(takes=[("host:1", "machines", 1)])
    assert (asked.state, state(asked), asked.decisions.count()) == (State.QUEUED, State.QUEUED, 0)
    host.refresh_from_db()
    assert host.held == 1
    entry = AuditEntry.objects.get(verb="operation.queued")
    assert entry.actor_name == "policy small ones"
    assert demands.summary(asked)["alone"]


def test_without_room_people_decide_and_the_reason_is_kept(cast, policy, ask):
    """Red when `_approve_by_policy` has no savepoint, or does not read the state back."""
    policy("small ones", effect=Effect.AUTO, expires_days=3)
    quota = Counter.objects.create(scope=f"project:{cast.project.pk}", resource="machines", limit=5)
    host = Counter.objects.create(scope="host:1", resource="machines", limit=1)
    first, second = (
        ask(amounts={(quota.scope, "machines"): 1}, takes=[("host:1", "machines", 1)]) for _ in range(2)
    )
    assert (first.state, second.state) == (State.QUEUED, State.AWAITING_APPROVAL)
    second = Operation.objects.get(pk=second.pk)
    assert (second.state, second.lane) == (State.AWAITING_APPROVAL, "")
    assert "not enough machines left for host:1" in second.demand.note
    assert AuditEntry.objects.get(verb="operation.left_to_people").target_id == str(second.pk)
    assert second.pk in inbox(cast.approver)
    host.refresh_from_db()
    quota.refresh_from_db()
    assert (host.held, quota.held) == (1, 2)
    Counter.objects.filter(pk=host.pk).update(limit=2)
    assert decide(cast.approver, second).state == State.QUEUED


def test_a_policy_that_approves_does_not_go_beyond_the_quota(cast, policy, ask):
    policy("small ones", effect=Effect.AUTO)
    quota = Counter.objects.create(scope=f"project:{cast.project.pk}", resource="machines", limit=0)
    with pytest.raises(Denied, match="not enough machines"):
        ask(amounts={(quota.scope, "machines"): 1})
    assert not Operation.objects.exists()


def test_a_refusal_leaves_nothing_but_its_sentence(cast, policy, ask):
    policy("no", effect=Effect.REFUSE, refusal="Ask for less than 8 vCPUs.", ranges={"vcpu": (8, None)})
    quota = Counter.objects.create(scope=f"project:{cast.project.pk}", resource="machines", limit=1)
    with pytest.raises(Denied, match="Ask for less than 8 vCPUs."):
        ask(vcpu=8, amounts={(quota.scope, "machines"): 1})
    quota.refresh_from_db()
    assert quota.held == 0 and not Operation.objects.exists() and not Demand.objects.exists()
    assert ask(vcpu=7).state == State.AWAITING_APPROVAL


def test_an_edit_into_what_is_refused_leaves_the_request_as_it_was(cast, policy, ask):
    policy("no", effect=Effect.REFUSE, refusal="Too large.", ranges={"vcpu": (8, None)})
    asked = ask()
    with pytest.raises(Denied, match="Too large"):
        revisions.edit(
            actor=cast.requester, operation=asked, spec_hash=asked.spec_hash, spec=make_spec(vcpu=8)
        )
    kept = Operation.objects.get(pk=asked.pk)
    assert (kept.revision, kept.spec_hash) == (1, asked.spec_hash)
    assert decide(cast.approver, kept).state == State.QUEUED


# Deputies


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


# Expiry


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


# Later changes of the policy


def test_a_policy_changed_later_changes_no_request(cast, chief, policy, ask):
    """Red when the levels are read from the policy instead of from the demand."""
    strict = policy("strict", Who.PROJECT_APPROVERS, Who.ADMINS)
    asked = ask()
    assert demands.summary(asked)["changed"] == ""
    policies.change_policy(actor=chief, policy=strict, rule=Rule(name="loose", effect=Effect.AUTO))
    assert state(decide(cast.approver, asked)) == State.AWAITING_APPROVAL
    assert "strict was changed meanwhile" in demands.summary(asked)["changed"]
    assert decide(chief, asked).state == State.QUEUED


def test_renaming_a_policy_or_its_description_is_no_change(cast, chief, policy, ask):
    strict = policy("strict", Who.ADMINS)
    asked = ask()
    rule = Rule(name="stricter", description="words", levels=(Level(Who.ADMINS),))
    policies.change_policy(actor=chief, policy=strict, rule=rule)
    assert demands.summary(asked)["changed"] == ""
    policies.switch_policy(actor=chief, policy=strict, enabled=False)
    assert "switched off" in demands.summary(asked)["changed"]
    policies.delete_policy(actor=chief, policy=strict, confirm_name="stricter")
    assert "strict was deleted" in demands.summary(asked)["changed"]
    with pytest.raises(Denied, match="waits for others"):
        decide(cast.approver, asked)


# Before asking


def test_the_forecast_says_what_asking_then_does(cast, chief, another, policy, ask):
    for number in range(4):
        another(f"approver{number}")
    policy("no", effect=Effect.REFUSE, refusal="Too large.", ranges={"vcpu": (8, None)})
    policy("small", effect=Effect.AUTO, ranges={"vcpu": (None, 1)})
    policy("rest", (Who.PROJECT_APPROVERS, 2), (Who.ADMINS, 2), expires_days=5)

    def forecast(**sizes):
        return judging.forecast(actor=cast.requester, project=cast.project, spec=make_spec(**sizes))

    assert (forecast(vcpu=8).refusal, forecast(vcpu=8).levels) == ("Too large.", ())
    assert (forecast().policy, forecast().auto) == ("small", True)
    rest = forecast(vcpu=2)
    assert (rest.policy, rest.expires_days) == ("rest", 5)
    first, second = rest.levels
    assert (first.needed, len(first.names), first.count, first.more, first.short) == (2, 3, 7, 4, False)
    assert (second.names, second.count, second.short) == (("chief",), 1, True)
    assert not Operation.objects.exists()


def test_queries_stay_constant(cast, policy, ask):
    """Red when `rule_of` reads rows that were not prefetched, or the inbox asks for each request."""

    def counted(act):
        with CaptureQueriesContext(connection) as queries:
            act()
        return len(queries)

    def judge():
        judging.judge(make_spec(), project=cast.project, person=cast.requester)

    deputy = User.objects.create(username="deputy")
    stand_in(cast.approver, deputy)
    policy("one", named(cast.auditor), people=(cast.auditor.pk,), ranges={"vcpu": (9, None)})
    ask()
    before = counted(judge), counted(lambda: list(deciders.waiting_for(deputy)))
    for number in range(10):
        policy(f"more {number}", named(cast.auditor), people=(cast.auditor.pk,), ranges={"vcpu": (9, None)})
        ask()
    after = counted(judge), counted(lambda: list(deciders.waiting_for(deputy)))
    assert before == after == (8, 3)
    assert len(deciders.waiting_for(deputy)) == 11


# Administration


def test_policies_are_for_admins_of_every_project(cast, policy):
    kept = policy("kept")
    changes = [
        lambda: policies.add_policy(actor=cast.admin, rule=Rule(name="new")),
        lambda: policies.change_policy(actor=cast.admin, policy=kept, rule=Rule(name="new")),
        lambda: policies.switch_policy(actor=cast.admin, policy=kept, enabled=False),
        lambda: policies.move_policy(actor=cast.admin, policy=kept, up=True),
        lambda: policies.delete_policy(actor=cast.admin, policy=kept, confirm_name="kept"),
    ]
    for change in changes:
        with pytest.raises(Denied, match="Only an admin of every project"):
            change()
    assert Policy.objects.get().name == "kept"


def test_what_is_stored_is_what_was_said_and_the_trail_holds_before_and_after(cast, chief, policy):
    full = Rule(
        name="full",
        description="words",
        kinds=("test.files",),
        items=("Debian 12", "Tiny"),
        projects=(cast.project.pk,),
        people=(cast.requester.pk,),
        ranges={"vcpu": (1, None), "cost": (None, 5000), "memory": (GIB, 2 * GIB)},
        levels=(Level(), named(cast.auditor, cast.operator, needed=2)),
        expires_days=9,
    )
    plain = policy("plain")
    changed = policies.change_policy(actor=chief, policy=plain, rule=full)
    assert rule_of(Policy.objects.get(pk=changed.pk)).demand() == full.demand()
    entry = AuditEntry.objects.get(verb="policy.changed")
    assert entry.before["name"] == "plain" and entry.before["ranges"] == {}
    assert entry.after["levels"][1] == {"who": "people", "needed": 2, "people": ["auditor", "operator"]}
    assert entry.after["projects"] == ["example"]
    policies.change_policy(actor=chief, policy=plain, rule=full)
    assert AuditEntry.objects.filter(verb="policy.changed").count() == 1


@pytest.mark.parametrize(
    "values, field",
    [
        ({"name": "taken"}, "name"),
        ({"kinds": ("vm.start",)}, "kinds"),
        ({"projects": (10**9,)}, "projects"),
        ({"people": (10**9,)}, "people"),
        ({"levels": (Level(Who.PEOPLE, 1, (10**9,)),)}, "levels"),
        ({"items": ("x" * 81,)}, "items"),
    ],
)
def test_what_cannot_be_stored_is_said_at_its_field(chief, policy, values, field):
    policy("taken")
    with pytest.raises(Denied) as denied:
        policies.add_policy(actor=chief, rule=Rule(**{"name": "new", **values}))
    assert denied.value.field == field
    assert Policy.objects.count() == 1


def test_deleting_asks_for_the_name(chief, policy):
    kept = policy("kept")
    with pytest.raises(Denied, match="name exactly"):
        policies.delete_policy(actor=chief, policy=kept, confirm_name="Kept")
    policies.delete_policy(actor=chief, policy=kept, confirm_name="kept")
    with pytest.raises(Denied, match="is gone"):
        policies.switch_policy(actor=chief, policy=kept, enabled=False)


def test_policies_follow_an_item_that_is_renamed(chief, policy):
    policy("one", items=("Old", "Other"))
    assert policies.follow_item(actor=chief, before="Old", after="New") == 1
    assert rule_of(Policy.objects.get()).items == ("New", "Other")
    assert AuditEntry.objects.get(verb="policy.changed").after["items"] == ["New", "Other"]


def test_a_doubled_submit_asks_the_policies_once(cast, policy):
    policy("at once", effect=Effect.AUTO)
    token = uuid.uuid4()
    made = [
        services.request_operation(
            actor=cast.requester, project=cast.project, spec=make_spec(), amounts={}, token=token
        )
        for _ in range(2)
    ]
    assert made[0].pk == made[1].pk and Demand.objects.count() == 1
