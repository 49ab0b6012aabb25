"""A host with domains that somebody else made, and somebody who may adopt them."""

import uuid

import pytest
from django.utils import timezone

from portal.accounts.models import Membership, Role, User
from portal.drivers.fake import FakeDriver
from portal.drivers.types import DomainDefinition, PoolSpec
from portal.hosts.limits import set_limits
from portal.operations.models import Counter
from tests import factories
from tests.factories import GIB
from tests.vms.adoption.making import FOLDER, adopted, make
from vms import noted


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


@pytest.fixture
def machine(cast, operator, driver, place):
    """An adopted machine with one disk that counts and one that does not."""
    disks = ["volume-a", "/srv/<elsewhere>.raw"]
    return adopted(operator, make(driver, place.host, disks=disks, runs=True), cast)
