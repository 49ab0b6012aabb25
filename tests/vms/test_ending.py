"""The end of a real machine on the real libvirt: the bin, back again, for good, whatever dies meanwhile."""

import signal

import pytest

from networks.models import Port
from portal.drivers.types import DomainState
from portal.operations.models import Operation
from portal.operations.states import State
from tests.conftest import let_heartbeats_lapse
from tests.vms.real import held, on_host
from vms import power
from vms.models import Status, VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
#: Whose workers `worker` runs.
WORKER = "tests.vms.killed_builder"


def points(kind):
    return [f"{when}:{step.name}" for step in kind.steps for when in ("before", "after")]


def carry_out(worker, operation, *deaths):
    """Bring `operation` to its end by workers of which each dies at one of the points `deaths`."""
    task = operation.pk
    for point in deaths:
        assert worker(task, point) == -signal.SIGKILL, point
        let_heartbeats_lapse()
        task = "reap"
    assert worker(task) == 0
    assert Operation.objects.get(pk=operation.pk).state == State.SUCCEEDED


def test_a_machine_waits_in_the_bin_comes_back_and_goes_for_good_whatever_dies(cast, worker, real, queued):
    """Red when volumes_of() leaves out the seed, vm.purge has no Undefine, or StayOff remembers nothing.

    Its host starts it by itself, but for the time in the bin.
    """
    kinds = {kind.name: kind for kind in power.KINDS}
    carry_out(worker, queued)
    machine = VirtualMachine.objects.get()
    doing = {"actor": cast.requester, "machine": machine}

    real[0].autostart_domain(str(machine.uuid), True)
    carry_out(worker, power.bin_machine(**doing, confirm_name=machine.name), *points(kinds["vm.bin"]))
    assert not real[0].definition(str(machine.uuid)).autostart
    machine.refresh_from_db()
    assert machine.status == Status.BINNED and held(queued) == (0, 0)
    assert real[0].domain_info(str(machine.uuid)).state is DomainState.SHUTOFF
    assert len(on_host(real[0], queued)) == 3

    carry_out(worker, power.restore_machine(**doing), *points(kinds["vm.restore"]))
    assert real[0].definition(str(machine.uuid)).autostart
    machine.refresh_from_db()
    assert machine.status == Status.ACTIVE and held(queued) == (0, machine.memory)
    VirtualMachine.objects.update(observed_state="shutoff")
    carry_out(worker, power.act(**doing, verb="start"))
    assert real[0].domain_info(str(machine.uuid)).state is DomainState.RUNNING

    carry_out(worker, power.bin_machine(**doing, confirm_name=machine.name))
    carry_out(worker, power.purge_machine(**doing, confirm_name=machine.name), *points(kinds["vm.purge"]))
    assert on_host(real[0], queued) == []
    assert not VirtualMachine.objects.exists() and not Port.objects.exists()
    assert held(queued) == (0, 0)
