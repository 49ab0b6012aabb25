"""Installers on CDs that are started without their CD's loader, so that they ask nothing."""

import re

import pytest
from django.urls import reverse

from portal.core.errors import Denied
from portal.drivers.errors import HostUnreachable
from portal.hosts.models import Image
from portal.operations.states import State
from tests import factories
from tests.cds import KERNEL, make_cd
from tests.vms.test_installing import KEY, ask, build, definitions, driver, names, offer, template  # noqa: F401
from vms import direct_boot
from vms.models import VirtualMachine
from vms.unattended import Format

pytestmark = [pytest.mark.database, pytest.mark.django_db]
DEBIAN = ["install.amd/vmlinuz", "install.amd/initrd.gz"]
UBUNTU = ["casper/vmlinuz", "casper/initrd"]
INITRD = b"initrd of the CD" * 100


@pytest.fixture
def on_cd(db, tmp_path):
    """Return a function that makes an item of a CD with a kernel and initrd of these names."""

    def make(pair, os, **changes):
        cd = make_cd(tmp_path / "cd.iso", {pair[0]: KERNEL, pair[1]: INITRD})
        values = {"kind": Image.Kind.ISO, "name": "cd", "title": "A CD", "cloud_init": False}
        values |= {"source": str(cd), "os": os, "boot_files": [pair]}
        return offer(factories.make_image(**values | changes))

    return make


@pytest.fixture
def written(driver, monkeypatch):  # noqa: F811
    """What is written to boot from, by name."""
    written, real = {}, driver.write_boot_file

    def write(spec):
        with open(spec.source, "rb") as file:
            written[spec.name] = file.read()[spec.at : spec.at + spec.length] + spec.appended
        return real(spec)

    monkeypatch.setattr(driver, "write_boot_file", write)
    return written


def test_debians_installer_on_a_cd_reads_a_preseed_behind_its_initrd(cast, driver, written, on_cd):  # noqa: F811
    """Red when the CD's loader starts it, which knows of no answers, or the CD is not in the drive."""
    catalogue = on_cd(DEBIAN, "debian12")
    done = build(cast, ask(cast, catalogue, template=template("preseed"), ssh_keys=KEY))
    assert done.state == State.SUCCEEDED
    later, now = definitions(driver, done)
    told = done.identifiers
    assert (now.boot.kernel, now.boot.initrd) == (told["kernel_path"], told["initrd_path"])
    assert "auto=true priority=critical" in now.boot.cmdline and now.installs
    path = catalogue.item.image.attachments.get().path
    assert now.cds == later.cds == (path,) and now.seed_path is None
    assert written[told["kernel"]] == KERNEL
    initrd = written[told["initrd"]]
    assert initrd.startswith(INITRD) and initrd.index(b"070701") % 4 == 0
    assert b"d-i netcfg/hostname string example-vm" in initrd and b"desk" not in initrd
    # The next start is from the disk, and from the CD where nothing came onto it; nothing stays behind.
    assert later.boot is None and not later.installs
    text = driver.definition(told["uuid"]).persistent
    assert re.findall(r'<boot dev="(\w+)"', text) == ["hd", "cdrom"]
    assert names(driver) == [told["volume"]]


def test_ubuntus_installer_is_told_not_to_ask(cast, client, driver, written, on_cd):  # noqa: F811
    """Red when the word is not on the kernel's command line, or the CD with the answers is not there."""
    catalogue = on_cd(UBUNTU, "ubuntu24.04")
    done = build(cast, ask(cast, catalogue, template=template("autoinstall"), ssh_keys=KEY))
    assert done.state == State.SUCCEEDED
    later, now = definitions(driver, done)
    told = done.identifiers
    assert (now.boot.kernel, now.boot.initrd) == (told["kernel_path"], told["initrd_path"])
    assert now.boot.cmdline.split()[0] == "autoinstall" and "console=ttyS0" in now.boot.cmdline
    assert now.cds == (catalogue.item.image.attachments.get().path,)
    assert now.seed_path == told["seed_path"] and b"example-vm" in driver.seeds[told["seed_path"]]
    assert written == {told["kernel"]: KERNEL, told["initrd"]: INITRD}
    assert later.boot is None and later.seed_path == told["seed_path"]
    assert sorted(names(driver)) == sorted([told["volume"], told["seed"]])
    machine = VirtualMachine.objects.get(built_by=done)
    client.force_login(cast.requester)
    page = client.get(reverse("vms:detail", args=[machine.pk])).content.decode()
    assert "it starts from its disk" in page and "Continue with autoinstall?" not in page


@pytest.mark.parametrize("form", ["kickstart", ""])
def test_what_needs_no_words_of_a_kernel_is_started_by_the_cds_loader(
    cast, driver, written, on_cd, form  # noqa: F811
):
    """Red when every CD with a kernel is started without its loader: a person would miss its menu."""
    wish = {"template": template(form), "ssh_keys": KEY} if form else {}
    done = build(cast, ask(cast, on_cd(DEBIAN, "debian12"), **wish))
    assert definitions(driver, done)[1].boot is None and written == {}


@pytest.mark.parametrize(
    ("pair", "os", "offered"),
    [
        (DEBIAN, "debian12", True),
        (DEBIAN, "debian11", True),
        (DEBIAN, "", False),
        (DEBIAN, "fedora37", False),
        (["isolinux/vmlinuz", "isolinux/initrd.img"], "fedora37", False),
        (["live/vmlinuz", "live/initrd"], "debian12", False),
        (UBUNTU, "debian12", False),
        (UBUNTU, "ubuntu22.04", False),
    ],
)
def test_a_preseed_is_offered_where_its_installer_is_on_the_cd(cast, on_cd, pair, os, offered):
    """Red when the system is not asked for, or a live CD counts: its installer does not read one."""
    catalogue = on_cd(pair, os)
    assert (Format.PRESEED in direct_boot.formats(catalogue.item.image)) == offered
    if not offered:
        with pytest.raises(Denied, match="does not read"):
            ask(cast, catalogue, template=template("preseed"), ssh_keys=KEY)


@pytest.mark.parametrize(
    ("pair", "os"),
    [(UBUNTU, ""), (UBUNTU, "elementary5.0"), (UBUNTU, "fedora37"), (["none", "none"], "ubuntu22.04")],
)
def test_what_is_not_ubuntus_cd_is_started_by_its_loader_and_asks(cast, driver, on_cd, pair, os):  # noqa: F811
    """Red when osinfo-db's other live CDs are started so too: they need words of their own."""
    catalogue = on_cd(pair, os)
    done = build(cast, ask(cast, catalogue, template=template("autoinstall"), ssh_keys=KEY))
    assert done.state == State.SUCCEEDED and definitions(driver, done)[1].boot is None


@pytest.mark.parametrize(
    ("pair", "os", "said", "offered"),
    [
        (DEBIAN, "debian12", "", {"preseed", "kickstart", "autoinstall"}),
        (["none", "none"], "debian12", "No preseed is offered", {"kickstart", "autoinstall"}),
        (UBUNTU, "ubuntu22.04", "", {"kickstart", "autoinstall"}),
        (["none", "none"], "ubuntu22.04", "asks once", {"kickstart", "autoinstall"}),
        (["none", "none"], "fedora37", "", {"kickstart", "autoinstall"}),
        (UBUNTU, "", "Nobody said which system", {"kickstart", "autoinstall"}),
    ],
)
def test_the_form_offers_what_works_and_says_what_does_not(client, cast, on_cd, pair, os, said, offered):
    for form in Format:
        template(form)
    catalogue = on_cd(pair, os)
    client.force_login(cast.requester)
    field = client.get(reverse("vms:ask", args=[catalogue.item.pk])).context["form"].fields["template"]
    assert set(field.queryset.values_list("format", flat=True)) == offered
    assert said in field.help_text
    assert bool(direct_boot.remark(catalogue.item.image)) == bool(said)


@pytest.mark.parametrize("gone", ["file", "content", "row"])
def test_a_cd_that_the_portal_has_no_more_as_it_was_is_not_started(cast, driver, on_cd, tmp_path, gone):  # noqa: F811
    """Red when what is not there ends in an error of the portal's own."""
    catalogue = on_cd(DEBIAN, "debian12")
    asked = ask(cast, catalogue, template=template("preseed"), ssh_keys=KEY)
    if gone == "file":
        (tmp_path / "cd.iso").unlink()
    elif gone == "content":
        make_cd(tmp_path / "cd.iso", {"readme": b"x"})
    else:
        Image.objects.update(source="")
    done = build(cast, asked)
    assert done.state == State.FAILED
    assert done.steps.get(name="answers").error_code == "installer_changed"
    assert names(driver) == [] and not VirtualMachine.objects.exists()


@pytest.mark.parametrize(
    ("form", "failing"),
    [("autoinstall", "write_seed")]
    + [(form, verb) for form in ("preseed", "autoinstall") for verb in ("define", "start", "redefine")],
)
def test_what_fails_leaves_nothing(cast, driver, on_cd, monkeypatch, form, failing):  # noqa: F811
    """Red when WriteAnswers.undo leaves the kernel."""

    def fail(*_arguments):
        raise HostUnreachable("no", retryable=False)

    catalogue = on_cd(*(DEBIAN, "debian12") if form == "preseed" else (UBUNTU, "ubuntu22.04"))
    asked = ask(cast, catalogue, template=template(form), ssh_keys=KEY)
    monkeypatch.setattr(driver, failing, fail)
    done = build(cast, asked)
    assert done.state == State.FAILED and names(driver) == []


def test_a_request_of_before_is_carried_out_as_it_was_frozen(cast, driver, on_cd):  # noqa: F811
    """Red when the image is asked at the approval: what was decided on was started by the CD's loader."""
    catalogue = on_cd(UBUNTU, "ubuntu22.04", boot_files=[])
    asked = ask(cast, catalogue, template=template("autoinstall"), ssh_keys=KEY)
    Image.objects.update(boot_files=[UBUNTU])
    assert definitions(driver, build(cast, asked))[1].boot is None


@pytest.mark.parametrize(
    ("pair", "told"),
    [(DEBIAN, "Preseed (Debian), Kickstart"), (["none", "none"], "No preseed is offered: the CD has no")],
)
def test_the_images_page_says_what_its_installer_can_be_told(client, chief, on_cd, pair, told):
    client.force_login(chief)
    image = on_cd(pair, "debian12").item.image
    assert told in client.get(reverse("vms:image", args=[image.pk])).content.decode()
