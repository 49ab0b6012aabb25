"""A person's own SSH public keys: kept once, listed to nobody else, removed, and in the trail."""

import pytest
from django.urls import reverse

from portal.accounts import public_keys
from portal.core.errors import Denied
from tests.accounts.conftest import verbs
from tests.factories import HOST_KEY

pytestmark = [pytest.mark.database, pytest.mark.django_db]
PAGE = "accounts:ssh_keys"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO3pRSmoEbnApkTfXeqmr+G9jgvKZmVNfC69Nf1c60Rk ada@desk"


@pytest.fixture
def client(client, cast):
    client.force_login(cast.requester)
    return client


def test_a_key_is_added_shown_with_its_fingerprint_and_removed(client, cast):
    client.post(reverse(PAGE), {"name": "", "line": OTHER})
    key = public_keys.of(cast.requester).get()
    assert (key.name, key.line) == ("ada@desk", OTHER)
    assert key.fingerprint in client.get(reverse(PAGE)).content.decode()
    client.post(reverse("accounts:ssh_key_remove", args=[key.pk]))
    assert not public_keys.of(cast.requester).exists()
    assert verbs() == ["public_key.add", "public_key.remove"]


def test_a_key_that_is_there_already_is_told_by_its_name(client, cast):
    """Red when the fingerprint is not looked for: another comment would make another key."""
    public_keys.add(actor=cast.requester, name="laptop", line=OTHER)
    answer = client.post(reverse(PAGE), {"name": "again", "line": OTHER.replace("ada@desk", "elsewhere")})
    assert answer.status_code == 422
    assert "it is called laptop" in answer.content.decode()
    assert public_keys.of(cast.requester).count() == 1


def test_two_people_may_keep_the_same_key(cast):
    for person in (cast.requester, cast.approver):
        assert public_keys.add(actor=person, name="shared", line=OTHER).pk


def test_what_is_no_key_is_refused_at_the_field(client, cast):
    answer = client.post(reverse(PAGE), {"name": "x", "line": "-----BEGIN OPENSSH PRIVATE KEY-----"})
    assert answer.status_code == 422
    assert answer.context["form"].errors["line"] == [
        "This is a private key. Keep it secret and paste the .pub file instead."
    ]
    assert not public_keys.of(cast.requester).exists()


def test_another_persons_key_is_not_there_to_remove(client, cast):
    """Red when the view fetches among everybody's keys, or the service does not ask whose it is."""
    key = public_keys.add(actor=cast.approver, name="theirs", line=OTHER)
    assert client.post(reverse("accounts:ssh_key_remove", args=[key.pk])).status_code == 404
    with pytest.raises(Denied, match="somebody else's"):
        public_keys.remove(actor=cast.requester, key=key)
    assert "theirs" not in client.get(reverse(PAGE)).content.decode()
    assert public_keys.of(cast.approver).exists()


def test_nobody_keeps_more_than_fit(cast, monkeypatch):
    monkeypatch.setattr(public_keys, "MOST", 1)
    public_keys.add(actor=cast.requester, name="one", line=OTHER)
    with pytest.raises(Denied, match="as many as fit"):
        public_keys.add(actor=cast.requester, name="two", line=HOST_KEY)
