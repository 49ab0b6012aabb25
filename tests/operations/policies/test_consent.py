"""Which policy speaks for a request, what it does at once or never, and what changes of it later."""

import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import translation
from django.utils.translation import gettext

from portal.accounts.models import Membership, Project, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.operations import revisions, services
from portal.operations.models import Counter, Demand, Operation
from portal.operations.policies import consent, deciders, demands, judging
from portal.operations.policies import services as policies
from portal.operations.policies.rules import Effect, Level, Rule, Who
from portal.operations.states import State
from tests.conftest import make_spec
from tests.operations.policies.conftest import decide, inbox, named, stand_in, state

pytestmark = [pytest.mark.database, pytest.mark.django_db]


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


# At once, and never


@pytest.mark.parametrize("gone", ["account", "role"])
def test_nothing_is_built_for_somebody_who_may_not_ask_any_more(cast, ask, gone):
    """Red when _carry_on() does not ask for the requester's right: nobody could sign in to what is built."""
    asked = ask()
    if gone == "account":
        User.objects.filter(pk=cast.requester.pk).update(is_active=False)
    else:
        Membership.objects.filter(user=cast.requester).delete()
    deciding = {"actor": cast.approver, "operation": asked, "spec_hash": asked.spec_hash}
    with pytest.raises(Denied, match="may not ask for this any more"):
        services.decide(**deciding, approved=True)
    services.decide(**deciding, approved=False, reason="left")
    asked.refresh_from_db()
    assert asked.state == State.REJECTED


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


def test_the_reason_that_is_kept_is_in_english_whoever_asks(policy, ask, monkeypatch):
    """Red when `_approve_by_policy` places in the language of who asks."""

    def refuse(operation):
        raise Denied(gettext("Enter a valid value."))  # a sentence that Django has in German

    policy("small ones", effect=Effect.AUTO)
    monkeypatch.setattr(consent, "place", refuse)
    with translation.override("de"):
        assert gettext("Enter a valid value.") != "Enter a valid value."
        asked = ask()
    assert asked.demand.note == "Enter a valid value."
    entry = AuditEntry.objects.get(verb="operation.left_to_people")
    assert entry.after == {"reason": "Enter a valid value."}


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
