"""The pages on which images are added: the form, what a browser sends to, and what the page says of it."""

import base64
import secrets

import pytest
from django.urls import reverse

from portal.hosts.images import describing, store
from portal.hosts.images.values import Description
from portal.hosts.models import Image, Upload
from portal.operations.models import Operation
from tests.factories import make_catalogue, make_host, make_image, make_network, make_place
from tests.vms.catalogue.saying import describe, typed

pytestmark = [pytest.mark.database, pytest.mark.django_db]
MIB = 1 << 20
TYPED = {
    "kind": "disk",
    "title": "Example <Linux>",
    "name": "example",
    "version": "1",
    "min_memory": "0.5",
    "login_user": "root",
    "device_models": ["paravirtual"],
    "every_project": "1",
}


@pytest.fixture
def admin(client, chief, settings, tmp_path, monkeypatch):
    settings.UPLOADS = tmp_path
    monkeypatch.setattr(store, "SPARE", 0)
    client.force_login(chief)
    return client


@pytest.fixture
def upload(admin):
    response = admin.post(reverse("vms:image_add"), TYPED)
    found = Upload.objects.get()
    assert response.headers["Location"] == reverse("vms:upload", args=[found.pk])
    return found


def start(admin, upload, content, **changes):
    told = {"name": "a<b.img", "size": len(content), "head": base64.b64encode(content[:4096]).decode()}
    return admin.post(reverse("vms:upload_start", args=[upload.pk]), told | changes)


def chunk(admin, upload, content, offset, length=MIB):
    return admin.post(
        reverse("vms:upload_chunk", args=[upload.pk, offset]),
        content[offset : offset + length],
        content_type="application/octet-stream",
    )


def test_a_file_is_sent_in_chunks_and_goes_on_after_a_break(admin, upload):
    """Red when a chunk at a wrong offset is taken, or the right one is not told."""
    content = secrets.token_bytes(3 * MIB + 5)
    page = reverse("vms:upload", args=[upload.pk])
    assert "not chosen yet" in admin.get(page).content.decode()
    assert start(admin, upload, content).json() == {"offset": 0}
    for offset in (0, MIB):
        assert chunk(admin, upload, content, offset).json() == {"offset": offset + MIB}
    wrong = chunk(admin, upload, content, 0)
    assert (wrong.status_code, wrong.json()) == (409, {"offset": 2 * MIB})
    shown = admin.get(page).content.decode()
    assert "66 %" in shown and "a&lt;b.img" in shown and "Example &lt;Linux&gt;" in shown
    assert "a&lt;b.img" in admin.get(reverse("vms:images")).content.decode()
    # A new page, the same file.
    assert start(admin, upload, content).json() == {"offset": 2 * MIB}
    other = start(admin, upload, content, size=5)
    assert other.status_code == 422 and "This is another file" in other.json()["reason"]
    assert chunk(admin, upload, content, 2 * MIB, 2 * MIB).json() == {"offset": len(content)}
    assert store.part_of(upload).read_bytes() == content
    assert Operation.objects.get().subject == upload.topic
    assert "Being imported" in admin.get(page).content.decode()


def test_a_full_disk_is_told(admin, upload, monkeypatch):
    content = bytes(MIB)
    start(admin, upload, content)

    def full(*_):
        raise store.StoreFull

    monkeypatch.setattr(store, "append", full)
    refused = chunk(admin, upload, content, 0)
    assert refused.status_code == 507 and "is full" in refused.json()["reason"]


def test_what_is_typed_wrong_stands_at_its_field(admin):
    page = admin.post(reverse("vms:image_add"), TYPED | {"name": "Upper", "sha256": "abc"})
    assert page.status_code == 422 and "A name has small letters" in page.content.decode()
    page = admin.post(reverse("vms:image_add"), TYPED | {"sha256": "abc"})
    assert "A SHA-256 has 64 digits" in page.content.decode()
    page = admin.post(reverse("vms:image_fetch"), TYPED | {"sha256": "0" * 64, "address": "ftp://a/"})
    assert page.status_code == 422 and "begins with https://" in page.content.decode()
    assert not Upload.objects.exists()


def test_an_address_is_fetched_by_an_operation(admin):
    typed = TYPED | {"sha256": "0" * 64, "address": "https://example.org/a.qcow2"}
    answer = admin.post(reverse("vms:image_fetch"), typed)
    operation = Operation.objects.get()
    assert answer.headers["Location"] == reverse("operations:detail", args=[operation.pk])
    assert operation.frozen["pinned"]["sha256"] == "0" * 64
    page = admin.get(reverse("vms:upload", args=[Upload.objects.get().pk])).content.decode()
    assert "https://example.org/a.qcow2" in page


def test_what_failed_is_tried_again_or_thrown_away(admin, upload):
    Upload.objects.update(state="failed", file_size=4)
    page = reverse("vms:upload", args=[upload.pk])
    assert "Import it again" not in admin.get(page).content.decode()
    path = store.part_of(upload)
    path.parent.mkdir()
    path.write_bytes(b"four")
    assert "Import it again" in admin.get(page).content.decode()
    admin.post(reverse("vms:upload_retry", args=[upload.pk]))
    operation = Operation.objects.get()
    dropped = admin.post(reverse("vms:upload_drop", args=[upload.pk]), follow=True).content.decode()
    assert "Cancel that first" in dropped and path.exists()
    Operation.objects.filter(pk=operation.pk).update(state="failed")
    admin.post(reverse("vms:upload_drop", args=[upload.pk]))
    assert not path.exists() and not Upload.objects.exists()


def test_the_page_of_an_image_says_for_whom_it_is_and_who_uses_it(admin, cast):
    image = make_image(title="Example")
    make_place(make_host(), image=image)
    catalogue = make_catalogue(image, make_network())
    page = reverse("vms:image", args=[image.pk])
    shown = admin.get(page).content.decode()
    assert f"It is the image of {catalogue.item.name}" in shown and "Every project" in shown
    refused = describe(admin, image, every_project="0")
    assert refused.status_code == 422 and "Choose at least one project" in refused.content.decode()
    told = {"every_project": "0", "projects": [cast.project.pk], "os": "debian12"}
    asked = describe(admin, image, **told)
    assert "is offered to every project, and the others cannot ask for it" in asked.content.decode()
    describe(admin, image, **told, agreed=asked.context["form"]["agreed"].value())
    shown = admin.get(page).content.decode()
    assert f"<dd>{cast.project.name}</dd>" in shown and "<dd>debian12</dd>" in shown


def test_a_page_that_is_out_of_date_opens_no_image_to_everybody_again(admin, chief, cast):
    """Red when describe_image does not compare with what was seen."""
    image = make_image(title="Example")
    mine = typed(admin, image) | {"os": "debian12"}
    said = {name: getattr(image, name) for name in ("title", "version", "login_user", "min_memory")}
    ours = Description(**said, every_project=False, projects=(cast.project.pk,), cloud_init=True)
    describing.describe_image(actor=chief, image=image, values=ours, seen=describing.snapshot(image))
    for told in (mine, mine | {"seen": "forged"}, mine | {"seen": ""}):
        answer = admin.post(reverse("vms:image_describe", args=[image.pk]), told)
        assert answer.status_code == 422
        assert "Somebody changed Example since you opened it" in answer.content.decode()
        image.refresh_from_db()
        assert (image.every_project, image.os) == (False, "")
    assert f"[&#x27;{cast.project.name}&#x27;]" in answer.content.decode()
    # The page that told it counts as seen; so the second time is meant.
    again = mine | {"seen": answer.context["form"]["seen"].value()}
    assert admin.post(reverse("vms:image_describe", args=[image.pk]), again).status_code == 302
    image.refresh_from_db()
    assert (image.every_project, image.os) == (True, "debian12")


def test_an_image_is_deleted_by_its_name(admin):
    image = make_image(name="unused")
    admin.post(reverse("vms:image_delete", args=[image.pk]), {"confirm_name": "other"})
    assert not Operation.objects.exists()
    admin.post(reverse("vms:image_delete", args=[image.pk]), {"confirm_name": "unused"})
    assert Operation.objects.get().kind == "hosts.delete_image"
    assert "is being deleted" in admin.get(reverse("vms:image", args=[image.pk])).content.decode()
    assert Image.objects.filter(pk=image.pk).exists()


@pytest.mark.parametrize("odd", ["9" * 5000, "²"], ids=["long", "odd"])
def test_what_browsers_do_not_send_is_refused(admin, upload, odd):
    """Red when a part's length is any digits, or the beginning of a file any text."""
    assert start(admin, upload, b"x", head="²").status_code == 422
    start(admin, upload, b"x")
    address = reverse("vms:upload_chunk", args=[upload.pk, 0])
    answer = admin.post(address, b"x", content_type="application/octet-stream", CONTENT_LENGTH=odd)
    assert answer.status_code == 411
