"""Size and disks of a real machine on the real libvirt: changed while it runs, whatever dies meanwhile."""

import uuid

import pytest
from django.utils import timezone

from portal.core.errors import Denied
from portal.drivers.inspection import Kind, inspect
from portal.hosts.models import PoolAttachment, Volume
from portal.hosts.storage.looking import note_volumes
from portal.operations import services as operations
from portal.operations.models import Counter, Operation, Reservation, StepRecord
from portal.operations.states import State
from tests.factories import MIB
from tests.vms.real import await_agent, inside
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
from vms import noted, power
from vms.changes import attaching, disks, memory, resizing
from vms.models import Disk, VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
KINDS = {kind.name: kind for kind in (*disks.KINDS, *attaching.KINDS)}


@pytest.fixture
def machine(worker, real, queued):
    """A machine that runs and whose agent answers; its definition is known."""
    carry_out(worker, queued)
    found = VirtualMachine.objects.get()
    await_agent(real[0], found.uuid)
    see(real, found)
    yield found
    for volume in real[0].list_volumes(real[1].name):
        if f"{found.domain_name}-vd" in volume.name and "vda" not in volume.name:
            real[0].delete_volume(real[1].name, volume.name)


def see(real, machine):
    began = timezone.now()
    noted.note(machine.host_id, str(machine.uuid), real[0].definition(str(machine.uuid)), began)
    VirtualMachine.objects.update(observed_state=real[0].domain_info(str(machine.uuid)).state.value)
    machine.refresh_from_db()


def consent(cast, asked):
    return operations.decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)


def resize(cast, machine, **sizes):
    now = resizing.sizes_of(machine)
    return resizing.request_resize(
        actor=cast.requester,
        machine=machine,
        sizes={**now, **sizes},
        seen=now,
        why="a try",
        token=uuid.uuid4(),
    )


def add(cast, machine, capacity=64 * MIB):
    doing = {"actor": cast.requester, "machine": machine, "why": "a try", "token": uuid.uuid4()}
    return consent(cast, disks.request_disk(**doing, capacity=capacity))


def remarks(operation):
    return [step.remark for step in operation.steps.order_by("index") if step.remark]


def taken(resource):
    """Return what is held and used of every counter of a resource."""
    return {row.scope: (row.held, row.used) for row in Counter.objects.filter(resource=resource)}


def defined(real, machine, side="persistent"):
    text = getattr(real[0].definition(str(machine.uuid)), side)
    return inspect(Kind.DOMAIN, text.encode()).understood


def targets(real, machine, side):
    return {disk["target"]["dev"] for disk in defined(real, machine, side)["devices"]["disks"]}


def megabytes(machine):
    """Return the memory that its guest says it has, in MiB."""
    said = inside(machine.uuid, "/bin/busybox", "cat", "/proc/meminfo")
    return int(said.split("MemTotal:")[1].split()[0]) // 1024


def change_by_balloon(cast, worker, real, machine):
    """Take memory of the guest and give it back, by workers that die; the last call leaves all as it was."""
    before, counted = megabytes(machine), taken("memory")
    for now, less, deaths in ((96 * MIB, 32, points(resizing.RESIZE)), (128 * MIB, 0, ())):
        begun = resize(cast, machine, memory_now=now)
        carry_out(worker, begun, *deaths)
        assert remarks(begun) == [] and before - megabytes(machine) == less
        for side in ("persistent", "running"):
            found = defined(real, machine, side)
            assert (found["current_memory_bytes"], found["memory_bytes"]) == (now, 128 * MIB), side
        see(real, machine)
        assert machine.memory_now == now and taken("memory") == counted
        sight = memory.sights([machine])[machine.pk]
        assert (sight.guest, sight.hot, sight.differs) == (now, 128 * MIB, False)


def test_what_comes_while_it_runs_and_what_at_the_next_start(cast, worker, real, machine):
    """Red when SetBalloon is left out, or PlugVcpus does not look how the machine runs: TCG can die of it."""
    change_by_balloon(cast, worker, real, machine)
    begun = consent(cast, resize(cast, machine, vcpu=2, memory=160 * MIB))
    carry_out(worker, begun, *points(resizing.RESIZE))
    assert inside(machine.uuid, "/bin/busybox", "nproc").strip() == "1"
    found = defined(real, machine)
    assert (found["current_vcpus"], found["memory_bytes"]) == (2, 160 * MIB)
    assert defined(real, machine, "running")["memory_bytes"] == machine.memory
    assert remarks(begun) == ["vcpus_emulated", "memory_at_next_start"]
    machine.refresh_from_db()
    assert (machine.vcpus, machine.memory) == (2, 160 * MIB)
    assert set(taken("memory").values()) == {(0, 160 * MIB)}
    assert not Reservation.objects.filter(operation=begun).exists()

    see(real, machine)
    with pytest.raises(Denied, match="switch it off first"):
        resize(cast, machine, memory=128 * MIB)
    carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="destroy"))
    see(real, machine)
    carry_out(worker, resize(cast, machine, vcpu=1, memory=128 * MIB), *points(resizing.RESIZE))
    found = defined(real, machine)
    assert (found["current_vcpus"], found["memory_bytes"]) == (1, 128 * MIB)
    assert set(taken("memory").values()) == {(0, 128 * MIB)}


def test_a_size_that_cannot_be_given_is_taken_back(cast, worker, real, machine):
    """Red when what was written into the definition stays, or the quota that was held."""
    before, counted = real[0].definition(str(machine.uuid)), taken("vcpu")
    begun = consent(cast, resize(cast, machine, vcpu=2))
    assert worker(begun.pk, failing="plug") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert real[0].definition(str(machine.uuid)).persistent == before.persistent
    assert taken("vcpu") == counted and VirtualMachine.objects.get().vcpus == 1


def keep_and_give_back(cast, chief, worker, real, machine, disk):
    """Detach a disk and attach its volume again, by workers that die; return the disk as it is then."""
    inside(machine.uuid, "/bin/busybox", "sh", "-c", "echo kept > /dev/vdb; sync")
    counted = taken("disk")
    carry_out(worker, attaching.detach(actor=chief, disk=disk), *points(KINDS[attaching.DETACH]))
    assert "vdb" not in inside(machine.uuid, "/bin/busybox", "ls", "/sys/block")
    assert taken("disk") != counted
    place = PoolAttachment.objects.get(host=machine.host, pool__name=real[1].name)
    note_volumes(place.pk, real[0].list_volumes(real[1].name), timezone.now())
    volume = Volume.objects.get(name=disk.volume_name)
    assert volume.made and attaching.volumes_for(machine) == [volume]
    see(real, machine)
    asked = attaching.request_attachment(
        actor=chief, machine=machine, volume=volume, why="again", token=uuid.uuid4()
    )
    carry_out(worker, consent(cast, asked), *points(KINDS[attaching.ATTACH]))
    assert inside(machine.uuid, "/bin/busybox", "head", "-n", "1", "/dev/vdb").strip() == "kept"
    assert taken("disk") == counted
    return Disk.objects.get(target="vdb")


def test_a_disk_comes_grows_and_goes_while_it_runs_whatever_dies(cast, chief, worker, real, machine):
    """Red when attach_disk() is called anew for what is attached, or the guest's size is not told it."""
    before = taken("disk")
    carry_out(worker, add(cast, machine), *points(KINDS[disks.ADD]))
    disk = Disk.objects.get(target="vdb")
    sectors = ("/bin/busybox", "cat", "/sys/block/vdb/size")
    assert inside(machine.uuid, *sectors).strip() == str(64 * MIB // 512)
    assert inside(machine.uuid, "/bin/busybox", "cat", "/sys/block/vdb/serial") == disk.serial
    assert {scope: used for scope, (_held, used) in taken("disk").items()} == {
        scope: used + 64 * MIB for scope, (_held, used) in before.items()
    }

    grow = disks.request_growth(
        actor=cast.requester,
        disk=disk,
        capacity=96 * MIB,
        seen=disk.capacity,
        why="more",
        token=uuid.uuid4(),
    )
    carry_out(worker, consent(cast, grow), *points(KINDS[disks.GROW]))
    disk.refresh_from_db()
    assert disk.capacity == 96 * MIB
    assert inside(machine.uuid, *sectors).strip() == str(96 * MIB // 512)
    see(real, machine)
    disk = keep_and_give_back(cast, chief, worker, real, machine, disk)

    see(real, machine)
    with pytest.raises(Denied, match="starts from this disk"):
        disks.remove_disk(
            actor=cast.requester, disk=machine.disks.get(target="vda"), confirm_name="vda"
        )
    gone = disks.remove_disk(actor=cast.requester, disk=disk, confirm_name="vdb")
    carry_out(worker, gone, *points(KINDS[disks.REMOVE]))
    assert "vdb" not in targets(real, machine, "persistent") | targets(real, machine, "running")
    assert "vdb" not in inside(machine.uuid, "/bin/busybox", "ls", "/sys/block")
    names = [volume.name for volume in real[0].list_volumes(real[1].name)]
    assert disk.volume_name not in names and taken("disk") == before


def test_a_disk_that_cannot_be_attached_leaves_nothing(cast, worker, real, machine):
    """Red when MakeVolume or Attach has no undo, or the row of the disk stays."""
    counted, names = taken("disk"), {volume.name for volume in real[0].list_volumes(real[1].name)}
    begun = add(cast, machine)
    assert worker(begun.pk, failing="attach") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert not Disk.objects.filter(target="vdb").exists() and taken("disk") == counted
    assert {volume.name for volume in real[0].list_volumes(real[1].name)} == names
    assert "vdb" not in targets(real, machine, "persistent") | targets(real, machine, "running")


def test_a_guest_that_keeps_its_disk_is_told_of_and_nothing_is_lost(cast, worker, real, machine):
    """Red when a detachment that the guest does not heed counts as done. A paused guest heeds nothing."""
    carry_out(worker, add(cast, machine))
    see(real, machine)
    real[0].suspend(str(machine.uuid))
    disk = Disk.objects.get(target="vdb")
    begun = disks.remove_disk(actor=cast.requester, disk=disk, confirm_name="vdb")
    assert worker(begun.pk) == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert StepRecord.objects.get(operation=begun, name="detach").error_code == "guest_ignores"
    assert "vdb" in targets(real, machine, "persistent") and Disk.objects.filter(pk=disk.pk).exists()
    assert disk.volume_name in [volume.name for volume in real[0].list_volumes(real[1].name)]
