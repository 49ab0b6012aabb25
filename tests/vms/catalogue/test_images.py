"""Images in the catalogue: where they lie, what uses them, and what is deprecated or was built anew."""

import json
import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from portal.accounts.models import Role
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.types import VolumeInfo
from portal.hosts import enrolment, services
from portal.hosts.images.values import BEING_DELETED, BEING_MADE
from portal.hosts.models import Image, ImageAttachment
from portal.operations.registry import StepContext, StepFailed
from portal.operations.services import decide
from tests.factories import make_catalogue, make_host, make_image, make_network, make_place, make_wish
from vms.models import CatalogueItem, VirtualMachine
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def catalogue(db):
    image = make_image(title="Example <Linux>")
    make_place(make_host(), image=image)
    return make_catalogue(image, make_network())


def ask(cast, catalogue, **changes):
    wish = make_wish(catalogue, **changes)
    return request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())


def test_nothing_new_is_made_from_a_deprecated_image(client, cast, chief, catalogue):
    """Red when offers.refusal does not look at the image."""
    waiting = ask(cast, catalogue)
    client.force_login(chief)
    image = Image.objects.get()
    url = reverse("vms:image_deprecate", args=[image.pk])
    assert client.post(url, {"reason": " "}).status_code == 422
    assert client.post(url, {"reason": "holes in <ssl>"}).status_code == 302
    catalogue.item = CatalogueItem.objects.select_related("image").get()
    with pytest.raises(Denied, match="Nothing new is made from Example <Linux>: holes in <ssl>"):
        ask(cast, catalogue, name="second")
    client.force_login(cast.requester)
    page = client.get(reverse("vms:catalogue")).content.decode()
    assert "holes in &lt;ssl&gt;" in page and "disabled" in page
    # What waited is built as it was frozen.
    decide(actor=cast.approver, operation=waiting, spec_hash=waiting.spec_hash, approved=True)
    assert VirtualMachine.objects.get().image == image
    services.restore_image(actor=chief, image=image)
    services.restore_image(actor=chief, image=image)
    verbs = list(AuditEntry.objects.filter(verb__startswith="image.").values_list("verb", flat=True))
    assert sorted(verbs) == ["image.deprecated", "image.restored"]


@pytest.mark.parametrize("reason", [BEING_MADE, f" {BEING_DELETED}"])
def test_words_of_the_portal_itself_are_no_reason(catalogue, chief, reason):
    """Red when they are taken: nobody could restore or delete the image any more."""
    with pytest.raises(Denied, match="other words"):
        services.deprecate_image(actor=chief, image=Image.objects.get(), reason=reason)


@pytest.mark.parametrize("role", list(Role))
def test_an_image_is_deprecated_by_who_administers_every_project(cast, catalogue, role):
    with pytest.raises(Denied, match="role in every project"):
        services.deprecate_image(actor=getattr(cast, role), image=Image.objects.get(), reason="old")
    assert Image.objects.get().deprecated_at is None


def write_manifest(folder, content, **changes):
    (folder / "tiny.qcow2").write_bytes(content)
    entry = {
        "name": "tiny",
        "title": "Tiny",
        "version": "1",
        "architecture": "x86_64",
        "format": "qcow2",
        "file": "tiny.qcow2",
        "sha256": content.hex().ljust(64, "0"),
        "virtual_size_bytes": 1 << 27,
        "login_user": "root",
        "min_memory_bytes": 1 << 27,
        "cloud_init": False,
        "description": "",
    }
    path = folder / "images.json"
    path.write_text(json.dumps([entry | changes]))
    return path


def test_a_newer_build_takes_the_file_and_the_older_one_is_copied_no_more(chief, tmp_path, monkeypatch):
    """Red when import_images leaves `source`: the new file would be copied under the old digest."""
    (old,) = services.import_images(actor=chief, manifest=write_manifest(tmp_path, b"old"))
    assert old.device_models == ["paravirtual"]
    both = ["paravirtual", "emulated"]
    path = write_manifest(tmp_path, b"new", device_models=both)
    (new,) = services.import_images(actor=chief, manifest=path)
    services.import_images(actor=chief, manifest=path)
    old.refresh_from_db()
    assert (old.source, new.source, new.device_models) == ("", str(tmp_path / "tiny.qcow2"), both)
    place = make_place(make_host(), image=make_image(name="other", source=""))
    copied = []
    monkeypatch.setattr(
        enrolment.UploadImages,
        "call",
        lambda self, context, verb, pool, name, source, size: copied.append(name) or place_of(name),
    )
    spec = {"pinned": {"pool": {"uuid": str(place.pool.uuid)}}}
    enrolment.UploadImages().do(StepContext(spec, {"host": place.host_id}, lambda: None))
    assert copied == [new.volume_name]
    assert ImageAttachment.objects.filter(image=new).exists()


def test_an_image_that_the_pool_cannot_take_does_not_keep_the_others_away(db, monkeypatch):
    """Red when the first failure ends the step."""
    for name in ("big", "small"):
        make_image(name=name, title=name, source=f"/example/{name}", sha256=name.ljust(64, "0"))
    place = make_place(make_host(), image=make_image(name="other", source=""))
    ImageAttachment.objects.all().delete()
    lacks = ["big"]

    def copy(self, context, verb, pool, name, source, size):
        if any(f"-{each}-" in name for each in lacks):
            raise StepFailed("pool_full")
        return place_of(name)

    monkeypatch.setattr(enrolment.UploadImages, "call", copy)
    spec = {"pinned": {"pool": {"uuid": str(place.pool.uuid)}}}
    context = StepContext(spec, {"host": place.host_id}, lambda: None)
    assert enrolment.UploadImages().do(context) == "image_not_everywhere"
    assert [copied.image.name for copied in ImageAttachment.objects.all()] == ["small"]
    ImageAttachment.objects.all().delete()
    lacks.append("small")
    with pytest.raises(StepFailed, match="pool_full"):
        enrolment.UploadImages().do(context)


def place_of(name):
    return VolumeInfo("pool", name, f"/example/{name}", 1, 1)


def test_an_unknown_device_model_stops_the_import(chief, tmp_path):
    with pytest.raises(ValueError, match="xen"):
        services.import_images(actor=chief, manifest=write_manifest(tmp_path, b"x", device_models=["xen"]))
    assert not Image.objects.exists()


def test_the_pages_say_where_an_image_lies_and_what_uses_it(client, chief, catalogue):
    client.force_login(chief)
    page = client.get(reverse("vms:images")).content.decode()
    assert "Example &lt;Linux&gt;" in page and "example-host" in page and catalogue.item.name in page
    newer = make_image(title="Example <Linux>", version="2")
    page = client.get(reverse("vms:image", args=[catalogue.item.image_id])).content.decode()
    assert "There is a newer build" in page and newer.sha256[:12] in page and "example-pool" in page
    page = client.get(reverse("vms:image", args=[newer.pk])).content.decode()
    assert "On no host yet" in page and "There is a newer build" not in page


def test_the_list_of_images_costs_the_same_however_long_it_is(client, chief, catalogue):
    client.force_login(chief)

    def cost():
        with CaptureQueriesContext(connection) as queries:
            assert client.get(reverse("vms:images")).status_code == 200
        return len(queries)

    few = cost()
    for number in range(6):
        make_place(make_host(f"host-{number}", f"fake://{number}/"), f"pool-{number}")
    assert cost() == few <= 12


@pytest.mark.parametrize("page", ["vms:catalogue", "vms:catalogue_admin", "vms:sizes", "vms:images"])
def test_an_empty_catalogue_teaches(client, cast, chief, page):
    client.force_login(chief)
    assert "empty-title" in client.get(reverse(page)).content.decode()
