"""Invitations: one link, one person, while it is good."""

import re
from datetime import timedelta

import pytest
from django.core import mail
from django.urls import reverse
from django.utils import timezone

from portal.accounts import services
from portal.accounts.models import Invitation, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from tests.accounts.conftest import PASSWORD, invited, newcomer, token_of, verbs

pytestmark = [
    pytest.mark.database,
    pytest.mark.django_db,
    pytest.mark.usefixtures("no_counted_attempts"),
]


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
    assert "http://127.0.0.1:8000/accounts/invitation/" in mail.outbox[0].body

    def refuse(*args, **kwargs):
        raise ConnectionRefusedError

    monkeypatch.setattr(services, "send_mail", refuse)
    page = as_chief.post("/accounts/people/invite/", fields | {"email": "other@example.org"})
    assert b"could not be sent" in page.content


@pytest.mark.parametrize("place", ["people", "project"])
def test_an_invitation_leads_to_where_people_reach_the_portal(as_chief, cast, settings, place):
    """Red when the link goes by the Host of the admin's browser, on the page or in the mail."""
    settings.ALLOWED_HOSTS, settings.PUBLIC_URL = ["*"], "https://portal.example.org"
    if place == "people":
        path, prefix = "/accounts/people/invite/", ""
    else:
        path, prefix = reverse("accounts:project_invite", args=[cast.project.pk]), "invite-"
    fields = {"email": "new@example.org", "project": cast.project.pk, "role": "requester", "days": 7}
    fields = {prefix + name: value for name, value in fields.items()}
    page = as_chief.post(path, fields, headers={"host": "127.0.0.1:8000"}).content.decode()
    for text in (page, mail.outbox[0].body):
        assert "https://portal.example.org/accounts/invitation/" in text
        assert "127.0.0.1" not in text


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
