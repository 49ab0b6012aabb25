"""People and projects through their pages: who gets where, lists, roles, and who is deactivated."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from portal.accounts import services
from portal.accounts.models import Invitation, Membership, Project, Role, User
from portal.core.errors import Denied
from tests.accounts.conftest import invited, verbs

pytestmark = [
    pytest.mark.database,
    pytest.mark.django_db,
    pytest.mark.usefixtures("no_counted_attempts"),
]


# Who gets where

#: address -> answer for a GET: of the admin of every project, of a project's admin, of everybody else
PAGES = {
    "people": ([], 200, 404, 404),
    "invite": ([], 200, 404, 404),
    "person": ([1], 200, 404, 404),
    "projects": ([], 200, 200, 200),
    "project": ([1], 200, 200, 404),
    "profile": ([], 200, 200, 200),
}
POSTS = {
    "person_active": (302, 404, 404),
    "person_grant": (422, 404, 404),
    "role_revoke": (302, 302, 404),
    "invitation_revoke": (302, 302, 404),
    "project_rename": (422, 422, 404),
    "project_grant": (422, 422, 404),
    "project_invite": (422, 422, 404),
}


def expected(who, answers):
    return answers[{"chief": 0, "admin": 1}.get(who, 2)]


def address(name, cast):
    targets = {
        "person": cast.requester.pk,
        "person_active": cast.requester.pk,
        "person_grant": cast.requester.pk,
        "role_revoke": Membership.objects.get(user=cast.requester).pk,
        "invitation_revoke": Invitation.objects.get().pk,
    }
    if name in targets:
        return reverse(f"accounts:{name}", args=[targets[name]])
    wants_project = name.startswith("project_") or name == "project"
    return reverse(f"accounts:{name}", args=[cast.project.pk] if wants_project else [])


@pytest.mark.parametrize("who", ["chief", *Role.values])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_for_who_may(client, cast, chief, who, page):
    invited(chief, cast.project)
    client.force_login(chief if who == "chief" else getattr(cast, who))
    _args, *answers = PAGES[page]
    assert client.get(address(page, cast)).status_code == expected(who, answers)


@pytest.mark.parametrize("who", ["chief", *Role.values])
@pytest.mark.parametrize("page", POSTS)
def test_a_change_is_done_for_who_may_and_by_post_only(client, cast, chief, who, page):
    invited(chief, cast.project)
    client.force_login(chief if who == "chief" else getattr(cast, who))
    url = address(page, cast)
    assert client.get(url).status_code == 405
    before = len(verbs())
    assert client.post(url, {}).status_code == expected(who, POSTS[page])
    assert who in {"chief", "admin"} or len(verbs()) == before


def test_another_projects_pages_are_not_there(client, cast):
    other = Project.objects.create(name="other")
    client.force_login(cast.admin)
    assert client.get(reverse("accounts:project", args=[other.pk])).status_code == 404
    with pytest.raises(Denied):
        services.grant_role(actor=cast.admin, person=cast.requester, project=other, role="admin")
    with pytest.raises(Denied):
        services.grant_role(actor=cast.admin, person=cast.requester, project=None, role="admin")
    with pytest.raises(Denied):
        invited(cast.admin, other)


# Lists


def test_people_are_searched_sorted_and_paginated(as_chief, cast):
    User.objects.bulk_create([User(username=f"p{n:03}", email=f"p{n:03}@example.org") for n in range(120)])
    page = as_chief.get("/accounts/people/?q=p1&sort=-name")
    names = [person.username for person in page.context["page"]]
    assert names == sorted((f"p1{n:02}" for n in range(20)), reverse=True)
    piece = as_chief.get("/accounts/people/?page=3", headers={"HX-Request": "true"})
    assert b"<html" not in piece.content and piece.context["page"].number == 3
    assert as_chief.get("/accounts/people/?sort=password&page=x").status_code == 200


def test_a_longer_list_of_people_asks_no_more_queries(as_chief, cast, django_assert_num_queries):
    """Red when the memberships are not prefetched."""
    with CaptureQueriesContext(connection) as short:
        as_chief.get("/accounts/people/")
    for n in range(40):
        person = User.objects.create(username=f"p{n}")
        Membership.objects.create(user=person, project=cast.project, role="requester")
    with django_assert_num_queries(len(short)):
        as_chief.get("/accounts/people/")


def test_names_that_a_page_would_misread_stay_text(as_chief, cast):
    hostile = "<script>alert(1)</script>{{ 7 }}\"'"
    User.objects.create(username="evil", first_name=hostile)
    project = services.create_project(actor=User.objects.get(username="chief"), name=hostile)
    for url in ("/accounts/people/", "/accounts/projects/", f"/accounts/projects/{project.pk}/"):
        assert b"<script>alert" not in as_chief.get(url).content


# Roles


def test_nobody_takes_away_their_own_last_admin_role(cast):
    """Red when `admin_elsewhere` does not exclude the role in question."""
    with pytest.raises(Denied, match="your own last admin role"):
        services.revoke_role(actor=cast.admin, membership=cast.admin.memberships.get())
    other = User.objects.create(username="second")
    given = services.grant_role(actor=cast.admin, person=other, project=cast.project, role="admin")
    services.revoke_role(actor=cast.admin, membership=given)
    assert verbs() == ["role.grant", "role.revoke"]


def test_somebody_remains_who_administers_every_project(cast, chief):
    """Red when `_keep_an_admin` counts the deactivated."""
    Membership.objects.create(user=chief, project=cast.project, role="admin")
    gone = User.objects.create(username="gone", is_active=False)
    Membership.objects.create(user=gone, role="admin")
    everywhere = chief.memberships.get(project=None)
    with pytest.raises(Denied, match="Somebody must remain"):
        services.revoke_role(actor=chief, membership=everywhere)
    services.grant_role(actor=chief, person=cast.operator, project=None, role="admin")
    services.revoke_role(actor=chief, membership=everywhere)


def test_a_role_given_twice_is_given_once(as_chief, cast):
    for _ in range(2):
        url = reverse("accounts:project_grant", args=[cast.project.pk])
        assert as_chief.post(url, {"person": "operator", "role": "auditor"}).status_code == 302
    assert cast.operator.memberships.filter(role="auditor").count() == 1
    assert verbs().count("role.grant") == 1


def test_no_project_is_chosen_beforehand_when_a_role_is_given(as_chief, cast):
    url = reverse("accounts:person_grant", args=[cast.operator.pk])
    assert as_chief.post(url, {"role": "admin"}).status_code == 422
    assert as_chief.post(url, {"role": "admin", "project": "every"}).status_code == 302
    assert cast.operator.memberships.filter(role="admin", project=None).exists()


# Deactivation


def test_who_is_deactivated_is_signed_out_for_good(client, cast, chief):
    """Red when `set_active` keeps the session stamp: the session lives again with the account."""
    client.force_login(cast.requester)
    assert client.get("/accounts/profile/").status_code == 200
    services.set_active(actor=chief, person=cast.requester, active=False)
    assert client.get("/accounts/profile/").status_code == 302
    services.set_active(actor=chief, person=cast.requester, active=True)
    assert client.get("/accounts/profile/").status_code == 302
    assert verbs() == ["person.deactivate", "person.activate"]


def test_nobody_deactivates_themselves(as_chief, chief):
    response = as_chief.post(reverse("accounts:person_active", args=[chief.pk]), {"active": "0"}, follow=True)
    assert b"You cannot deactivate yourself." in response.content
    chief.refresh_from_db()
    assert chief.is_active
