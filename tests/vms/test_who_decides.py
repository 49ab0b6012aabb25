"""Beside the request form: which policy speaks and who would have to agree; and items that are renamed."""

import uuid

import pytest

from portal.operations.models import Operation, Policy
from portal.operations.policies import services as policies
from portal.operations.policies.rules import Effect, Level, Rule, Who
from portal.operations.policies.store import rule_of
from portal.operations.states import State
from tests import factories
from tests.vms.catalogue.test_admin import values_of
from vms.catalogue import services as catalogue
from vms.catalogue.values import item_snapshot
from vms.models import CatalogueItem
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def offered(cast):
    image = factories.make_image(cloud_init=True)
    factories.make_place(factories.make_host(), image=image)
    return factories.make_catalogue(image, factories.make_network())


@pytest.fixture
def look(client, cast, offered):
    """Return the what-if's page for what is typed."""

    def post(**changes):
        typed = {
            "token": str(uuid.uuid4()),
            "project": cast.project.pk,
            "name": "example-vm",
            "flavour": offered.flavour.pk,
            "network": offered.network.pk,
            "lease_days": "30",
            "why": "to try it",
            "user": "root",
        }
        client.force_login(cast.requester, BACKEND)
        page = client.post(f"/machines/catalogue/{offered.item.pk}/what-if/", typed | changes)
        return " ".join(page.content.decode().split())

    return post


def ask(cast, offered, **changes):
    wish = factories.make_wish(offered, **changes)
    return request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())


def test_the_levels_and_their_people_show_while_one_types(cast, chief, look):
    """Red when the what-if leaves the lease out of what the policies are asked."""
    long = Rule(
        name="Long leases",
        ranges={"lease": (31 * 86400, None)},
        levels=(Level(), Level(Who.ADMINS)),
        expires_days=7,
    )
    policies.add_policy(actor=chief, rule=long)
    page = look()
    assert "Approvers of the project" in page and "admin, approver, chief" in page
    page = look(lease_days="60")
    for words in ("by the policy “Long leases”", "Admins of every project", "expires after 7 days undecided"):
        assert words in page
    assert not Operation.objects.exists()


def test_a_refusal_shows_before_anything_is_sent(cast, chief, offered, look):
    never = Rule(name="No", items=(offered.item.name,), effect=Effect.REFUSE, refusal="Ask for Debian.")
    policies.add_policy(actor=chief, rule=never)
    page = look()
    assert "Ask for Debian." in page and "Cannot be sent like this" in page


def test_a_machine_may_be_approved_at_once_and_then_counts(cast, chief, offered, look):
    """Red when owned_by counts nothing, or the kind does not name it."""
    first = Rule(name="First", ranges={"machines": (None, 0), "cost": (None, 250)}, effect=Effect.AUTO)
    policies.add_policy(actor=chief, rule=first)
    assert "the policy “First” approves it at once" in look()
    asked = ask(cast, offered)
    assert asked.state == State.QUEUED and asked.lane and asked.machine.name == "example-vm"
    assert "approves it at once" not in look(name="another-vm")
    assert ask(cast, offered, name="another-vm").state == State.AWAITING_APPROVAL


def test_a_policy_follows_an_item_that_is_renamed(cast, chief, offered):
    """Red when change_item does not call follow_item: the policy would silently speak about nothing."""
    policies.add_policy(actor=chief, rule=Rule(name="One item", items=(offered.item.name,)))
    item = CatalogueItem.objects.select_related("image").get()
    values = values_of(item, name="Renamed")
    catalogue.change_item(actor=chief, item=item, values=values, seen=item_snapshot(item))
    assert rule_of(Policy.objects.get()).items == ("Renamed",)
    asked = ask(cast, offered, item=CatalogueItem.objects.select_related("image").get())
    assert asked.demand.policy_name == "One item"
