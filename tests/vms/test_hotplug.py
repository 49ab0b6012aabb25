"""Watchdog, agent channel and USB devices of a machine that runs: at once, and told where that cannot be."""

import pytest
from django.urls import reverse as url
from django.utils import timezone

from portal.drivers.errors import DriverError, HostUnreachable
from portal.drivers.inspection import Kind, inspect
from portal.hosts import steps
from portal.hosts.models import Health, Host
from portal.operations.messages import sentence
from portal.operations.models import StepRecord
from portal.operations.states import State
from tests.vms.test_moving import work
from tests.vms.test_rewiring import here, look  # noqa: F401 (here: a fixture)
from vms import editing, hostdevices, noted, pending, setting_back, settings
from vms.models import Definition, Observed, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]
HOT = ("watchdog", "agent")
STICK = {"key": "usb:058f:6387", "label": "Stick", "address": "1.4", "group": None}
CARD = {"key": "pci:0000:02:10.7", "label": "Card", "address": "0000:02:10.7", "group": 31}


def edit(actor, here, **values):  # noqa: F811
    digest = noted.of(here.machine).observed_digest
    return editing.edit_machine(actor=actor, machine=here.machine, values=values, digest=digest)


def sides(here):  # noqa: F811
    """Return what the watchdog and the agent are set to in the definition and in what runs."""
    made = here.driver.definition(here.uuid)
    found = []
    for text in (made.persistent, made.running):
        told = settings.values(inspect(Kind.DOMAIN, text.encode()).understood) if text else {}
        found.append(tuple(told.get(name) for name in HOT))
    return found


def remark(operation):
    return StepRecord.objects.get(operation=operation, name="plug").remark


def waits(here):  # noqa: F811
    """Return which settings wait for the next start, as the portal knows it without another look."""
    here.machine.refresh_from_db()
    return [row.setting for row in pending.look(here.machine, noted.of(here.machine)).rows]


def goes_off(here):  # noqa: F811
    here.driver.destroy(here.uuid)
    VirtualMachine.objects.update(observed_state=Observed.SHUTOFF)
    look(here)


def test_what_was_broken_off_and_is_refused_then_is_unsure(cast, here, monkeypatch):  # noqa: F811
    """Red when the last error alone is told: the emulator may have what libvirt forgot."""
    monkeypatch.setattr(steps, "PAUSE", 0)
    errors = [HostUnreachable("died"), DriverError("Duplicate device ID")]

    def refuses(*args):
        raise errors.pop(0)

    monkeypatch.setattr(here.driver, "plug_device", refuses)
    done = work(edit(cast.requester, here, watchdog="reset"))
    assert (done.state, remark(done), errors) == (State.SUCCEEDED, "plug_unsure", [])


def away_once(here, verb):  # noqa: F811
    """Let the host be away at its first call of `verb`, and back at the next; note what was so until then."""
    here.seen = None

    def before(called):
        if called == verb and here.seen is None:
            here.seen = sides(here)
            Host.objects.update(observed_health=Health.STALE)
            raise HostUnreachable("gone")
        if here.seen:
            Host.objects.update(observed_health=Health.UP)

    here.before = before


def test_what_can_come_and_go_does_so_at_once(cast, here):  # noqa: F811
    """Red when PlugDevices does nothing, or what runs is changed alone."""
    assert sides(here) == [("absent", "on")] * 2
    done = work(edit(cast.requester, here, watchdog="reset", agent="off", clock="localtime"))
    assert done.state == State.SUCCEEDED and remark(done) == ""
    assert sides(here) == [("reset", "off")] * 2
    assert waits(here) == ["clock"]
    done = work(edit(cast.requester, here, watchdog="absent", agent="on"))
    assert sides(here) == [("absent", "on")] * 2 and remark(done) == ""


def test_of_what_is_off_nothing_comes_or_goes(cast, here):  # noqa: F811
    """Red when what once ran counts."""
    goes_off(here)
    begun = edit(cast.requester, here, watchdog="reset", agent="off")
    assert begun.identifiers["plugs"] == []
    done = work(begun)
    assert done.state == State.SUCCEEDED and remark(done) == "" and sides(here)[0] == ("reset", "off")


def test_a_machine_that_went_off_meanwhile_has_it_at_its_start(cast, here):  # noqa: F811
    """Red when a machine that is off fails the change, or is told of as if it ran."""
    begun = edit(cast.requester, here, watchdog="reset")
    goes_off(here)
    done = work(begun)
    assert (done.state, remark(done)) == (State.SUCCEEDED, "") and sides(here)[0] == ("reset", "on")


def test_another_action_and_what_is_not_changed_plug_nothing(cast, here):  # noqa: F811
    """Red when a watchdog that is there comes again, or a change of one setting plugs another's device."""
    work(edit(cast.requester, here, watchdog="reset"))
    begun = edit(cast.requester, here, watchdog="poweroff", clock="localtime")
    assert begun.identifiers["plugs"] == []
    work(begun)
    assert sides(here) == [("poweroff", "on"), ("reset", "on")]
    assert waits(here) == ["clock", "watchdog"]


def test_without_a_free_slot_it_waits_and_says_so(cast, here):  # noqa: F811
    """Red when NoSlot fails the change, or is not told."""
    here.driver.plugs = False
    done = work(edit(cast.requester, here, watchdog="reset"))
    assert (done.state, remark(done)) == (State.SUCCEEDED, "plug_no_slot")
    assert "no free slot" in sentence(remark(done))
    assert sides(here) == [("reset", "on"), ("absent", "on")] and waits(here) == ["watchdog"]
    # Once there is one, another action brings it, for what runs has none so far.
    here.driver.plugs = True
    work(edit(cast.requester, here, watchdog="pause"))
    assert sides(here) == [("pause", "on")] * 2


def test_what_a_guest_keeps_is_told_and_not_pretended(client, cast, here):  # noqa: F811
    """Red when the remark is left out, or the page does not say what waits."""
    work(edit(cast.requester, here, watchdog="reset"))
    here.driver.guest_heeds = False
    done = work(edit(cast.requester, here, watchdog="absent"))
    assert (done.state, remark(done)) == (State.SUCCEEDED, "plug_kept")
    assert sides(here) == [("absent", "on"), ("reset", "on")] and waits(here) == ["watchdog"]
    client.force_login(cast.requester)
    shown = client.get(url("operations:detail", args=[done.pk])).content.decode()
    assert "has not so far" in shown
    shown = client.get(url("vms:settings", args=[here.machine.pk])).content.decode()
    assert "Reset the machine" in shown and "No watchdog" in shown


@pytest.mark.parametrize(
    ("error", "code"), [(DriverError("no"), "plug_at_next_start"), (HostUnreachable("no"), "plug_unsure")]
)
def test_what_the_hypervisor_refuses_counts_from_the_next_start(
    cast, here, monkeypatch, error, code  # noqa: F811
):
    """Red when an error that passes nothing on fails the change after it was made."""
    monkeypatch.setattr(steps, "AGAIN", 0)

    def refuses(*args):
        raise error

    monkeypatch.setattr(here.driver, "plug_device", refuses)
    done = work(edit(cast.requester, here, watchdog="reset"))
    assert (done.state, remark(done)) == (State.SUCCEEDED, code) and sentence(code)
    assert sides(here) == [("reset", "on"), ("absent", "on")] and waits(here) == ["watchdog"]


def test_a_host_that_goes_away_in_between_leaves_nothing_of_the_change(cast, here):  # noqa: F811
    """Red when undo leaves the definition, or what came to what runs at once."""
    begun = edit(cast.requester, here, watchdog="reset", agent="off")
    away_once(here, "plug_device")
    assert work(begun).state == State.FAILED
    assert here.seen == [("reset", "off"), ("absent", "off")]
    assert sides(here) == [("absent", "on")] * 2 and waits(here) == []


def test_an_undo_goes_on_where_the_guest_keeps_what_came(cast, here):  # noqa: F811
    """Red when undo fails of it: the definition would stay too."""
    work(edit(cast.requester, here, watchdog="reset", agent="off"))
    begun = edit(cast.requester, here, watchdog="absent", agent="on")
    away_once(here, "unplug_device")
    here.driver.guest_heeds = False
    assert work(begun).state == State.FAILED
    assert here.seen == [("absent", "on"), ("reset", "on")]
    assert sides(here) == [("reset", "off"), ("reset", "on")] and waits(here) == ["agent"]


def test_a_worker_that_dies_after_the_device_came_leaves_it_to_the_next(cast, here):  # noqa: F811
    """Red when a device that is there comes again, or fails the step."""
    begun = edit(cast.requester, here, watchdog="reset", agent="off")
    for one in begun.identifiers["plugs"]:
        verb = here.driver.plug_device if one["comes"] else here.driver.unplug_device
        verb(here.uuid, one["kind"], one["values"])
    done = work(begun)
    assert (done.state, remark(done)) == (State.SUCCEEDED, "")
    assert sides(here) == [("reset", "off")] * 2
    assert here.driver.definition(here.uuid).running.count("<watchdog") == 1


def test_setting_back_to_what_runs_plugs_nothing(cast, here):  # noqa: F811
    """Red when what runs is changed by what brings the settings to it."""
    here.driver.plugs = False
    work(edit(cast.requester, here, watchdog="reset"))
    found, here.driver.plugs = noted.of(here.machine), True
    seen = pending.look(here.machine, found).back
    back = setting_back.set_back(
        actor=cast.requester, machine=here.machine, digest=found.observed_digest, seen=seen
    )
    assert back.identifiers["plugs"] == [] and work(back).state == State.SUCCEEDED
    assert sides(here) == [("absent", "on")] * 2


def test_the_page_says_which_before_one_presses(client, cast, here):  # noqa: F811
    """Red when the words are those of another state, or a machine that is off is told of slots."""
    client.force_login(cast.requester)

    def words(name):
        page = client.get(url("vms:settings", args=[here.machine.pk]))
        return str(page.context["form"].fields[name].help_text)

    assert "comes at once if there is a free slot" in words("watchdog") and "goes at once" in words("agent")
    assert words("clock") == "Counts from the next start."
    work(edit(cast.requester, here, watchdog="reset", agent="off"))
    assert "if the guest lets it go" in words("watchdog") and "comes at once" in words("agent")
    assert "Another action counts from the next start." in words("watchdog")
    goes_off(here)
    assert words("watchdog") == "Counts from the next start." and "at once" not in words("agent")


# Devices of the host


def usb_of(here):  # noqa: F811
    """Return the devices of the host in the definition and in what runs, by their kinds."""
    look(here)
    found = noted.of(here.machine)
    both = (found.observed_persistent, found.observed_running)
    return [[one["type"] for one in side["devices"].get("host_devices", ())] for side in both]


@pytest.fixture
def given(here):  # noqa: F811
    """The machine, on a host that has a USB device and a PCI device."""
    Host.objects.update(readiness={"devices": [STICK, CARD]})
    here.machine.refresh_from_db()
    return here


def test_a_usb_device_comes_and_goes_at_once_and_a_pci_device_does_not(given, chief):
    """Red when a PCI device is plugged too, or a USB device is not."""
    doing = {"actor": chief, "machine": given.machine}
    for one in (STICK, CARD):
        done = work(hostdevices.attach(**doing, key=one["key"]))
        assert (done.state, remark(done)) == (State.SUCCEEDED, "")
    assert usb_of(given) == [["usb", "pci"], ["usb"]]
    for one in (STICK, CARD):
        done = work(hostdevices.detach(**doing, key=one["key"]))
        assert (done.state, remark(done)) == (State.SUCCEEDED, "")
    assert usb_of(given) == [[], []]


def test_a_usb_device_that_cannot_come_at_once_waits_and_says_so(given, chief):
    """Red when it fails, or counts as there."""
    given.driver.plugs = False
    done = work(hostdevices.attach(actor=chief, machine=given.machine, key=STICK["key"]))
    assert (done.state, remark(done)) == (State.SUCCEEDED, "plug_no_slot")
    assert usb_of(given) == [["usb"], []]
    [one] = hostdevices.of(given.machine)
    assert (one.now, one.defined) == (False, True)


def test_a_usb_device_that_is_told_by_its_socket_is_not_said_to_go(given, chief):
    """Red when it is looked for by its vendor, which nobody told: what is not found is gone."""
    by_socket = {"mode": "subsystem", "type": "usb", "address": {"bus": "1", "device": "4"}}
    Definition.objects.update(
        observed_running={"devices": {"host_devices": [by_socket]}},
        observed_persistent={"devices": {"host_devices": [by_socket]}},
        observed_at=timezone.now(),
    )
    begun = hostdevices.detach(actor=chief, machine=given.machine, key=STICK["key"])
    assert begun.identifiers["plugs"] == []


def test_the_page_of_a_hosts_devices_says_which_before_one_presses(client, given, chief):
    client.force_login(chief)
    page = url("vms:host_devices", args=[given.machine.pk])
    assert "a USB device comes and goes at once" in client.get(page).content.decode()
    goes_off(given)
    assert "counts from its start on" in client.get(page).content.decode()
