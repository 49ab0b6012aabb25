"""Settings of a machine's hardware: what its host can give, why not, and what each change leaves alone."""

from dataclasses import asdict
from math import prod
from pathlib import Path

import pytest
from django.urls import reverse as url

from portal.core.errors import Denied
from portal.drivers.inspection import Kind, changed, inspect
from portal.drivers.libvirt.xml.abilities import abilities_of
from portal.operations.models import Operation
from tests.factories import make_host, make_machine
from tests.vms.test_settings import ABILITIES, READINESS, definition, edit, posted, see, understood
from vms import settings
from vms.models import Observed

pytestmark = [pytest.mark.database, pytest.mark.django_db]

RICH = (Path(__file__).parents[1] / "data/foreign/domain.xml").read_bytes()
[ABLE] = READINESS["abilities"]


def told(*names, **changes):
    """Return the readiness of a host that told of the recorded abilities `names`, with `changes` to each."""
    texts = {name: (ABILITIES / f"{name}.xml").read_text() for name in names}
    recorded = [asdict(abilities_of(text, name.partition("-")[2])) for name, text in texts.items()]
    return {"abilities": [one | changes for one in recorded], "machine_types": ["pc-q35-7.2"]}


def ground(change=None, readiness=READINESS):
    return settings.ground_of(understood(definition(change=change)), readiness)


def setting(name):
    [found] = [one for one in settings.SETTINGS if one.name == name]
    return found


def offered(name, *args, **kwargs):
    return [value for value, _label in setting(name).choices(ground(*args, **kwargs))]


@pytest.fixture
def machine(cast):
    return make_machine(cast, "example", make_host(readiness=READINESS), observed_state=Observed.SHUTOFF)


# What is offered, and why not


@pytest.mark.parametrize(
    ("name", "change", "readiness", "sentence"),
    [
        ("cpu", {}, {}, "an admin proves it again"),
        ("cpu", {}, told("qemu-pc"), "an admin proves it again"),
        ("firmware", {}, {}, "an admin proves it again"),
        ("machine", {}, {}, "an admin proves it again"),
        ("machine", {}, {**READINESS, "machine_types": ["pc"]}, "knows no other version"),
        ("tpm", {}, {}, "an admin proves it again"),
        ("tpm", {}, told("qemu-q35", tpm_backends=("passthrough",)), "swtpm and swtpm-tools"),
        ("tpm", {}, told("qemu-q35", tpm_models=()), "gives such machines no TPM"),
        ("tpm", {"devices": {"tpms": [{"backend": "passthrough"}]}}, READINESS, "kept as it is"),
        ("firmware", {}, told("qemu-q35", uefi=False), "package ovmf"),
        ("firmware", {"os": {"loader": "/code.fd"}}, READINESS, "name of its file"),
        ("firmware", {"os": {"kernel": "/vmlinuz"}}, READINESS, "kernel of its host"),
        ("order", {"os": {"kernel": "/vmlinuz"}}, READINESS, "kernel of its host"),
        ("order", {"devices": {"host_devices": [{"boot_order": 1}]}}, READINESS, "kept as it is"),
        ("topology", {"cpu": {"topology": {"dies": 2}}}, READINESS, "kept as it is"),
        ("video", {"devices": {"videos": [{}, {"model": "vga"}]}}, READINESS, "several screens"),
    ],
)
def test_what_cannot_be_set_says_why(cast, machine, name, change, readiness, sentence):
    """Red when a setting is offered that the host or the machine cannot have."""
    assert sentence in setting(name).fixed(ground(change, readiness))
    machine.host.readiness = readiness
    machine.host.save()
    digest = see(machine, change)
    with pytest.raises(Denied, match=sentence) as denied:
        edit(cast.requester, machine, digest, **{name: "whatever"})
    assert denied.value.field == name


def test_a_processor_is_one_that_the_machine_can_have():
    """Red when an emulated machine is offered the host's own, or a model that the host cannot run."""
    emulated = offered("cpu", readiness=told("qemu-q35"))
    assert "host-passthrough" not in emulated and {"host-model", "model:Nehalem"} <= set(emulated)
    assert "emulated" in setting("cpu").lacks(ground(readiness=told("qemu-q35")))
    kvm = settings.ground_of(understood(definition()) | {"type": "kvm"}, told("kvm-q35"))
    values = [value for value, _label in setting("cpu").choices(kvm)]
    assert "host-passthrough" in values and "model:pentium3" in values and "model:Nehalem" not in values
    assert setting("cpu").lacks(kvm) == ""


def test_no_change_asks_for_what_libvirt_itself_fills_in():
    """Red when the plain processor is offered where libvirt writes out which one that is.

    A worker that died after it made a change looks whether it is made: what is filled in would say no.
    """
    assert "default" not in offered("cpu")
    for value in offered("cpu"):
        assert "check" not in setting("cpu").patch(ground(), value)["cpu"]
    video = {"devices": {"videos": [{"model": "qxl", "vram_kib": 1, "ram_kib": 1, "vgamem_kib": 1}]}}
    assert settings.patch_of(ground(video), {"video": "vga"}) == {
        "devices": {"videos": [{"model": "vga", "ram_kib": None, "vgamem_kib": None}]}
    }


def test_a_layout_holds_all_vcpus_that_the_machine_can_have():
    """Red when sockets, cores and threads can be another number than the ceiling."""
    layouts = offered("topology", {"vcpus": 12, "current_vcpus": 3})
    assert {prod(map(int, value.split("x"))) for value in layouts if value != "flat"} == {12}
    assert {"flat", "1x12x1", "3x4x1", "1x6x2", "2x3x2"} <= set(layouts)
    with pytest.raises(Denied, match="cannot be set to that"):
        settings.patch_of(ground({"vcpus": 12}), {"topology": "2x2x1"})


def test_versions_are_those_of_the_machines_own_board():
    """Red when another board is offered, whose slots are others, or 10.0 is older than 7.2."""
    assert offered("machine") == ["pc-q35-10.0", "pc-q35-7.2", "pc-q35-7.1"]


def test_secure_boot_needs_a_board_and_a_firmware_for_it():
    assert offered("firmware") == ["bios", "uefi", "secure"]
    old = settings.ground_of(
        understood(definition(change={"os": {"machine": "pc-i440fx-7.2"}})), told("qemu-pc")
    )
    assert [value for value, _label in setting("firmware").choices(old)] == ["bios", "uefi"]
    assert "q35" in setting("firmware").lacks(old)
    assert "no firmware for secure boot" in setting("firmware").lacks(
        ground(readiness=told("qemu-q35", secure_boot=False))
    )


def test_xen_offers_what_xen_has():
    """Red when a machine of Xen is asked about as one of QEMU."""
    defined = {"type": "xen", "os": {"type": "hvm", "architecture": "x86_64", "machine": "xenfv"}, "vcpus": 2}
    xen = settings.ground_of(defined, told("qemu-q35", "xen-xenfv"))
    assert "no TPM" in setting("tpm").fixed(xen) and "machines of Xen" in setting("agent").fixed(xen)
    assert [value for value, _label in setting("cpu").choices(xen)] == ["default", "host-passthrough"]
    assert [value for value, _label in setting("video").choices(xen)] == ["vga", "cirrus", "xen"]


# What a change writes


def test_a_firmware_takes_what_belongs_to_it_and_forgets_the_other():
    """Red when secure boot begins with what a firmware without keys kept, or SMM stays behind."""
    patch = settings.patch_of(ground(), {"firmware": "secure"})
    assert patch["smm"] is True and patch["traces"] == {"firmware": "fresh"}
    assert patch["os"]["firmware_features"] == [
        {"name": "enrolled-keys", "enabled": True},
        {"name": "secure-boot", "enabled": True},
    ]
    chosen = {"loader": "/code.fd", "loader_type": "pflash", "nvram": "/vars.fd", "nvram_format": "raw"}
    now = {**patch, "os": {**patch["os"], **chosen}}
    plain = settings.patch_of(ground(now), {"firmware": "uefi"})
    there = understood(definition(change=now))
    after = understood(changed(Kind.DOMAIN, definition(change=now).encode(), plain))
    assert there["smm"] and "smm" not in after and not set(chosen) & set(after["os"])
    assert [one["enabled"] for one in after["os"]["firmware_features"]] == [False, False]
    back = settings.patch_of(ground(now), {"firmware": "bios"})
    gone = understood(changed(Kind.DOMAIN, definition(change=now).encode(), back))
    assert gone["traces"] == {"firmware": "left"} and "firmware" not in gone["os"]


def test_a_tpm_that_goes_is_noted_for_the_end_of_the_machine():
    """Red when nobody knows any more, at its end, that a TPM's state is on the host."""
    with_tpm = settings.patch_of(ground(), {"tpm": "emulator"})
    assert with_tpm["devices"]["tpms"] == [{"model": "tpm-crb", "backend": "emulator", "version": "2.0"}]
    without = settings.patch_of(ground(with_tpm), {"tpm": "absent"})
    assert without == {"devices": {"tpms": [None]}, "traces": {"tpm": "left"}}


def test_an_order_of_devices_takes_the_place_of_kinds():
    """Red when both ways stand in one definition, which libvirt refuses."""
    order = "disk:sda card:52:54:00:00:00:01"
    patch = settings.patch_of(ground(), {"order": order})
    there = definition(change=patch)
    found = understood(there)
    assert "boot" not in found["os"] and settings.values(found)["order"] == order
    turned = settings.patch_of(ground(patch), {"order": "disk:vda disk:sda"})
    again = changed(Kind.DOMAIN, there.encode(), turned)
    assert settings.values(understood(again))["order"] == "disk:vda disk:sda"
    back = settings.patch_of(ground(patch), {"order": ""})
    assert settings.values(understood(changed(Kind.DOMAIN, there.encode(), back)))["boot"] == "hd"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"order": "disk:vdz"}, "no such device"),
        ({"order": "disk:vda disk:vda"}, "a place of its own"),
        ({"order": "disk:vda", "boot": "cdrom"}, "not both at once"),
    ],
)
def test_an_order_that_cannot_be_is_refused(cast, machine, values, sentence):
    digest = see(machine)
    with pytest.raises(Denied, match=sentence) as denied:
        edit(cast.requester, machine, digest, **values)
    assert denied.value.field == "order" and not Operation.objects.filter(kind="vm.edit").exists()


def _rich():
    """Return the settings that can be set of a machine that somebody else made, each with what it can be."""
    on = settings.ground_of(
        inspect(Kind.DOMAIN, RICH).understood,
        {"abilities": [{**ABLE, "type": "test", "videos": ("qxl", "vga")}], "machine_types": ["pc-q35-7.1"]},
    )
    assert on.able
    for one in settings.SETTINGS:
        if not one.fixed(on) and one.choices is not None:
            for value, _label in one.choices(on):
                yield pytest.param(on, one, value, id=f"{one.name}-{value}")
    yield pytest.param(on, setting("order"), "disk:vda", id="order")


@pytest.mark.parametrize(("on", "one", "value"), list(_rich()))
def test_what_nobody_understands_survives_each_setting(on, one, value):
    """Red when a patch takes away an element in which something else stands."""
    patch = settings.patch_of(on, {one.name: value})
    after = inspect(Kind.DOMAIN, changed(Kind.DOMAIN, RICH, patch).encode())
    assert settings.values(after.understood)[one.name] == value
    gone = [kept for kept in inspect(Kind.DOMAIN, RICH).kept if kept not in after.kept]
    assert gone == []


# The page


def test_the_page_offers_says_when_and_takes_an_order_by_numbers(client, cast, machine):
    """Red when the fields of the devices are not made into one order."""
    see(machine)
    client.force_login(cast.requester)
    address = url("vms:settings", args=[machine.pk])
    page = client.get(address)
    text = page.content.decode()
    assert "CD drive sda" in text and "Network card 52:54:00:00:00:01" in text
    assert "Counts from the next start." in text and "Counts at once." in text
    assert "Another board is another machine" in text
    fields = {page.context["form"].fields[name].label: name for name in page.context["form"].fields}
    wrong = {fields["CD drive sda"]: "1", fields["Disk vda"]: "1"}
    answer = client.post(address, posted(page, **wrong))
    assert answer.status_code == 422 and "Another device has this place already" in answer.content.decode()
    right = {fields["CD drive sda"]: "1", fields["Disk vda"]: "2"}
    assert client.post(address, posted(page, **right, firmware="uefi", tpm="emulator")).status_code == 302
    [begun] = Operation.objects.filter(kind="vm.edit")
    change = begun.frozen["pinned"]["change"]
    assert change["devices"]["disks"] == [{"boot_order": 2}, {"boot_order": 1}]
    assert change["os"]["boot"] == [None] and change["os"]["firmware"] == "efi" and change["devices"]["tpms"]
    words = dict((label, after) for label, _before, after in begun.frozen["pinned"]["settings"])
    assert words["Order of the devices"] == "sda, vda" and words["Firmware"] == "UEFI"


def test_a_host_that_told_nothing_offers_what_needs_no_telling(client, cast, machine):
    """Red when the page of a machine breaks on a host that was proven by an older portal."""
    machine.host.readiness = {"arch": "x86_64"}
    machine.host.save()
    see(machine)
    client.force_login(cast.requester)
    page = client.get(url("vms:settings", args=[machine.pk]))
    assert {"topology", "agent", "boot"} <= set(page.context["form"].fields)
    assert not {"cpu", "firmware", "tpm", "video", "machine"} & set(page.context["form"].fields)
    assert "an admin proves it again" in page.content.decode()
