"""The pages of policies and deputies, and what a request's page and the menu say of them."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.accounts.models import Notice, Project, User
from portal.operations.models import Delegation, Demand, Operation, Policy
from portal.operations.policies import services as policies
from portal.operations.policies import trying
from portal.operations.policies.forms import PolicyForm
from portal.operations.policies.rules import DEFAULT_LEVELS, Effect, Level, Rule, Who
from portal.operations.policies.store import rule_of
from tests.conftest import GIB
from tests.operations.policies.conftest import decide, named, stand_in

pytestmark = [pytest.mark.database, pytest.mark.django_db]
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
LIST = "/requests/policies/"
FIELDS = {"name": "new", "effect": "levels", "who_1": "project_approvers", "needed_1": "1", "then": "save"}


@pytest.fixture
def as_chief(client, chief):
    client.force_login(chief, BACKEND)
    return client


def sign_in(client, person):
    client.force_login(person, BACKEND)
    return client


def text(response):
    return " ".join(response.content.decode().split())


def test_an_empty_list_teaches(as_chief):
    page = text(as_chief.get(LIST))
    assert "No policy yet: one approver of the project decides" in page and "Add a policy" in page


def test_the_list_says_in_words_what_each_policy_means(as_chief, cast, policy, ask):
    policy(
        "Large",
        (Who.PROJECT_APPROVERS, 2),
        named(cast.auditor, cast.operator),
        description="For <b>big</b> ones",
        ranges={"memory": (8 * GIB, None), "lease": (86400, 90 * 86400), "cost": (None, 1250)},
        projects=(cast.project.pk,),
        kinds=("test.files",),
        expires_days=14,
    )
    policy("Small", effect=Effect.AUTO, ranges={"vcpu": (None, 1)})
    policy("Never", effect=Effect.REFUSE, refusal="Too large.", enabled=False)
    ask()
    page = text(as_chief.get(LIST))
    for words in (
        "For &lt;b&gt;big&lt;/b&gt; ones",
        "at least 8 GiB",
        "1 day to 90 days",
        "at most 12.50",
        "Make files",
        "2 × Approvers of the project",
        "auditor or operator",
        "expires after 14 days",
        "Approved at once; nobody is asked",
        "Refused: Too large.",
        "When none matches",
        "Of the last 1 request",
    ):
        assert words in page, words
    rows = {row["policy"].name: row["spoken"] for row in as_chief.get(LIST).context["rows"]}
    assert rows == {"Large": 0, "Small": 1, "Never": 0}


def test_the_list_takes_as_many_queries_however_many_there_are(as_chief, cast, policy, ask):
    """Red when the list reads levels, people or requests one by one."""

    def queries():
        with CaptureQueriesContext(connection) as counted:
            as_chief.get(LIST)
        return len(counted)

    policy("one", named(cast.auditor), people=(cast.auditor.pk,))
    ask()
    before = queries()
    for number in range(8):
        policy(f"more {number}", named(cast.auditor), people=(cast.auditor.pk,))
        ask()
    assert queries() == before


def test_what_the_form_shows_is_what_it_stores_again(cast, policy):
    """Red when a unit is converted one way only."""
    kept = policy(
        "full",
        (Who.APPROVERS, 2),
        named(cast.auditor, cast.operator, needed=2),
        description="words",
        kinds=("test.files",),
        items=("Gone from the catalogue",),
        projects=(cast.project.pk,),
        people=(cast.requester.pk, cast.admin.pk),
        ranges={
            "vcpu": (2, 8),
            "memory": (GIB // 2, None),
            "disk": (None, 40 * GIB),
            "machines": (0, None),
            "cost": (1999, 2001),
            "lease": (86400, 7 * 86400),
        },
        expires_days=3,
    )
    shown = PolicyForm(policy=kept)
    typed = {name: shown[name].value() for name in shown.fields}
    again = PolicyForm({key: value for key, value in typed.items() if value is not None}, policy=kept)
    assert again.is_valid(), again.errors
    assert again.rule().demand() == rule_of(kept).demand()


def test_a_policy_is_added_changed_ordered_switched_and_deleted(as_chief, cast):
    people = {"who_2": "people", "people_2": "auditor, operator"}
    typed = FIELDS | people | {"most_vcpu": "4", "least_memory": "1.5"}
    assert as_chief.post(f"{LIST}add/", typed).url == LIST
    assert as_chief.post(f"{LIST}add/", FIELDS | {"name": "second"}).status_code == 302
    first, second = Policy.objects.all()
    rule = rule_of(first)
    assert rule.ranges == {"vcpu": (None, 4), "memory": (3 * GIB // 2, None)}
    assert rule.levels == (Level(), named(cast.auditor, cast.operator))
    url = f"{LIST}{first.pk}/"
    assert as_chief.get(url).status_code == 200
    as_chief.post(url, FIELDS | {"effect": "auto"})
    first.refresh_from_db()
    assert (first.effect, first.levels.count()) == (Effect.AUTO, 0)
    as_chief.post(f"{url}move/", {"to": "down"})
    assert [policy.name for policy in Policy.objects.all()] == ["second", "new"]
    as_chief.post(f"{url}switch/", {"enabled": "0"})
    assert list(Policy.objects.values_list("enabled", flat=True)) == [True, False]
    page = as_chief.post(f"{url}delete/", {"confirm_name": "New"}, follow=True)
    assert "name exactly" in text(page) and Policy.objects.count() == 2
    as_chief.post(f"{url}delete/", {"confirm_name": "new"})
    assert Policy.objects.get() == second


@pytest.mark.parametrize(
    "typed, field, sentence",
    [
        ({"name": ""}, "name", "required"),
        ({"least_vcpu": "5", "most_vcpu": "4"}, "least_vcpu", "least is more than the most"),
        ({"name": "", "least_vcpu": "5", "most_vcpu": "4"}, "least_vcpu", "least is more than the most"),
        ({"least_vcpu": "-1"}, "least_vcpu", "greater than or equal to 0"),
        ({"most_disk": "99999999999999"}, "most_disk", "less than or equal to"),
        ({"most_memory": "much"}, "most_memory", "Enter a number"),
        ({"expires_days": "0"}, "expires_days", "greater than or equal to 1"),
        ({"effect": "refuse"}, "refusal", "why it is refused"),
        ({"who_1": "people"}, "who_1", "name the people"),
        ({"who_1": "people", "people_1": "nobody-here"}, "people_1", "Nobody here is called nobody-here"),
        ({"people": "<script>"}, "people", "Nobody here is called"),
        ({"kinds": ["vm.start"]}, "kinds", "Select a valid choice"),
        ({"name": "taken"}, "name", "Another policy has this name"),
    ],
)
def test_bad_values_are_said_at_their_field_and_nothing_is_stored(as_chief, policy, typed, field, sentence):
    policy("taken")
    page = as_chief.post(f"{LIST}add/", FIELDS | typed)
    assert page.status_code == 422 and Policy.objects.count() == 1
    assert sentence in str(page.context["form"].errors[field])
    assert "<script>" not in text(page).replace("<script src", "").replace("<script type", "")


def test_trying_says_how_many_past_requests_match_and_stores_nothing(as_chief, policy, ask):
    policy("small", effect=Effect.AUTO, ranges={"vcpu": (None, 1)})
    for vcpu in (1, 1, 2, 4):
        ask(vcpu=vcpu)
    page = as_chief.post(f"{LIST}add/", FIELDS | {"most_vcpu": "2", "then": "try"})
    trial = page.context["trial"]
    assert (trial.looked, trial.matched, trial.spoken) == (4, 3, 1)
    assert "match 3 of the last 4 requests" in text(page) and Policy.objects.count() == 1


def test_a_trial_sees_the_count_of_machines_as_it_was(chief, policy, ask):
    """Red when `past_cases` counts the machines of today."""
    for _ in range(4):
        ask()
    trial = trying.try_out(Rule(name="new", ranges={"machines": (None, 1)}))
    assert (trial.looked, trial.matched) == (4, 2)


def test_a_changed_policy_is_tried_in_its_own_place(chief, policy, ask):
    first = policy("first", ranges={"vcpu": (8, None)})
    policy("second")
    ask()
    assert trying.try_out(Rule(name="first"), policy=first).spoken == 1
    assert trying.try_out(Rule(name="third")).spoken == 0


def test_the_page_of_a_request_says_who_decides_and_when_it_expires(client, cast, chief, policy, ask):
    kept = policy("Two of us", Who.PROJECT_APPROVERS, (Who.ADMINS, 2), expires_days=3)
    asked = ask()
    page = text(sign_in(client, cast.requester).get(f"/requests/{asked.pk}/"))
    assert "Demanded by the policy “Two of us”" in page and "Undecided, it expires" in page
    assert "admin, approver, chief" in page
    assert "2 must agree and only 1 could" in page
    decide(cast.approver, asked)
    policies.switch_policy(actor=chief, policy=kept, enabled=False)
    page = text(client.get(f"/requests/{asked.pk}/"))
    assert "was switched off meanwhile" in page and "approver <span" in page


def test_the_page_says_what_a_policy_approved_and_why_people_decide_after_all(client, cast, policy, ask):
    policy("At once", effect=Effect.AUTO)
    sign_in(client, cast.requester)
    assert "“At once” approved this at once" in text(client.get(f"/requests/{ask().pk}/"))
    asked = ask()
    Operation.objects.filter(pk=asked.pk).update(state="awaiting_approval")
    Demand.objects.filter(operation=asked).update(note="There is not enough memory <left>.")
    page = text(client.get(f"/requests/{asked.pk}/"))
    assert "there was no room for it" in page and "memory &lt;left&gt;." in page


def test_the_inbox_holds_what_waits_for_this_person_now(client, cast, chief, policy, ask):
    policy("levels", Who.PROJECT_APPROVERS, Who.ADMINS)
    asked = ask()
    url = f"/requests/{asked.pk}/"
    assert url in text(sign_in(client, cast.approver).get("/requests/inbox/"))
    decide(cast.approver, asked)
    assert url not in text(client.get("/requests/inbox/"))
    assert url in text(sign_in(client, chief).get("/requests/inbox/"))


def test_who_only_stands_in_finds_the_inbox_in_the_menu(client, cast, django_assert_num_queries):
    """Red when OperationsConfig does not add part_in_decisions to what people hold."""
    deputy = User.objects.create(username="deputy")
    sign_in(client, deputy)
    assert 'href="/requests/inbox/"' not in text(client.get("/accounts/profile/"))
    stand_in(cast.approver, deputy)
    assert 'href="/requests/inbox/"' in text(client.get("/accounts/profile/"))


def test_a_deputy_is_named_told_and_ended(client, cast):
    sign_in(client, cast.approver)
    today = timezone.localdate()
    # A day more: midnight may come while this runs.
    typed = {"deputy": "auditor", "first": today.isoformat(), "last": (today + timedelta(days=1)).isoformat()}
    assert client.post("/requests/delegations/", typed).status_code == 302
    assert "auditor" in text(client.get("/requests/delegations/"))
    assert "You stand in for approver" in Notice.objects.get(person=cast.auditor).text
    again = client.post("/requests/delegations/", typed)
    assert again.status_code == 422 and "stands in for you at that time already" in text(again)
    made = Delegation.objects.get()
    page = text(sign_in(client, cast.auditor).get("/requests/delegations/"))
    assert "For whom you stand in" in page and "Only who is away" in page
    client.post(f"/requests/delegations/{made.pk}/end/")
    made.refresh_from_db()
    assert made.ends_at > timezone.now()
    sign_in(client, cast.approver).post(f"/requests/delegations/{made.pk}/end/")
    made.refresh_from_db()
    assert made.ends_at <= timezone.now()


@pytest.mark.parametrize(
    "typed, sentence",
    [
        ({"deputy": "nobody-here"}, "Nobody here is called"),
        ({"deputy": "auditor, operator"}, "exactly one person"),
        ({"deputy": "approver"}, "for yourself"),
        ({"last": "2001-01-01"}, "before the first"),
        ({"last": "soon"}, "Enter a valid date"),
    ],
)
def test_a_deputy_that_cannot_be_is_said_at_its_field(client, cast, typed, sentence):
    sign_in(client, cast.approver)
    today = timezone.localdate().isoformat()
    page = client.post(
        "/requests/delegations/", {"deputy": "auditor", "first": today, "last": today} | typed
    )
    assert page.status_code == 422 and sentence in text(page)
    assert not Delegation.objects.exists()


def test_who_decides_on_nothing_is_told_so(client, cast):
    page = text(sign_in(client, cast.requester).get("/requests/delegations/"))
    assert "You decide on no requests" in page and "Name the deputy" not in page


def test_hostile_names_stay_text(as_chief, cast, policy, ask):
    hostile = "<script>alert(1)</script>{{ 7 }}\"'"
    evil = Project.objects.create(name=hostile[:64])
    policy(hostile, projects=(evil.pk,), items=(hostile,), description=hostile)
    policy("any " + hostile)
    asked = ask()
    pk = Policy.objects.first().pk
    for url in (LIST, f"{LIST}{pk}/", f"/requests/{asked.pk}/"):
        page = as_chief.get(url)
        assert page.status_code == 200 and b"<script>alert" not in page.content


def test_a_new_portal_has_one_plain_policy_and_no_more_once_it_is_deleted(db, tmp_path, settings):
    """Red when bootstrap adds the policy whenever there is none."""
    settings.STATE_DIR = tmp_path
    call_command("bootstrap")
    [made] = Policy.objects.all()
    rule = rule_of(made)
    assert (rule.levels, rule.effect, rule.ranges) == (DEFAULT_LEVELS, Effect.LEVELS, {})
    admin = User.objects.get(username="admin")
    policies.delete_policy(actor=admin, policy=made, confirm_name=made.name)
    call_command("bootstrap")
    assert not Policy.objects.exists()
