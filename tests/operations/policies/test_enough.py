"""Levels that only the same people could decide on are told beforehand: nobody decides twice."""

import itertools
import random

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from portal.accounts.models import Membership, Project, Role, User
from portal.core.errors import Denied
from portal.operations.models import Operation, Policy
from portal.operations.policies import deciders, demands, enough, judging, trying
from portal.operations.policies.rules import Effect, Level, Rule, Who
from tests.conftest import make_spec
from tests.operations.policies.conftest import decide, named
from tests.operations.policies.test_pages import FIELDS, LIST, as_chief  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.database, pytest.mark.django_db]
TWICE = "Levels 1 and 2 need 2 different people, since nobody decides twice on one request, and only chief"


def forecast(cast, actor=None):
    return judging.forecast(actor=actor or cast.requester, project=cast.project, spec=make_spec())


def test_two_levels_for_one_person_are_told_and_not_refused(cast, chief, policy, ask):
    """Red when each level is looked at by itself alone."""
    policy("twice", Who.ADMINS, Who.APPROVERS)
    said = forecast(cast)
    assert [level.short for level in said.levels] == [False, False]
    assert said.clash.startswith(TWICE)
    asked = ask()
    assert demands.summary(asked)["clash"] == said.clash
    decide(chief, asked)
    with pytest.raises(Denied):
        decide(chief, asked)
    left = demands.summary(asked)
    assert left["clash"] == "" and left["levels"][1]["could"].short


def test_a_second_person_ends_it(cast, chief, another, policy):
    policy("twice", Who.ADMINS, Who.APPROVERS)
    another("far", project=None)
    assert forecast(cast).clash == ""


def test_the_requester_is_none_of_them(cast, chief, another, policy):
    """Red when the requester is counted among those who could decide."""
    policy("twice", Who.ADMINS, Who.APPROVERS)
    far = another("far", project=None)
    assert forecast(cast, actor=far).clash.startswith(TWICE)


def test_what_others_agreed_to_counts_no_more(cast, chief, another, policy, ask):
    """Red when what is left of a level is taken for the whole of it."""
    one, two, three = (another(name) for name in ("one", "two", "three"))
    policy("many", named(one, two, three, needed=2), named(two, three))
    asked = ask()
    decide(one, asked)
    assert demands.summary(asked)["clash"] == ""
    two.is_active = False
    two.save()
    assert "only three could decide" in demands.summary(asked)["clash"]


def test_nothing_is_told_where_nobody_is_asked(cast, chief, policy):
    policy("auto", effect=Effect.AUTO)
    assert forecast(cast).clash == ""


def test_one_level_that_is_short_is_told_by_the_level(cast, policy):
    policy("one", (Who.PROJECT_APPROVERS, 9))
    said = forecast(cast)
    assert said.levels[0].short and said.clash == ""


def possible(slots, people):
    """Whether each slot can get a person of its own, by trying all ways."""
    if not slots:
        return True
    return any(possible(slots[1:], people - {person}) for person in slots[0] & people)


@pytest.mark.parametrize("seed", range(60))
def test_it_is_told_exactly_when_no_way_is_left(monkeypatch, seed):
    """Red when one group of levels is left out, or the sum of what they need."""
    chance = random.Random(seed)
    sets = {number: set(chance.sample(range(5), chance.randint(1, 4))) for number in (1, 2, 3)}
    levels = {number: Level(Who.PEOPLE, chance.randint(1, 2), tuple(sets[number])) for number in sets}
    monkeypatch.setattr(
        deciders, "by_project", lambda level, _projects: {None: {key: f"p{key}" for key in level.people}}
    )
    slots = list(itertools.chain.from_iterable([sets[n]] * levels[n].needed for n in sets))
    found = enough.Deciders(levels, []).too_few(None, ())
    assert (found is None) is possible(slots, set(range(5)))


@pytest.mark.parametrize("who", [who for who in Who if who != Who.PEOPLE])
def test_those_of_a_project_are_who_could_decide(cast, chief, another, who):
    """Red when by_project finds others than can_decide."""
    other = Project.objects.create(name="other")
    another("far", project=None)
    another("elsewhere", role=Role.ADMIN, project=other)
    gone = another("gone")
    gone.is_active = False
    gone.save()
    for project in (cast.project, other):
        found = deciders.by_project(Level(who), [cast.project.pk, other.pk])
        names = {*found.get(None, {}).values(), *found.get(project.pk, {}).values()}
        assert names == {person.username for person in deciders.can_decide(Level(who), project, ())}


def test_the_page_of_a_policy_says_whom_it_would_let_wait(as_chief, chief, cast, another, ask):  # noqa: F811
    """Red when try_out() does not look at who asked, or at a project that nobody asked for yet."""
    second = another("second", project=None)
    ask()
    ask(actor=cast.admin)
    rule = {"who_1": Who.PROJECT_APPROVERS, "needed_1": 3, "who_2": Who.APPROVERS, "needed_2": 1}
    page = as_chief.post(f"{LIST}add/", FIELDS | rule | {"then": "try"})
    # There are chief, second, admin and approver; nobody of them approves their own.
    assert [found[:2] for found in page.context["trial"].stuck] == [("example", "admin")]
    text = page.content.decode()
    assert "asked by admin:" in text and "Levels 1 and 2 need 4 different people" in text
    Project.objects.create(name="new")
    page = as_chief.post(f"{LIST}add/", FIELDS | rule | {"then": "try"})
    assert ("new", "") in [found[:2] for found in page.context["trial"].stuck]
    assert "only these could decide: chief, second" in page.content.decode()
    second.delete()
    page = as_chief.post(f"{LIST}add/", FIELDS | rule | {"then": "save"})
    assert page.status_code == 302 and Policy.objects.exists()


def test_a_trial_takes_the_same_queries_for_many(chief, cast, ask):
    """Red when each project or each person is asked for by itself."""
    rule = Rule(name="twice", levels=(Level(Who.ADMINS), Level(Who.PROJECT_APPROVERS)))

    def queries():
        with CaptureQueriesContext(connection) as made:
            trying.try_out(rule)
        return len(made)

    ask()
    before = queries()
    for number in range(5):
        project = Project.objects.create(name=f"more {number}")
        person = User.objects.create(username=f"more{number}")
        for where in (project, cast.project):
            Membership.objects.create(user=person, role=Role.REQUESTER, project=where)
        ask(actor=person)
    assert Operation.objects.count() == 6
    assert queries() == before


def test_the_what_if_and_the_request_say_it_in_words(cast, chief, policy, ask, client):
    policy("twice", Who.ADMINS, Who.APPROVERS)
    client.force_login(cast.requester)
    page = client.get(reverse("operations:detail", args=[ask().pk])).content.decode()
    assert TWICE in page and "it can never be approved" in page
