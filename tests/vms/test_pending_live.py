"""What waits for the next start of a real machine on the real libvirt, and what is set back there."""

import subprocess

import pytest

from tests.vms.real import URI
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
from tests.vms.test_settings_live import all_values, edit, off_and_on, see, told
from vms import editing, noted, pending, setting_back
from vms.models import Observed, VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
MAC = "52:54:00:aa:bb:77"


@pytest.fixture
def machine(worker, real, queued):
    """A machine that runs, of whose host the portal knows what it can give."""
    carry_out(worker, queued)
    VirtualMachine.objects.update(observed_state=Observed.RUNNING)
    found = VirtualMachine.objects.get()
    told(real, found)
    see(real, found)
    return VirtualMachine.objects.select_related("host").get()


def virsh(*words):
    subprocess.run(["virsh", "-q", "-c", URI, *words], check=True, capture_output=True)


def waits(real, machine):
    see(real, machine)
    return pending.look(machine, noted.of(machine), pending.names_for(machine))


def labels(real, machine):
    return [row.label for row in waits(real, machine).rows]


def test_all_that_waits_is_told_and_settings_go_back(cast, worker, real, machine):
    """Red when libvirt writes a change otherwise than it is read, or what is set back is set otherwise."""
    uuid = str(machine.uuid)
    assert waits(real, machine) == pending.Pending()
    before = real[0].definition(uuid)
    wanted = {"clock": "localtime", "firmware": "uefi", "order": "disk:sda disk:vda", "cache": "none"}
    carry_out(worker, edit(cast, machine, **wanted, watchdog="reset"))
    virsh("setvcpus", uuid, "8", "--config", "--maximum")
    virsh("setvcpus", uuid, "2", "--config")
    virsh("attach-interface", uuid, "network", "gatehouse-example78", "--mac", MAC, "--config")
    virsh("change-media", uuid, "sda", "--eject", "--config")
    found = waits(real, machine)
    # The watchdog came at once.
    assert {row.setting for row in found.settable} == {*wanted, "boot"}
    rows = {row.label: (row.before, row.after) for row in found.rows if not row.setting}
    assert rows.pop("vCPUs at most while it runs")[1] == "8"
    assert rows == {
        "vCPUs": ("1", "2"),
        "Drive sda": ("the machine's own seed for cloud-init", "empty"),
        f"Network card {MAC}": ("", "Example 78"),
    }
    assert found.others == []

    digest = noted.of(machine).observed_digest
    begun = setting_back.set_back(actor=cast.requester, machine=machine, digest=digest, seen=found.back)
    carry_out(worker, begun, *points(editing.EDIT))
    found = waits(real, machine)
    assert found.settable == [] and len(found.rows) == 4
    assert all_values(real[0].definition(uuid).running) == {**all_values(before.running), "watchdog": "reset"}
    off_and_on(cast, worker, machine)
    assert waits(real, machine) == pending.Pending()


@pytest.mark.parametrize(
    "wanted",
    [
        {"firmware": "uefi", "tpm": "emulator", "video": "qxl", "watchdog": "pause", "cpu": "maximum"},
        {"firmware": "secure", "cpu": "host-model", "agent": "off", "cache": "none"},
    ],
    ids=str,
)
def test_what_libvirt_fills_in_at_a_start_waits_for_nothing(cast, worker, real, machine, wanted):
    """Red when firmware_of_run or cpu_of_run takes what runs as libvirt prints it."""
    carry_out(worker, edit(cast, machine, **wanted))
    assert {row.setting for row in waits(real, machine).settable} == wanted.keys() - {"watchdog", "agent"}
    off_and_on(cast, worker, machine)
    assert waits(real, machine) == pending.Pending()


#: By libvirt's element, what virsh says to set it for the next start alone. The host need not be able to.
UNREAD = {
    "cputune": ("schedinfo", "--set", "cpu_shares=2048"),
    "memtune": ("memtune", "--hard-limit", "8388608"),
    "blkiotune": ("blkiotune", "--weight", "500"),
    "numatune": ("numatune", "--mode", "preferred", "--nodeset", "0"),
}


def test_what_the_portal_does_not_read_waits_until_the_next_start(cast, worker, real, machine):
    """Red when DefinitionSeen compares nothing that no field reads, or libvirt fills in a part of it."""
    uuid = str(machine.uuid)
    virsh("iothreadadd", uuid, "1", "--config")
    assert "Other settings: <iothreads>" in labels(real, machine)
    off_and_on(cast, worker, machine)
    assert waits(real, machine) == pending.Pending()
    for verb, *options in UNREAD.values():
        virsh(verb, uuid, *options, "--config")
    rows = waits(real, machine).rows
    assert {row.label for row in rows} == {f"Other settings: <{name}>" for name in UNREAD}
    assert {(row.before, row.setting) for row in rows} == {("", "")} and all(row.after for row in rows)
