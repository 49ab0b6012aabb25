"""An image is described anew: what a builder's list may not overrule, and what follows for what is asked."""

import uuid
from dataclasses import replace

import pytest
from django.urls import reverse

from portal.accounts.models import Project
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.core.stale import Changed
from portal.hosts import services
from portal.hosts.images import describing
from portal.hosts.images.values import FIELDS, Description
from portal.hosts.models import Image
from portal.operations.services import decide
from tests.factories import GIB, MIB, make_catalogue, make_host, make_image, make_network, make_place
from tests.factories import make_wish as wish_for
from tests.vms.catalogue.saying import describe, typed
from tests.vms.catalogue.test_images import write_manifest
from vms import asking
from vms.cards import cards
from vms.catalogue import describing as catalogue_describing
from vms.forms import RequestForm
from vms.models import CatalogueItem, Flavour, VirtualMachine
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def image(db):
    image = make_image(title="Example", name="example", cloud_init=False)
    make_place(make_host(), image=image)
    return image


@pytest.fixture
def catalogue(image):
    """An item in the sizes `small` (128 MiB, disk 256 MiB) and `large` (1 GiB, disk 4 GiB)."""
    made = make_catalogue(image, make_network())
    made.item.flavours.add(Flavour.objects.create(name="large", vcpus=1, memory=GIB, disk=4 * GIB))
    return made


@pytest.fixture
def admin(client, chief):
    client.force_login(chief)
    return client


def said(image, **changes):
    """Return what is said of an image now, but for `changes`."""
    values = {name: getattr(image, name) for name in FIELDS}
    values["device_models"] = tuple(image.device_models)
    values["projects"] = tuple(image.projects.values_list("pk", flat=True))
    return Description(**values | changes)


def say(chief, image, **changes):
    image.refresh_from_db()
    seen = describing.snapshot(image)
    describing.describe_image(actor=chief, image=image, values=said(image, **changes), seen=seen)
    image.refresh_from_db()


def ask(cast, catalogue, **changes):
    item = CatalogueItem.objects.select_related("image").get(pk=catalogue.item.pk)
    wish = replace(wish_for(catalogue, **changes), item=item)
    return request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())


def approve(cast, operation):
    decide(actor=cast.approver, operation=operation, spec_hash=operation.spec_hash, approved=True)


def test_a_list_of_a_builder_does_not_overrule_what_was_said_here(chief, tmp_path):
    """Red when make_known does not look at `edited`, or takes it for everything."""
    path = write_manifest(tmp_path, b"one")
    (image,) = services.import_images(actor=chief, manifest=path)
    say(chief, image, title="Ours", min_memory=GIB, description=" of us ")
    assert image.edited == ["description", "min_memory", "title"]
    write_manifest(tmp_path, b"one", title="Theirs", login_user="tux", min_memory_bytes=1 << 26)
    services.import_images(actor=chief, manifest=path)
    image.refresh_from_db()
    assert (image.title, image.min_memory, image.description) == ("Ours", GIB, "of us")
    assert image.login_user == "tux"
    say(chief, image, min_memory=MIB * 64)
    assert image.min_memory == MIB * 64 and AuditEntry.objects.filter(verb="image.described").count() == 2


@pytest.fixture
def listed(admin, chief, tmp_path):
    """An image of a builder's list of which people said the title, the memory and the system."""
    path = write_manifest(tmp_path, b"one", title="Theirs", description="theirs")
    (image,) = services.import_images(actor=chief, manifest=path)
    say(chief, image, title="Ours", min_memory=GIB, os="debian12")
    return image


def test_what_was_edited_is_given_back_to_the_list_and_follows_it(admin, chief, tmp_path, listed):
    """Red when as_listed() takes what was typed, describe_image() keeps it in `edited`, or no entry says so.

    Of the system no list says anything, so that there is nothing to give it back to.
    """
    page = admin.get(reverse("vms:image_describe", args=[listed.pk])).content.decode()
    assert "The list says: Theirs" in page and "The list says: 128 MiB" in page
    assert 'value="os"' not in page
    assert describe(admin, listed, given_back=["title"], description="of us").status_code == 302
    listed.refresh_from_db()
    assert (listed.title, listed.min_memory, listed.description) == ("Theirs", GIB, "of us")
    assert listed.edited == ["description", "min_memory", "os"]
    entry = AuditEntry.objects.filter(verb="image.described").last()
    assert (entry.before["title"], entry.after["title"]) == ("Ours", "Theirs")
    assert "title" in entry.before["edited"] and "title" not in entry.after["edited"]
    services.import_images(actor=chief, manifest=write_manifest(tmp_path, b"one", title="Newer"))
    listed.refresh_from_db()
    assert (listed.title, listed.min_memory, listed.os) == ("Newer", GIB, "debian12")
    # Two that say the same: only whose it is changes.
    say(chief, listed, min_memory=1 << 27)
    assert describe(admin, listed, given_back=["min_memory"]).status_code == 302
    listed.refresh_from_db()
    assert listed.edited == ["description", "os"] and listed.min_memory == 1 << 27


def test_what_follows_from_giving_back_is_told_first(admin, chief, tmp_path, listed):
    """Red when the effects are those of what was typed."""
    say(chief, listed, min_memory=64 * MIB)
    made = make_catalogue(listed, make_network())
    services.import_images(
        actor=chief, manifest=write_manifest(tmp_path, b"one", min_memory_bytes=2 * GIB)
    )
    asked = describe(admin, listed, given_back=["min_memory"])
    assert f"{made.item.name} cannot be asked for" in asked.content.decode()
    listed.refresh_from_db()
    assert listed.min_memory == 64 * MIB and "min_memory" in listed.edited
    agreed = asked.context["form"]["agreed"].value()
    assert describe(admin, listed, given_back=["min_memory"], agreed=agreed).status_code == 302
    listed.refresh_from_db()
    assert listed.min_memory == 2 * GIB and listed.edited == ["os", "title"]


@pytest.mark.parametrize("name", ["os", "description", "sha256"])
def test_what_is_not_edited_or_in_no_list_is_not_given_back(admin, chief, listed, name):
    """Red when as_listed() asks nothing: it would raise, or give back what nobody has."""
    assert describe(admin, listed, given_back=[name]).status_code == 422
    seen = describing.snapshot(listed)
    with pytest.raises(Denied, match="has one of the values already"):
        describing.describe_image(
            actor=chief, image=listed, values=said(listed), seen=seen, given_back=[name]
        )


def test_a_newer_build_begins_with_what_was_said_of_the_older(chief, cast, tmp_path):
    """Red when a new build is open to every project again, keeps the older's version, or is a template's."""
    path = write_manifest(tmp_path, b"one")
    (old,) = services.import_images(actor=chief, manifest=path)
    shared = {"every_project": False, "projects": (cast.project.pk,)}
    say(chief, old, title="Ours", version="1-ours", os="debian12", min_disk=GIB, **shared)
    # Called alike, and no build: a template of a machine.
    make_image(name="tiny", title="A template", source="", os="win10")
    path = write_manifest(tmp_path, b"two", version="2", description="newer")
    (new,) = services.import_images(actor=chief, manifest=path)
    assert (new.title, new.version, new.os, new.min_disk) == ("Ours", "2", "debian12", GIB)
    assert (new.description, new.every_project) == ("newer", False)
    assert list(new.projects.all()) == [cast.project]
    write_manifest(tmp_path, b"two", version="3", title="Theirs")
    services.import_images(actor=chief, manifest=path)
    new.refresh_from_db()
    assert (new.title, new.version) == ("Ours", "3")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"title": ""}, "required"),
        ({"version": "a b"}, "A version has"),
        ({"version": "2"}, "There is version 2 of Example already"),
        ({"os": "Debian 12!"}, "as osinfo-db does"),
        ({"min_memory": "0.001"}, "between 16 MiB"),
        ({"min_disk": "0.01"}, "The image itself has"),
        ({"min_disk": "100000"}, "at most 64 TiB"),
        ({"login_user": "Bad User"}, "A user has"),
        ({"login_user": None, "cloud_init": "on"}, "Say as whom one signs in"),
        ({"device_models": ["xen"]}, "valid choice"),
        ({"device_models": None}, "required"),
        ({"every_project": "0"}, "Choose at least one project"),
    ],
)
def test_what_an_image_cannot_be_changes_nothing(admin, image, values, words):
    make_image(title="Example", name="example", version="2")
    before = describing.snapshot(image)
    answer = describe(admin, image, **values)
    assert answer.status_code == 422 and words in answer.content.decode()
    image.refresh_from_db()
    assert describing.snapshot(image) == before and image.edited == []


def test_all_that_is_said_of_it_can_be_said_anew(admin, image, cast):
    """Red when a value of the form is not written: each is another than before."""
    before = describing.snapshot(image)
    told = {
        "title": "Other", "version": "7", "description": "what it is", "os": "debian12", "uefi": "on",
        "secure_boot": "on", "tpm": "on",
        "min_memory": "0.5", "min_disk": "3", "login_user": "tux", "cloud_init": "on",
        "device_models": ["paravirtual", "emulated"], "every_project": "0", "projects": [cast.project.pk],
    }  # fmt: skip
    assert describe(admin, image, **told).status_code == 302
    image.refresh_from_db()
    after = describing.snapshot(image)
    assert [name for name in FIELDS if before[name] == after[name]] == []
    assert image.edited == sorted(FIELDS) and image.least_disk == 3 * GIB
    page = admin.get(reverse("vms:image", args=[image.pk])).content.decode()
    assert "Least disk" in page and "Edited by hand" in page and "UEFI with Secure Boot and a TPM" in page
    # As it is shown it says the same again.
    assert describe(admin, image).status_code == 302
    image.refresh_from_db()
    assert describing.snapshot(image) == after
    assert AuditEntry.objects.filter(verb="image.described").count() == 1


def test_what_was_seen_is_asked_where_it_is_written(chief, image):
    """Red when describe_image leaves that to the catalogue."""
    with pytest.raises(Changed):
        describing.describe_image(actor=chief, image=image, values=said(image, title="Other"), seen={})


def test_who_administers_not_every_project_describes_nothing(cast, image):
    with pytest.raises(Denied, match="role in every project"):
        say(cast.operator, image, title="Other")
    values = said(image, title="Other")
    with pytest.raises(Denied, match="role in every project"):
        catalogue_describing.describe(actor=cast.operator, image=image, values=values, seen={})


def test_the_second_of_two_who_describe_sees_what_changed(admin, chief, image):
    """Red when the form does not carry what was seen."""
    mine = typed(admin, image) | {"title": "Mine"}
    say(chief, image, title="Theirs", min_memory=GIB)
    answer = admin.post(reverse("vms:image_describe", args=[image.pk]), mine)
    text = answer.content.decode()
    assert answer.status_code == 422 and "Somebody changed Theirs since you opened it" in text
    assert "<strong>title</strong>: Example" in text and 'value="Mine"' in text
    image.refresh_from_db()
    assert image.title == "Theirs"


@pytest.mark.parametrize("raised", [{"min_memory": "0.5"}, {"min_disk": "1"}])
def test_what_needs_more_is_told_before_refused_at_the_request_and_at_the_approval(
    admin, cast, chief, image, catalogue, raised
):
    """Red when nobody is told, `_lack` compares nothing, or the size is not refused."""
    waiting = ask(cast, catalogue)
    asked = describe(admin, image, **raised)
    text = asked.content.decode()
    assert asked.status_code == 200 and "Nothing is saved yet" in text
    assert "Tiny cannot be asked for in the sizes that are too small: small." in text
    assert "can only be approved after it was changed: example-vm." in text
    image.refresh_from_db()
    assert image.edited == []
    again = describe(admin, image, **raised, agreed=asked.context["form"]["agreed"].value())
    assert again.status_code == 302
    with pytest.raises(Denied, match="Tiny needs (more memory|a larger disk) than small has"):
        ask(cast, catalogue, name="second")
    with pytest.raises(Denied, match="Example 1 was described anew since this was asked. It needs"):
        approve(cast, waiting)
    waiting.refresh_from_db()
    assert waiting.state == "awaiting_approval" and not VirtualMachine.objects.exists()
    [outlook] = asking.AskingForMachines().outlooks([waiting]).values()
    assert "was described anew" in outlook.warnings[0]
    offered = cards(CatalogueItem.objects.select_related("image"))[0]
    assert [size.flavour.name for size in offered.sizes] == ["large"]
    form = RequestForm(item=CatalogueItem.objects.get(), projects=Project.objects.all())
    assert form["flavour"].initial.name == "large"
    # A larger one is given, and lowering makes all of it possible again.
    large = Flavour.objects.get(name="large")
    ask(cast, catalogue, name="third", flavour=large)
    assert describe(admin, image, min_memory="0.0625", min_disk=None).status_code == 302
    approve(cast, waiting)
    assert VirtualMachine.objects.get().name == "example-vm"


def test_an_item_of_which_no_size_is_large_enough_is_closed(client, admin, cast, image, catalogue):
    """Red when offers does not look at the sizes: people would choose among what is all refused."""
    asked = describe(admin, image, min_memory="2")
    assert "Tiny cannot be asked for: none of its sizes is large enough." in asked.content.decode()
    describe(admin, image, min_memory="2", agreed=asked.context["form"]["agreed"].value())
    client.force_login(cast.requester)
    page = client.get(reverse("vms:catalogue")).content.decode()
    assert "No size of Tiny is large enough for its image by now" in page and "disabled" in page
    with pytest.raises(Denied, match="No size of Tiny is large enough"):
        ask(cast, catalogue)


def test_where_the_disk_is_chosen_a_size_need_not_have_it(admin, cast, image, catalogue):
    CatalogueItem.objects.update(disk_most=2 * GIB)
    assert describe(admin, image, min_disk="1").status_code == 302
    with pytest.raises(Denied, match="The disk has at least 1 GiB"):
        ask(cast, catalogue)
    ask(cast, catalogue, disk=GIB)
    asked = describe(admin, image, min_disk="3")
    assert "The largest disk of Tiny, 2 GiB, is too small" in asked.content.decode()


def test_what_follows_is_told_again_when_it_is_another_by_then(admin, image, catalogue):
    """Red when any agreement counts for whatever follows."""
    asked = describe(admin, image, min_memory="0.5")
    CatalogueItem.objects.create(name="Other", description="", image=image).flavours.add(catalogue.flavour)
    told = {"min_memory": "0.5", "agreed": asked.context["form"]["agreed"].value()}
    again = describe(admin, image, **told)
    assert again.status_code == 200 and "Other cannot be asked for" in again.content.decode()
    image.refresh_from_db()
    assert image.min_memory == 64 * MIB


def test_devices_boards_and_projects_that_go_are_told_and_checked_again(admin, cast, image, catalogue):
    """Red when an approval gives a board or devices that the image does not start with."""
    waiting = ask(cast, catalogue)
    other = Project.objects.create(name="Other people")
    changes = {"device_models": ["emulated"], "uefi": "on", "every_project": "0", "projects": [other.pk]}
    asked = describe(admin, image, **changes)
    text = asked.content.decode()
    assert "Tiny cannot be asked for: it comes with" in text
    assert "Tiny is offered to every project, and the others cannot ask for it." in text
    assert "example-vm" in text
    for name, words in {
        "device_models": "It has no drivers for",
        "uefi": "It starts on the board UEFI, and this asks for BIOS",
        "projects": "may not use the image",
    }.items():
        one = {name: changes[name]} | ({"every_project": "0"} if name == "projects" else {})
        asked = describe(admin, image, **one)
        assert asked.status_code == 200 and "example-vm" in asked.content.decode()
        describe(admin, image, **one, agreed=asked.context["form"]["agreed"].value())
        with pytest.raises(Denied, match=words):
            approve(cast, waiting)
        back = {"device_models": ["paravirtual"], "uefi": None, "every_project": "1", "projects": None}
        assert describe(admin, image, **back).status_code == 302
    approve(cast, waiting)


def test_a_newer_version_begins_with_what_is_said_of_the_older(admin, image, catalogue):
    """Red when the form begins empty, or a version that is there already is taken."""
    url = reverse("vms:image_add") + f"?image={image.pk}"
    form = admin.get(url).context["form"]
    values = {field.html_name: field.value() for field in form}
    values = {name: value for name, value in values.items() if value not in (None, False, "")}
    assert (values["name"], values["title"], values["kind"]) == ("example", "Example", "disk")
    assert "version" not in values
    refused = admin.post(url, values | {"version": "1"})
    assert refused.status_code == 422
    assert "There is version 1 of Example already" in refused.content.decode()
    assert admin.post(url, values | {"version": "2"}).status_code == 302
    newer = make_image(name="example", title="Example", version="2")
    page = admin.get(reverse("vms:image", args=[image.pk])).content.decode()
    assert reverse("vms:image", args=[newer.pk]) in page and "Add a newer version" in page


def test_items_of_an_older_version_use_the_newer_by_one_button(admin, cast, image, catalogue):
    """Red when an item gets a version that it does not go with, or one that the page did not name moves."""
    waiting = ask(cast, catalogue)
    newer = make_image(name="example", title="Example", version="2", min_memory=GIB)
    page, use = (reverse(f"vms:image{name}", args=[newer.pk]) for name in ("", "_use"))
    assert "Let them use this version" in admin.get(page).content.decode()
    told = {"item": [catalogue.item.pk]}
    refused = admin.post(use, told, follow=True).content.decode()
    assert "Tiny stays with its version" in refused and "needs 1 GiB of memory" in refused
    Image.objects.filter(pk=newer.pk).update(min_memory=64 * MIB)
    stranger = make_image(name="other", title="Other")
    for picture, items in ((newer, []), (stranger, [catalogue.item.pk])):
        admin.post(reverse("vms:image_use", args=[picture.pk]), {"item": items})
    assert CatalogueItem.objects.get().image == image
    admin.post(use, told)
    assert CatalogueItem.objects.get().image == newer
    entry = AuditEntry.objects.get(verb="catalogue.changed")
    assert "Example 2" in entry.after["image"] and "Example 1" in entry.before["image"]
    assert "Let them use this version" not in admin.get(page).content.decode()
    # What waits keeps the version that it froze.
    approve(cast, waiting)
    assert VirtualMachine.objects.get().image == image
