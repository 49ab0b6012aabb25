"""Quotas through the service that people's requests take, and the count of what was taken before."""

import importlib
import uuid

import pytest
from django.apps import apps

from portal.core.errors import Denied
from portal.operations import ledger, quotas, scopes, services
from portal.operations.models import Counter, Operation, Reservation
from portal.operations.states import State
from tests import factories
from tests.racing import race
from vms.asking import Prospect, foresee
from vms.models import Status, VirtualMachine
from vms.services import request_machine

pytestmark = pytest.mark.database


@pytest.fixture
def place(cast):
    host = factories.make_host()
    image = factories.make_image()
    factories.make_place(host, image=image)
    return factories.make_catalogue(image, factories.make_network())


def ask(cast, place, name, actor=None):
    return request_machine(
        actor=actor or cast.requester,
        project=cast.project,
        wish=factories.make_wish(place, name=name),
        token=uuid.uuid4(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["project", "person in it", "person"])
@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_racing_requests_get_exactly_the_quota_of_ten(cast, place, chief, scope):
    """A hundred against a project's.

    Red when quota_amounts leaves out this scope, or ledger._with_room the condition on the limit.
    """
    limited = {
        "project": scopes.of_project(cast.project),
        "person in it": scopes.of_member(cast.project, cast.requester),
        "person": scopes.of_person(cast.requester),
    }[scope]
    quotas.set_quota(actor=chief, scope=limited, limits={"machines": 10})

    def one(number):
        return lambda: ask(cast, place, f"example-{number}")

    asking = 100 if scope == "project" else 30
    results = race([one(number) for number in range(asking)])
    granted = [result for result in results if isinstance(result, Operation)]
    refused = [result for result in results if isinstance(result, Denied)]
    assert (len(granted), len(refused)) == (10, asking - 10)
    assert all("not enough machines left" in denied.reason for denied in refused)
    # What was refused took nothing anywhere, of no resource.
    assert set(Counter.objects.filter(resource="machines").values_list("held", flat=True)) == {10}
    assert set(Counter.objects.filter(resource="vcpu").values_list("held", flat=True)) == {10}
    assert Operation.objects.count() == 10 and Reservation.objects.count() == 120


def look(cast, place):
    sizes = {"vcpu": place.flavour.vcpus, "memory": place.flavour.memory, "disk": place.flavour.disk}
    image = place.item.image.sha256
    [seen] = foresee([Prospect(cast.project, cast.requester, sizes, image, cost_month="1.00")])
    return seen


@pytest.mark.django_db
def test_the_outlook_says_what_is_left_where_there_is_a_limit(cast, place, chief):
    """Red when foresee asks only for counters that are there already."""
    quotas.set_quota(actor=chief, scope=scopes.EVERY_PROJECT, limits={"vcpu": 3})
    seen = look(cast, place)
    assert [(quota.title, quota.left) for quota in seen.quotas] == [("the project example", "2")]
    assert not seen.shortages and not Counter.objects.exists()
    quotas.set_quota(actor=chief, scope=scopes.of_person(cast.requester), limits={"vcpu": 0})
    seen = look(cast, place)
    assert "not enough vCPUs left for requester in all projects" in seen.shortages["vcpu"]


def build(operation, cast):
    decided = services.decide(
        actor=cast.approver, operation=operation, spec_hash=operation.spec_hash, approved=True
    )
    running = services.claim(decided.pk, worker="test")
    assert running is not None
    services.move(running, State.SUCCEEDED, actor="test")
    return VirtualMachine.objects.get(built_by=operation)


@pytest.mark.django_db
def test_the_migration_counts_what_was_taken_before_there_were_counters(cast, place):
    """Red when the migration counts a machine in the bin whole, or one that is gone, or anything twice."""
    build(ask(cast, place, "runs"), cast)
    binned = build(ask(cast, place, "binned"), cast)
    ask(cast, place, "waits")
    services.withdraw(actor=cast.requester, operation=ask(cast, place, "withdrawn"))
    gone = build(ask(cast, place, "gone"), cast)
    ledger.give_back(binned.built_by, keep={"disk"})
    VirtualMachine.objects.filter(pk=binned.pk).update(status=Status.BINNED)
    ledger.give_back(gone.built_by)
    gone.delete()
    quota = Counter.objects.exclude(scope__startswith="host").exclude(scope__startswith="pool")
    counted = sorted(quota.values_list("scope", "resource", "held", "used"))
    reserved = Reservation.objects.filter(counter__in=quota, operation=binned.built_by)
    stages = sorted(reserved.values_list("stage"))
    # As it was before: nothing of it was counted, but for one resource of the project.
    kept = quota.filter(scope=scopes.of_project(cast.project), resource="memory")
    Reservation.objects.filter(counter__in=quota.exclude(pk__in=kept)).delete()
    quota.exclude(pk__in=kept).delete()
    migration = importlib.import_module("vms.migrations.0003_count_quotas")
    for _ in range(2):
        migration.count_what_was_taken(apps, None)
    assert sorted(quota.values_list("scope", "resource", "held", "used")) == counted
    assert sorted(reserved.all().values_list("stage")) == stages
    ledger.take_again(binned.built_by)
    assert quota.get(scope=scopes.of_person(cast.requester), resource="machines").used == 2
