"""Machines that somebody made elsewhere: found, adopted by who may, counted once, released."""

import importlib
import uuid
from datetime import timedelta

import pytest
from django.apps import apps
from django.db import transaction
from django.urls import reverse as url
from django.utils import timezone

from networks.models import Port
from portal.accounts.models import Membership, Role, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.errors import InvalidSpec
from portal.drivers.fake import FakeDriver
from portal.drivers.types import (
    Accelerator,
    DeviceModel,
    DiskSpec,
    DomainDefinition,
    DomainSpec,
    DomainState,
    NicSpec,
    PoolSpec,
    SeedSpec,
    VolumeInfo,
    VolumeSpec,
)
from portal.hosts.limits import set_limits
from portal.hosts.models import Health, Host
from portal.hosts.observations import Seen, write
from portal.live.consumer import _render as live_render
from portal.operations import quotas, runner, scopes
from portal.operations.models import Counter, Operation
from portal.operations.services import claim
from portal.operations.states import State
from portal.operations.transitions import StaleAttempt
from tests import factories
from tests.factories import GIB, MIB
from tests.racing import race
from tests.vms.sharers import strange_pool, use_too
from vms import noted, power
from vms.adoption import found, taking
from vms.adoption.forms import proposed_name
from vms.adoption.services import adopt_machine, lost_with, release_machine
from vms.changes import disks
from vms.models import Definition, Disk, Observed, Status, VirtualMachine

pytestmark = pytest.mark.database
FOLDER = "/example"


@pytest.fixture
def operator(cast):
    """Somebody who operates the whole estate."""
    person = User.objects.create(username="everywhere")
    Membership.objects.create(user=person, role=Role.OPERATOR)
    return person


@pytest.fixture
def driver(monkeypatch):
    """A host's driver, which the steps call."""
    made = FakeDriver()
    made.ensure_pool(PoolSpec("example-pool", str(uuid.uuid4()), FOLDER))
    monkeypatch.setattr("portal.hosts.steps.call", lambda _h, verb, *a, timeout: getattr(made, verb)(*a))
    return made


@pytest.fixture
def place(cast, driver):
    """A pool on a host of 8 processors, 16 GiB and 3 machines, beyond which nothing is promised."""
    place = factories.make_place(factories.make_host(cpu_overcommit=1, memory_reserve=0), path=FOLDER)
    set_limits(place.host)
    Counter.objects.create(scope=place.host.scope, resource="machines", limit=3)
    Counter.objects.create(scope=place.pool.scope, resource="disk", limit=9 * GIB, title="pool example-pool")
    return place


@pytest.fixture
def host(place):
    return place.host


def make(driver, host, name="Old_Web.1", *, disks=(), runs=False, change=None, **values):
    """Make a domain by other means than the portal, and let the watcher see it; return what was seen."""
    for disk in disks:
        if disk.startswith("volume-"):
            driver.create_volume(VolumeSpec("example-pool", disk, 2 * GIB))
    spec = DomainSpec(
        name=name,
        uuid=str(uuid.uuid4()),
        **{"vcpus": 2, "memory_bytes": GIB, "accelerator": Accelerator.EMULATION, **values},
        disks=tuple(
            DiskSpec(disk if disk.startswith("/") else f"{FOLDER}/{disk}", f"vd{letter}")
            for disk, letter in zip(disks, "abcdefgh", strict=False)
        ),
    )
    driver.define(spec)
    if change:
        driver.redefine(spec.uuid, change, driver.definition(spec.uuid).digest)
    if runs:
        driver._domains[spec.uuid].state = DomainState.RUNNING
        driver._domains[spec.uuid].running = driver._domains[spec.uuid].persistent
    return see(host, driver, spec.uuid)


def see(host, driver, name):
    noted.note(host.pk, name, driver.definition(name), timezone.now())
    return Definition.objects.get(host=host, uuid=name)


def listed(host, driver):
    """Let the watcher see all domains of the host, as in each of its lists."""
    told = Seen()
    told.listed, told.listed_began = driver.list_domains(), timezone.now()
    with transaction.atomic():
        write(Host.objects.get(pk=host.pk), told)


def adopt(actor, definition, cast, **values):
    wanted = {"project": cast.project, "owner": cast.requester, "name": "old-web", "lease_days": 30}
    return adopt_machine(actor=actor, definition=definition, **wanted | values)


def finish(operation):
    runner.carry_on(claim(operation.pk, worker="worker"), worker="worker")
    operation.refresh_from_db()
    return operation


def adopted(actor, definition, cast, **values):
    done = finish(adopt(actor, definition, cast, **values))
    assert done.state == State.SUCCEEDED, list(done.steps.values_list("error_raw", flat=True))
    return VirtualMachine.objects.get(built_by=done)


def taken(scope, stage="used"):
    rows = Counter.objects.filter(scope=scope).values_list("resource", stage)
    return {resource: amount for resource, amount in rows if amount}


def left(host, resource):
    return Counter.objects.get(scope=host.scope, resource=resource).left


# Found


@pytest.fixture
def strangers(place, driver, cast):
    """One domain of every kind that there is on a host."""
    host = place.host
    machine = factories.make_machine(cast, "mine", host)
    odd = {
        "mine": (machine.uuid, "<memory>1</memory><vcpu>1</vcpu>", "qemu"),
        "Domain-0": (uuid.UUID(int=0), "<memory>1</memory><vcpu>1</vcpu>", "qemu"),
        "box": (uuid.uuid4(), "<memory>1</memory><vcpu>1</vcpu>", "lxc"),
        "huge": (uuid.uuid4(), f"<memory>{1 << 62}</memory><vcpu>1</vcpu>", "kvm"),
        "none": (uuid.uuid4(), "<memory>much</memory><vcpu>1</vcpu>", "kvm"),
    }
    for name, (own, sizes, kind) in odd.items():
        text = f"<domain type='{kind}'><name>{name}</name>{sizes}</domain>"
        noted.note(host.pk, str(own), DomainDefinition(text), timezone.now())
    for name in ("gatehouse-probe-1-abcdef01", "passing"):
        text = f"<domain type='qemu'><name>{name}</name><memory>1024</memory><vcpu>1</vcpu></domain>"
        noted.note(host.pk, str(uuid.uuid4()), DomainDefinition("", text), timezone.now())
    other = factories.make_host("other", "fake:///other")
    copy = "<domain type='qemu'><name>copy</name><memory>1024</memory><vcpu>1</vcpu></domain>"
    noted.note(other.pk, str(machine.uuid), DomainDefinition(copy), timezone.now())
    return make(driver, host, disks=["volume-a", "/srv/<b>.raw"], runs=True)


@pytest.mark.django_db
def test_every_domain_that_is_no_machine_is_listed_and_says_why_it_cannot_be_adopted(
    client, operator, strangers
):
    """Red when strangers() lists a machine, Xen's host or a proof's guest, or a reason is left out."""
    client.force_login(operator)
    page = client.get(url("vms:found"))
    denied = {row.definition.observed_name: row.denied for row in page.context["rows"]}
    assert denied.pop("Old_Web.1") == ""
    for name, why in {
        "box": "of the type lxc, and the portal runs machines of the types kvm, qemu",
        "huge": "cannot be read",
        "none": "cannot be read",
        "passing": "only while it runs",
        "copy": "on another host has its UUID",
    }.items():
        assert why in denied.pop(name)
    assert denied == {}
    text = page.content.decode()
    assert "2 vCPU" in text and "/example/volume-a" in text
    assert "/srv/<b>.raw" not in text and "/srv/&lt;b&gt;.raw" in text


@pytest.mark.django_db
def test_the_list_is_searched_sorted_and_linked_for_those_who_may_adopt(client, cast, operator, strangers):
    client.force_login(operator)
    assert url("vms:found") in client.get(url("vms:list")).content.decode()
    names = [row.definition.observed_name for row in client.get(url("vms:found"), {"q": "O"}).context["rows"]]
    assert sorted(names) == ["Old_Web.1", "box", "copy", "none"]
    by_host = client.get(url("vms:found"), {"sort": "-host"}).context["rows"]
    assert by_host[0].definition.observed_name == "copy"
    client.force_login(cast.operator)
    assert url("vms:found") not in client.get(url("vms:list")).content.decode()
    assert client.get(url("vms:found")).status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("web", "web"),
        ("Old_Web.1", "old-web-1"),
        ("--Ünï  X--", "n-x"),
        ("x" * 200, "x" * 60),
        ("taken", "taken-2"),
    ],
)
def test_a_domains_name_is_made_into_a_machines(cast, host, domain, name):
    factories.make_machine(cast, "taken", host)
    definition = Definition(uuid=uuid.uuid4(), observed_name=domain)
    assert proposed_name(definition) == name


@pytest.mark.django_db
def test_a_name_of_no_letter_still_gives_one(cast):
    assert proposed_name(Definition(uuid=uuid.UUID(int=7), observed_name="机器")) == "machine-00000000"


# Adopted


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


# Refused


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


# What is done to it


@pytest.fixture
def machine(cast, operator, driver, place):
    """An adopted machine with one disk that counts and one that does not."""
    disks = ["volume-a", "/srv/<elsewhere>.raw"]
    return adopted(operator, make(driver, place.host, disks=disks, runs=True), cast)


@pytest.mark.django_db
@pytest.mark.parametrize("known", [True, False])
def test_every_page_of_it_works_without_image_disks_and_cards(client, cast, operator, machine, known):
    """Red when a page asks for what only a machine that the portal built has."""
    machine.disks.all().delete()
    if not known:
        Definition.objects.all().delete()
    for person in (cast.requester, operator):
        client.force_login(person)
        for name in ("detail", "settings"):
            assert client.get(url(f"vms:{name}", args=[machine.pk])).status_code == 200
        for name in ("vnc", "serial"):
            assert client.get(url(f"console:{name}", args=[machine.pk])).status_code == 200
        assert "Adopted" in client.get(url("vms:list")).content.decode()
        for panel in ("vms.row", "vms.state", "vms.status"):
            assert live_render(person.pk, [f"{panel}:{machine.pk}"])[0]
    detail = client.get(url("vms:detail", args=[machine.pk])).content.decode()
    assert "as the domain Old_Web.1" in detail


@pytest.mark.django_db
def test_its_owner_switches_it_and_nobody_signs_in_as_nobody(client, cast, machine):
    network = factories.make_network(kind="bridge", bridge="br0")
    Port.objects.create(
        network=network,
        host=machine.host,
        domain_uuid=machine.uuid,
        mac="52:54:00:00:00:09",
        observed_address="10.0.0.9",
    )
    VirtualMachine.objects.update(observed_state=Observed.RUNNING)
    client.force_login(cast.requester)
    assert "ssh 10.0.0.9" in client.get(url("vms:detail", args=[machine.pk])).content.decode()
    begun = power.act(actor=cast.requester, machine=machine, verb="shutdown")
    assert begun.identifiers["volumes"] == [["example-pool", "volume-a"]]


@pytest.mark.django_db
def test_its_end_says_what_stays_and_deletes_what_is_its_own(client, cast, driver, place, machine):
    """Red when volumes_of() names a seed, or the page does not say which files stay."""
    client.force_login(cast.requester)
    page = client.get(url("vms:detail", args=[machine.pk])).content.decode()
    assert "these disks are lost: example-pool/volume-a" in page
    assert "stay on the host: /srv/&lt;elsewhere&gt;.raw" in page and "<elsewhere>" not in page
    driver.write_seed(SeedSpec("example-pool", "Old_Web.1-seed.iso", "", ""))
    assert (
        finish(power.bin_machine(actor=cast.requester, machine=machine, confirm_name="old-web")).state
        == State.SUCCEEDED
    )
    machine.refresh_from_db()
    assert taken(place.host.scope) == {} and taken(place.pool.scope) == {"disk": 2 * GIB}
    assert "/srv/&lt;elsewhere&gt;.raw" in client.get(url("vms:detail", args=[machine.pk])).content.decode()
    power.restore_machine(actor=cast.requester, machine=machine)
    assert taken(place.host.scope) == {"vcpu": 2, "memory": GIB, "machines": 1}
    finish(power.bin_machine(actor=cast.requester, machine=machine, confirm_name="old-web"))
    machine.refresh_from_db()
    finish(power.purge_machine(actor=cast.requester, machine=machine, confirm_name="old-web"))
    assert not VirtualMachine.objects.exists() and not Definition.objects.exists()
    assert [volume.name for volume in driver.list_volumes("example-pool")] == ["Old_Web.1-seed.iso"]
    assert driver.list_domains() == () and not Counter.objects.exclude(held=0, used=0).exists()


@pytest.mark.django_db
@pytest.mark.parametrize("how", ["domain", "volume"])
def test_a_disk_that_others_use_by_then_is_left(cast, driver, machine, how):
    """Red when DeleteVolumes deletes what the portal took for the machine's own when it was adopted."""
    use_too(driver, f"{FOLDER}/volume-a", how)
    finish(power.bin_machine(actor=cast.requester, machine=machine, confirm_name="old-web"))
    machine.refresh_from_db()
    ended = finish(power.purge_machine(actor=cast.requester, machine=machine, confirm_name="old-web"))
    assert ended.state == State.SUCCEEDED and not VirtualMachine.objects.exists()
    assert ended.steps.get(name="volumes").remark == "disks_left"
    assert driver.volume_info("example-pool", "volume-a")


@pytest.mark.django_db
@pytest.mark.parametrize("disk", ["volume-a", "my disk.img"])
def test_names_that_others_gave_stand_in_nobodys_way(cast, operator, driver, host, disk):
    """Red when the driver takes only names that it would give: all would fail where others have a pool."""
    strange_pool(driver)
    info = VolumeInfo("example-pool", disk, f"{FOLDER}/{disk}", 2 * GIB, 0)
    driver._volumes[info.pool, info.name] = info
    found = adopted(operator, make(driver, host, disks=[info.path]), cast)
    assert list(found.disks.values_list("volume_name", flat=True)) == [disk]
    finish(power.bin_machine(actor=cast.requester, machine=found, confirm_name="old-web"))
    found.refresh_from_db()
    ended = finish(power.purge_machine(actor=cast.requester, machine=found, confirm_name="old-web"))
    assert ended.state == State.SUCCEEDED and not VirtualMachine.objects.exists()
    assert driver.list_volumes("example-pool") == () and not ended.steps.get(name="volumes").remark


@pytest.mark.django_db
def test_a_disk_whose_removal_fails_comes_back_as_it_was(cast, operator, driver, place, monkeypatch):
    """Red when it comes back as the portal's own disks are: a raw one would be read as qcow2."""
    definition = make(driver, place.host, disks=["volume-a", "volume-b"])
    raw = {"driver": {"type": "raw", "cache": "none"}, "target": {"bus": "scsi"}}
    driver.redefine(
        str(definition.uuid), {"devices": {"disks": [{}, raw]}}, definition.observed_digest
    )
    mine = adopted(operator, definition, cast)
    before = see(place.host, driver, str(definition.uuid)).observed_persistent["devices"]["disks"]

    def refused(_pool, _name):
        raise InvalidSpec("no")

    with monkeypatch.context() as patched:
        patched.setattr(driver, "delete_volume", refused)
        disk = mine.disks.get(target="vdb")
        ended = finish(disks.remove_disk(actor=cast.requester, disk=disk, confirm_name="vdb"))
    assert ended.state == State.FAILED and mine.disks.filter(target="vdb").exists()
    after = see(place.host, driver, str(definition.uuid)).observed_persistent["devices"]["disks"]
    assert after == before and before[1]["driver"]["type"] == "raw"


@pytest.mark.django_db
def test_a_machine_of_no_disk_says_that_none_is_lost(cast, operator, driver, host):
    machine = adopted(operator, make(driver, host), cast)
    assert lost_with(machine) == "Its definition on the host is lost, and none of its disks."


@pytest.mark.django_db
def test_what_is_released_is_found_again_and_gives_all_back(client, cast, operator, driver, machine):
    """Red when release_machine() asks the host, keeps a row, or gives nothing back."""
    before = driver.definition(str(machine.uuid)), driver.list_volumes("example-pool")
    client.force_login(operator)
    address = url("vms:release", args=[machine.pk])
    assert "exactly to release" in client.post(address, {"confirm_name": "x"}, follow=True).content.decode()
    answer = client.post(address, {"confirm_name": "old-web"}, follow=True)
    assert [row.definition.uuid for row in answer.context["rows"]] == [machine.uuid]
    assert not VirtualMachine.objects.exists() and not Disk.objects.exists()
    assert not Counter.objects.exclude(held=0, used=0).exists()
    assert (driver.definition(str(machine.uuid)), driver.list_volumes("example-pool")) == before
    assert AuditEntry.objects.get(verb="machine.released").before["domain"] == "Old_Web.1"
    assert adopted(operator, Definition.objects.get(), cast).uuid == machine.uuid


@pytest.mark.django_db
def test_only_an_adopted_machine_that_nothing_works_on_is_released(client, cast, operator, machine):
    """Red when why_not_released() asks for neither."""
    built = factories.make_machine(cast, "built", machine.host)
    with pytest.raises(Denied, match="itself built this machine"):
        release_machine(actor=operator, machine=built, confirm_name="built")
    client.force_login(operator)
    assert "Release" not in client.get(url("vms:detail", args=[built.pk])).content.decode()
    VirtualMachine.objects.update(observed_state=Observed.RUNNING)
    power.act(actor=cast.requester, machine=machine, verb="shutdown")
    with pytest.raises(Denied, match="not finished yet"):
        release_machine(actor=operator, machine=machine, confirm_name="old-web")
    assert "Not now:" in client.get(url("vms:detail", args=[machine.pk])).content.decode()
    client.force_login(cast.requester)
    assert (
        url("vms:release", args=[machine.pk])
        not in client.get(url("vms:detail", args=[machine.pk])).content.decode()
    )


@pytest.mark.django_db
def test_one_in_the_bin_is_released_and_counts_nothing_of_its_host(cast, operator, host, machine):
    finish(power.bin_machine(actor=cast.requester, machine=machine, confirm_name="old-web"))
    machine.refresh_from_db()
    release_machine(actor=operator, machine=machine, confirm_name="old-web")
    assert (left(host, "vcpu"), left(host, "memory")) == (8, 16 * GIB)


# The form


@pytest.mark.django_db
def test_the_form_proposes_says_what_it_takes_and_adopts(client, cast, operator, driver, place):
    definition = make(driver, place.host, disks=["volume-a", "/srv/b.raw"])
    client.force_login(operator)
    address = url("vms:adopt", args=[definition.pk])
    page = client.get(address)
    assert page.context["form"].initial == {"name": "old-web-1", "owner": "everywhere"}
    assert [(drive.target, pool) for drive, pool in page.context["disks"]] == [
        ("vda", "example-pool"),
        ("vdb", ""),
    ]
    posted = {"name": "old-web-1", "project": cast.project.pk, "owner": "nobody-here", "lease_days": 7}
    wrong = client.post(address, posted)
    assert wrong.status_code == 422 and "Nobody here has this name" in wrong.content.decode()
    User.objects.filter(username="requester").update(email="r@example.org")
    answer = client.post(address, posted | {"owner": "R@example.org"})
    begun = Operation.objects.get(kind="vm.adopt")
    assert answer.url == url("operations:detail", args=[begun.pk])
    shown = client.get(answer.url).content.decode()
    assert "Old_Web.1" in shown and "7 days" in shown
    finish(begun)
    assert "old-web-1 is adopted." in client.get(url("accounts:notices")).content.decode()
    assert client.get(address).status_code == 404


# What was there before


@pytest.mark.django_db
def test_the_migration_writes_down_what_domains_are_called(cast, host):
    """Red when the migration names a domain otherwise than the portal did when it made it."""
    machine = factories.make_machine(cast, "web", host, domain_name="")
    running = {"observed_running": {"name": "passing"}}
    values = {"host": host, "observed_at": timezone.now(), "observed_digest": "d"}
    defined = {"observed_persistent": {"name": "theirs"}}
    rows = [Definition.objects.create(uuid=uuid.uuid4(), **values, **told) for told in (running, defined, {})]
    migration = importlib.import_module("vms.migrations.0008_adoption")
    migration.fill(apps, None)
    machine.refresh_from_db()
    assert machine.domain_name == f"web-{str(machine.uuid)[:8]}"
    names = [Definition.objects.get(pk=row.pk).observed_name for row in rows]
    assert names == ["passing", "theirs", ""]
