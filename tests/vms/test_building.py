"""A real machine on the real libvirt, with the worker killed at every point: it runs, or nothing is left."""

import signal
import subprocess

import pytest

from networks.models import Port
from portal.drivers.types import DomainState
from portal.operations.runner import leftovers
from portal.operations.states import State
from tests.conftest import let_heartbeats_lapse
from tests.vms.real import URI, held, on_host
from vms.building import CREATE
from vms.models import Status, VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
STEPS = [step.name for step in CREATE.steps]
#: Whose workers `worker` runs.
WORKER = "tests.vms.killed_builder"


def check_runs(driver, operation):
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED, (operation.error_code, operation.error_raw)
    machine = VirtualMachine.objects.get(built_by=operation)
    assert machine.status == Status.ACTIVE and machine.observed_address.startswith("10.213.78.")
    assert driver.domain_info(str(machine.uuid)).state is DomainState.RUNNING
    assert len(on_host(driver, operation)) == 3
    assert held(operation) == (0, machine.memory)


def check_nothing(driver, operation):
    operation.refresh_from_db()
    assert operation.state == State.FAILED and leftovers(operation) == []
    assert on_host(driver, operation) == []
    assert not VirtualMachine.objects.exists() and not Port.objects.exists()
    assert held(operation) == (0, 0)


def test_a_machine_without_any_virtio_device_is_built_and_has_an_address(worker, real, approve):
    """Red when tiny's grub.cfg starts the cloud kernel always, or the seed or disk is on another bus."""
    queued = approve(devices="emulated")
    assert worker(queued.pk) == 0
    check_runs(real[0], queued)
    machine = VirtualMachine.objects.get(built_by=queued)
    assert machine.virtualization == "Full virtualization in software"
    shown = subprocess.run(
        ["virsh", "-q", "-c", URI, "dumpxml", str(machine.uuid)], capture_output=True, text=True, check=True
    )
    assert "e1000e" in shown.stdout and "virtio" not in shown.stdout


@pytest.mark.parametrize("point", [f"{when}:{step}" for step in STEPS for when in ("before", "after")])
def test_killed_while_building_the_machine_is_finished_by_the_next_worker(worker, real, queued, point):
    """Red when take_over_lapsed takes nothing."""
    assert worker(queued.pk, point) == -signal.SIGKILL
    let_heartbeats_lapse()
    assert worker("reap") == 0
    check_runs(real[0], queued)


@pytest.mark.parametrize(
    "point", [f"undo-{when}:{step}" for step in STEPS for when in ("before", "after")]
)
def test_killed_while_undoing_nothing_is_left_in_the_end(worker, real, queued, point):
    """Red when StartDomain.undo or DefineDomain.undo do nothing."""
    assert worker(queued.pk, point, failing="address") == -signal.SIGKILL
    queued.refresh_from_db()
    assert queued.state == State.UNDOING and leftovers(queued)
    let_heartbeats_lapse()
    assert worker("reap") == 0
    check_nothing(real[0], queued)


@pytest.mark.parametrize("failing", STEPS)
def test_a_step_that_fails_after_it_acted_leaves_nothing(worker, real, queued, failing):
    """Red when _note of a failed step marks it undone before it was."""
    assert worker(queued.pk, failing=failing) == 0
    check_nothing(real[0], queued)


def test_what_was_built_before_a_kill_goes_when_the_next_worker_fails(worker, real, queued):
    """Red when _undo_all walks only over the steps that are done."""
    assert worker(queued.pk, "after:domain") == -signal.SIGKILL
    let_heartbeats_lapse()
    assert worker("reap", failing="start") == 0
    check_nothing(real[0], queued)
