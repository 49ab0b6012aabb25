"""The pages of quotas: what they say, what they save, and what they do with nonsense."""

import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from portal.accounts.models import Membership, Project, Role, User
from portal.operations import quotas, scopes, services, usage
from portal.operations.models import Counter
from portal.operations.quota_forms import QuotaForm
from portal.operations.quota_panels import _left
from tests.conftest import GIB, make_spec

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def taken(cast):
    """Three machines of 2 GiB that the requester asked for."""
    for _ in range(3):
        services.request_operation(
            actor=cast.requester,
            project=cast.project,
            spec=make_spec(),
            amounts={
                (scope, resource): amount
                for scope in (
                    scopes.of_project(cast.project),
                    scopes.of_member(cast.project, cast.requester),
                    scopes.of_person(cast.requester),
                )
                for resource, amount in (("machines", 1), ("memory", 2 * GIB))
            },
            token=uuid.uuid4(),
        )


def words(response):
    return " ".join(response.content.decode().split())


def limit(scope, resource):
    return Counter.objects.get(scope=scope, resource=resource).limit


def test_limits_are_typed_in_gib_and_empty_is_none(client, cast, chief):
    client.force_login(chief)
    url = reverse("quotas:project", args=[cast.project.pk])
    typed = {"vcpu": "8", "memory": "2.5", "disk": "", "machines": "0"}
    assert client.post(url, typed).status_code == 302
    scope = scopes.of_project(cast.project)
    assert [limit(scope, name) for name in quotas.RESOURCES] == [8, 5 * GIB // 2, None, 0]
    page = words(client.get(url))
    assert 'value="2.5"' in page or 'value="2.50"' in page
    assert "0 of 8" in page and "8 left" in page and "no limit" in page


@pytest.mark.parametrize("typed", [{"memory": "-1"}, {"vcpu": "x"}, {"disk": "9" * 30}, {"machines": "1.5"}])
def test_what_is_no_limit_is_told_at_its_field_and_saves_nothing(client, cast, chief, typed):
    client.force_login(chief)
    answer = client.post(reverse("quotas:project", args=[cast.project.pk]), typed)
    assert answer.status_code == 422 and "field-error" in words(answer)
    assert not Counter.objects.exists()


def test_a_limit_below_what_is_taken_is_said_plainly(client, cast, chief, taken):
    """Red when _warn() is left out, or a Bar beyond its limit says 'left'."""
    client.force_login(chief)
    answer = client.post(
        reverse("quotas:project", args=[cast.project.pk]), {"memory": "4", "machines": "2"}, follow=True
    )
    page = words(answer)
    assert "6 GiB of 4 GiB memory are taken: 2 GiB over the limit." in page
    assert "nothing new fits until it sinks" in page and "1 over the limit" in page


def test_a_person_follows_the_default_of_the_project_until_told_otherwise(client, cast, chief, taken):
    client.force_login(cast.admin)
    client.post(reverse("quotas:each", args=[cast.project.pk]), {"machines": "5"})
    member = scopes.of_member(cast.project, cast.requester)
    url = reverse("quotas:member", args=[cast.project.pk, "requester"])
    assert limit(member, "machines") == 5
    assert "limits of each person in the project example" in words(client.get(url))
    client.post(url, {"machines": "9"})
    assert limit(member, "machines") == 9
    assert "Follow the default again" in words(client.get(url))
    client.post(url, {"follow": "1"})
    assert limit(member, "machines") == 5


def test_a_projects_admin_sees_the_share_and_why_they_cannot_change_it(client, cast, taken):
    client.force_login(cast.admin)
    url = reverse("quotas:project", args=[cast.project.pk])
    page = words(client.get(url))
    assert "Only an admin of every project sets this limit." in page and 'name="memory"' not in page
    assert reverse("quotas:member", args=[cast.project.pk, "requester"]) in page
    assert client.post(url, {"memory": "4"}).status_code == 422
    assert limit(scopes.of_project(cast.project), "memory") is None


@pytest.mark.parametrize("name", ["nobody-here", "everywhere", "other"])
def test_who_has_no_part_in_a_project_has_no_page_in_it(client, cast, chief, name):
    User.objects.create(username="other")
    client.force_login(chief)
    assert client.get(reverse("quotas:member", args=[cast.project.pk, name])).status_code == 404
    assert client.get(reverse("quotas:default", args=[name])).status_code == 404


def test_the_requesters_first_page_says_what_is_left_by_the_narrowest_limit(client, cast, chief, taken):
    """Red when left_for() looks at the project alone."""
    url = reverse("vms:list")
    client.force_login(cast.requester)
    assert "operations.left" not in words(client.get(url))
    quotas.set_quota(actor=chief, scope=scopes.of_project(cast.project), limits={"machines": 10, "vcpu": 4})
    quotas.set_quota(
        actor=chief, scope=scopes.of_member(cast.project, cast.requester), limits={"machines": 4}
    )
    page = words(client.get(url))
    assert "3 of 4" in page and "1 left · your share" in page and "4 left" in page
    assert "Memory" not in page.partition('data-live="operations.left')[2].partition("</section>")[0]
    client.force_login(cast.auditor)
    assert "operations.left" not in words(client.get(url))


def test_the_piece_of_the_first_page_is_sent_to_those_who_may_ask(cast, chief, taken):
    quotas.set_quota(actor=chief, scope=scopes.of_project(cast.project), limits={"machines": 10})
    key = str(cast.project.pk)
    assert "7 left" in _left(cast.requester, [key, "x"])[key]
    assert _left(cast.auditor, [key]) == {}


@pytest.mark.parametrize("who", ["requester", "admin", "chief", "auditor"])
def test_no_counter_and_no_default_is_never_an_error(client, cast, chief, who):
    """Red when a page asks for a counter with get()."""
    person = chief if who == "chief" else getattr(cast, who)
    client.force_login(person)
    for path in ("/quotas/own/", "/machines/", f"/quotas/projects/{cast.project.pk}/", "/quotas/"):
        assert client.get(path).status_code in {200, 404}
    assert client.get("/quotas/own/").status_code == 200
    assert not Counter.objects.exists()


def test_own_shows_project_share_and_all_together(client, cast, taken):
    client.force_login(cast.requester)
    page = words(client.get(reverse("quotas:own")))
    assert "example" in page and "You in it" in page and "3 not built yet" in page


def test_the_lists_take_as_many_queries_for_many_as_for_one(client, cast, chief):
    client.force_login(chief)
    paths = [reverse("quotas:overview"), reverse("quotas:project", args=[cast.project.pk])]
    seen = []
    for turn in range(2):
        for path in paths:
            with CaptureQueriesContext(connection) as queries:
                assert client.get(path).status_code == 200
            seen.append(len(queries))
        for number in range(10):
            Project.objects.create(name=f"example-{turn}-{number}")
            person = User.objects.create(username=f"person-{turn}-{number}")
            Membership.objects.create(user=person, project=cast.project, role=Role.REQUESTER)
    assert seen[:2] == seen[2:]


def test_the_pages_of_project_and_person_show_their_quota(client, cast, chief, taken):
    client.force_login(chief)
    page = words(client.get(reverse("accounts:project", args=[cast.project.pk])))
    assert reverse("quotas:project", args=[cast.project.pk]) in page and "6 GiB" in page
    page = words(client.get(reverse("accounts:person", args=[cast.requester.pk])))
    assert reverse("quotas:person", args=[cast.requester.pk]) in page and "In all projects together." in page


@pytest.mark.parametrize(
    ("limit", "taken", "tone", "left", "percent"),
    [
        (10, 2, "good", "8 left", 20),
        (10, 8, "warn", "2 left", 80),
        (10, 12, "bad", "2 over the limit", 100),
        (0, 0, "warn", "0 left", 100),
        (None, 7, "off", "no limit", 0),
    ],
)
def test_a_bar_says_in_words_what_it_draws(limit, taken, tone, left, percent):
    bar = usage.Bar(Counter(scope="project:1", resource="machines", limit=limit, held=taken))
    assert (bar.tone, bar.left, bar.percent) == (tone, left, percent)


def test_the_form_shows_what_it_saved():
    limits = {"vcpu": 3, "memory": 5 * GIB // 2, "disk": None, "machines": 0}
    form = QuotaForm(limits=limits)
    typed = {name: form[name].value() for name in quotas.RESOURCES}
    again = QuotaForm({name: "" if value is None else value for name, value in typed.items()}, limits={})
    assert again.is_valid() and again.limits() == limits
