"""Settings of a machine: what can be set, who may, and that nobody overwrites what they never saw."""

from dataclasses import asdict
from pathlib import Path

import pytest
from django.urls import reverse as url
from django.utils import timezone

from portal.core.errors import Denied
from portal.drivers.inspection import Kind, changed, inspect
from portal.drivers.libvirt.xml.abilities import abilities_of
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import Accelerator, DiskSpec, DomainDefinition, DomainSpec, NicSpec
from portal.hosts.models import Health, Host
from portal.operations import words
from portal.operations.models import Operation
from tests.factories import make_host, make_machine
from vms import editing, noted, settings
from vms.models import Definition, Observed, Status, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]

ABILITIES = Path(__file__).parents[1] / "data/abilities"
PLAIN = {
    "description": "",
    "boot": "hd",
    "order": "",
    "firmware": "bios",
    "machine": "pc-q35-7.2",
    "tpm": "absent",
    "cpu": "model:qemu64",
    "topology": "flat",
    "cache": "default",
    "trim": "on",
    "video": "virtio",
    "agent": "on",
    "clock": "utc",
    "watchdog": "absent",
}
SET = {
    "description": "two\nlines",
    "boot": "cdrom",
    "firmware": "secure",
    "machine": "pc-q35-7.1",
    "tpm": "emulator",
    "cpu": "model:Nehalem",
    "topology": "1x2x1",
    "cache": "none",
    "trim": "off",
    "video": "vga",
    "agent": "off",
    "clock": "localtime",
    "watchdog": "poweroff",
}
#: What a host tells of what its emulator can.
READINESS = {
    "abilities": [
        {
            **asdict(abilities_of((ABILITIES / "qemu-q35.xml").read_text(), "q35")),
            "cpu_models": ("Nehalem", "qemu64"),
        }
    ],
    "machine_types": ("pc", "q35", "pc-i440fx-7.2", "pc-q35-7.1", "pc-q35-7.2", "pc-q35-10.0"),
}


_WRITTEN_OUT = {
    "os": {"machine": "pc-q35-7.2"},
    "cpu": {"mode": "custom", "match": "exact", "model": "qemu64", "fallback": "forbid", "check": "none"},
}


def definition(uuid="11111111-2222-4333-8444-555555555555", change=None):
    """Return what the portal itself defines, after `change`."""
    spec = DomainSpec(
        name="example",
        uuid=uuid,
        vcpus=2,
        memory_bytes=64 << 20,
        disks=(DiskSpec("/example.qcow2"),),
        nics=(NicSpec("52:54:00:00:00:01", "example"),),
        seed_path="/example.iso",
        accelerator=Accelerator.EMULATION,
    )
    # As libvirt writes it out.
    made = changed(Kind.DOMAIN, DomainElement.to_xml(spec).encode(), _WRITTEN_OUT)
    return changed(Kind.DOMAIN, made.encode(), change or {})


def understood(text):
    return inspect(Kind.DOMAIN, text.encode()).understood


def ground(text):
    return settings.ground_of(understood(text), READINESS)


def see(machine, change=None, running=""):
    """Let the portal see the definition of a machine; return its digest."""
    told = DomainDefinition(definition(str(machine.uuid), change), running)
    noted.note(machine.host_id, str(machine.uuid), told, timezone.now())
    return told.digest


@pytest.fixture
def machine(cast):
    return make_machine(cast, "example", make_host(readiness=READINESS), observed_state=Observed.RUNNING)


@pytest.fixture
def digest(machine):
    return see(machine)


def edit(actor, vm, digest, /, **values):
    return editing.edit_machine(actor=actor, machine=vm, values=values, digest=digest)


# What can be set


@pytest.mark.parametrize("name", SET)
def test_each_setting_is_written_where_it_is_read(name):
    """Red when a patch writes to another place, or what the portal itself defines reads otherwise."""
    text = definition()
    assert settings.values(understood(text)) == PLAIN
    there = definition(change=settings.patch_of(ground(text), {name: SET[name]}))
    assert settings.values(understood(there)) == {**PLAIN, name: SET[name]}
    back = settings.patch_of(ground(there), {name: PLAIN[name]})
    assert settings.values(understood(changed(Kind.DOMAIN, there.encode(), back))) == PLAIN


def test_all_settings_at_once_are_one_change():
    """Red when a setting stands below the same name as another, whose part it would overwrite."""
    patch = settings.patch_of(ground(definition()), SET)
    assert settings.values(understood(definition(change=patch))) == {**PLAIN, **SET}
    assert settings.patch_of(ground(definition()), PLAIN) == {}


def test_the_place_to_start_from_comes_first_and_the_others_stay():
    many = {"os": {"boot": [{"dev": "network"}, {"dev": "hd"}]}}
    patch = settings.patch_of(ground(definition(change=many)), {"boot": "hd"})
    assert patch == {"os": {"boot": [{"dev": "hd"}, {"dev": "network"}]}}


@pytest.mark.parametrize(
    ("change", "name", "sentence"),
    [
        ({"devices": {"disks": [{"boot_order": 1}]}, "os": {"boot": [None]}}, "boot", "at each device"),
        ({"os": {"kernel": "/vmlinuz"}}, "boot", "kernel of its host"),
        ({"clock": {"offset": "timezone", "timezone": "Europe/Berlin"}}, "clock", "kept as it is: timezone"),
        ({"devices": {"watchdogs": [{"model": "i6300esb", "action": "dump"}]}}, "watchdog", "kept as it is"),
        ({"devices": {"watchdogs": [{"model": "itco", "action": "none"}]}}, "watchdog", "kept as it is"),
        (
            {"devices": {"watchdogs": [{"model": "ib700", "action": "reset"}, {"action": "pause"}]}},
            "watchdog",
            "kept as it is",
        ),
        ({"os": {"boot": None}}, "boot", "kept as it is"),
    ],
)
def test_what_is_set_in_another_way_is_kept_and_says_so(client, cast, machine, change, name, sentence):
    """Red when a setting of somebody's own making can be overwritten, or breaks the page."""
    digest = see(machine, change)
    client.force_login(cast.requester)
    page = client.get(url("vms:settings", args=[machine.pk]))
    assert name not in page.context["form"].fields and sentence in page.content.decode()
    with pytest.raises(Denied, match=sentence) as denied:
        edit(cast.requester, machine, digest, **{name: SET[name]})
    assert denied.value.field == name and not Operation.objects.filter(kind="vm.edit").exists()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"boot": "floppy"}, "cannot be set to that"),
        ({"boot": ""}, "cannot be set to that"),
        ({"clock": "<b>"}, "cannot be set to that"),
        ({"watchdog": "inject-nmi"}, "cannot be set to that"),
        ({"description": "x" * 2001}, "At most 2000 characters"),
        ({"description": "a\0b"}, "Control characters"),
        ({"description": "\x1b[2J"}, "Control characters"),
        ({"description": "a\uffff"}, "Control characters"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_at_its_setting(cast, machine, digest, values, sentence):
    with pytest.raises(Denied, match=sentence) as denied:
        edit(cast.requester, machine, digest, **values)
    assert [denied.value.field] == list(values)


def test_a_watchdog_in_the_chips_cannot_go_and_several_are_set_alike():
    """Red when what libvirt 9.1 puts into each q35 machine is offered to be taken away."""
    [dog] = [setting for setting in settings.SETTINGS if setting.name == "watchdog"]
    chips = {"devices": {"watchdogs": [{"model": "itco", "action": "reset"}, {"model": "i6300esb"}]}}
    found = ground(definition(change=chips))
    assert "absent" not in dict(dog.choices(found)) and dog.fixed(found) == ""
    with pytest.raises(Denied, match="cannot be set to that"):
        settings.patch_of(found, {"watchdog": "absent"})
    there = changed(Kind.DOMAIN, definition(change=chips).encode(), dog.patch(found, "pause"))
    assert [one["action"] for one in understood(there)["devices"]["watchdogs"]] == ["pause", "pause"]


def test_a_machine_without_a_card_does_not_start_from_the_network():
    alone = ground(definition(change={"devices": {"interfaces": [None]}}))
    [boot] = [setting for setting in settings.SETTINGS if setting.name == "boot"]
    assert [name for name, _label in boot.choices(alone)] == ["hd", "cdrom"]


# Who may, and when


def test_a_change_is_queued_with_its_way_back(cast, machine, digest):
    """Red when the change is not bound to the definition that was seen."""
    begun = edit(cast.requester, machine, digest, boot="cdrom", watchdog="reset")
    assert begun.frozen["pinned"]["change"] == {
        "os": {"boot": [{"dev": "cdrom"}, {"dev": "hd"}]},
        "devices": {"watchdogs": [{"model": "i6300esb", "action": "reset"}]},
    }
    assert begun.identifiers["digest"] == digest and begun.lane == machine.host.scope
    back = {"os": {"boot": [{"dev": "hd"}, None]}, "devices": {"watchdogs": None}}
    assert begun.identifiers["back"] == back
    told = {fact.label: fact.value for fact in words.facts(begun.frozen)}
    assert told["Starts from"] == "Disk → CD" and told["When the guest hangs"].endswith("Reset the machine")


def test_what_is_so_already_queues_nothing(cast, machine, digest):
    assert edit(cast.requester, machine, "whatever was seen", **PLAIN) is None
    assert not Operation.objects.filter(kind="vm.edit").exists()


def test_nobody_overwrites_what_they_never_saw(cast, machine, digest):
    """Red when edit_machine does not compare the digests."""
    see(machine, {"title": "somebody else's"})
    with pytest.raises(editing.Clash, match="Somebody changed this machine"):
        edit(cast.requester, machine, digest, boot="cdrom")
    assert not Operation.objects.filter(kind="vm.edit").exists()


@pytest.mark.parametrize(
    ("who", "change", "sentence"),
    [
        ("approver", {}, "Only the owner, an operator or an admin"),
        ("auditor", {}, "Only the owner, an operator or an admin"),
        ("requester", {"status": Status.BUILDING}, "still being built"),
        ("requester", {"status": Status.BINNED}, "in the bin"),
    ],
)
def test_who_may_not_or_not_now_is_told_why(cast, machine, digest, who, change, sentence):
    VirtualMachine.objects.update(**change)
    with pytest.raises(Denied, match=sentence):
        edit(getattr(cast, who), machine, digest, boot="cdrom")


def test_a_host_that_is_away_and_one_that_told_nothing_yet(client, cast, machine):
    with pytest.raises(Denied, match="has not told this machine's settings yet"):
        edit(cast.requester, machine, "", boot="cdrom")
    client.force_login(cast.requester)
    page = client.get(url("vms:settings", args=[machine.pk]))
    assert "The settings are not known yet" in page.content.decode()
    digest = see(machine)
    Host.objects.update(observed_health=Health.STALE)
    with pytest.raises(Denied, match="does not answer"):
        edit(cast.operator, machine, digest, boot="cdrom")


# The page


def posted(page, **changes):
    form = page.context["form"]
    return {**form.initial, **changes}


def test_the_page_shows_what_is_set_and_changes_it(client, cast, machine, digest):
    client.force_login(cast.requester)
    address = url("vms:settings", args=[machine.pk])
    page = client.get(address)
    assert page.context["form"].initial["boot"] == "hd"
    answer = client.post(address, posted(page, description="<b>mine</b>", boot="network"))
    begun = Operation.objects.get(kind="vm.edit")
    assert answer.url == url("operations:detail", args=[begun.pk])
    shown = client.get(answer.url).content.decode()
    assert "Disk → Network" in shown and "<b>mine</b>" not in shown and "&lt;b&gt;mine&lt;/b&gt;" in shown
    assert begun.frozen["pinned"]["change"].keys() == {"description", "os"}
    again = client.post(address, posted(page, clock="localtime"), follow=True)
    assert "Another change to this machine is not finished yet" in again.content.decode()


def test_a_page_with_many_devices_grows_with_their_number(client, cast, machine):
    """Red when each device offers every place by a list of its own (MOST_LISTED): 3 MB for 300 disks."""
    client.force_login(cast.requester)
    address, length = url("vms:settings", args=[machine.pk]), {}
    for number in (100, 200):
        see(machine, {"devices": {"disks": [{}, {}, *({"target": {"dev": f"x{n}"}} for n in range(number))]}})
        page = client.get(address)
        length[number] = len(page.content)
    assert length[200] < 2 * length[100] < 100_000
    client.post(address, posted(page, **{"order-7": "2", "order-150": "1"}))
    changed_to = Operation.objects.get(kind="vm.edit").frozen["pinned"]["change"]
    order = {at: one["boot_order"] for at, one in enumerate(changed_to["devices"]["disks"]) if one}
    assert order == {150: 1, 7: 2}
    refused = client.post(address, posted(page, **{"order-7": "204"}))
    assert refused.context["form"].has_error("order-7")


@pytest.mark.parametrize(("vcpus", "most"), [(1 << 16, 34), (2**64 - 1, 1), (10**30, 1)])
def test_no_number_of_vcpus_keeps_a_page_waiting(vcpus, most):
    """Red when the ways to lay out any number that a definition says are looked for one by one."""
    [layout] = [one for one in settings.SETTINGS if one.name == "topology"]
    assert len(layout.choices(settings.Ground({"vcpus": vcpus}))) == most


@pytest.mark.parametrize("text", ["two\nlines", "\n  as it was written by hand\n", " "])
def test_a_description_of_lines_is_left_alone_and_can_be_written(client, cast, machine, text):
    """Red when the line ends of browsers are kept, or the blanks of others are not."""
    see(machine, {"description": text})
    client.force_login(cast.requester)
    address = url("vms:settings", args=[machine.pk])
    page = client.get(address)
    browser = posted(page, description=text.replace("\n", "\r\n"), clock="localtime")
    assert client.post(address, browser).status_code == 302
    [begun] = Operation.objects.filter(kind="vm.edit")
    assert begun.frozen["pinned"]["change"].keys() == {"clock"}


def test_the_second_of_two_people_sees_what_the_first_changed(client, cast, machine, digest):
    """Red when the page shows no difference, or takes the second try for one that saw nothing."""
    client.force_login(cast.operator)
    address = url("vms:settings", args=[machine.pk])
    page = client.get(address)
    see(machine, {"clock": {"offset": "localtime"}})
    answer = client.post(address, posted(page, watchdog="reset"))
    text = answer.content.decode()
    assert answer.status_code == 422 and "Somebody changed this while you looked" in text
    assert "<del>UTC, as Linux expects</del>" in text
    second = client.post(address, posted(answer, watchdog="reset", clock="localtime"))
    assert second.status_code == 302
    [begun] = Operation.objects.filter(kind="vm.edit")
    assert set(begun.frozen["pinned"]["change"]) == {"devices"}


def test_what_changed_beside_the_settings_is_no_clash(client, cast, machine, digest):
    """Red when the digest alone decides: libvirt writes devices in another order once a machine started."""
    client.force_login(cast.operator)
    address = url("vms:settings", args=[machine.pk])
    page = client.get(address)
    now = see(machine, {"title": "the same, written otherwise"})
    assert client.post(address, posted(page, watchdog="reset")).status_code == 302
    [begun] = Operation.objects.filter(kind="vm.edit")
    assert begun.identifiers["digest"] == now != digest


def test_a_form_that_nobody_signed_saw_nothing(client, cast, machine, digest):
    client.force_login(cast.requester)
    address = url("vms:settings", args=[machine.pk])
    page = client.get(address)
    forged = client.post(address, {**posted(page, boot="cdrom"), "seen": "forged"})
    assert forged.status_code == 422 and not Operation.objects.filter(kind="vm.edit").exists()


def test_what_waits_for_the_next_start_is_shown(client, cast, machine):
    """Red when pending tells the description, or nothing."""
    see(machine, {"description": "new", "clock": {"offset": "localtime"}}, running=definition())
    client.force_login(cast.requester)
    page = client.get(url("vms:settings", args=[machine.pk]))
    assert [(one.label, one.after) for one in page.context["pending"].rows] == [
        ("Clock", "The host's local time, as Windows expects")
    ]
    see(machine, running=definition())
    assert client.get(url("vms:settings", args=[machine.pk])).context["pending"].total == 0


def test_who_may_look_but_not_change_reads_why(client, cast, machine, digest):
    client.force_login(cast.auditor)
    page = client.get(url("vms:settings", args=[machine.pk])).content.decode()
    assert 'disabled title="Only the owner' in page


def test_hostile_definitions_are_text(client, cast, machine):
    """Red when anything of a definition is drawn as it is."""
    see(machine, {"description": "<script>alert(1)</script>", "os": {"machine": "<img src=x>"}})
    client.force_login(cast.requester)
    page = client.get(url("vms:settings", args=[machine.pk])).content.decode()
    assert "<script>alert" not in page and "<img src=x" not in page and "&lt;img src=x&gt;" in page


def test_a_definition_that_is_odd_breaks_no_page(client, cast, machine):
    odd = "<domain type='test'><name>a</name><os><boot/></os><devices><watchdog/></devices></domain>"
    Definition.objects.create(
        host=machine.host,
        uuid=machine.uuid,
        observed_digest="d",
        observed_persistent=DefinitionSeen.of(DomainDefinition(odd)).persistent,
        observed_at=timezone.now(),
    )
    client.force_login(cast.requester)
    page = client.get(url("vms:settings", args=[machine.pk]))
    assert page.status_code == 200 and page.context["form"].initial["watchdog"] == "reset"
