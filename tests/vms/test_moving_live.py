"""A real disk moves between real pools on the real libvirt, whatever dies meanwhile."""

import os
import secrets
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from portal.core.errors import Denied
from portal.drivers.types import DomainState, PoolSpec
from portal.hosts.models import PoolAttachment, StoragePool
from portal.operations.messages import sentence
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from tests.conftest import let_heartbeats_lapse
from tests.factories import GIB
from tests.vms.real import POOL_ROOT, await_agent, inside
from tests.vms.test_changes_live import defined, machine, see  # noqa: F401 (machine: a fixture)
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
from vms import power
from vms.changes import moving

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
#: Tells another name at each boot.
BOOT = ("/bin/busybox", "cat", "/proc/sys/kernel/random/boot_id")
#: The end of the disk of 256 MiB lies beyond what the image has.
READ = "/bin/busybox dd if=/dev/vda bs=1048576 skip=240 count=15 2>/dev/null"


@pytest.fixture
def other(real, machine):  # noqa: F811
    """A second pool of the machine's host."""
    name = f"gttest-{secrets.token_hex(4)}"
    spec = PoolSpec(name, str(uuid.uuid4()), f"{POOL_ROOT}/{name}")
    real[0].ensure_pool(spec)
    yield attach(machine, spec)
    clear(real, machine, spec)


def attach(machine, spec):  # noqa: F811
    pool = StoragePool.objects.create(name=spec.name)
    return PoolAttachment.objects.create(
        host=machine.host, pool=pool, path=spec.path, observed_available=9 * GIB
    )


def clear(real, machine, spec):  # noqa: F811
    real[0].destroy(str(machine.uuid))
    for volume in real[0].list_volumes(spec.name):
        real[0].delete_volume(spec.name, volume.name)
    real[0].remove_pool(spec.name)


def move(cast, machine, to):  # noqa: F811
    disk = machine.disks.select_related("machine").get()
    return moving.move_disk(actor=cast.operator, disk=disk, to=to)


def disk_of(real, machine, side):  # noqa: F811
    found = defined(real, machine, side)["devices"]["disks"]
    return next(disk["source"]["file"] for disk in found if disk["target"]["dev"] == "vda")


def names(real, pool):
    return {volume.name for volume in real[0].list_volumes(pool)}


def raw_sum(machine):  # noqa: F811
    """Return a checksum of the part of the disk that nothing but this test writes to."""
    return inside(machine.uuid, "/bin/busybox", "sh", "-c", f"{READ} | /bin/busybox md5sum").split()[0]


def fill(machine):  # noqa: F811
    """Write noise to the end of the disk, past the page cache, and keep writing to one place after it."""
    noise = "/bin/busybox dd if=/dev/urandom of=/dev/vda bs=1048576 seek=240 count=15 conv=notrunc,fsync"
    inside(machine.uuid, "/bin/busybox", "sh", "-c", f"{noise} 2>/dev/null")


def begin_writing(machine):  # noqa: F811
    """Let the guest write a number to a sector of its disk, each greater by one, until it is told to stop."""
    loop = (
        "i=0; while [ ! -e /stop ]; do i=$((i+1)); "
        "echo $i > /told; /bin/busybox printf '%-512d' $i | "
        "/bin/busybox dd of=/dev/vda bs=512 seek=460800 count=1 conv=notrunc,fsync 2>/dev/null; done"
    )
    inside(machine.uuid, "/bin/busybox", "sh", "-c", f"({loop}) >/dev/null 2>&1 </dev/null &")


def end_writing(machine):  # noqa: F811
    """Stop it; return what was written last by its own word, and what the disk itself says."""
    read = "/bin/busybox dd if=/dev/vda bs=512 skip=460800 count=1 2>/dev/null"
    script = f"touch /stop; /bin/busybox sleep 1; echo 3 > /proc/sys/vm/drop_caches; cat /told; {read}"
    return [int(word) for word in inside(machine.uuid, "/bin/busybox", "sh", "-c", script).split()]


def test_a_disk_moves_while_its_guest_writes_whatever_dies(cast, worker, real, machine, other):  # noqa: F811
    """Red when the copy is begun anew after each death onto the same file, or the old one goes too early."""
    fill(machine)
    before, old = raw_sum(machine), machine.disks.get()
    begin_writing(machine)
    begun = move(cast, machine, other)
    steps = [step.name for step in moving.KINDS[0].steps]
    carry_out(worker, begun, *(f"{when}:{name}" for name in steps for when in ("before", "after")))
    told, read = end_writing(machine)
    assert read == told > 1
    assert raw_sum(machine) == before
    new = machine.disks.get()
    assert disk_of(real, machine, "persistent") == disk_of(real, machine, "running")
    assert disk_of(real, machine, "running") == f"{other.path}/{new.volume_name}"
    assert old.volume_name not in names(real, real[1].name)
    assert names(real, other.pool.name) == {new.volume_name}
    whole = real[0].volume_info(other.pool.name, new.volume_name)
    assert whole.backing_path is None

    see(real, machine)
    carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="destroy"))
    real[0].start(str(machine.uuid))
    await_agent(real[0], machine.uuid)
    assert raw_sum(machine) == before


def test_a_worker_that_dies_in_the_middle_of_the_copy_finds_it_again(
    cast, worker, real, machine, other  # noqa: F811
):
    """Red when a copy that goes on is not known again, or is begun a second time."""
    fill(machine)
    before, disk = raw_sum(machine), machine.disks.get()
    begun, path = move(cast, machine, other), f"{disk.pool.path}/{disk.volume_name}"
    assert worker(begun.pk, "before:move") == -signal.SIGKILL
    to = begun.identifiers["to_path"]
    real[0].begin_copy(str(machine.uuid), "vda", path, to)
    let_heartbeats_lapse()
    assert worker("reap", "after:move") == -signal.SIGKILL
    assert disk_of(real, machine, "running") == to
    let_heartbeats_lapse()
    assert worker("reap") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.SUCCEEDED
    assert raw_sum(machine) == before


def test_a_move_that_fails_leaves_the_machine_as_it_was(cast, worker, real, machine, other):  # noqa: F811
    """Red when the half copy stays, or its job."""
    before, old = real[0].definition(str(machine.uuid)), machine.disks.get()
    begun = move(cast, machine, other)
    assert worker(begun.pk, failing="volume") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert real[0].definition(str(machine.uuid)).persistent == before.persistent
    assert names(real, other.pool.name) == set()
    assert machine.disks.get().volume_name == old.volume_name


def test_the_disk_of_a_machine_that_is_off_moves(cast, worker, real, machine, other):  # noqa: F811
    fill(machine)
    before = raw_sum(machine)
    carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="destroy"))
    see(real, machine)
    carry_out(worker, move(cast, machine, other), "before:move", "after:move", "after:old")
    assert disk_of(real, machine, "persistent").startswith(other.path)
    real[0].start(str(machine.uuid))
    await_agent(real[0], machine.uuid)
    assert raw_sum(machine) == before


def test_a_machine_suspended_to_disk_keeps_its_disk_and_goes_on_whatever_dies(
    cast, worker, real, machine, other  # noqa: F811
):
    """Red when a disk moves under what is saved, or a start begins anew: the kernel has its number a boot."""
    kinds = {kind.name: kind for kind in power.KINDS}
    before = inside(machine.uuid, *BOOT)
    suspended = power.act(actor=cast.requester, machine=machine, verb="save")
    carry_out(worker, suspended, *points(kinds["vm.save"]))
    assert real[0].domain_info(str(machine.uuid)).state is DomainState.SAVED
    # The portal has not seen it yet.
    begun = move(cast, machine, other)
    assert worker(begun.pk) == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert StepRecord.objects.get(operation=begun, name="move").error_code == "saved_state"
    assert names(real, other.pool.name) == set()
    see(real, machine)
    with pytest.raises(Denied, match="discard what was saved"):
        move(cast, machine, other)
    started = power.act(actor=cast.requester, machine=machine, verb="start")
    carry_out(worker, started, *points(kinds["vm.start"]))
    assert inside(machine.uuid, *BOOT) == before


def test_a_pool_that_fills_up_is_told_of_and_the_machine_goes_on(cast, worker, real, machine):  # noqa: F811
    """Red when the full pool is not named, or the machine stops. The pool has 4 MiB, the disk more in it."""
    name = f"gttest-{secrets.token_hex(4)}"
    spec = PoolSpec(name, str(uuid.uuid4()), f"{POOL_ROOT}/{name}")
    Path(spec.path).mkdir(mode=0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", spec.path], check=True)
    os.chmod(spec.path, 0o711)
    real[0].ensure_pool(spec)
    try:
        fill(machine)
        before = raw_sum(machine)
        begun = move(cast, machine, attach(machine, spec))
        assert worker(begun.pk) == 0
        assert Operation.objects.get(pk=begun.pk).state == State.FAILED
        step = StepRecord.objects.get(operation=begun, name="move")
        assert f"The pool {name} has no room" in sentence(step.error_code, step.error_raw)
        assert raw_sum(machine) == before and names(real, name) == set()
        assert disk_of(real, machine, "running") == disk_of(real, machine, "persistent")
        assert machine.disks.get().pool.pool.name != name
    finally:
        (Path(spec.path) / "kept").touch()
        real[0].remove_pool(name)
        subprocess.run(["umount", spec.path], check=True)
        Path(spec.path).rmdir()
