"""People, projects, invitations, the profile and sign-in, through their pages and services."""

import re
from datetime import timedelta
from functools import cache as cache_once

import pytest
from django.contrib.auth.hashers import make_password
from django.core import mail
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from portal.accounts import services
from portal.accounts.models import Invitation, Membership, Project, Role, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied

pytestmark = [pytest.mark.database, pytest.mark.django_db]

PASSWORD = "a gate with 2 towers"


@cache_once
def hashed():
    """Hash once: it is slow on purpose."""
    return make_password(PASSWORD)


@pytest.fixture(autouse=True)
def no_counted_attempts():
    cache.clear()


@pytest.fixture
def chief(cast):
    """Who administers every project."""
    person = User.objects.create(username="chief", email="chief@example.org", password=hashed())
    Membership.objects.create(user=person, role=Role.ADMIN)
    return person


@pytest.fixture
def as_chief(client, chief):
    client.force_login(chief)
    return client


def verbs():
    return list(AuditEntry.objects.order_by("pk").values_list("verb", flat=True))


def invited(actor, project, **more):
    return services.invite(actor=actor, project=project, role="requester", link_for="/i/{}".format, **more)


def token_of(made):
    return made.link.removeprefix("/i/")


def newcomer(token, name="newcomer", **more):
    return services.accept_invitation(
        token=token,
        username=name,
        email=f"{name}@example.org",
        first_name="",
        last_name="",
        password=PASSWORD,
        **more,
    )


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


# Invitations


def test_a_link_makes_one_person_with_its_role(client, cast):
    client.force_login(cast.admin)
    url = reverse("accounts:project_invite", args=[cast.project.pk])
    page = client.post(url, {"invite-role": "operator", "invite-days": 3, "invite-email": ""})
    link = re.search(r"/accounts/invitation/[^\"]+/", page.content.decode())[0]
    client.logout()
    fields = {"username": "new", "email": "new@example.org", "password": PASSWORD}
    assert client.get(link).status_code == 200
    assert client.post(link, fields).url == "/"
    new = User.objects.get(username="new")
    assert list(new.memberships.values_list("role", "project")) == [("operator", cast.project.pk)]
    assert client.get("/accounts/profile/").status_code == 200
    client.logout()
    assert client.get(link).status_code == 410
    assert verbs() == ["invitation.create", "invitation.accept"]


def test_the_secret_of_a_link_is_not_kept(cast):
    made = invited(cast.admin, cast.project)
    stored = Invitation.objects.filter(pk=made.invitation.pk).values().get()
    assert token_of(made) not in str(stored) and token_of(made) not in str(AuditEntry.objects.values())


def test_a_link_works_once_even_for_two_at_once(cast, monkeypatch):
    """Red when the UPDATE does not ask again whether the invitation is open."""
    token = token_of(invited(cast.admin, cast.project))
    seen = services.open_invitation(token)
    newcomer(token)
    monkeypatch.setattr(services, "open_invitation", lambda token: seen)
    with pytest.raises(Denied, match="was used"):
        newcomer(token, "late")
    assert not User.objects.filter(username="late").exists()


def test_a_link_ends_with_its_time_by_revocation_and_with_the_inviters_right(cast):
    """Red when `open_invitation` does not ask `may_administer` of the inviter."""
    late, taken_back, orphan = (invited(cast.admin, cast.project) for _ in range(3))
    Invitation.objects.filter(pk=late.invitation.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    services.revoke_invitation(actor=cast.admin, invitation=taken_back.invitation)
    services.revoke_invitation(actor=cast.admin, invitation=taken_back.invitation)
    assert verbs().count("invitation.revoke") == 1
    cast.admin.memberships.all().delete()
    for made in (late, taken_back, orphan):
        with pytest.raises(Denied):
            newcomer(token_of(made))


def test_an_invitation_is_mailed_and_says_when_it_was_not(as_chief, cast, monkeypatch):
    fields = {"email": "new@example.org", "project": cast.project.pk, "role": "requester", "days": 7}
    page = as_chief.post("/accounts/people/invite/", fields)
    assert "on its way to new@example.org" in page.content.decode()
    assert "http://testserver/accounts/invitation/" in mail.outbox[0].body

    def refuse(*args, **kwargs):
        raise ConnectionRefusedError

    monkeypatch.setattr(services, "send_mail", refuse)
    page = as_chief.post("/accounts/people/invite/", fields | {"email": "other@example.org"})
    assert b"could not be sent" in page.content


def test_who_is_here_already_is_not_invited_again(as_chief, cast, chief):
    fields = {"email": "CHIEF@example.org", "project": cast.project.pk, "role": "requester", "days": 7}
    page = as_chief.post("/accounts/people/invite/", fields)
    assert page.status_code == 422 and b"is here already" in page.content


def test_a_name_or_address_that_is_taken_and_a_weak_password_are_said(client, cast, chief):
    link = reverse("accounts:accept", args=[token_of(invited(chief, cast.project))])
    page = client.post(link, {"username": "chief", "email": "x@example.org", "password": PASSWORD})
    assert page.status_code == 422 and b"This user name is taken." in page.content
    page = client.post(link, {"username": "fresh", "email": "Chief@example.org", "password": PASSWORD})
    assert page.status_code == 422 and b"Another account" in page.content
    page = client.post(link, {"username": "fresh", "email": "x@example.org", "password": "password"})
    assert page.status_code == 422 and b'id="id_password_error"' in page.content
    assert Invitation.objects.open().exists()


# The profile


def test_the_profile_changes_names_and_preferences(client, cast):
    client.force_login(cast.auditor)
    fields = {"first_name": "Ann", "last_name": "", "email": "", "theme": "dark", "time_zone": "Asia/Tokyo"}
    assert client.post("/accounts/profile/", fields).status_code == 302
    cast.auditor.refresh_from_db()
    assert (cast.auditor.first_name, cast.auditor.theme) == ("Ann", "dark")
    assert b'data-theme="dark"' in client.get("/accounts/profile/").content
    assert client.post("/accounts/profile/", fields | {"time_zone": "../x"}).status_code == 422
    assert verbs() == ["person.profile"]


def test_another_mail_address_asks_for_the_password(as_chief, chief):
    """Red when `moved` is always False: a borrowed browser could take the account over."""
    fields = {
        "first_name": "",
        "last_name": "",
        "email": "new@example.org",
        "theme": "system",
        "time_zone": "",
    }
    assert as_chief.post("/accounts/profile/", fields | {"password": "wrong"}).status_code == 422
    chief.refresh_from_db()
    assert chief.email == "chief@example.org"
    assert as_chief.post("/accounts/profile/", fields | {"password": PASSWORD}).status_code == 302
    chief.refresh_from_db()
    assert chief.email == "new@example.org"


def test_the_theme_switch_is_remembered(as_chief, chief):
    assert as_chief.post("/accounts/theme/", {"theme": "light"}).status_code == 204
    assert as_chief.post("/accounts/theme/", {"theme": "<pink>"}).status_code == 422
    chief.refresh_from_db()
    assert chief.theme == "light"


# Sign-in


@pytest.mark.parametrize("name", ["chief", "chief@example.org"])
def test_one_signs_in_by_user_name_or_mail_address(client, chief, name):
    assert client.post("/accounts/login/", {"login": name, "password": PASSWORD}).url == "/"
    assert client.get("/accounts/logout/").status_code == 200
    assert client.get("/accounts/profile/").status_code == 200, "a GET signed out"
    assert client.post("/accounts/logout/").status_code == 302
    assert client.get("/accounts/profile/").status_code == 302


def test_guessing_passwords_is_slowed_down(client, chief):
    """Red when ACCOUNT_RATE_LIMITS names no limit for login_failed."""
    for _ in range(5):
        assert client.post("/accounts/login/", {"login": "chief", "password": "wrong"}).status_code == 200
    page = client.post("/accounts/login/", {"login": "chief", "password": PASSWORD})
    assert b"Too many failed login attempts" in page.content
    assert client.get("/accounts/profile/").status_code == 302


def test_who_is_deactivated_does_not_get_in(client, cast, chief):
    person = User.objects.create(username="away", password=hashed(), is_active=False)
    client.post("/accounts/login/", {"login": "away", "password": PASSWORD})
    assert client.get("/accounts/profile/").status_code == 302
    assert not person.last_login


def test_nobody_signs_up_without_an_invitation(client):
    fields = {"username": "x", "email": "x@example.org", "password1": PASSWORD, "password2": PASSWORD}
    for response in (client.get("/accounts/signup/"), client.post("/accounts/signup/", fields)):
        assert b"By invitation only" in response.content
    assert not User.objects.exists()


def test_a_lost_password_is_replaced_by_a_mailed_link(client, chief):
    assert client.post("/accounts/password/reset/", {"email": chief.email}).status_code == 302
    link = re.search(r"http://testserver(/\S+)", mail.outbox[0].body)[1]
    form = client.get(link, follow=True)
    changed = {"password1": "another gate 77", "password2": "another gate 77"}
    done = client.post(form.redirect_chain[-1][0], changed, follow=True)
    assert b"Password changed" in done.content
    assert client.post("/accounts/login/", {"login": "chief", "password": "another gate 77"}).url == "/"


def test_a_reset_tells_no_stranger_who_has_an_account(client, chief):
    known = client.post("/accounts/password/reset/", {"email": chief.email}, follow=True)
    unknown = client.post("/accounts/password/reset/", {"email": "no@example.org"}, follow=True)
    assert b"If the address belongs" in known.content
    assert b"If the address belongs" in unknown.content


def test_the_password_is_changed_by_who_knows_it(as_chief, chief):
    fields = {"oldpassword": PASSWORD, "password1": "another gate 77", "password2": "another gate 77"}
    assert as_chief.get("/accounts/password/change/").status_code == 200
    assert as_chief.post("/accounts/password/change/", fields | {"oldpassword": "no"}).status_code == 200
    assert as_chief.post("/accounts/password/change/", fields).status_code == 302
    chief.refresh_from_db()
    assert chief.check_password("another gate 77")
