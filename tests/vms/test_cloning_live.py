"""A real machine cloned on the real libvirt, whatever dies meanwhile, and both of them afterwards."""

import uuid

import pytest
from django.utils import timezone

from portal.drivers.inspection import Kind, inspect
from portal.drivers.types import DomainState, VolumeSpec
from portal.hosts.models import PoolAttachment, Volume
from portal.hosts.storage.looking import note_volumes
from portal.operations.models import Operation
from portal.operations.states import State
from tests.factories import MIB
from tests.vms.real import await_agent, inside
from tests.vms.test_changes_live import consent, see
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
from vms import power
from vms.changes import attaching, cloning
from vms.models import VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
#: Behind everything that the tiny image holds.
SECTOR = 200_000


@pytest.fixture
def original(cast, worker, real, queued):
    """A machine that was built, has a mark on its disk, and is off."""
    carry_out(worker, queued)
    found = VirtualMachine.objects.get()
    await_agent(real[0], found.uuid)
    mark = f"echo marked | /bin/busybox dd of=/dev/vda bs=512 seek={SECTOR} conv=fsync,notrunc"
    inside(found.uuid, "/bin/busybox", "sh", "-c", mark)
    see(real, found)
    carry_out(worker, power.act(actor=cast.requester, machine=found, verb="destroy"))
    see(real, found)
    yield found
    for made in real[0].list_domains():
        if made.name.startswith("gttwin"):
            real[0].destroy(made.uuid)
            real[0].undefine(made.uuid)


def ask(cast, original, name="gttwin"):
    asked = cloning.request_clone(
        actor=cast.requester, machine=original, name=name, lease_days=3, why="a try", token=uuid.uuid4()
    )
    return consent(cast, asked)


def give_raw(cast, chief, worker, real, machine):
    """Attach a raw volume that holds a word to a machine that is off."""
    driver, pool = real[:2]
    made = driver.create_volume(VolumeSpec(pool.name, "gt-words", 16 * MIB, format="raw"))
    with open(made.path, "r+b") as file:
        file.write(b"raw")
    place = PoolAttachment.objects.get(host=machine.host, pool__name=pool.name)
    note_volumes(place.pk, driver.list_volumes(pool.name), timezone.now())
    asked = attaching.request_attachment(
        actor=chief,
        machine=machine,
        volume=Volume.objects.get(name="gt-words"),
        why="words",
        token=uuid.uuid4(),
    )
    carry_out(worker, consent(cast, asked))
    see(real, machine)


def test_a_clone_is_the_same_and_another_whatever_dies(cast, chief, worker, real, original):
    """Red when CopyDisks takes a half copy for a whole one, or the twin keeps what is its original's."""
    driver = real[0]
    give_raw(cast, chief, worker, real, original)
    before = driver.definition(str(original.uuid))
    begun = ask(cast, original)
    carry_out(worker, begun, *points(cloning.CLONE))
    twin = VirtualMachine.objects.get(name="gttwin")
    assert driver.domain_info(str(twin.uuid)).state is DomainState.SHUTOFF
    assert driver.definition(str(original.uuid)) == before

    for machine in (twin, original):
        see(real, machine)
        VirtualMachine.objects.update(observed_state="shutoff")
        carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="start"))
        await_agent(driver, machine.uuid)
    read = f"/bin/busybox dd if=/dev/vda bs=512 skip={SECTOR} count=1 | /bin/busybox head -c 6"
    marks = [inside(one.uuid, "/bin/busybox", "sh", "-c", read) for one in (twin, original)]
    assert marks == ["marked", "marked"]
    raw = "/bin/busybox head -c 3 /dev/vdb"
    assert [inside(one.uuid, "/bin/busybox", "sh", "-c", raw) for one in (twin, original)] == ["raw", "raw"]
    names = [inside(one.uuid, "/bin/busybox", "hostname").strip() for one in (twin, original)]
    assert names == ["gttwin", original.name]
    cards = [
        inside(one.uuid, "/bin/busybox", "cat", "/sys/class/net/eth0/address") for one in (twin, original)
    ]
    assert cards[0] != cards[1]
    [disk] = inspect(Kind.DOMAIN, driver.definition(str(twin.uuid)).persistent.encode()).understood[
        "devices"
    ]["disks"][:1]
    volume = driver.volume_info(real[1].name, twin.disks.get(target="vda").volume_name)
    assert disk["source"]["file"] == volume.path and volume.backing_path is None

    # And it goes as any other.
    carry_out(worker, power.bin_machine(actor=cast.requester, machine=twin, confirm_name="gttwin"))
    carry_out(worker, power.purge_machine(actor=cast.requester, machine=twin, confirm_name="gttwin"))
    assert [one.name for one in driver.list_volumes(real[1].name) if "gttwin" in one.name] == []


def test_a_clone_that_fails_leaves_nothing(cast, worker, real, original):
    begun = ask(cast, original)
    assert worker(begun.pk, failing="domain") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert [one.name for one in real[0].list_domains() if one.name.startswith("gttwin")] == []
    assert [one.name for one in real[0].list_volumes(real[1].name) if "gttwin" in one.name] == []
    assert not VirtualMachine.objects.filter(name="gttwin").exists()
