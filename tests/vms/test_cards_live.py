"""Cards, CDs and limits of a real machine on the real libvirt, changed while it runs, whatever dies."""

import json
import subprocess
import time
from dataclasses import asdict

import pytest
from django.utils import timezone

from networks.models import Port
from portal.drivers.inspection import Kind, inspect
from portal.drivers.registry import driver_for
from portal.hosts.models import Host
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from tests.factories import MIB, make_network
from tests.shaping import can_shape, shaped
from tests.vms.real import URI, await_agent, inside
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
from vms import noted, power
from vms.changes.devices import bandwidth, buses, cardmodels, drives, limits, media, nics, rewiring
from vms.models import CatalogueItem, VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
ROOMS = (nics, rewiring, cardmodels, bandwidth, drives, media, limits, buses)
KINDS = {kind.name: kind for room in ROOMS for kind in room.KINDS}


@pytest.fixture
def machine(worker, real, queued):
    """A machine that runs and whose agent answers; its definition is known."""
    carry_out(worker, queued)
    found = VirtualMachine.objects.get()
    await_agent(real[0], found.uuid)
    see(real, found)
    return found


def see(real, machine):
    began = timezone.now()
    noted.note(machine.host_id, str(machine.uuid), real[0].definition(str(machine.uuid)), began)
    VirtualMachine.objects.update(observed_state=real[0].domain_info(str(machine.uuid)).state.value)
    machine.refresh_from_db()


def devices(real, machine, side, name):
    text = getattr(real[0].definition(str(machine.uuid)), side)
    return inspect(Kind.DOMAIN, text.encode()).understood["devices"].get(name, [])


def macs(real, machine, side):
    return [card["mac"] for card in devices(real, machine, side, "interfaces")]


def media_in(real, machine, side):
    return [disk.get("source", {}).get("file") for disk in devices(real, machine, side, "disks")][1:]


def shell(machine, line):
    return inside(machine.uuid, "/bin/busybox", "sh", "-c", line).strip()


def eventually(wanted, look):
    """Look until it is so; a guest sees what its host did a moment later."""
    end = time.monotonic() + 20
    while (seen := look()) != wanted:
        assert time.monotonic() < end, f"{seen!r} is not {wanted!r}"
        time.sleep(0.3)


def add(cast, machine):
    network = Port.objects.order_by("pk").first().network
    return nics.add_card(actor=cast.requester, machine=machine, network=network)


def seen_in_guest(machine, mac):
    """Return the guest's name of a card, '' for none."""
    return shell(machine, f"grep -l {mac} /sys/class/net/*/address | cut -d/ -f5")


def carrier(machine, name):
    return shell(machine, f"ip link set {name} up; cat /sys/class/net/{name}/carrier")


def test_a_card_comes_is_pulled_and_goes_while_it_runs_whatever_dies(cast, worker, real, machine):
    """Red when attach_nic() attaches anew what is attached, or the guest's link is not told it."""
    first = Port.objects.get()
    carry_out(worker, add(cast, machine), *points(KINDS[nics.ADD]))
    port = Port.objects.exclude(pk=first.pk).get()
    eventually(True, lambda: bool(seen_in_guest(machine, port.mac)))
    name = seen_in_guest(machine, port.mac)
    assert macs(real, machine, "persistent") == macs(real, machine, "running") == [first.mac, port.mac]

    doing = {"actor": cast.requester, "machine": machine, "mac": port.mac}
    eventually("1", lambda: carrier(machine, name))
    carry_out(worker, nics.set_link(**doing, up=False), *points(KINDS[nics.LINK]))
    eventually("0", lambda: carrier(machine, name))
    # What the portal shows it knows by itself, from the definition that it noted at the end.
    assert [card.linked for card in nics.cards_of(machine)] == [True, False]
    carry_out(worker, nics.set_link(**doing, up=True), *points(KINDS[nics.LINK]))
    eventually("1", lambda: carrier(machine, name))

    carry_out(worker, nics.remove_card(**doing), *points(KINDS[nics.REMOVE]))
    assert macs(real, machine, "persistent") == macs(real, machine, "running") == [first.mac]
    eventually("", lambda: seen_in_guest(machine, port.mac))
    assert list(Port.objects.all()) == [first]


def test_a_card_comes_to_another_network_while_it_runs_whatever_dies(cast, worker, real, machine, request):
    """Red when what runs is left out, or a failure leaves either side on the other network."""
    port, uuid = Port.objects.get(), str(machine.uuid)
    home, away = port.network, make_network(81)
    request.addfinalizer(lambda: real[0].remove_network(away.spec.name))
    CatalogueItem.objects.get().networks.add(away)
    name = seen_in_guest(machine, port.mac)

    def rewire(network):
        doing = {"actor": cast.requester, "machine": machine, "mac": port.mac}
        return rewiring.rewire_card(**doing, network=network)

    def networks():
        sides = [devices(real, machine, side, "interfaces") for side in ("persistent", "running")]
        return [card["source"]["network"] for cards in sides for card in cards]

    failed = rewire(away)
    assert worker(failed.pk, failing="rewire") == 0
    assert Operation.objects.get(pk=failed.pk).state == State.FAILED
    assert networks() == [home.spec.name] * 2 and Port.objects.get().network == home

    carry_out(worker, rewire(away), *points(KINDS[rewiring.REWIRE]))
    assert networks() == [away.spec.name] * 2 and Port.objects.get().network == away
    # The guest keeps its card, and what it asks there the other network answers.
    assert seen_in_guest(machine, port.mac) == name
    shell(machine, f"/bin/busybox udhcpc -n -q -i {name} -s /bin/true; true")
    eventually(True, lambda: any(one.address.startswith("10.213.81.") for one in real[0].leases(uuid)))
    carry_out(worker, rewire(home))
    assert networks() == [home.spec.name] * 2


def test_a_card_that_cannot_be_attached_leaves_nothing(cast, worker, real, machine):
    """Red when AttachCard has no undo, or the row of the card stays."""
    first = Port.objects.get()
    begun = add(cast, machine)
    assert worker(begun.pk, failing="attach") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert macs(real, machine, "persistent") == macs(real, machine, "running") == [first.mac]
    assert list(Port.objects.all()) == [first]


def test_the_last_card_comes_back_when_its_end_fails(cast, worker, real, machine):
    """Red when DetachCard has no undo."""
    first = Port.objects.get()
    begun = nics.remove_card(actor=cast.requester, machine=machine, mac=first.mac)
    assert worker(begun.pk, failing="detach") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert macs(real, machine, "persistent") == macs(real, machine, "running") == [first.mac]
    eventually(True, lambda: bool(seen_in_guest(machine, first.mac)))
    assert list(Port.objects.all()) == [first]


def test_a_guest_that_keeps_its_card_is_told_of_and_nothing_is_lost(cast, worker, real, machine):
    """Red when a detachment that the guest does not heed counts as done. A paused guest heeds nothing."""
    first = Port.objects.get()
    real[0].suspend(str(machine.uuid))
    begun = nics.remove_card(actor=cast.requester, machine=machine, mac=first.mac)
    assert worker(begun.pk) == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert StepRecord.objects.get(operation=begun, name="detach").error_code == "guest_ignores"
    assert macs(real, machine, "persistent") == [first.mac] and list(Port.objects.all()) == [first]


def test_a_disk_is_limited_while_it_runs_and_later_whatever_dies(cast, worker, real, machine):
    """Red when either side is left out."""
    disk = machine.disks.get()
    wanted = {"read_bytes_sec": 5 * MIB, "write_bytes_sec": 3 * MIB, "total_iops_sec": 400}
    doing = {"actor": cast.requester, "disk": disk}
    begun = limits.limit_disk(**doing, limits=wanted, seen={})
    carry_out(worker, begun, *points(KINDS[limits.LIMIT]))
    for side in "--live", "--config":
        assert tuned(machine, side) == wanted
    assert limits.limits_of(disk) == {**dict.fromkeys(limits.LIMITS, 0), **wanted}

    failed = limits.limit_disk(**doing, limits={}, seen=wanted)
    assert worker(failed.pk, failing="limits") == 0
    assert Operation.objects.get(pk=failed.pk).state == State.FAILED
    assert tuned(machine, "--live") == tuned(machine, "--config") == wanted
    carry_out(worker, limits.limit_disk(**doing, limits={}, seen=wanted))
    assert tuned(machine, "--live") == tuned(machine, "--config") == {}


def tuned(machine, side):
    """Return what virsh says of the first disk's limits, without those that are none."""
    command = ["virsh", "-q", "-c", URI, "blkdeviotune", str(machine.uuid), "vda", side]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    pairs = [line.split(":") for line in lines if ":" in line]
    told = {name.strip(): value.strip() for name, value in pairs}
    return {name: int(told[name]) for name in limits.LIMITS if told[name] != "0"}


def test_a_card_is_limited_whatever_dies_or_the_host_says_that_it_cannot(cast, worker, real, machine):
    """Red when either side is left out, or the half of what a kernel cannot do stays."""
    port = Port.objects.get()
    wanted = {"inbound_average": 2048, "inbound_burst": 512, "outbound_average": 64}
    doing = {"actor": cast.requester, "machine": machine, "mac": port.mac}
    none = dict.fromkeys(bandwidth.BANDWIDTH, 0)

    def sides():
        made = real[0].definition(str(machine.uuid))
        there = [side for side in ("persistent", "running") if getattr(made, side)]
        found = [devices(real, machine, side, "interfaces") for side in there]
        return [bandwidth.of_card(card) for cards in found for card in cards]

    if not can_shape():
        refused = bandwidth.limit_card(**doing, limits=wanted, seen={})
        assert worker(refused.pk) == 0
        assert Operation.objects.get(pk=refused.pk).state == State.FAILED
        assert StepRecord.objects.get(operation=refused, name="limits").error_code == "no_shaping"
        card = devices(real, machine, "running", "interfaces")[0]
        assert sides() == [none, none] and shaped(card["target"]) == ""
        real[0].destroy(str(machine.uuid))
        see(real, machine)
    begun = bandwidth.limit_card(**doing, limits=wanted, seen={})
    carry_out(worker, begun, *points(KINDS[bandwidth.LIMIT]))
    told = [none | wanted] * len(sides())
    assert sides() == told
    failed = bandwidth.limit_card(**doing, limits={}, seen=wanted)
    assert worker(failed.pk, failing="limits") == 0
    assert Operation.objects.get(pk=failed.pk).state == State.FAILED and sides() == told
    carry_out(worker, bandwidth.limit_card(**doing, limits={}, seen=wanted))
    assert sides() == [none] * len(told)


def test_the_seed_is_taken_out_and_put_in_whatever_dies(cast, worker, real, machine):
    """Red when either side is left out, or the guest's drive is not told it."""
    seed = media.seed_path(machine)
    doing = {"actor": cast.requester, "machine": machine, "target": "sda"}
    assert media_in(real, machine, "running") == [seed]
    size = shell(machine, "cat /sys/block/sr0/size")
    carry_out(worker, media.change_media(**doing, seed=False), *points(KINDS[media.CHANGE]))
    assert media_in(real, machine, "running") == media_in(real, machine, "persistent") == [None]
    assert readable(machine) is False
    carry_out(worker, media.change_media(**doing, seed=True), *points(KINDS[media.CHANGE]))
    assert media_in(real, machine, "running") == media_in(real, machine, "persistent") == [seed]
    assert readable(machine) is True and shell(machine, "cat /sys/block/sr0/size") == size
    # It starts with it, as before.
    carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="destroy"))
    see(real, machine)
    carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="start"))
    await_agent(real[0], machine.uuid)
    assert readable(machine) is True


def test_a_drive_comes_and_goes_at_the_next_start_whatever_dies(cast, worker, real, machine):
    """Red when what runs is asked for it, or the new drive takes a name or place of another."""
    doing = {"actor": cast.requester, "machine": machine}

    def names(side):
        found = [disk["target"] for disk in devices(real, machine, side, "disks")]
        return sorted((one["dev"], one["bus"]) for one in found)

    def again():
        see(real, machine)
        carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="destroy"))
        see(real, machine)
        carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="start"))
        await_agent(real[0], machine.uuid)
        see(real, machine)

    before = names("running")
    failed = drives.add_drive(**doing, bus="scsi")
    assert worker(failed.pk, failing="redefine") == 0
    assert Operation.objects.get(pk=failed.pk).state == State.FAILED and names("persistent") == before
    carry_out(worker, drives.add_drive(**doing, bus="scsi"), *points(KINDS[drives.ADD]))
    carry_out(worker, drives.add_drive(**doing, bus="sata"))
    both = [("sda", "scsi"), ("sdb", "scsi"), ("sdc", "sata"), ("vda", "virtio")]
    assert names("running") == before and names("persistent") == both
    again()
    assert names("running") == both and shell(machine, "ls -d /sys/block/sr1") == "/sys/block/sr1"
    seed = media.seed_path(machine)
    carry_out(worker, drives.remove_drive(**doing, target="sdb"), *points(KINDS[drives.REMOVE]))
    assert names("running") == both and [seed, None] == media_in(real, machine, "persistent")
    carry_out(worker, drives.remove_drive(**doing, target="sdc"))
    again()
    assert names("running") == names("persistent") == before and readable(machine) is True


def test_a_disk_and_a_card_change_at_the_next_start_whatever_dies(cast, worker, real, machine):
    """Red when what runs is asked for it, the undo does not restore the slot, or the guest does not boot."""
    told = driver_for(URI).readiness()
    Host.objects.update(readiness=json.loads(json.dumps(asdict(told))))
    disk, port = machine.disks.get(), Port.objects.get()
    doing = {"actor": cast.requester}

    def sides(side):
        [hard] = [one for one in devices(real, machine, side, "disks") if one["target"]["dev"] == "vda"]
        [card] = devices(real, machine, side, "interfaces")
        return hard["target"]["bus"], card["model"], hard["address"], card["address"]

    before = sides("persistent")[:3]
    card = {**doing, "machine": machine, "mac": port.mac}
    for begin in (
        lambda: buses.set_bus(**doing, disk=disk, bus="scsi"),
        lambda: cardmodels.set_model(**card, model="e1000"),
    ):
        begun = begin()
        assert worker(begun.pk, failing="redefine") == 0
        assert Operation.objects.get(pk=begun.pk).state == State.FAILED
        assert sides("persistent")[:3] == before
    slot = sides("persistent")[3]
    carry_out(worker, buses.set_bus(**doing, disk=disk, bus="scsi"), *points(KINDS[buses.BUS]))
    carry_out(worker, cardmodels.set_model(**card, model="e1000e"), *points(KINDS[cardmodels.MODEL]))
    assert sides("persistent")[:2] == ("scsi", "e1000e") and sides("persistent")[3] == slot
    assert sides("running")[:2] == ("virtio", "virtio")
    carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="destroy"))
    see(real, machine)
    carry_out(worker, power.act(actor=cast.requester, machine=machine, verb="start"))
    assert sides("running")[:2] == ("scsi", "e1000e")
    # The tiny guest has virtio-scsi's driver: it starts from the disk, and its agent answers.
    await_agent(real[0], machine.uuid)
    assert shell(machine, "ls /sys/block | grep -c ^vd; true") == "0"


def readable(machine):
    return shell(machine, "head -c 2048 /dev/sr0 | wc -c") == "2048"


def open_tray(machine):
    """Open the drive by its emulator, as a guest's `eject` does; the tiny guest has no such program."""
    asked = '{"execute": "blockdev-open-tray", "arguments": {"id": "scsi0-0-0-0"}}'
    command = ["virsh", "-q", "-c", URI, "qemu-monitor-command", str(machine.uuid), asked]
    subprocess.run(command, check=True, capture_output=True)


def tray_open(real, machine):
    # Asked before the guest opens the drive: Linux shuts a tray by itself then.
    return "tray='open'" in real[0].definition(str(machine.uuid)).running


def test_what_was_forced_out_comes_back_when_the_change_fails(cast, worker, real, machine):
    """Red when undo() puts nothing back. The way back needs no force, though the guest holds the tray."""
    seed = media.seed_path(machine)
    shell(machine, "mkdir -p /run/cd && mount -t iso9660 -o ro /dev/sr0 /run/cd")
    doing = {"actor": cast.requester, "machine": machine, "target": "sda"}
    begun = media.change_media(**doing, seed=False, force=True)
    assert worker(begun.pk, failing="media") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert media_in(real, machine, "running") == media_in(real, machine, "persistent") == [seed]


def test_a_tray_that_the_guest_holds_or_opened(cast, worker, real, machine):
    """Red when a refusal counts as done, or a tray that stands open as one with its medium in it."""
    seed = media.seed_path(machine)
    doing = {"actor": cast.requester, "machine": machine, "target": "sda"}
    shell(machine, "mkdir -p /run/cd && mount -t iso9660 -o ro /dev/sr0 /run/cd")
    begun = media.change_media(**doing, seed=False)
    assert worker(begun.pk) == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert StepRecord.objects.get(operation=begun, name="media").error_code == "tray_held"
    assert media_in(real, machine, "persistent") == [seed]
    shell(machine, "umount /run/cd")
    open_tray(machine)
    eventually(True, lambda: tray_open(real, machine))
    real[0].change_media(str(machine.uuid), "sda", seed)
    assert tray_open(real, machine) is False and readable(machine) is True
    carry_out(worker, media.change_media(**doing, seed=False))
    assert media_in(real, machine, "running") == media_in(real, machine, "persistent") == [None]
