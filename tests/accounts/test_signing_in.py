"""Sign-in, passwords, and what people change of themselves."""

import re

import pytest
from django.contrib.auth.hashers import make_password
from django.core import mail

from portal.accounts.models import User
from portal.audit.models import AuditEntry
from tests.accounts.conftest import PASSWORD, verbs

pytestmark = [
    pytest.mark.database,
    pytest.mark.django_db,
    pytest.mark.usefixtures("no_counted_attempts"),
]


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


def test_calling_the_portal_by_other_names_gives_no_further_guesses(client, chief, settings):
    """Red when wrong passwords are counted by the request's Host."""
    settings.ALLOWED_HOSTS = ["*"]
    for number in range(5):
        client.post(
            "/accounts/login/", {"login": "chief", "password": "wrong"}, headers={"host": f"{number}.example"}
        )
    page = client.post("/accounts/login/", {"login": "chief", "password": PASSWORD})
    assert b"Too many failed login attempts" in page.content


def test_who_is_deactivated_does_not_get_in(client, cast, chief):
    person = User.objects.create(username="away", password=make_password(PASSWORD), is_active=False)
    client.post("/accounts/login/", {"login": "away", "password": PASSWORD})
    assert client.get("/accounts/profile/").status_code == 302
    assert not person.last_login


def test_nobody_signs_up_without_an_invitation(client):
    fields = {"username": "x", "email": "x@example.org", "password1": PASSWORD, "password2": PASSWORD}
    for response in (client.get("/accounts/signup/"), client.post("/accounts/signup/", fields)):
        assert b"By invitation only" in response.content
    assert not User.objects.exists()


def passwords_recorded():
    """Return who, whose and how of each new password, with the whole of `after`: nothing else is in it."""
    entries = AuditEntry.objects.filter(verb="person.password", before__isnull=True).order_by("pk")
    return list(entries.values_list("actor_name", "target_name", "after"))


def test_a_lost_password_is_replaced_by_a_mailed_link(client, chief):
    assert client.post("/accounts/password/reset/", {"email": chief.email}).status_code == 302
    link = re.search(r"http://127.0.0.1:8000(/\S+/key/\S+)", mail.outbox[0].body)[1]
    form = client.get(link, follow=True)
    changed = {"password1": "another gate 77", "password2": "another gate 77"}
    done = client.post(form.redirect_chain[-1][0], changed, follow=True)
    assert b"Password changed" in done.content
    assert passwords_recorded() == [("chief", "chief", {"way": "reset by mail"})]
    assert client.post("/accounts/login/", {"login": "chief", "password": "another gate 77"}).url == "/"


@pytest.mark.parametrize("address", ["chief@example.org", "nobody@example.org"])
def test_a_mail_holds_nothing_of_the_host_that_a_stranger_named(client, chief, settings, address):
    """Red when the link, the greeting or the signature of a mail goes by the request's Host."""
    settings.ALLOWED_HOSTS, settings.PUBLIC_URL = ["*"], "https://portal.example.org"
    client.post("/accounts/password/reset/", {"email": address}, headers={"host": "evil.example"})
    (sent,) = mail.outbox
    assert sent.to == [address]
    assert "evil.example" not in sent.body + sent.subject
    assert "Hello from Gatehouse!" in sent.body and "https://portal.example.org/" in sent.body
    link = "https://portal.example.org/accounts/password/reset/key/"
    assert (link in sent.body) == (address == chief.email)
    assert "sign up" not in sent.body


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
    assert passwords_recorded() == [("chief", "chief", {"way": "changed"})]


def test_a_first_password_is_recorded(as_chief, chief):
    """Red when the way is asked for after the new password is in place."""
    chief.set_unusable_password()
    chief.save()
    as_chief.force_login(chief)
    fields = {"password1": "another gate 77", "password2": "another gate 77"}
    assert as_chief.post("/accounts/password/set/", fields).status_code == 302
    chief.refresh_from_db()
    assert chief.check_password("another gate 77")
    assert passwords_recorded() == [("chief", "chief", {"way": "set"})]


def test_a_password_that_cannot_be_recorded_is_not_changed(as_chief, chief, monkeypatch):
    """Red when the change and its entry are not in one transaction."""

    def broken(**_fields):
        raise OSError("disk full")

    monkeypatch.setattr("portal.audit.services.record", broken)
    fields = {"oldpassword": PASSWORD, "password1": "another gate 77", "password2": "another gate 77"}
    with pytest.raises(OSError):
        as_chief.post("/accounts/password/change/", fields)
    chief.refresh_from_db()
    assert chief.check_password(PASSWORD)
