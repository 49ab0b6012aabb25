"""What is adopted becomes a machine that takes what any takes, counted once."""

import uuid
from datetime import timedelta

import pytest
from django.urls import reverse as url
from django.utils import timezone

from networks.models import Port
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.types import DeviceModel, NicSpec, PoolSpec, VolumeSpec
from portal.operations import quotas, scopes
from portal.operations.models import Counter, Operation
from portal.operations.states import State
from tests import factories
from tests.factories import GIB, MIB
from tests.vms.adoption.making import FOLDER, adopt, adopted, finish, left, listed, make, see, taken
from vms import leases
from vms.adoption import found
from vms.adoption.services import release_machine
from vms.models import Disk, Observed, Status, VirtualMachine

pytestmark = pytest.mark.database


@pytest.mark.django_db
def test_an_adopted_domain_is_a_machine_that_takes_what_any_takes(cast, operator, driver, place):
    """Red when a counter of a scope is left out, or the host is changed."""
    network = factories.make_network()
    lan = factories.make_network(
        78, kind="bridge", bridge="br0", address=None, dhcp_start=None, dhcp_end=None
    )
    bridged = {"type": "bridge", "source": {"bridge": "br0"}, "mac": "52:54:00:00:00:03"}
    definition = make(
        driver,
        place.host,
        disks=["volume-a", "volume-b", "/srv/elsewhere.raw"],
        nics=(NicSpec("52:54:00:00:00:01", network.spec.name), NicSpec("52:54:00:00:00:02", "theirs")),
        change={"devices": {"interfaces": [{}, {}, bridged]}},
        memory_now_bytes=GIB // 4,
    )
    before = driver.definition(str(definition.uuid))
    operation = adopt(operator, definition, cast)
    building = VirtualMachine.objects.get()
    assert building.status == Status.BUILDING and operation.subject == building.topic
    assert taken(place.host.scope, "held") == {"vcpu": 2, "memory": GIB, "machines": 1}
    assert finish(operation).state == State.SUCCEEDED
    machine = VirtualMachine.objects.get()
    assert (machine.status, machine.adopted, machine.built_by) == (Status.ACTIVE, True, operation)
    assert (machine.name, machine.domain_name, machine.image) == ("old-web", "Old_Web.1", None)
    assert (machine.vcpus, machine.memory, machine.accelerator) == (2, GIB, "qemu")
    assert machine.memory_now == GIB // 4
    assert machine.devices == "paravirtual" and machine.owner == cast.requester
    assert timedelta(days=29) < machine.lease_until - timezone.now() < timedelta(days=31)
    assert machine.lease_warned is None
    disks = machine.disks.values_list("pool", "volume_name", "target", "capacity").order_by("target")
    assert list(disks) == [
        (place.pk, "volume-a", "vda", 2 * GIB),
        (place.pk, "volume-b", "vdb", 2 * GIB),
    ]
    ports = Port.objects.filter(domain_uuid=machine.uuid).values_list("network", "mac").order_by("mac")
    assert list(ports) == [(network.pk, "52:54:00:00:00:01"), (lan.pk, "52:54:00:00:00:03")]
    whole = {"vcpu": 2, "memory": GIB, "disk": 4 * GIB, "machines": 1}
    mine = [
        scopes.of_project(cast.project),
        scopes.of_member(cast.project, cast.requester),
        scopes.of_person(cast.requester),
    ]
    assert [taken(scope) for scope in mine] == [whole] * 3
    assert taken(place.host.scope) == {"vcpu": 2, "memory": GIB, "machines": 1}
    assert taken(place.pool.scope) == {"disk": 4 * GIB}
    assert driver.definition(str(definition.uuid)) == before
    assert not Counter.objects.exclude(held=0).exists()
    assert AuditEntry.objects.filter(verb="operation.begun", actor_name="everywhere").exists()


@pytest.mark.django_db
def test_devices_of_real_computers_and_what_is_larger_now_or_later_count(cast, operator, driver, host):
    """Red when devices_of() guesses, or what runs larger than it is defined takes the smaller."""
    nics = (NicSpec("52:54:00:00:00:01", "theirs"),)
    definition = make(driver, host, nics=nics, devices=DeviceModel.EMULATED, runs=True)
    driver.redefine(str(definition.uuid), {"memory_bytes": GIB // 2, "vcpus": 3}, definition.observed_digest)
    machine = adopted(operator, see(host, driver, str(definition.uuid)), cast)
    assert (machine.devices, machine.vcpus, machine.memory) == ("emulated", 3, GIB)


@pytest.mark.django_db
def test_a_full_host_adopts_what_runs_on_it_and_counts_it_once(cast, operator, driver, host):
    """Red when shift_foreign() is left out of adopting or of releasing, or managed() leaves it out."""
    definition = make(driver, host, vcpus=8, memory_bytes=16 * GIB, runs=True)
    listed(host, driver)
    assert (left(host, "vcpu"), left(host, "memory")) == (0, 0)
    operation = adopt(operator, definition, cast)
    assert (left(host, "vcpu"), left(host, "memory")) == (0, 0)
    listed(host, driver)
    assert (left(host, "vcpu"), left(host, "memory")) == (0, 0)
    finish(operation)
    listed(host, driver)
    machine = VirtualMachine.objects.get()
    assert (left(host, "vcpu"), left(host, "memory")) == (0, 0)
    host.refresh_from_db()
    assert (host.observed_foreign_vcpus, host.observed_foreign_memory) == (0, 0)
    assert (machine.status, machine.observed_state) == (Status.ACTIVE, Observed.RUNNING)
    release_machine(actor=operator, machine=machine, confirm_name="old-web")
    assert (left(host, "vcpu"), left(host, "memory")) == (0, 0)
    listed(host, driver)
    assert (left(host, "vcpu"), left(host, "memory")) == (0, 0)


@pytest.mark.django_db
def test_what_is_off_needs_room_on_its_host(cast, operator, driver, host):
    """Red when the host's counters are not asked, or a refusal leaves anything behind."""
    full = make(driver, host, "full", vcpus=1, memory_bytes=15 * GIB + 512 * MIB, runs=True)
    listed(host, driver)
    definition = make(driver, host)
    with pytest.raises(Denied, match="not enough memory left for host example-host") as denied:
        adopt(operator, definition, cast)
    assert denied.value.field == "memory"
    assert not VirtualMachine.objects.exists() and not Operation.objects.exists()
    assert not Counter.objects.exclude(held=0, used=0).exists()
    assert adopted(operator, full, cast, name="full").memory == 15 * GIB + 512 * MIB


@pytest.mark.django_db
@pytest.mark.parametrize("scope", ["project", "member", "person"])
@pytest.mark.parametrize("resource", ["vcpu", "memory", "machines"])
def test_a_quota_that_is_too_small_is_named_and_nothing_is_taken(
    cast, operator, chief, driver, host, scope, resource
):
    limited = {
        "project": scopes.of_project(cast.project),
        "member": scopes.of_member(cast.project, cast.requester),
        "person": scopes.of_person(cast.requester),
    }[scope]
    quotas.set_quota(actor=chief, scope=limited, limits={resource: 0})
    definition = make(driver, host, runs=True)
    listed(host, driver)
    before = left(host, "vcpu"), left(host, "memory")
    with pytest.raises(Denied, match="not enough .* left for .*(example|requester)") as denied:
        adopt(operator, definition, cast)
    assert denied.value.field == resource and not VirtualMachine.objects.exists()
    host.refresh_from_db()
    assert (left(host, "vcpu"), left(host, "memory")) == before and host.observed_foreign_vcpus == 2


@pytest.mark.django_db
@pytest.mark.parametrize("where", ["quota", "pool"])
def test_disks_that_do_not_fit_end_it_and_say_where(client, cast, operator, chief, driver, place, where):
    """Red when the disks are not held, or held beside what the rest of it took."""
    definition = make(driver, place.host, disks=["volume-a"])
    if where == "quota":
        quotas.set_quota(actor=chief, scope=scopes.of_project(cast.project), limits={"disk": GIB})
    else:
        Counter.objects.filter(scope=place.pool.scope).update(limit=GIB)
    operation = finish(adopt(operator, definition, cast))
    assert operation.state == State.FAILED
    client.force_login(operator)
    shown = client.get(url("operations:detail", args=[operation.pk])).content.decode()
    assert "There is not enough disk left for" in shown and "make room, and adopt it again" in shown
    assert not VirtualMachine.objects.exists() and not Disk.objects.exists()
    assert not Counter.objects.exclude(held=0, used=0).exists()
    assert [row.definition for row in client.get(url("vms:found")).context["rows"]] == [definition]


@pytest.mark.django_db
def test_what_a_disk_has_written_already_needs_no_room_in_a_full_pool(cast, operator, driver, place):
    """Red when count_present() is left out: whoever has a full pool could adopt nothing in it."""
    definition = make(driver, place.host, disks=["volume-a"])
    Counter.objects.filter(scope=place.pool.scope).update(limit=0)
    volume = driver._volumes["example-pool", "volume-a"]
    driver._volumes["example-pool", "volume-a"] = type(volume)(
        volume.pool, volume.name, volume.path, volume.capacity_bytes, volume.capacity_bytes
    )
    adopted(operator, definition, cast)
    assert taken(place.pool.scope) == {"disk": 2 * GIB}
    assert Counter.objects.get(scope=place.pool.scope).left == 0


@pytest.mark.django_db
def test_disks_that_are_not_the_machines_alone_are_no_rows(cast, operator, driver, place):
    """Red when volumes_of() takes what others start from or stand on: that would be deleted as well."""
    names = [f"volume-{letter}" for letter in "abcdefg"]
    definition = make(driver, place.host, disks=names)
    kinds = [{}, {"readonly": True}, {"shareable": True}, {"device": "cdrom"}]
    driver.redefine(str(definition.uuid), {"devices": {"disks": kinds}}, definition.observed_digest)
    make(driver, place.host, "other", disks=["volume-e"])
    driver.create_volume(VolumeSpec("example-pool", "clone", 2 * GIB, f"{FOLDER}/volume-f"))
    machine = factories.make_machine(cast, "third", place.host)
    Disk.objects.create(machine=machine, pool=place, volume_name="volume-g", capacity=2 * GIB)
    mine = adopted(operator, definition, cast)
    assert list(mine.disks.values_list("volume_name", flat=True)) == ["volume-a"]
    assert [
        drive.target
        for drive, _place in found.own_places(
            see(place.host, driver, str(definition.uuid)).observed_persistent, definition.uuid, [place]
        )
    ] == ["vda", "vdf", "vdg"]


@pytest.mark.django_db
def test_what_a_volume_of_another_pool_stands_on_is_no_row(cast, operator, driver, place):
    """Red when only the pools of its own disks are looked into, or only those that the portal has."""
    driver.ensure_pool(PoolSpec("elsewhere", str(uuid.uuid4()), "/elsewhere"))
    definition = make(driver, place.host, disks=["volume-a", "volume-b"])
    driver.create_volume(VolumeSpec("elsewhere", "web.qcow2", 2 * GIB, f"{FOLDER}/volume-a"))
    mine = adopted(operator, definition, cast)
    assert list(mine.disks.values_list("volume_name", flat=True)) == ["volume-b"]


@pytest.mark.django_db
def test_an_image_of_the_portal_is_no_disk_of_a_machine(cast, operator, driver, place):
    image = place.images.get()
    driver.create_volume(VolumeSpec("example-pool", image.image.volume_name, 2 * GIB))
    machine = adopted(operator, make(driver, place.host, disks=[image.image.volume_name]), cast)
    assert not machine.disks.exists() and taken(place.pool.scope) == {}


@pytest.mark.django_db
def test_a_card_whose_address_another_has_gets_no_port(cast, operator, driver, host):
    network, mac = factories.make_network(), "52:54:00:00:00:01"
    other = Port.objects.create(network=network, host=host, domain_uuid=uuid.uuid4(), mac=mac)
    nics = (NicSpec(mac, network.spec.name),)
    machine = adopted(operator, make(driver, host, nics=nics), cast)
    assert list(Port.objects.all()) == [other] and machine.status == Status.ACTIVE


def test_who_adopts_for_a_few_days_is_not_told_at_once_that_they_are_few(place, driver, operator, cast):
    """Red when nothing is said of `lease_warned`: the warning of two weeks came at the next sweep."""
    machine = adopted(operator, make(driver, place.host, disks=[], runs=False), cast, lease_days=10)
    assert leases.warn() == 0 and machine.lease_warned == 14
