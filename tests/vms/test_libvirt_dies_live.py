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

from networks.models import Port
from portal.hosts.models import Image, ImageAttachment
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from tests.conftest import let_heartbeats_lapse
from tests.factories import MIB
from tests.vms import killed_libvirt
from tests.vms.killed_stage import There, agree, differences, kills, number, opened, stage, state, worker  # noqa: F401 (fixtures)
from tests.vms.orphans import at_change_over, emulator, has_open
from tests.vms.test_changes_live import consent, resize
from tests.vms.test_settings_live import all_values, edit
from vms import power
from vms.adoption import services as adoption
from vms.changes import attaching, cloning, disks, moving, templates
from vms.changes.devices import limits, media, nics
from vms.exports import services as exports
from vms.models import Export, VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
#: libvirt 9.0 writes `<mirror job=''>` while a disk changes over to its copy, and does not read that
#: again: when it starts it does not know the domain, whose emulator goes on. The last test hits that moment.
LEFT_OUT = {("during", "blockJobAbort")}
#: Of a volume that is read, once at its beginning and once at its end.
LEFT_OUT |= {("during", "download"), ("after", "finish")}


# What is done


class Peaceful:
    """An act during which libvirtd lives: it makes the same calls as what it takes back."""

    def __init__(self, act):
        self.act = act

    def __call__(self, there):
        return self.act(there)


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


#: What is done while it runs, each with what takes it back; what cannot be taken back stands alone.
RUNNING = {
    "edit": (
        change(description="mine", clock="localtime"),
        Peaceful(change(description="", clock="utc")),
    ),
    "memory": (balloon(96 * MIB), Peaceful(balloon(128 * MIB))),
    "limits": (limit(total_iops_sec=400), Peaceful(limit())),
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
}


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


def deaths(calls, reads):
    """Return when libvirtd dies: before the first call, in the middle of each, and after each."""
    if reads:
        return [("before", place) for place, _name in enumerate(calls, 1)]
    found = [("before", 1)] if calls else []
    for place, name in enumerate(calls, 1):
        found += [(when, place) for when in ("during", "after") if (when, name) not in LEFT_OUT]
    return found


def go_through(there, acts, *, reads=False):
    """Do `acts` in turn, first in peace, then with libvirtd dying at each call of each."""
    points, after = [], []
    for act in acts:
        ended = there.carry_out(act, reads=reads)
        assert ended.state == State.SUCCEEDED, problems(ended)
        calls = killed_libvirt.called(there.stage.folder)
        points.append([] if isinstance(act, Peaceful) else deaths(calls, reads))
        after.append(state(there))
    for turn in zip_longest(*points):
        for step, (act, point) in enumerate(zip(acts, turn, strict=True)):
            before, at = state(there), (step, point)
            ended = there.carry_out(act, *point or (), reads=reads)
            print(at, killed_libvirt.called(there.stage.folder), ended.state)
            assert not point or killed_libvirt.is_dead(there.stage.folder), at
            if ended.state != State.SUCCEEDED:
                assert ended.state == State.FAILED and point, (at, problems(ended))
                assert differences(before, state(there)) == [], (at, problems(ended))
                assert there.carry_out(act).state == State.SUCCEEDED
            if len(acts) > 1:
                assert differences(after[step], state(there)) == [], at
            agree(there)


def problems(operation):
    found = StepRecord.objects.filter(operation=operation).values_list("name", "error_code", "error_raw")
    return operation.state, list(found)


@pytest.fixture
def there(stage, worker, cast, chief):  # noqa: F811
    return There(stage, worker, cast, chief)


@pytest.mark.parametrize("verb", RUNNING)
def test_what_runs_goes_on_and_its_change_is_done_or_undone(there, verb):
    """Red when what a guest let go at that moment is an error, or SetBalloon asks but once."""
    there.domain = str(there.stage.on)
    # What is suspended gets another number when it goes on.
    there.number = number(there.stage.uri, there.domain) if verb != "save" else ""
    assert there.carry_out(adopt).state == State.SUCCEEDED
    if verb in ("volume", "growth"):
        assert there.carry_out(add_disk).state == State.SUCCEEDED
    go_through(there, RUNNING[verb])
    if verb in ("volume", "growth"):
        assert there.carry_out(remove_disk).state == State.SUCCEEDED


@pytest.mark.parametrize("verb", OFF)
def test_what_is_copied_is_there_or_not(there, verb):
    """Red when undefine() of a domain that is gone is an error.

    What libvirtd's own child copies, it copies to its end, so no half copy is left here.
    """
    there.domain = str(there.stage.off)
    assert there.carry_out(adopt).state == State.SUCCEEDED
    go_through(there, OFF[verb])


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
        agree(there)
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
    agree(there)
    assert there.carry_out(do("start")).state == State.SUCCEEDED
    agree(there)


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
        assert there.carry_out(change(**wish)).state == State.SUCCEEDED
        points.append(deaths(killed_libvirt.called(there.stage.folder), reads=False))
        assert plugged(there) == [wish, wish]
    for turn in zip_longest(*points):
        for wish, point in zip(PLUGGED, turn, strict=True):
            ended = there.carry_out(change(**wish), *point or ())
            told = StepRecord.objects.get(operation=ended, name="plug").remark
            calls = killed_libvirt.called(there.stage.folder)
            print(point, calls, ended.state, told)
            assert ended.state == State.SUCCEEDED, problems(ended)
            # A start brought the bridge for older devices that was defined: libvirt finds a slot by itself.
            assert not point or len(calls) < point[1] or killed_libvirt.is_dead(there.stage.folder), point
            assert plugged(there)[0] == wish
            if told:
                off_and_on(there, wish["agent"])
            assert plugged(there) == [wish, wish], (point, told)
            agree(there)
