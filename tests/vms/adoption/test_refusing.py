"""Who adopts and what may be adopted, also when two do it at once or a worker dies."""

import pytest
from django.urls import reverse as url

from networks.models import Port
from portal.accounts.models import User
from portal.core.errors import Denied
from portal.hosts.models import Health, Host
from portal.operations.models import Counter, Operation
from portal.operations.states import State
from portal.operations.transitions import StaleAttempt
from tests import factories
from tests.factories import GIB
from tests.racing import race
from tests.vms.adoption.making import adopt, adopted, finish, left, listed, make, taken
from vms import noted
from vms.adoption import taking
from vms.adoption.services import release_machine
from vms.models import Definition, VirtualMachine

pytestmark = pytest.mark.database


@pytest.mark.django_db
@pytest.mark.parametrize("who", ["requester", "approver", "operator", "auditor", "admin"])
def test_nobody_adopts_or_releases_by_a_role_in_one_project(cast, operator, driver, host, who):
    """Red when adopt_machine or release_machine asks for no role in every project."""
    definition = make(driver, host)
    with pytest.raises(Denied, match="needs a role in every project"):
        adopt(getattr(cast, who), definition, cast)
    machine = adopted(operator, definition, cast)
    with pytest.raises(Denied, match="needs a role in every project"):
        release_machine(actor=getattr(cast, who), machine=machine, confirm_name="old-web")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"name": "Old_Web"}, "name", "small letters"),
        ({"name": "taken"}, "name", "is taken"),
        ({"lease_days": 0}, "lease_days", "1 to 3650 days"),
        ({"lease_days": 3651}, "lease_days", "1 to 3650 days"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_at_its_field(cast, operator, driver, host, values, field, sentence):
    factories.make_machine(cast, "taken", host)
    with pytest.raises(Denied, match=sentence) as denied:
        adopt(operator, make(driver, host), cast, **values)
    assert denied.value.field == field


@pytest.mark.django_db
def test_an_owner_who_could_not_use_it_is_refused(cast, operator, driver, host):
    stranger, definition = User.objects.create(username="stranger"), make(driver, host)
    for owner in (stranger, cast.auditor):
        with pytest.raises(Denied, match="needs a role in example") as denied:
            adopt(operator, definition, cast, owner=owner)
        assert denied.value.field == "owner"


@pytest.mark.django_db
def test_what_is_gone_away_or_adopted_already_is_refused(cast, operator, driver, host):
    """Red when the service trusts the row that the page read."""
    definition = make(driver, host)
    Host.objects.update(observed_health=Health.STALE)
    with pytest.raises(Denied, match="does not answer"):
        adopt(operator, definition, cast)
    Host.objects.update(observed_health=Health.UP)
    adopt(operator, definition, cast)
    with pytest.raises(Denied, match="gone from its host, or somebody else adopted it"):
        adopt(operator, definition, cast, name="again")
    VirtualMachine.objects.all().delete()
    Definition.objects.all().delete()
    with pytest.raises(Denied, match="gone from its host"):
        adopt(operator, definition, cast, name="again")


@pytest.mark.django_db
def test_what_cannot_be_a_machine_is_refused_also_by_who_posts_it(client, cast, operator, strangers):
    client.force_login(operator)
    for definition in Definition.objects.exclude(pk=strangers.pk).filter(
        observed_name__in=["box", "huge", "none", "passing", "copy"]
    ):
        address = url("vms:adopt", args=[definition.pk])
        assert "It cannot be adopted" in client.get(address).content.decode()
        posted = {"name": "x", "project": cast.project.pk, "owner": "requester", "lease_days": 7}
        assert client.post(address, posted).status_code == 422
    assert not Operation.objects.filter(kind="vm.adopt").exists()


@pytest.mark.django_db
@pytest.mark.parametrize("how", ["gone", "transient", "another type"])
def test_what_its_host_tells_last_counts(client, cast, operator, driver, host, how):
    """Red when the step does not read the definition anew, or settle() keeps the machine."""
    definition = make(driver, host, runs=True)
    operation = adopt(operator, definition, cast)
    own = driver._domains[str(definition.uuid)]
    if how == "gone":
        del driver._domains[str(definition.uuid)]
    elif how == "transient":
        own.persistent = ""
    else:
        own.persistent = own.persistent.replace('type="qemu"', 'type="lxc"', 1)
    assert finish(operation).state == State.FAILED
    assert not VirtualMachine.objects.exists() and not Port.objects.exists()
    assert not Counter.objects.exclude(held=0, used=0).exists()
    client.force_login(operator)
    shown = client.get(url("operations:detail", args=[operation.pk])).content.decode()
    sentence = {"gone": "not on its host any more", "transient": "only while it runs", "another type": "lxc"}
    assert sentence[how] in shown


@pytest.mark.django_db
def test_a_worker_that_lost_the_operation_writes_nothing(cast, operator, driver, place):
    """Red when take_in() does not check: what is in use already would be held a second time."""
    machine = adopted(operator, make(driver, place.host, disks=["volume-a"]), cast)
    counted = list(Counter.objects.values_list("scope", "resource", "held", "used").order_by("pk"))

    def taken_over():
        raise StaleAttempt("taken over")

    seen = noted.DefinitionSeen.of(driver.definition(str(machine.uuid)))
    with pytest.raises(StaleAttempt):
        taking.take_in(machine, seen, [], taken_over)
    assert list(Counter.objects.values_list("scope", "resource", "held", "used").order_by("pk")) == counted
    assert machine.disks.count() == 1


@pytest.mark.django_db
def test_a_look_that_is_made_again_takes_nothing_again(cast, operator, driver, place):
    """Red when take_in() counts what is present, or adds rows, at each of its times."""
    Counter.objects.filter(scope=place.pool.scope).update(limit=3 * GIB)
    operation = adopt(operator, make(driver, place.host, disks=["volume-a"]), cast)
    volume = driver._volumes["example-pool", "volume-a"]
    driver._volumes["example-pool", "volume-a"] = type(volume)(
        volume.pool, volume.name, volume.path, volume.capacity_bytes, GIB
    )
    machine = VirtualMachine.objects.get()
    seen = noted.DefinitionSeen.of(driver.definition(str(machine.uuid)))
    for _time in range(2):
        volumes = taking.volumes_of(machine, seen.persistent, driver.list_volumes, ())
        taking.take_in(machine, seen, volumes, lambda: None)
    pool = Counter.objects.get(scope=place.pool.scope)
    assert (pool.limit, pool.held, machine.disks.count()) == (4 * GIB, 2 * GIB, 1)
    assert finish(operation).state == State.SUCCEEDED


@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_of_two_who_adopt_one_domain_at_once_one_gets_it(cast, operator, driver, host):
    """Red when adopt_machine() does not lock the host, or tells an error of the database."""
    definition = make(driver, host, runs=True)
    listed(host, driver)
    names = [f"name-{number}" for number in range(10)]
    results = race([lambda name=name: adopt(operator, definition, cast, name=name) for name in names])
    assert sum(isinstance(result, Operation) for result in results) == 1, results
    assert sum(isinstance(result, Denied) for result in results) == 9, results
    assert VirtualMachine.objects.count() == 1 and taken(host.scope, "held")["machines"] == 1
    host.refresh_from_db()
    assert host.observed_foreign_vcpus == 0 and left(host, "vcpu") == 6


@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_of_two_who_take_one_name_at_once_one_gets_it(cast, operator, driver, host):
    """Red when the constraint's error is not told in a sentence."""
    other = factories.make_host("other", "fake:///other")
    two = [make(driver, host, "one"), make(driver, other, "two")]
    results = race([lambda one=one: adopt(operator, one, cast) for one in two * 5])
    assert sum(isinstance(result, Operation) for result in results) == 1, results
    assert sum(isinstance(result, Denied) for result in results) == 9, results
