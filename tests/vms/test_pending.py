"""What waits for a machine's next start: all of it is told, nothing else is, and settings go back."""

from pathlib import Path

import pytest
from django.urls import reverse as url
from django.utils import timezone

from networks.models import Network
from portal.core.errors import Denied
from portal.drivers.fake import FakeDriver
from portal.drivers.inspection import Kind, changed, inspect, outcome
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import Accelerator, DiskSpec, DomainDefinition, DomainSpec
from portal.hosts import steps
from portal.operations.models import Operation
from portal.operations.states import State
from tests.factories import MIB, make_host, make_machine, make_network
from tests.hosts.conftest import carry_out
from tests.vms.test_settings import READINESS, SET, definition
from vms import editing, noted, pending, setting_back, settings
from vms.models import Observed, VirtualMachine

DATA = Path(__file__).parents[1] / "data/pending"
SAMPLES = sorted(path.name.partition(".")[0] for path in DATA.glob("*.running.xml"))
STICK = {"mode": "subsystem", "type": "usb", "usb": {"vendor": "0x058f", "product": "0x6387"}}


def understood(text):
    return inspect(Kind.DOMAIN, text.encode()).understood


def sample(name):
    """Return what libvirt 9.0 printed of one domain: running, persistent.

    Only `function` was put together by hand, by libvirt's virDomainNetDefFormat(): its card is on a network
    that gives each a virtual function of a device.
    """
    return tuple((DATA / f"{name}.{side}.xml").read_text() for side in ("running", "persistent"))


def compared(running, persistent, names=None):
    ground = settings.ground_of(understood(persistent), READINESS)
    unread = DefinitionSeen.of(DomainDefinition(persistent, running)).unread
    return pending.compare(understood(running), ground, names or pending.Names(), unread)


def told(running, persistent, names=None):
    return [(one.label, one.before, one.after) for one in compared(running, persistent, names).rows]


def after(change, name="bios"):
    """Return what is told of a real machine that runs, once `change` was made to its definition."""
    running, persistent = sample(name)
    return told(running, changed(Kind.DOMAIN, persistent.encode(), change))


def others(change, name="bios"):
    running, persistent = sample(name)
    return compared(running, changed(Kind.DOMAIN, persistent.encode(), change)).others


# What is told


@pytest.mark.parametrize("name", SAMPLES)
def test_of_what_libvirt_fills_in_itself_nothing_is_told(name):
    """Red when firmware_of_run, cpu_of_run or _is_same_net takes what runs as it is printed."""
    assert compared(*sample(name)) == pending.Pending()


def test_the_samples_are_those_that_mislead():
    """Red when a sample is one in which libvirt filled in nothing: it would show nothing."""
    assert SAMPLES == ["bare-uefi", "bios", "function", "host-model", "maximum", "secure", "uefi"]
    naive = {name: [settings.values(understood(side)) for side in sample(name)] for name in SAMPLES}
    misled = {name for name, (runs, waits) in naive.items() if runs != waits}
    assert misled == {"bare-uefi", "host-model", "secure", "uefi"}


@pytest.mark.parametrize(
    ("name", "change", "row"),
    [
        ("uefi", {"os": {"firmware": None, "firmware_features": None}}, ("Firmware", "UEFI", "BIOS")),
        ("bios", {"cpu": {"mode": "host-model", "model": None, "fallback": None, "match": None}},
         ("Processor", "qemu64", "Like the host's, as far as it can be moved")),
        ("host-model", {"cpu": {"mode": "custom", "match": "exact", "model": "EPYC-Rome"}},
         ("Processor", "Like the host's, as far as it can be moved", "EPYC-Rome")),
        ("bios", {"vcpus": 2}, ("vCPUs", "1", "2")),
        ("bios", {"vcpus": 4, "current_vcpus": 1}, ("vCPUs at most while it runs", "1", "4")),
        ("bios", {"memory_bytes": 128 * MIB, "current_memory_bytes": 128 * MIB},
         ("Memory", "64 MiB", "128 MiB")),
        ("bios", {"memory_bytes": 128 * MIB}, ("Memory at most while it runs", "64 MiB", "128 MiB")),
        ("bios", {"devices": {"disks": [None]}}, ("Disk vda", "example-disk.qcow2", "")),
        ("bios", {"devices": {"disks": [{}, {"source": None}]}}, ("Drive sda", "example-seed.iso", "empty")),
        ("bios", {"devices": {"disks": [{"limits": {"total_iops_sec": 500}}]}},
         ("Disk vda: Reads and writes a second", "", "500")),
        ("bios", {"devices": {"disks": [{"driver": {"cache": "none"}}]}},
         ("Cache of the disks: vda", "As the host does it (writeback)", "Past the host's memory (none)")),
        ("bios", {"devices": {"interfaces": [None]}},
         ("Network card 52:54:00:aa:bb:01", "example-net", "")),
        ("bios", {"devices": {"interfaces": [{"source": {"network": "other"}}]}},
         ("Network card 52:54:00:aa:bb:01", "example-net", "other")),
        ("bios", {"devices": {"interfaces": [{"model": "e1000e"}]}},
         ("Model of 52:54:00:aa:bb:01", "virtio", "e1000e")),
        ("bios", {"devices": {"interfaces": [{"link": "down"}]}},
         ("Link of 52:54:00:aa:bb:01", "up", "down")),
        ("bios", {"devices": {"interfaces": [{"limits": {"outbound": {"average": 512}}}]}},
         ("Network card 52:54:00:aa:bb:01: Outbound average, MiB/s", "", "0.5")),
        ("bios", {"devices": {"host_devices": [STICK]}}, ("Device of the host", "", "usb:058f:6387")),
        ("bios", {"os": {"boot": [{}, {"dev": "network"}]}}, ("Starts from", "Disk", "Disk, Network")),
        ("bios", {"devices": {"watchdogs": [{"model": "ib700", "action": "pause"}]}},
         ("When the guest hangs", "No watchdog", "Pause the machine")),
    ],
    ids=str,
)  # fmt: skip
def test_each_change_of_a_real_machine_is_one_row(name, change, row):
    """Red when one of the parts of compare() is left out."""
    assert after(change, name) == [row]


def test_what_a_network_limits_its_cards_to_waits_for_nothing():
    """Red when it is compared: libvirt prints a port group's limits in what runs alone, at each start."""
    running, persistent = sample("bios")
    limits = {"devices": {"interfaces": [{"limits": {"inbound": {"average": 512}}}]}}
    assert compared(changed(Kind.DOMAIN, running.encode(), limits), persistent) == pending.Pending()


def test_a_disk_and_a_card_that_come_are_told():
    disk = {"type": "file", "device": "disk", "source": {"file": "/p/data.qcow2"}, "target": {"dev": "vdb"}}
    card = {"type": "network", "mac": "52:54:00:00:00:02", "source": {"network": "lan"}}
    come = {"disks": [{}, {}, disk], "interfaces": [{}, card]}
    rows = after({"devices": come})
    assert rows == [("Disk vdb", "", "data.qcow2"), ("Network card 52:54:00:00:00:02", "", "lan")]


def test_an_order_of_the_devices_is_told_beside_the_kind_that_it_replaces():
    ground = settings.ground_of(understood(sample("bios")[1]), READINESS)
    rows = after(settings.patch_of(ground, {"order": "disk:sda disk:vda"}))
    assert rows == [("Starts from", "Disk", ""), ("Order of the devices", "By kind of device", "sda, vda")]


def test_a_guest_that_keeps_its_memory_waits_for_nothing():
    """Red when what the balloon leaves is compared: such a guest has it after each start again."""
    assert after({"current_memory_bytes": 32 * MIB}) == []
    assert after({"memory_bytes": 256 * MIB, "current_memory_bytes": 128 * MIB}) == [
        ("Memory", "64 MiB", "128 MiB"),
        ("Memory at most while it runs", "64 MiB", "256 MiB"),
    ]


def test_a_network_that_libvirt_finds_a_device_for_is_the_same():
    """Red when the bridge or the device that libvirt found is compared."""
    running, persistent = sample("bios")
    direct = {"devices": {"interfaces": [{"type": "direct", "source": {"dev": "eth0", "mode": "bridge"}}]}}
    assert told(changed(Kind.DOMAIN, running.encode(), direct), persistent) == []


def test_a_function_that_a_network_gave_is_no_function_that_the_definition_names():
    """Red when a function that runs counts as the same as whatever the definition names."""
    running, persistent = sample("function")
    plain = sample("bios")[0]
    mac = "Network card 52:54:00:aa:bb:01"
    assert told(plain, persistent) == [(mac, "example-net", "example-functions")]
    bridge = {"devices": {"interfaces": [{"type": "bridge", "source": {"network": None, "bridge": "br0"}}]}}
    come = changed(Kind.DOMAIN, persistent.encode(), bridge)
    assert told(running, come) == [(mac, "on no network", "br0")]


def test_a_volume_that_libvirt_finds_a_file_for_is_the_same():
    """Red when the file is compared where the definition names a volume of a pool."""
    running, persistent = sample("bios")
    source = {"pool": "p", "volume": "v", "file": None}
    volume = {"devices": {"disks": [{"type": "volume", "source": source}]}}
    found = {"devices": {"disks": [{"source": {"pool": "p", "volume": "v"}}]}}
    sides = (changed(Kind.DOMAIN, *one) for one in ((running.encode(), found), (persistent.encode(), volume)))
    assert told(*sides) == []


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"devices": {"sounds": [{"model": "ich9"}]}}, ["sound"]),
        ({"devices": {"memories": [{"model": "dimm"}]}}, ["devices/memory"]),
        ({"on_crash": "preserve", "features": ["acpi", "pae"]}, ["features", "on_crash"]),
        ({"os": {"kernel": "/vmlinuz"}}, ["os"]),
        ({"clock": {"timers": [{"name": "hpet", "present": True}]}}, ["clock"]),
        ({"devices": {"disks": [{"serial": "A"}]}}, ["disk vda"]),
        ({"devices": {"host_devices": [{"mode": "subsystem", "type": "mdev"}]}}, ["hostdev"]),
        ({"title": "another", "devices": {"controllers": None}}, []),
    ],
    ids=str,
)
def test_what_no_page_sets_is_summed_up(change, names):
    """Red when such elements are left out, or what libvirt fills in counts as one."""
    assert others(change) == names and after(change) == []
    words = compared(sample("bios")[0], changed(Kind.DOMAIN, sample("bios")[1].encode(), change))
    assert words.others_in_words.startswith(f"{len(names)} other element" if names else "")


def test_elements_that_the_portal_does_not_read_are_rows_of_their_own():
    """Red when compare() leaves them out. They cannot be set back here."""
    running, persistent = sample("bios")
    tuned = persistent.replace("<os>", "<cputune><shares>2048</shares></cputune>\n  <os>")
    assert tuned != persistent
    row = ("Other settings: <cputune>", "", "<cputune><shares>2048</shares></cputune>")
    assert told(running, tuned) == [row] and compared(running, tuned).settable == []


def test_titles_are_told_for_names_of_libvirt():
    running, persistent = sample("bios")
    path = understood(running)["devices"]["disks"][1]["source"]["file"]
    change = {"devices": {"disks": [{}, {"source": None}], "interfaces": [{"source": {"network": "x"}}]}}
    names = pending.Names(networks={"x": "The LAN"}, media={path: "Its seed"})
    rows = told(running, changed(Kind.DOMAIN, persistent.encode(), change), names)
    assert [row[1:] for row in rows] == [("Its seed", "empty"), ("example-net", "The LAN")]


@pytest.mark.parametrize("text", ["<domain/>", "<domain><devices><disk/><interface/></devices></domain>"])
def test_what_makes_no_sense_breaks_nothing(text):
    """Red when a device of which nothing is understood raises."""
    for other in (text, sample("bios")[0]):
        compared(text, other)
        compared(other, text)


# Set back


def back(running, persistent):
    ground = settings.ground_of(understood(persistent), READINESS)
    patch = pending.patch_back(understood(running), ground)
    return changed(Kind.DOMAIN, persistent.encode(), patch)


#: With order in place of boot: libvirt takes one of the two alone.
ORDERED = {name: value for name, value in SET.items() if name != "boot"} | {"order": "card:52:54:00:00:00:01"}


@pytest.mark.parametrize("wanted", [SET, ORDERED, *({name: SET[name]} for name in SET)], ids=str)
def test_settings_go_back_to_what_runs(wanted):
    """Red when a setting is set back to something else, one at a time or all at once, and both ways."""
    there = changed(
        Kind.DOMAIN,
        (before := definition()).encode(),
        settings.patch_of(settings.ground_of(understood(before), READINESS), wanted),
    )
    for runs, waits in ((before, there), (there, before)):
        rows = compared(runs, waits)
        assert bool(rows.settable) == (wanted.keys() != {"description"})
        made = back(runs, waits)
        assert compared(runs, made) == pending.Pending()


@pytest.mark.parametrize(
    ("now", "then"), [("uefi", "bios"), ("uefi", "secure"), ("bios", "uefi"), ("left", "uefi")]
)
def test_what_the_firmware_keeps_is_not_lost_by_going_back(now, then):
    """Red when the way back lets the next start begin with variables of its own, or forgets old ones."""
    start = {"traces": {"firmware": "left"}} if now == "left" else {}
    if now == "uefi":
        start = {"os": {"firmware": "efi", "firmware_features": [{"name": "secure-boot", "enabled": False}]}}
    runs = definition(change=start)
    ground = settings.ground_of(understood(runs), READINESS)
    waits = changed(Kind.DOMAIN, runs.encode(), settings.patch_of(ground, {"firmware": then}))
    assert understood(waits)["traces"]["firmware"] in {"fresh", "left"}
    made = understood(back(runs, waits))
    assert made.get("traces", {}) == start.get("traces", {})


@pytest.mark.parametrize(
    ("kind", "device", "wanted"),
    [
        ("tpms", {"model": "tpm-tis", "backend": "emulator", "version": "2.0"}, {"tpm": "absent"}),
        ("watchdogs", {"model": "ib700", "action": "reset"}, {"watchdog": "absent"}),
        ("videos", {"model": "qxl", "ram_kib": 65536, "heads": 1}, {"video": "vga"}),
    ],
)
def test_the_device_that_runs_comes_back(kind, device, wanted):
    """Red when a device of the portal's own choice comes in its place."""
    runs = definition(change={"devices": {kind: [device]}})
    ground = settings.ground_of(understood(runs), READINESS)
    waits = changed(Kind.DOMAIN, runs.encode(), settings.patch_of(ground, wanted))
    assert understood(back(runs, waits))["devices"][kind] == [device]
    assert understood(back(runs, waits)).get("traces", {}) == {}


def test_disks_that_are_written_unlike_each_other_go_back_each_by_itself():
    """Red when one value is set for all disks."""
    two = [{"driver": {"cache": "none"}}, {}, _disk("vdb", "unsafe")]
    runs = definition(change={"devices": {"disks": two}})
    alike = [{"driver": {"cache": "writeback"}}, {}, {"driver": {"cache": "writeback"}}]
    waits = changed(Kind.DOMAIN, runs.encode(), {"devices": {"disks": alike}})
    rows = ["Cache of the disks: vda", "Cache of the disks: vdb"]
    assert [row[0] for row in told(runs, waits)] == rows
    made = understood(back(runs, waits))["devices"]["disks"]
    assert [one["driver"].get("cache") for one in made if one["device"] == "disk"] == ["none", "unsafe"]


def _disk(target, cache):
    driver = {"name": "qemu", "type": "qcow2", **({"cache": cache} if cache else {})}
    source = {"file": f"/{target}.qcow2"}
    return {"type": "file", "device": "disk", "driver": driver, "source": source, "target": {"dev": target}}


def test_what_cannot_go_back_says_why_and_stays():
    """Red when a row that the host cannot give is offered, or keeps the others from going back."""
    runs = definition(change={"os": {"machine": "pc-q35-4.0"}})
    waits = definition(change={"clock": {"offset": "localtime"}})
    rows = compared(runs, waits)
    assert [(one.setting, one.fixed) for one in rows.rows] == [
        ("machine", "The machine cannot be set to that."),
        ("clock", ""),
    ]
    assert [one[0] for one in told(runs, back(runs, waits))] == ["Machine type"]


# On the host


@pytest.fixture
def fake(monkeypatch):
    driver = FakeDriver()
    monkeypatch.setattr(steps, "call", lambda host, verb, *args, timeout: getattr(driver, verb)(*args))
    return driver


@pytest.fixture
def machine(cast, fake):
    """A machine that runs on a fake host and was seen there."""
    vm = make_machine(cast, "web", make_host(readiness=READINESS), observed_state=Observed.RUNNING)
    disks = (DiskSpec("/web.qcow2"),)
    spec = DomainSpec("web", str(vm.uuid), 1, 64 * MIB, disks, accelerator=Accelerator.EMULATION)
    fake.define(spec)
    change(fake, vm, {"os": {"machine": "pc-q35-7.2"}})
    fake.start(str(vm.uuid))
    see(fake, vm)
    return vm


def change(fake, vm, patch):
    name = str(vm.uuid)
    fake.redefine(name, patch, fake.definition(name).digest)


def see(fake, vm):
    noted.note(vm.host_id, str(vm.uuid), fake.definition(str(vm.uuid)), timezone.now())


def waits(vm):
    return pending.look(vm, noted.of(vm))


def set_back(actor, vm):
    found = noted.of(vm)
    return setting_back.set_back(
        actor=actor, machine=vm, digest=found.observed_digest, seen=pending.look(vm, found).back
    )


PATCH = {"clock": {"offset": "localtime"}, "vcpus": 2}


@pytest.mark.database
@pytest.mark.django_db
def test_settings_are_set_back_and_the_rest_goes_on_waiting(cast, fake, machine):
    """Red when more than settings goes back, or the operation does not say what it does."""
    change(fake, machine, PATCH)
    see(fake, machine)
    assert [one.label for one in waits(machine).rows] == ["vCPUs", "Clock"]
    begun = set_back(cast.requester, machine)
    assert begun.frozen["pinned"]["settings"] == [
        ["Clock", "The host's local time, as Windows expects", "UTC, as Linux expects"]
    ]
    assert Operation.objects.get(pk=carry_out(begun).pk).state == State.SUCCEEDED
    assert [one.label for one in waits(machine).rows] == ["vCPUs"]
    with pytest.raises(Denied, match="None of its settings waits"):
        set_back(cast.requester, machine)


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize("other", [{"title": "theirs"}, {"devices": {"watchdogs": [{"action": "pause"}]}}])
def test_nobody_sets_back_what_they_never_saw(cast, fake, machine, other):
    """Red when set_back does not compare the digests."""
    change(fake, machine, PATCH)
    see(fake, machine)
    found = noted.of(machine)
    seen = {"digest": found.observed_digest, "seen": pending.look(machine, found).back}
    change(fake, machine, other)
    see(fake, machine)
    with pytest.raises(editing.Clash, match="Somebody changed this machine"):
        setting_back.set_back(actor=cast.requester, machine=machine, **seen)
    assert not Operation.objects.filter(kind="vm.edit").exists()


@pytest.mark.database
@pytest.mark.django_db
def test_what_runs_otherwise_by_now_is_a_clash_too(cast, fake, machine):
    """Red when only the digest is asked for: after a restart there is something else to go back to."""
    change(fake, machine, PATCH)
    see(fake, machine)
    found = noted.of(machine)
    seen = {"digest": found.observed_digest, "seen": pending.look(machine, found).back}
    now = fake.definition(str(machine.uuid))
    runs = changed(Kind.DOMAIN, now.running.encode(), {"devices": {"watchdogs": [{"action": "pause"}]}})
    told = DomainDefinition(now.persistent, runs)
    noted.note(machine.host_id, str(machine.uuid), told, timezone.now())
    with pytest.raises(editing.Clash):
        setting_back.set_back(actor=cast.requester, machine=machine, **seen)


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize("starts", [True, False])
def test_what_was_started_anew_meanwhile_keeps_its_settings(cast, fake, machine, starts):
    """Red when Redefine does not look what runs: the settings that it runs with now would go."""
    change(fake, machine, PATCH)
    see(fake, machine)
    begun = set_back(cast.requester, machine)
    fake.destroy(str(machine.uuid))
    if starts:
        fake.start(str(machine.uuid))
    before = fake.definition(str(machine.uuid))
    assert Operation.objects.get(pk=carry_out(begun).pk).state == State.FAILED
    assert fake.definition(str(machine.uuid)) == before


@pytest.mark.database
@pytest.mark.django_db
def test_a_machine_that_does_not_run_waits_for_nothing(cast, fake, machine, client):
    """Red when what was seen while it ran is shown after it went off."""
    change(fake, machine, PATCH)
    see(fake, machine)
    assert waits(machine).total == 2
    for state in (Observed.SHUTOFF, Observed.SAVED, Observed.CRASHED, Observed.MISSING):
        VirtualMachine.objects.update(observed_state=state)
        machine.refresh_from_db()
        assert waits(machine).total == 0
    VirtualMachine.objects.update(observed_state=Observed.RUNNING)
    fake.destroy(str(machine.uuid))
    see(fake, machine)
    machine.refresh_from_db()
    assert waits(machine).total == 0
    client.force_login(cast.requester)
    page = client.get(url("vms:settings", args=[machine.pk]))
    assert page.status_code == 200 and "Set these settings back" not in page.content.decode()


# The pages


@pytest.mark.database
@pytest.mark.django_db
def test_the_page_shows_what_waits_and_sets_settings_back(cast, fake, machine, client):
    """Red when the page leaves a row out, or a click sets back what it did not show."""
    Network.objects.filter(pk=make_network(78).pk).update(name="example", title="The <i>network</i>")
    card = {"mac": "52:54:00:00:00:09", "type": "network", "source": {"network": "gatehouse-example"}}
    change(fake, machine, {**PATCH, "devices": {"interfaces": [card]}})
    see(fake, machine)
    client.force_login(cast.requester)
    settings_page, detail = (url(f"vms:{name}", args=[machine.pk]) for name in ("settings", "detail"))
    shown = client.get(detail).content.decode()
    assert "3 things change" in shown and settings_page in shown
    page = client.get(settings_page)
    shown = page.content.decode()
    assert "The &lt;i&gt;network&lt;/i&gt;" in shown and "The <i>" not in shown
    seen = page.context["back"].initial["seen"]
    answer = client.post(url("vms:settings_back", args=[machine.pk]), {"seen": seen})
    begun = Operation.objects.get(kind="vm.edit")
    assert answer.url == url("operations:detail", args=[begun.pk])
    carry_out(begun)
    again = client.post(url("vms:settings_back", args=[machine.pk]), {"seen": seen}, follow=True)
    assert "None of its settings waits" in again.content.decode()
    assert "Set these settings back" not in again.content.decode() and "vCPUs" in again.content.decode()


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize("seen", ["", "forged"])
def test_who_saw_nothing_sets_nothing_back(cast, fake, machine, client, seen):
    """Red when a form that nobody signed counts as seen."""
    change(fake, machine, PATCH)
    see(fake, machine)
    client.force_login(cast.requester)
    answer = client.post(url("vms:settings_back", args=[machine.pk]), {"seen": seen}, follow=True)
    assert "Somebody changed this machine" in answer.content.decode()
    assert not Operation.objects.filter(kind="vm.edit").exists()


@pytest.mark.database
@pytest.mark.django_db
def test_hostile_definitions_are_text(cast, fake, machine, client):
    """Red when anything of a definition is drawn as it is."""
    bad = "<script>alert(1)</script>"
    disk = {"type": "file", "device": "disk", "source": {"file": f"/p/{bad[:-9]}"}, "target": {"dev": bad}}
    card = {"mac": bad, "type": "network", "source": {"network": bad}, "model": bad}
    clock = {"clock": {"offset": bad}, "devices": {"disks": [{}, disk], "interfaces": [card]}}
    change(fake, machine, clock)
    see(fake, machine)
    client.force_login(cast.requester)
    shown = client.get(url("vms:settings", args=[machine.pk])).content.decode()
    assert "<script>alert" not in shown and shown.count("&lt;script&gt;") >= 4


def side(bus="virtio", boot=("hd",), order=None):
    """A definition with one disk and one drive."""
    own = {"type": "file", "device": "disk", "source": {"file": "/p/vda"}}
    own["target"] = {"dev": "vda", "bus": bus}
    if order:
        own["boot_order"] = order
    drive = {"type": "file", "device": "cdrom", "target": {"dev": "sda", "bus": "sata"}}
    board = {"machine": "pc-q35-7.2", "architecture": "x86_64", "boot": [{"dev": one} for one in boot]}
    sizes = {"type": "kvm", "vcpus": 1, "memory_bytes": 1 << 30}
    return {**sizes, "os": board, "devices": {"disks": [own, drive]}}


def test_kinds_of_devices_come_back_where_an_order_of_devices_waits():
    """Red when the order's own change brings a kind of device back beside that of the kinds."""
    runs, waits_for = side(boot=("cdrom", "hd")), side(boot=(), order=1)
    made = outcome(waits_for, pending.patch_back(runs, settings.ground_of(waits_for, {})))
    assert made["os"]["boot"] == [{"dev": "cdrom"}, {"dev": "hd"}]


def test_the_bus_of_a_disk_is_a_row_of_its_own():
    """Red when a bus is summed up among what no page sets."""
    found = pending.compare(side(), settings.ground_of(side("sata"), {}), pending.Names())
    [row] = found.rows
    assert (str(row.label), row.before, row.after) == ("Bus of vda", "virtio", "sata") and not found.others
