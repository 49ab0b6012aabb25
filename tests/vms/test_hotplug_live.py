"""A real machine gets and loses a watchdog and the agent's channel while its guest runs; whatever dies."""

import pytest

from portal.operations.models import StepRecord
from tests.vms.real import await_agent, inside
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
from tests.vms.test_pending_live import waits
from tests.vms.test_settings_live import all_values, edit, see
from vms import editing
from vms.models import Observed, VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
#: What QEMU's i6300esb says it is.
DOG = "0x25ab"


@pytest.fixture
def machine(worker, real, queued):
    """A machine that runs and whose agent answers."""
    carry_out(worker, queued)
    VirtualMachine.objects.update(observed_state=Observed.RUNNING)
    found = VirtualMachine.objects.select_related("host").get()
    await_agent(real[0], found.uuid)
    see(real, found)
    return found


def has_dog(machine):
    return DOG in inside(machine.uuid, "/bin/sh", "-c", "cat /sys/bus/pci/devices/*/device").split()


def sides(real, machine, name):
    made = real[0].definition(str(machine.uuid))
    return [all_values(text)[name] for text in (made.persistent, made.running)]


def remark(operation):
    return StepRecord.objects.get(operation=operation, name="plug").remark


def test_a_watchdog_comes_and_goes_before_the_guests_eyes(cast, worker, real, machine):
    """Red when libvirt's own search for a slot is all, or a worker that died has plugged it in twice."""
    assert not has_dog(machine)
    begun = edit(cast, machine, watchdog="reset")
    carry_out(worker, begun, *points(editing.EDIT))
    assert remark(begun) == "" and sides(real, machine, "watchdog") == ["reset", "reset"]
    assert has_dog(machine) and waits(real, machine).rows == []

    begun = edit(cast, machine, watchdog="absent")
    carry_out(worker, begun, *points(editing.EDIT))
    assert remark(begun) == "" and sides(real, machine, "watchdog") == ["absent", "absent"]
    assert not has_dog(machine) and waits(real, machine).rows == []


def test_the_agents_channel_goes_and_comes_back(cast, worker, real, machine):
    """Red when what runs keeps the channel, or libvirt does not connect to one that came later."""
    carry_out(worker, edit(cast, machine, agent="off"), *points(editing.EDIT))
    assert sides(real, machine, "agent") == ["off", "off"]
    assert not real[0].guest_agent_ping(str(machine.uuid))
    see(real, machine)
    carry_out(worker, edit(cast, machine, agent="on"), *points(editing.EDIT))
    assert sides(real, machine, "agent") == ["on", "on"] and waits(real, machine).rows == []
    await_agent(real[0], machine.uuid)
