"""Hosts that do what they are asked and answer too late: what was done counts."""

import pytest

from portal.drivers.errors import CallTimeout, HostUnreachable
from portal.drivers.fake import FakeDriver
from portal.drivers.types import DiskSpec, DomainSpec, PoolSpec, VolumeSpec
from portal.hosts import steps as host_steps
from portal.hosts.models import Health, Host
from portal.operations import messages
from portal.operations.registry import StepContext, StepFailed, kind_of
from tests.factories import GIB
from tests.vms.test_changes import consent, finish, grow, machine, resize, used  # noqa: F401 (a fixture)
from vms.changes import disks, resizing

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def late(machine, monkeypatch):  # noqa: F811
    """Let the host do what `late` names and answer too late. Returns its driver and those names."""
    driver, names = FakeDriver("fake:///late"), set()
    disk = machine.disks.select_related("pool__pool").get()
    driver.ensure_pool(PoolSpec(disk.pool.pool.name, str(disk.pool.pool.uuid), disk.pool.path))
    driver.create_volume(VolumeSpec(disk.pool.pool.name, disk.volume_name, disk.capacity))
    path = f"{disk.pool.path}/{disk.volume_name}"
    driver.define(DomainSpec("example", str(machine.uuid), 1, GIB, (DiskSpec(path),), vcpu_ceiling=4))
    driver.start(str(machine.uuid))

    def call(_host, verb, *args, timeout):
        answer = getattr(driver, verb)(*args)
        if verb in names:
            raise CallTimeout(verb)
        return answer

    monkeypatch.setattr("portal.hosts.steps.call", call)
    return driver, names


def context_of(operation):
    return StepContext(operation.frozen, operation.identifiers, lambda: None)


def test_a_disk_that_grew_counts_though_the_host_said_so_too_late(cast, machine, late, monkeypatch):  # noqa: F811
    """Red when Grow fails without a look at the volume."""
    driver, names = late
    asked = grow(cast.requester, machine.disks.get(), 3 * GIB)
    consent(cast, asked)
    asked.refresh_from_db()
    [step] = kind_of(disks.GROW).steps
    names.add("grow_disk")
    with monkeypatch.context() as never, pytest.raises(StepFailed):
        never.setattr(driver, "grow_disk", lambda *_names: None)
        step.do(context_of(asked))
    step.do(context_of(asked))
    finish(asked)
    assert machine.disks.get().capacity == 3 * GIB and used("disk")["pool"] == (0, 3 * GIB)


def test_processors_count_though_the_host_never_said_whether_it_gave_them(cast, machine, late):  # noqa: F811
    """Red when PlugVcpus fails: the definition would be taken back, and what was plugged in not counted."""
    _driver, names = late
    names.add("plug_vcpus")
    asked = resize(cast.requester, machine, vcpu=2)
    consent(cast, asked)
    asked.refresh_from_db()
    step = kind_of(resizing.KIND).steps[1]
    assert step.do(context_of(asked)) == "vcpus_unsure"
    assert "did not say" in messages.sentence("vcpus_unsure", "")
    Host.objects.update(observed_health=Health.STALE)
    with pytest.raises(StepFailed):
        step.do(context_of(asked))


def test_processors_are_asked_for_again_once_libvirt_is_back(cast, machine, late, monkeypatch):  # noqa: F811
    """Red when PlugVcpus makes a remark of what only has to be asked once more."""
    driver, _names = late
    asked = resize(cast.requester, machine, vcpu=2)
    consent(cast, asked)
    asked.refresh_from_db()
    dead, told = [HostUnreachable("libvirtd was killed")], []

    def plug(_uuid, count):
        if dead:
            raise dead.pop()
        told.append(count)
        return count

    monkeypatch.setattr(host_steps, "PAUSE", 0)
    monkeypatch.setattr(driver, "plug_vcpus", plug)
    assert kind_of(resizing.KIND).steps[1].do(context_of(asked)) is None
    assert (dead, told) == ([], [2])
