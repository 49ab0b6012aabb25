"""The keys of one's profile in the request form: ticked, frozen as text, and told from typed ones."""

import pytest
from django.urls import reverse

from portal.accounts import public_keys
from portal.operations.models import Operation
from tests.factories import HOST_KEY
from tests.vms.test_asking import client, offered, typed  # noqa: F401

pytestmark = [pytest.mark.database, pytest.mark.django_db]
DESK = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO3pRSmoEbnApkTfXeqmr+G9jgvKZmVNfC69Nf1c60Rk ada@desk"
LAPTOP = f"{HOST_KEY} ada@laptop"


@pytest.fixture
def keys(cast):
    return [public_keys.add(actor=cast.requester, name="", line=line) for line in (DESK, LAPTOP)]


def asked(client, cast, offered, **changes):  # noqa: F811
    """Send the form and return what was frozen of its keys."""
    answer = client.post(reverse("vms:ask", args=[offered.item.pk]), typed(cast, offered, **changes))
    assert answer.status_code == 302, answer.context["form"].errors
    return Operation.objects.latest("pk").frozen["pinned"]["cloud"]["ssh_keys"]


def test_ticked_keys_are_frozen_as_text_before_typed_ones(client, cast, offered, keys):  # noqa: F811
    """Red when `wish` takes the typed text alone."""
    assert asked(client, cast, offered, own_keys=[keys[0].pk], ssh_keys=LAPTOP) == [DESK, LAPTOP]


def test_a_key_both_ticked_and_typed_is_there_once(client, cast, offered, keys):  # noqa: F811
    typed_too = DESK.replace("ada@desk", "typed")
    assert asked(client, cast, offered, own_keys=[keys[0].pk], ssh_keys=typed_too) == [DESK]


def test_all_are_ticked_at_first_and_then_those_of_the_last_time(client, cast, offered, keys):  # noqa: F811
    """Red when `request_machine` does not remember what was chosen."""
    page = reverse("vms:ask", args=[offered.item.pk])
    assert sorted(client.get(page).context["form"]["own_keys"].value()) == [key.pk for key in keys]
    asked(client, cast, offered, own_keys=[keys[1].pk])
    assert client.get(page).context["form"]["own_keys"].value() == [keys[1].pk]


def test_another_persons_key_cannot_be_ticked(client, cast, offered, keys):  # noqa: F811
    theirs = public_keys.add(actor=cast.approver, name="theirs", line=DESK)
    values = typed(cast, offered, own_keys=[theirs.pk])
    answer = client.post(reverse("vms:ask", args=[offered.item.pk]), values)
    assert answer.status_code == 422
    assert not Operation.objects.exists()


def test_a_copy_ticks_the_keys_of_the_request_and_types_the_others(client, cast, offered, keys):  # noqa: F811
    """Red when `_offer_keys` leaves a kept key in the text: removing its tick would do nothing."""
    asked(client, cast, offered, own_keys=[keys[0].pk], ssh_keys="ssh-ed25519 " + "B" * 40)
    form = client.get(reverse("vms:copy", args=[Operation.objects.get().pk])).context["form"]
    assert form["own_keys"].value() == [keys[0].pk]
    assert form["ssh_keys"].value() == "ssh-ed25519 " + "B" * 40


def test_a_request_keeps_a_key_that_was_removed_from_the_profile(client, cast, offered, keys):  # noqa: F811
    asked(client, cast, offered, own_keys=[keys[0].pk])
    public_keys.remove(actor=cast.requester, key=keys[0])
    operation = Operation.objects.get()
    assert operation.frozen["pinned"]["cloud"]["ssh_keys"] == [DESK]
    form = client.get(reverse("vms:edit", args=[operation.pk])).context["form"]
    assert form["ssh_keys"].value() == DESK
