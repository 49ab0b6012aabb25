"""A machine that was exported as an OVA comes in again as an image, and what it is made of stands ready."""

import subprocess
from dataclasses import replace

import pytest
from django.urls import reverse as url

from portal.drivers.fake import FakeDriver
from portal.drivers.types import DiskSpec, DomainSpec
from portal.hosts.images import copies, importing, store
from portal.hosts.images import services as images
from portal.hosts.models import Image
from portal.operations.states import State
from tests.drivers.test_imagefile import disk_bytes
from tests.factories import GIB, MIB
from tests.hosts.images.conftest import WANTED, imported, send
from tests.vms.catalogue.saying import describe
from tests.vms.test_changes import machine, off  # noqa: F401 (fixtures)
from tests.vms.test_cloning import original  # noqa: F401 (a fixture)
from tests.vms.test_exports import carried_out, export, folder, host  # noqa: F401 (fixtures)
from vms.models import Flavour

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def raw(tmp_path):
    """The content of the machine's disk."""
    path = tmp_path / "raw"
    path.write_bytes(disk_bytes(2 * MIB))
    return path


@pytest.fixture
def again(cast, chief, original, host, folder, raw, settings, tmp_path, monkeypatch):  # noqa: F811
    """The image that came of a machine with UEFI, by an export and an import."""
    Image.objects.update(os="debian11")
    original.refresh_from_db()
    uuid = str(original.uuid)
    host.undefine(uuid)
    disks = (DiskSpec("/example/example-vda.qcow2"),)
    host.define(DomainSpec("example", uuid, 1, GIB, disks, uefi=True))

    def download(_driver, _pool, _volume, target):
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, target], check=True)

    monkeypatch.setattr(FakeDriver, "download_volume", download)
    made = carried_out(export(cast.requester, original))
    settings.UPLOADS = tmp_path / "uploads"
    monkeypatch.setattr(store, "SPARE", 0)
    for module in (copies, importing):
        monkeypatch.setattr(module, "call", lambda _h, verb, *a, timeout: getattr(host, verb)(*a))
    wanted = replace(WANTED, name="again", title="Again", min_memory=0)
    upload = images.begin_upload(actor=chief, wanted=wanted, sha256=made.sha256)
    operation = send(chief, upload, (folder / made.path).read_bytes(), name="example.ova")
    assert imported(operation) == (State.SUCCEEDED, [])
    return Image.objects.get(name="again")


def test_what_was_exported_is_imported_whole(again, raw, tmp_path):
    """Red when Pack does not write the firmware or the system."""
    back = tmp_path / "back"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", again.source, back], check=True)
    assert back.read_bytes() == raw.read_bytes()
    assert (again.os, again.uefi, again.min_memory) == ("debian11", True, GIB)
    assert (again.told["name"], again.told["vcpus"]) == ("example", 1)


def test_the_form_of_an_item_begins_with_what_it_said(client, chief, again):
    """Red when sizes that are too small are ticked, or none is."""
    client.force_login(chief)
    shown = client.get(url("vms:image", args=[again.pk])).content.decode()
    assert "What its appliance (OVA) said" in shown and "<dd>UEFI</dd>" in shown
    Flavour.objects.all().delete()
    Flavour.objects.create(name="small", vcpus=1, memory=512 * MIB, disk=GIB)
    add = url("vms:item_add") + f"?image={again.pk}"
    page = client.get(add)
    assert "of memory and" in page.content.decode() and "No size has that" in page.content.decode()
    size = client.get(url("vms:sizes") + f"?image={again.pk}").context["form"]
    assert (size["name"].value(), size["vcpus"].value(), size["memory"].value()) == ("example", 1, 1)
    fit = Flavour.objects.create(name="fit", vcpus=1, memory=GIB, disk=GIB)
    page = client.get(add)
    assert page.context["form"]["flavours"].value() == [fit.pk]
    assert page.context["form"]["image"].value() == again.pk
    assert "No size has that" not in page.content.decode()


def test_an_admin_says_otherwise_how_it_starts(client, chief, again):
    client.force_login(chief)
    describe(client, again, os="debian11", uefi=None)
    again.refresh_from_db()
    assert not again.uefi
    describe(client, again, os="", uefi="on")
    again.refresh_from_db()
    assert again.uefi and again.os == ""
