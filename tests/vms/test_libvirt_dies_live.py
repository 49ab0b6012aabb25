"""libvirtd dies in the middle of every change of a machine, and each ends done or wholly undone.

On a further host, whose libvirtd is killed by SIGKILL at each of its calls that change something: before it,
while it is made, and after it, when nobody is told what came of it. Not for: a worker that dies.
"""

import os
import signal
import threading
import time
import uuid
from itertools import zip_longest

import libvirt
import pytest

from networks import services as networks
from networks.models import Port
from portal.hosts.models import Image, ImageAttachment
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from tests import killed_libvirt
from tests.conftest import let_heartbeats_lapse
from tests.factories import MIB
from tests.killed_turns import Peaceful, deaths, go_through, kills, opened, problems, worker  # noqa: F401 (fixtures)
from tests.vms.killed_stage import MAC, There, number, stage  # noqa: F401 (a fixture)
from tests.vms.orphans import at_change_over, emulator, has_open
from tests.vms.real import await_agent
from tests.vms.test_changes_live import consent, resize
from tests.vms.test_settings_live import all_values, edit
from vms import noted, pending, power, setting_back, starting
from vms.adoption import services as adoption
from vms.changes import attaching, cloning, disks, moving, templates
from vms.changes.devices import bandwidth, buses, cardmodels, drives, limits, media, nics, rewiring
from vms.exports import services as exports
from vms.models import Export, VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]


# What is done


def add_disk(there):
    doing = there.doing(why="a try", token=uuid.uuid4())
    return consent(there.cast, disks.request_disk(**doing, capacity=8 * MIB))


def newest(there):
    return there.machine.disks.select_related("machine", "pool__pool").order_by("target").last()


def remove_disk(there):
    disk = newest(there)
    return disks.remove_disk(actor=there.cast.requester, disk=disk, confirm_name=disk.target)


def grow_disk(there):
    disk = newest(there)
    asked = disks.request_growth(
        actor=there.cast.requester, disk=disk, capacity=disk.capacity + 8 * MIB, seen=disk.capacity,
        why="more", token=uuid.uuid4(),
    )
    return consent(there.cast, asked)


def detach(there):
    return attaching.detach(actor=there.chief, disk=newest(there))


def attach(there):
    [volume] = [one for one in attaching.volumes_for(there.machine) if "-vdb-" in one.name]
    doing = there.doing(volume=volume, why="again", token=uuid.uuid4(), actor=there.chief)
    return consent(there.cast, attaching.request_attachment(**doing))


def last_card(there):
    return Port.objects.filter(domain_uuid=there.machine.uuid).order_by("pk").last().mac


def put_in(there):
    return media.insert_image(**there.doing(target="sda", image=there.image))


def eject(there):
    return media.change_media(**there.doing(target="sda", seed=False))


def limit(**wanted):
    def act(there):
        disk = there.machine.disks.get(target="vda")
        seen = limits.limits_of(disk)
        return limits.limit_disk(actor=there.cast.requester, disk=disk, limits=wanted, seen=seen)

    return act


def limit_card(**wanted):
    def act(there):
        seen = bandwidth.limits_of(noted.of(there.machine), MAC)
        return bandwidth.limit_card(**there.doing(mac=MAC, limits=wanted, seen=seen))

    return act


def move(number):
    def act(there):
        disk = there.machine.disks.select_related("machine").get(target="vda")
        return moving.move_disk(actor=there.chief, disk=disk, to=there.places[number])

    return act


def more_vcpus(there):
    return consent(there.cast, resize(there.cast, there.machine, vcpu=there.machine.vcpus + 1))


def do(verb):
    return lambda there: power.act(**there.doing(verb=verb))


def change(**values):
    return lambda there: edit(there.cast, there.machine, **values)


def balloon(size):
    return lambda there: resize(there.cast, there.machine, memory_now=size)


def rewire(name):
    def act(there):
        return rewiring.rewire_card(**there.doing(mac=MAC, network=getattr(there, name), actor=there.chief))

    return act


def remove_network(there):
    away = there.away
    networks.remove_network(actor=there.chief, network=away, confirm_name=away.name)
    return Operation.objects.filter(kind="networks.remove").latest("pk")


def model(name):
    return lambda there: cardmodels.set_model(**there.doing(mac=MAC, model=name))


def bus(name):
    def act(there):
        disk = there.machine.disks.select_related("machine").get(target="vda")
        return buses.set_bus(actor=there.cast.requester, disk=disk, bus=name)

    return act


def remove_drive(there):
    target = max(drive.target for drive in media.drives_of(there.machine))
    return drives.remove_drive(**there.doing(target=target))


def set_back(there):
    found = noted.of(there.machine)
    seen = pending.look(there.machine, found).back
    return setting_back.set_back(**there.doing(digest=found.observed_digest, seen=seen))


def autostart(on):
    return lambda there: starting.set_autostart(**there.doing(on=on))


def discard(there):
    return power.discard_saved(**there.doing(confirm_name="example"))


#: What is done while it runs, each with what takes it back; what cannot be taken back stands alone.
RUNNING = {
    "edit": (
        change(description="mine", clock="localtime"),
        Peaceful(change(description="", clock="utc")),
    ),
    "memory": (balloon(96 * MIB), Peaceful(balloon(128 * MIB))),
    "limits": (limit(total_iops_sec=400), Peaceful(limit())),
    "bandwidth": (limit_card(inbound_average=512, outbound_average=64), Peaceful(limit_card())),
    "cd": (put_in, eject),
    "card": (
        lambda there: nics.add_card(**there.doing(network=there.network, actor=there.chief)),
        lambda there: nics.set_link(**there.doing(mac=last_card(there), up=False)),
        lambda there: nics.remove_card(**there.doing(mac=last_card(there))),
    ),
    "disk": (add_disk, remove_disk),
    "volume": (detach, attach),
    "move": (move(1), Peaceful(move(0))),
    "save": (do("save"), do("start")),
    "growth": (grow_disk,),
    "vcpus": (more_vcpus,),
    "rewiring": (rewire("away"), Peaceful(rewire("network")), remove_network),
    "model": (model("e1000e"), Peaceful(model("virtio"))),
    "bus": (bus("sata"), Peaceful(bus("virtio"))),
    "drive": (lambda there: drives.add_drive(**there.doing(bus="sata")), remove_drive),
    "setting back": (Peaceful(change(clock="localtime", watchdog="reset")), set_back),
    "autostart": (autostart(True), Peaceful(autostart(False))),
    "pause": (do("suspend"), do("resume")),
    "discard": (Peaceful(do("save")), discard, Peaceful(do("start"))),
}
#: After which it runs as another one, by libvirt's numbers.
ANEW = {"save", "discard"}


def clone(there):
    doing = there.doing(name="gttwin", lease_days=3, why="a try", token=uuid.uuid4())
    return consent(there.cast, cloning.request_clone(**doing))


def of_twin(service):
    def act(there):
        twin = VirtualMachine.objects.get(name="gttwin")
        return service(actor=there.cast.requester, machine=twin, confirm_name="gttwin")

    return act


def make_template(there):
    return templates.make_template(actor=there.chief, machine=there.machine, title="Marked")


def drop_template(there):
    """Take the image away, which is no change of a machine."""
    with opened(there.stage.uri) as driver:
        for place in ImageAttachment.objects.filter(image__title="Marked"):
            driver.delete_volume(place.pool.pool.name, place.path.rpartition("/")[2])
            place.delete()
    Image.objects.filter(title="Marked").delete()


def drop_export(there):
    exports.delete_export(actor=there.cast.requester, export=Export.objects.get())
    exports.sweep()


def release(there):
    adoption.release_machine(actor=there.chief, machine=there.machine, confirm_name="example")
    there.machine = None


def adopt(there):
    return there.adopt(there.domain)


#: What is done while it is off.
OFF = {
    "clone": (clone, of_twin(power.bin_machine), of_twin(power.purge_machine)),
    "template": (make_template, drop_template),
    "export": (lambda there: exports.export_machine(**there.doing()), drop_export),
}


def into_bin(there):
    return power.bin_machine(**there.doing(confirm_name="example"))


def out_of_bin(there):
    return power.restore_machine(**there.doing())


#: What is done to the one that is off, which its host starts by itself where that is said first.
ALONE = {
    "power": (do("start"), do("destroy")),
    "bin": (into_bin, out_of_bin),
}


@pytest.fixture
def there(stage, worker, cast, chief):  # noqa: F811
    return There(stage, worker, cast, chief)


@pytest.mark.parametrize("verb", RUNNING)
def test_what_runs_goes_on_and_its_change_is_done_or_undone(there, verb):
    """Red when what a guest let go at that moment is an error, or SetBalloon asks but once."""
    there.domain = str(there.stage.on)
    there.number = number(there.stage.uri, there.domain) if verb not in ANEW else ""
    assert there.carry_out(adopt).state == State.SUCCEEDED
    if verb in ("volume", "growth"):
        assert there.carry_out(add_disk).state == State.SUCCEEDED
    go_through(there, RUNNING[verb])
    if verb in ("volume", "growth"):
        assert there.carry_out(remove_disk).state == State.SUCCEEDED
    if verb == "discard":
        with opened(there.stage.uri) as driver:
            await_agent(driver, there.domain)


@pytest.mark.parametrize("verb", OFF)
def test_what_is_copied_is_there_or_not(there, verb):
    """Red when undefine() of a domain that is gone is an error.

    What libvirtd's own child copies, it copies to its end, so no half copy is left here.
    """
    there.domain = str(there.stage.off)
    assert there.carry_out(adopt).state == State.SUCCEEDED
    go_through(there, OFF[verb])


@pytest.mark.parametrize("verb", ALONE)
def test_what_is_off_starts_stops_and_is_deleted_or_not(there, verb):
    """No fault of the product was put in to see it red."""
    there.domain = str(there.stage.off)
    assert there.carry_out(adopt).state == State.SUCCEEDED
    by_itself = verb == "bin"
    if by_itself:
        assert there.carry_out(autostart(True)).state == State.SUCCEEDED
    go_through(there, ALONE[verb])
    if by_itself:
        assert there.carry_out(autostart(False)).state == State.SUCCEEDED


def test_an_adoption_is_done_or_undone(there):
    """Red when HostUnreachable is not retryable."""
    there.domain = str(there.stage.on)
    go_through(there, (adopt, release), reads=True)


def move_forgotten(there):
    """Move the disk until libvirtd dies in the moment after which it does not know the domain; return how."""
    for turn in range(12):
        there.see()
        place = 1 - there.places.index(there.machine.disks.get(target="vda").pool)
        at = at_change_over(there.stage.host, "gttest-on")
        killing = threading.Thread(target=kill_and_start, args=(there.stage.host, at))
        killing.start()
        ended = there.carry_out(move(place))
        killing.join()
        print(turn, problems(ended))
        if ended.state == State.UNDOING:
            return ended
        there.see()
        assert there.machine.observed_state == "running", "forgotten, and moved all the same"
        there.agree()
    raise AssertionError("the moment was not hit")


def kill_and_start(host, at):
    host.kill_libvirtd_at(at, 20)
    host.start_libvirtd()


def test_a_machine_that_libvirt_forgot_at_its_change_over_keeps_both_files(there):
    """Red when the change-over is not noted: the disk is copied anew, over what the guest writes."""
    there.domain = str(there.stage.on)
    assert there.carry_out(adopt).state == State.SUCCEEDED
    ended = move_forgotten(there)
    names = ended.identifiers
    there.see()
    assert there.machine.observed_state == "shutoff" and has_open(there.domain, names["to_path"])
    assert go_on(there, ended) == State.UNDOING
    assert StepRecord.objects.get(operation=ended, name="move").error_code == "copy_unsure"
    with opened(there.stage.uri) as driver:
        found = {one.path for place in there.places for one in driver.list_volumes(place.pool.name)}
    assert {names["path"], names["to_path"]} <= found
    look_on_the_host(there, names)
    assert go_on(there, ended) == State.FAILED
    assert there.machine.disks.get(target="vda").volume_name == names["to_volume"]
    there.agree()
    assert there.carry_out(do("start")).state == State.SUCCEEDED
    there.agree()


def go_on(there, operation):
    """Let the reaper's worker go on with an operation; return its state."""
    let_heartbeats_lapse()
    assert there.worker("reap") == 0
    return Operation.objects.get(pk=operation.pk).state


def look_on_the_host(there, names):
    """Do what docs/machines.md says: end the emulator, and name the file that it had open."""
    forgotten = emulator(there.domain)
    os.kill(forgotten, signal.SIGTERM)
    end = time.monotonic() + 20
    while emulator(there.domain) == forgotten:
        assert time.monotonic() < end
        time.sleep(0.1)
    connection = libvirt.open(there.stage.uri)
    whole = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    text = connection.lookupByUUIDString(there.domain).XMLDesc(whole)
    connection.defineXML(text.replace(names["path"], names["to_path"]))
    connection.close()


#: What comes and goes at once.
PLUGGED = ({"watchdog": "reset", "agent": "off"}, {"watchdog": "absent", "agent": "on"})


def plugged(there):
    """Return what is set of that in the definition and in what runs."""
    with opened(there.stage.uri) as driver:
        made = driver.definition(there.domain)
    return [{name: all_values(text)[name] for name in PLUGGED[0]} for text in (made.persistent, made.running)]


def off_and_on(there, agent):
    """Start the domain anew, and wait for its agent where it has a channel."""
    for verb in ("destroy", "start"):
        assert there.carry_out(do(verb)).state == State.SUCCEEDED
    end = time.monotonic() + 90
    with opened(there.stage.uri) as driver:
        while agent == "on" and not driver.guest_agent_ping(there.domain):
            assert time.monotonic() < end, "no agent answers"
            time.sleep(0.3)


def test_what_comes_or_goes_at_once_does_so_or_waits_and_is_told(there):
    """Red when what libvirtd never noted, though the emulator has it, fails the change or goes untold."""
    there.domain = str(there.stage.on)
    assert there.carry_out(adopt).state == State.SUCCEEDED
    points = []
    for wish in PLUGGED:
        ended = there.carry_out(change(**wish))
        points.append(deaths(killed_libvirt.called(there.stage.folder)))
        agree_on(there, ended, wish)
    for turn in zip_longest(*points):
        for wish, point in zip(PLUGGED, turn, strict=True):
            ended = there.carry_out(change(**wish), *point or ())
            calls = killed_libvirt.called(there.stage.folder)
            print(point, calls, ended.state)
            # A start brought the bridge for older devices that was defined: libvirt finds a slot by itself.
            assert not point or len(calls) < point[1] or killed_libvirt.is_dead(there.stage.folder), point
            agree_on(there, ended, wish)


def agree_on(there, ended, wish):
    """Let what runs be what is defined: at once, or after the start that the operation said it waits for."""
    assert ended.state == State.SUCCEEDED, problems(ended)
    told = StepRecord.objects.get(operation=ended, name="plug").remark
    assert plugged(there)[0] == wish
    # A guest that is busy may let go of a card later than the portal waits for it: then it is told.
    if told:
        off_and_on(there, wish["agent"])
    assert plugged(there) == [wish, wish], told
    there.agree()
