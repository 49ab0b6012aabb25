"""Boards that machines are made with: which are offered, why not, and what a host is asked for."""

import pytest
from django.urls import reverse as url

from portal.core.errors import Denied
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.hosts.models import Host, Image, ImageAttachment, PoolAttachment
from portal.operations import words
from portal.operations.models import Operation
from portal.operations.states import State
from tests import factories
from tests.factories import MIB
from tests.vms.test_installing import ask, build, definitions, driver, iso, offer  # noqa: F401 (fixtures)
from vms import checks, prefill, profiles
from vms.catalogue.images import used_by
from vms.profiles import Profile

pytestmark = [pytest.mark.database, pytest.mark.django_db]
ABLE = {
    "type": "qemu",
    "arch": "x86_64",
    "board": "q35",
    "uefi": True,
    "secure_boot": True,
    "tpm_models": ["tpm-tis", "tpm-crb"],
    "tpm_backends": ["passthrough", "emulator"],
}


def tell(**changes):
    """Let every host say what it can give."""
    Host.objects.update(readiness={"abilities": [ABLE | changes]})


@pytest.fixture
def windows(iso):  # noqa: F811
    """An item of an installer of Windows with disks on SATA, on a host that can give everything."""
    tell()
    Image.objects.update(os="win2k19", device_models=["paravirtual", "emulated"])
    iso.item.device_models, iso.item.default_devices = ["paravirtual", "emulated"], "emulated"
    iso.item.save()
    iso.item.image.refresh_from_db()
    return iso


@pytest.fixture
def drivers(windows):
    """The CD of drivers, as an admin adds it, on the same host."""
    values = {"kind": "iso", "name": profiles.DRIVERS, "title": "virtio drivers", "cloud_init": False}
    image = factories.make_image(**values)
    place = PoolAttachment.objects.get()
    ImageAttachment.objects.create(image=image, pool=place, path="/srv/example/drivers.iso")
    return image


def plain(definition):
    return definition.uefi, definition.secure_boot, definition.tpm, definition.windows


def test_an_installer_of_windows_gets_firmware_tpm_and_clock_on_a_sata_disk(cast, driver, windows):  # noqa: F811
    """Red when specs.domain_spec does not ask for the board, or StartFromDisk takes it away."""
    done = build(cast, ask(cast, windows))
    assert done.state == State.SUCCEEDED and done.frozen["pinned"]["profile"] == "windows"
    later, now = definitions(driver, done)
    assert plain(now) == plain(later) == (True, True, True, True)
    assert now.disks[0].target == "sda" and len(now.cds) == 1 and now.installs and not later.installs
    text = driver.definition(done.identifiers["uuid"]).running
    assert 'name="secure-boot"' in text and 'enabled="yes"' in text and 'offset="localtime"' in text
    told = {fact.label: fact.value for fact in words.facts(done.frozen)}
    assert "Secure Boot" in told["Board"]


def test_on_virtio_it_gets_the_cd_of_drivers_beside_its_own(cast, driver, windows, drivers):  # noqa: F811
    """Red when the drivers are not the second CD: the firmware would start from them."""
    done = build(cast, ask(cast, windows, devices="paravirtual"))
    assert done.state == State.SUCCEEDED
    _later, now = definitions(driver, done)
    path = windows.item.image.attachments.get().path
    assert now.cds == (path, "/srv/example/drivers.iso") and now.disks[0].target == "vda"
    told = {fact.label: fact.value for fact in words.facts(done.frozen)}
    assert told["CD of drivers"].startswith("virtio drivers")
    assert "CD of drivers of example-vm" in used_by(drivers)


def test_without_the_cd_virtio_is_refused_with_what_to_do(cast, windows):
    """Red when it is not asked for: the installer would find no disk."""
    with pytest.raises(Denied, match="image of the name virtio-win") as denied:
        ask(cast, windows, devices="paravirtual")
    assert denied.value.field == "devices"
    windows.item.device_models, windows.item.default_devices = ["paravirtual"], "paravirtual"
    assert "virtio-win" in checks.refusals(windows.item, {})["item"]


def test_a_host_without_the_cd_is_not_chosen(cast, driver, windows, drivers):  # noqa: F811
    """Red when placement does not look where the drivers lie."""
    asked = ask(cast, windows, devices="paravirtual")
    drivers.attachments.all().delete()
    with pytest.raises(Denied, match="its board and CDs"):
        build(cast, asked)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"uefi": False}, "no UEFI firmware"),
        ({"secure_boot": False}, "no firmware for Secure Boot"),
        ({"tpm_backends": ["passthrough"]}, "no program that plays a TPM"),
        ({"board": "pc"}, "has not told"),
    ],
)
def test_what_no_host_can_give_is_not_offered_and_the_page_says_why(client, cast, windows, changes, reason):
    """Red when the form offers what no host can give."""
    tell(**changes)
    client.force_login(cast.requester)
    page = client.get(url("vms:ask", args=[windows.item.pk]))
    form = page.context["form"]
    assert [value for value, _label in form.fields["profile"].choices] == ["windows-bios"]
    assert reason in page.content.decode()
    with pytest.raises(Denied, match=reason) as denied:
        ask(cast, windows, profile="windows")
    assert denied.value.field == "profile"
    assert ask(cast, windows, profile="windows-bios").frozen["pinned"]["profile"] == "windows-bios"
    # One that starts by nothing else cannot be asked for at all.
    Image.objects.update(os="win11")
    windows.item.image.refresh_from_db()
    assert reason in checks.refusals(windows.item, {})["item"]


def test_the_form_asks_for_the_board_and_a_copy_begins_with_it(client, cast, windows):
    client.force_login(cast.requester)
    page = url("vms:ask", args=[windows.item.pk])
    form = client.get(page).context["form"]
    assert form["profile"].value() == "windows"
    values = {name: form[name].value() for name in ("token", "lease_days", "user", "devices")}
    values |= {"flavour": windows.flavour.pk, "network": windows.network.pk, "project": cast.project.pk}
    values |= {"name": "by-form", "why": "w", "user": "ada", "profile": "windows-bios"}
    assert client.post(page, values).status_code == 302
    asked = Operation.objects.get()
    assert asked.frozen["pinned"]["profile"] == "windows-bios"
    assert prefill.like(asked).values["profile"] == "windows-bios"
    assert client.get(url("vms:copy", args=[asked.pk])).context["form"]["profile"].value() == "windows-bios"
    wrong = client.post(page, values | {"name": "other", "profile": "uefi"})
    assert wrong.status_code == 422


def test_a_host_that_lost_its_firmware_is_not_chosen(cast, driver, windows):  # noqa: F811
    """Red when placement does not ask what the host can give."""
    asked = ask(cast, windows)
    tell(uefi=False)
    with pytest.raises(Denied, match="its board and CDs"):
        build(cast, asked)


def test_a_machine_of_a_linux_is_frozen_as_ever(cast, driver):  # noqa: F811
    """Red when the board is written where there is no choice: old requests would have another hash."""
    catalogue = offer(factories.make_image(os="debian11"))
    assert "profile" not in ask(cast, catalogue).frozen["pinned"]
    assert profiles.profiles_of(catalogue.item.image) == [Profile.STANDARD]


@pytest.mark.parametrize(
    ("image", "boards"),
    [
        ({"os": "debian11", "uefi": True}, [Profile.UEFI]),
        ({"os": "", "uefi": True}, [Profile.UEFI]),
        ({"uefi": True, "tpm": True}, [Profile.UEFI_TPM]),
        ({"uefi": True, "secure_boot": True}, [Profile.SECURE]),
        ({"uefi": True, "secure_boot": True, "tpm": True}, [Profile.SECURE_TPM]),
        ({"secure_boot": True}, [Profile.STANDARD]),
        ({"tpm": True}, [Profile.TPM]),
        ({"os": "win10"}, [Profile.WINDOWS_BIOS]),
        ({"os": "win10", "uefi": True}, [Profile.WINDOWS]),
        ({"os": "win11", "kind": "iso"}, [Profile.WINDOWS]),
        ({"os": "win10", "kind": "iso"}, [Profile.WINDOWS, Profile.WINDOWS_BIOS]),
        ({"os": "no-such-system"}, [Profile.STANDARD]),
    ],
)
def test_the_system_and_how_its_disk_starts_say_which_boards_there_are(image, boards):
    assert profiles.profiles_of(Image(**image)) == boards


@pytest.mark.parametrize("further", [{}, {"secure_boot": True, "tpm": True}, {"tpm": True}])
def test_a_disk_that_starts_by_uefi_is_cloned_to_a_machine_with_uefi(cast, driver, monkeypatch, further):  # noqa: F811
    """Red when only installers are asked for their board: an imported appliance would not start."""
    catalogue = offer(factories.make_image(uefi=True, min_memory=64 * MIB, **further))
    with pytest.raises(Denied, match="has not told"):
        ask(cast, catalogue)
    tell()
    monkeypatch.setattr("vms.building.WaitForAddress.do", lambda self, context: None)
    monkeypatch.setattr(driver, "create_volume", lambda spec: None)
    done = build(cast, ask(cast, catalogue))
    found = driver.definition(done.identifiers["uuid"]).persistent
    secure, tpm = (further.get(name, False) for name in ("secure_boot", "tpm"))
    assert plain(DomainElement.from_xml(found)) == (True, secure, tpm, False)
    assert ("<smm" in found) == secure
    told = {fact.label: fact.value for fact in words.facts(done.frozen)}
    assert ("Secure Boot" in told["Board"]) == secure and ("TPM" in told["Board"]) == tpm


def test_a_tpm_beside_a_bios_asks_for_no_uefi(cast):
    """Red when lacks() asks every board for UEFI, or a board without it for no TPM."""
    tell(uefi=False)
    host = factories.make_host("other", "fake://other/")
    tell(uefi=False)
    host.refresh_from_db()
    host.accelerator = "qemu"
    assert profiles.lacks(host, Profile.TPM, "best") == ""
    assert "UEFI" in profiles.lacks(host, Profile.UEFI_TPM, "best")
    tell(tpm_backends=[])
    host.refresh_from_db()
    host.accelerator = "qemu"
    assert "plays a TPM" in profiles.lacks(host, Profile.TPM, "best")
    assert profiles.lacks(host, Profile.SECURE, "best") == ""


def test_a_request_begins_with_a_size_that_holds_the_machine_of_the_image(client, cast):
    """Red when the first size is proposed that has the least memory: the appliance had more of both."""
    told = {"vcpus": 2, "memory": 256 * MIB, "uefi": False, "os": "", "system": "", "networks": []}
    catalogue = offer(factories.make_image(os="", told=told, min_memory=64 * MIB))
    for name, vcpus, memory in (("large", 8, 1024), ("right", 2, 256), ("narrow", 1, 512)):
        catalogue.item.flavours.create(
            name=name, vcpus=vcpus, memory=memory * MIB, disk=256 * MIB, cost_month=1
        )
    client.force_login(cast.requester)
    page = client.get(url("vms:ask", args=[catalogue.item.pk]))
    assert page.context["form"].initial["flavour"].name == "right"
    assert "had 2 vCPU and 256 MiB of memory" in page.content.decode()
    catalogue.item.flavours.filter(vcpus__gte=2).delete()
    page = client.get(url("vms:ask", args=[catalogue.item.pk]))
    assert page.context["form"].initial["flavour"] == catalogue.item.flavours.first()
