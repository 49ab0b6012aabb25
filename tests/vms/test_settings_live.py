"""Settings of a real machine on the real libvirt: changed for the next start, whatever dies meanwhile.

What comes and goes at once: `test_hotplug_live`.
"""

import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
from django.utils import timezone

from portal.drivers.inspection import Kind, inspect
from portal.drivers.types import DomainState
from portal.hosts.models import Host
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from tests.vms.real import URI
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
from vms import editing, noted, pending, power, settings
from vms.models import Definition, VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
PLAIN = {"description": "", "boot": "hd", "clock": "utc", "watchdog": "absent"}
WANTED = {"description": "mine", "boot": "cdrom", "clock": "localtime", "watchdog": "poweroff"}
PLAIN |= {"cache": "default", "trim": "on"}
WANTED |= {"cache": "none", "trim": "off"}


@pytest.fixture
def machine(worker, real, queued):
    """A machine that runs, of whose definition the portal knows."""
    carry_out(worker, queued)
    found = VirtualMachine.objects.get()
    see(real, found)
    return found


def see(real, machine):
    began = timezone.now()
    noted.note(machine.host_id, str(machine.uuid), real[0].definition(str(machine.uuid)), began)


def told(real, machine):
    """Let the portal know what the host can give, as its enrolment does."""
    Host.objects.filter(pk=machine.host_id).update(readiness=asdict(real[0].readiness()))


def edit(cast, machine, **values):
    digest = Definition.objects.get(uuid=machine.uuid).observed_digest
    return editing.edit_machine(actor=cast.requester, machine=machine, values=values, digest=digest)


def set_to(text):
    found = settings.values(inspect(Kind.DOMAIN, text.encode()).understood)
    return {name: found[name] for name in PLAIN}


def runs_as(definition):
    return all_values(definition.running)


def assert_kept(before, after):
    """Look that no line is lost; libvirt keeps the bridge that it made for a device that went."""
    assert set(before.persistent.splitlines()) <= set(after.persistent.splitlines())


def test_settings_are_changed_for_the_next_start_whatever_dies(cast, worker, real, machine):
    """Red when Redefine does not bind the change to the digest, or libvirt refuses a value of a setting."""
    driver, uuid = real[0], str(machine.uuid)
    before = driver.definition(uuid)
    carry_out(worker, edit(cast, machine, **WANTED), *points(editing.EDIT))
    now = driver.definition(uuid)
    assert set_to(now.persistent) == WANTED
    gone = set(before.persistent.splitlines()) - set(now.persistent.splitlines())
    disk = "<driver name='qemu' type='qcow2' discard='unmap'/>"
    assert {line.strip() for line in gone} == {"<clock offset='utc'/>", disk}
    assert runs_as(now) == {**runs_as(before), "watchdog": WANTED["watchdog"]}
    assert driver.domain_info(uuid).state is DomainState.RUNNING
    row = Definition.objects.get(uuid=uuid)
    assert row.observed_digest == now.digest
    waits = {one.setting for one in pending.look(machine, row).rows}
    assert waits == WANTED.keys() - {"description", "watchdog"}

    # And all the way back, by workers that die as well: what was taken away is not there a second time.
    carry_out(worker, edit(cast, machine, **PLAIN), *points(editing.EDIT))
    assert set_to(driver.definition(uuid).persistent) == PLAIN
    assert_kept(before, driver.definition(uuid))
    carry_out(worker, edit(cast, machine, **WANTED))

    VirtualMachine.objects.update(observed_state="running")
    carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="destroy"))
    VirtualMachine.objects.update(observed_state="shutoff")
    carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="start"))
    assert set_to(driver.definition(uuid).running) == WANTED


#: One at a time and all at once: what libvirt takes alone may be refused beside another.
HARDWARE = {
    "order": "disk:sda disk:vda",
    "firmware": "uefi",
    "tpm": "emulator",
    "cpu": "model:Nehalem",
    "topology": "flat",
    "video": "vga",
    "agent": "off",
}
SIGNS = {
    "order": "<boot order='2'/>",
    "firmware": "type='pflash'",
    "tpm": "<backend type='emulator' version='2.0'",
    "cpu": ">Nehalem</model>",
    "video": "<model type='vga'",
}


def all_values(text):
    return settings.values(inspect(Kind.DOMAIN, text.encode()).understood)


def off_and_on(cast, worker, machine):
    VirtualMachine.objects.update(observed_state="running")
    carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="destroy"))
    VirtualMachine.objects.update(observed_state="shutoff")
    carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="start"))
    VirtualMachine.objects.update(observed_state="running")


def test_hardware_is_what_the_next_start_has_and_goes_back(cast, worker, real, machine):
    """Red when libvirt refuses a value of a setting, or QEMU starts without it."""
    driver, uuid = real[0], str(machine.uuid)
    told(real, machine)
    before = driver.definition(uuid)
    was = all_values(before.persistent)
    carry_out(worker, edit(cast, machine, **HARDWARE), *points(editing.EDIT))
    now = driver.definition(uuid)
    assert all_values(now.persistent) == {**was, **HARDWARE, "boot": ""}
    assert runs_as(now) == {**runs_as(before), "agent": "off"}
    off_and_on(cast, worker, machine)
    runs = driver.definition(uuid).running
    assert {name for name, sign in SIGNS.items() if sign not in runs} == set()
    assert "guest_agent" not in runs

    see(real, machine)
    carry_out(worker, edit(cast, machine, **{name: was[name] for name in HARDWARE}), *points(editing.EDIT))
    assert all_values(driver.definition(uuid).persistent) == was
    assert_hardware_kept(before, driver.definition(uuid))
    off_and_on(cast, worker, machine)
    runs = driver.definition(uuid).running
    assert "pflash" not in runs and "guest_agent" in runs and "<tpm" not in runs
    driver.destroy(uuid)
    driver.undefine(uuid)
    assert not list(Path("/var/lib/libvirt/qemu/nvram").glob(f"{machine.domain_name}*"))
    assert not (Path("/var/lib/libvirt/swtpm") / uuid).exists()


def assert_hardware_kept(before, after):
    """Look that only what was set to and fro is written otherwise: its place, and memory of the screen."""
    there = after.persistent.splitlines()
    lost = [line.strip() for line in before.persistent.splitlines() if line not in there]
    assert [line for line in lost if not line.startswith(("<address type=", "<model type='virtio'"))] == []


@pytest.mark.parametrize(
    ("name", "value"), [("firmware", "secure"), ("cpu", "host-model"), ("video", "qxl")]
)
def test_a_value_alone_starts_too(cast, worker, real, machine, name, value):
    """Red when secure boot lacks what libvirt asks for beside it, or a mode of processors does."""
    told(real, machine)
    carry_out(worker, edit(cast, machine, **{name: value}), *points(editing.EDIT))
    off_and_on(cast, worker, machine)
    assert all_values(real[0].definition(str(machine.uuid)).persistent)[name] == value
    see(real, machine)
    assert Definition.objects.get(uuid=machine.uuid).observed_running


def test_a_change_that_fails_after_it_was_made_is_taken_back(cast, worker, real, machine):
    """Red when Redefine.undo leaves what a call that took too long made all the same."""
    before = real[0].definition(str(machine.uuid))
    begun = edit(cast, machine, **WANTED)
    assert worker(begun.pk, failing="redefine") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    after = real[0].definition(str(machine.uuid))
    assert set_to(after.persistent) == PLAIN
    assert_kept(before, after)
    assert Definition.objects.get(uuid=machine.uuid).observed_digest == after.digest


def test_what_somebody_changes_by_virsh_in_between_stays(cast, worker, real, machine):
    """Red when the definition that was seen is not asked for, or undo takes back what others made."""
    begun = edit(cast, machine, **WANTED)
    command = ["virsh", "-q", "-c", URI, "desc", str(machine.uuid), "--config", "somebody else's"]
    subprocess.run(command, check=True, capture_output=True)
    theirs = real[0].definition(str(machine.uuid))
    assert worker(begun.pk) == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert StepRecord.objects.get(operation=begun).error_code == "definition_changed"
    assert real[0].definition(str(machine.uuid)) == theirs and "somebody else" in theirs.persistent
