"""Drives for CDs: which a machine can get, which it can lose, and what becomes of the definition."""

import pytest
from django.urls import reverse as url
from django.utils import timezone

from portal.core.errors import Denied
from portal.drivers.errors import CallTimeout
from portal.drivers.inspection import Kind, changed
from portal.drivers.types import DomainDefinition
from portal.operations import runner, services
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from tests.vms.test_moving import work
from tests.vms.test_rewiring import here, look  # noqa: F401 (here: a fixture)
from vms import noted
from vms.changes import disks
from vms.changes.devices import drives, media, places
from vms.models import Observed, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]
IDE = {"os": {"machine": "pc-i440fx-7.2"}}


def add(actor, here, bus="sata"):  # noqa: F811
    return drives.add_drive(actor=actor, machine=here.machine, bus=bus)


def remove(actor, here, target):  # noqa: F811
    return drives.remove_drive(actor=actor, machine=here.machine, target=target)


def sides(here):  # noqa: F811
    """Return the drives for CDs of the definition and of what runs, by their names."""
    look(here)
    found = noted.of(here.machine)
    return [list(media.media_of(side)) for side in (found.observed_persistent, found.observed_running)]


def change(here, wanted):  # noqa: F811
    seen = here.driver.definition(here.uuid)
    here.driver.redefine(here.uuid, wanted, seen.digest)
    look(here)


def disk(target, bus, unit=None, **values):
    address = {} if unit is None else {"address": places.address(bus, unit)}
    return {"type": "file", "device": "cdrom", "target": {"dev": target, "bus": bus}, **address, **values}


def defined(here, *disks, **changes):  # noqa: F811
    """Let the portal see a definition with exactly these disks."""
    text = here.driver.definition(here.uuid).persistent.encode()
    told = changed(Kind.DOMAIN, text, {"devices": {"disks": list(disks)}, **changes})
    noted.note(here.machine.host_id, here.uuid, DomainDefinition(told, ""), timezone.now())
    return noted.of(here.machine).observed_persistent


def test_a_machine_that_runs_gets_a_drive_for_its_next_start_and_loses_it(cast, here):  # noqa: F811
    """Red when what runs is changed, or the drive is on a bus that the board does not have."""
    begun = add(cast.requester, here)
    assert begun.frozen["pinned"]["settings"] == [["CD drive", "", "sda (sata)"]]
    assert work(begun).state == State.SUCCEEDED
    assert sides(here) == [["sda"], []]
    assert [(one.target, one.waits) for one in media.drives_of(here.machine)] == [("sda", True)]
    here.driver.destroy(here.uuid)
    here.driver.start(here.uuid)
    assert sides(here) == [["sda"], ["sda"]]
    assert work(remove(cast.requester, here, "sda")).state == State.SUCCEEDED
    assert sides(here) == [[], ["sda"]] and drives.leaving(here.machine) == ["sda"]


def test_one_that_is_off_gets_ide_on_an_old_board(cast, here):  # noqa: F811
    here.driver.destroy(here.uuid)
    change(here, IDE)
    with pytest.raises(Denied, match="no such bus") as denied:
        add(cast.requester, here)
    assert denied.value.field == "bus"
    work(add(cast.requester, here, "ide"))
    [drive] = noted.of(here.machine).observed_persistent["devices"]["disks"]
    assert drive["target"] == {"dev": "hda", "bus": "ide"} and drive["readonly"] and "source" not in drive


@pytest.mark.parametrize(
    ("bus", "there", "free"),
    [
        ("sata", [], ("sda", 0)),
        # Behind what is there, so that the first CD stays the first.
        ("sata", [("sda", "scsi", 0), ("sdb", "sata", 1)], ("sdc", 2)),
        # The seed has the last place; the first ones are for disks.
        ("sata", [("sda", "sata", 0), ("sdf", "sata", 5)], ("sde", 4)),
        # A name in another place than its own, and one without an address.
        ("sata", [("sda", "sata", 1), ("sdc", "sata", None)], ("sdd", 3)),
        ("sata", [("vda", "sata", 0), ("sdb", "scsi", 0)], ("sdc", 2)),
        ("sata", [(f"sd{letter}", "scsi", None) for letter in "abcdef"], ("sdz", 5)),
        ("sata", [(f"vd{letter}", "sata", place) for place, letter in enumerate("abcdef")], None),
        ("ide", [("hda", "ide", 0), ("hdb", "ide", 3)], ("hdc", 2)),
        ("scsi", [("sda", "scsi", 0), ("sdb", "sata", 1)], ("sdc", 2)),
        # One that stands on a second controller takes no place of the first.
        ("scsi", [("sdh", "scsi", 7)], ("sda", 0)),
    ],
)
def test_no_name_and_no_place_is_taken_twice(bus, there, free):
    """Red when names alone, or places alone, are compared."""
    disks = [disk(*one) for one in there]
    if there == [("sdh", "scsi", 7)]:
        disks[0]["address"] |= {"controller": "1", "unit": "0"}
    found = {"devices": {"disks": disks}}
    assert places.free_drive(bus, found, None) == free
    assert places.free_drive(bus, {}, found) == free


def test_a_machine_whose_places_are_taken_gets_none(cast, client, here):  # noqa: F811
    defined(here, *(disk(f"sd{letter}", "sata", place) for place, letter in enumerate("abcdef")))
    with pytest.raises(Denied, match="Each place of this bus is taken"):
        add(cast.requester, here)
    seen = noted.of(here.machine)
    del seen.observed_persistent["devices"]["controllers"]
    seen.save()
    with pytest.raises(Denied, match="Each place of the machine's controllers is taken"):
        add(cast.requester, here)
    client.force_login(cast.requester)
    assert "Each place of" in client.get(url("vms:media", args=[here.machine.pk])).content.decode()


def test_a_disk_that_is_added_later_takes_neither_name_nor_place_of_a_drive(here):  # noqa: F811
    """Red when free_target() looks at names alone: libvirt puts `sdb` into the second place by itself."""
    VirtualMachine.objects.update(devices="emulated")
    here.machine.refresh_from_db()
    here.machine.disks.create(pool=here.machine.host.pools.first(), target="sda", volume_name="a", capacity=1)
    defined(here, disk("sda", "sata", 0, device="disk"), disk("sdz", "sata", 1), disk("sdc", "sata", 4))
    assert disks.free_target(here.machine) == "sdd"


@pytest.mark.parametrize(
    ("there", "changes", "why"),
    [
        ([disk("sda", "sata", source={"file": "/x.iso"})], {}, "eject it first"),
        ([disk("sda", "sata", source={"dev": "/dev/sr0"})], {}, "is no file"),
        ([disk("sda", "sata", boot_order=2)], {}, "starts from this drive"),
        ([disk("sda", "sata")], {"os": {"boot": [{"dev": "cdrom"}]}}, "starts from this drive"),
        ([disk("sda", "sata", device="disk")], {}, "no such drive"),
        ([disk("sdb", "sata")], {}, "no such drive"),
        ([disk("sdb", "sata"), disk("sda", "scsi")], {"os": {"boot": [{"dev": "cdrom"}]}}, ""),
        ([disk("sda", "sata")], {"os": {"boot": [{"dev": "hd"}, {"dev": "cdrom"}]}}, ""),
    ],
)
def test_a_drive_that_matters_stays(cast, here, there, changes, why):  # noqa: F811
    """Red when the order of the devices, the boot place or what is in the drive is not looked at."""
    defined(here, *there, **changes)
    if not why:
        assert remove(cast.requester, here, "sda").state == State.QUEUED
        return
    with pytest.raises(Denied, match=why):
        remove(cast.requester, here, "sda")
    assert not Operation.objects.filter(kind=drives.REMOVE).exists()


def test_a_cd_in_what_runs_keeps_the_drive_too(cast, here):  # noqa: F811
    work(add(cast.requester, here))
    seen = noted.of(here.machine)
    seen.observed_running["devices"]["disks"] = [disk("sda", "sata", source={"file": "/x.iso"})]
    seen.save()
    with pytest.raises(Denied, match="eject it first"):
        remove(cast.requester, here, "sda")


def test_a_call_that_was_heeded_too_late_is_taken_back_and_no_others(cast, here):  # noqa: F811
    """Red when the undo counts places, or is left out: somebody adds a drive behind it meanwhile."""
    change(here, {"devices": {"disks": [disk("sdb", "sata", 1)]}})
    done = here.driver.redefine

    def late(uuid, wanted, digest):
        here.driver.redefine = done
        made = done(uuid, wanted, digest)
        done(uuid, {"devices": {"disks": [{}, {}, disk("sde", "sata", 4)]}}, made.digest)
        raise CallTimeout("too long")

    here.driver.redefine = late
    begun = add(cast.requester, here)
    assert begun.identifiers["wish"]["name"] == "sdc"
    assert work(begun).state == State.FAILED
    assert sides(here)[0] == ["sdb", "sde"]


def test_a_worker_that_dies_after_the_change_leaves_it_to_the_next(cast, here):  # noqa: F811
    """Red when the digest is compared before it is looked whether the drive is there."""

    class Died(BaseException):
        pass

    done = here.driver.redefine

    def dying(*args):
        here.driver.redefine = done
        done(*args)
        raise Died

    for after in ["sda"], []:
        here.driver.redefine = dying
        begun = add(cast.requester, here) if after else remove(cast.requester, here, "sda")
        begun = services.claim(begun.pk, worker="worker")
        with pytest.raises(Died):
            runner.carry_on(begun, worker="worker")
        runner.carry_on(Operation.objects.get(pk=begun.pk), worker="reaper")
        assert Operation.objects.get(pk=begun.pk).state == State.SUCCEEDED
        assert sides(here)[0] == after


def test_a_definition_that_others_changed_meanwhile_is_left(cast, here):  # noqa: F811
    """Red when the digest is not asked for."""
    begun = add(cast.requester, here)
    change(here, {"description": "by virsh"})
    assert work(begun).state == State.FAILED
    assert StepRecord.objects.get(operation=begun, name="redefine").error_code == "definition_changed"
    assert sides(here)[0] == []


@pytest.mark.parametrize("who", ["approver", "auditor"])
def test_who_may_not_use_a_machine_gives_it_no_drive(cast, here, who):  # noqa: F811
    for call in (lambda: add(getattr(cast, who), here), lambda: remove(getattr(cast, who), here, "sda")):
        with pytest.raises(Denied, match="Only the owner, an operator or an admin"):
            call()


def test_the_page_says_when_and_begins_it(client, cast, here):  # noqa: F811
    client.force_login(cast.requester)
    page = url("vms:media", args=[here.machine.pk])
    text = client.get(page).content.decode()

    def carried():
        return {"seen": client.get(page).context["carried"]}

    assert "has no CD drive" in text and "cannot be plugged in while a machine runs" in text
    wrong = client.post(url("vms:drive_add", args=[here.machine.pk]), {"bus": "usb'"}, follow=True)
    assert "no such bus" in wrong.content.decode()
    assert client.get(url("vms:drive_add", args=[here.machine.pk])).status_code == 405
    answer = client.post(url("vms:drive_add", args=[here.machine.pk]), {"bus": "sata", **carried()})
    begun = Operation.objects.get(kind=drives.ADD)
    assert answer.url == url("operations:detail", args=[begun.pk]) and work(begun).state == State.SUCCEEDED
    text = client.get(page).content.decode()
    assert "runs without this drive so far" in text and "At the next start" in text
    away = url("vms:drive_remove", args=[here.machine.pk, "sda"])
    here.driver.destroy(here.uuid)
    here.driver.start(here.uuid)
    look(here)
    assert "keeps a drive that is removed until" in client.get(page).content.decode()
    client.post(away, carried())
    assert work(Operation.objects.get(kind=drives.REMOVE)).state == State.SUCCEEDED
    assert "It was removed" in client.get(page).content.decode()
    here.driver.destroy(here.uuid)
    look(here)
    VirtualMachine.objects.update(observed_state=Observed.SHUTOFF)
    assert "it has the drive from its start on" in client.get(page).content.decode()
    assert "no such drive" in client.post(away, follow=True).content.decode()
