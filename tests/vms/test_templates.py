"""Templates: who may make one, what image comes of it, and who may ask for what is made from it."""

import uuid

import pytest
from django.urls import reverse as url

from portal.accounts.models import Membership, Project, Role, User
from portal.core.errors import Denied
from portal.drivers.types import VolumeDigest, VolumeInfo
from portal.hosts.images.values import Wanted, check_wanted
from portal.hosts.models import Image, ImageAttachment
from portal.operations import services as operations
from portal.operations.models import Counter, Operation
from portal.operations.registry import StepContext, StepFailed
from portal.operations.services import claim
from portal.operations.states import State
from portal.operations.transitions import move
from tests.factories import GIB, MIB, make_catalogue, make_image, make_network, make_wish
from tests.vms.test_changes import machine, off, see, used  # noqa: F401 (a fixture)
from vms import power
from vms.changes import cloning, templates
from vms.models import CatalogueItem, Definition
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]
TOLD = VolumeDigest("ab" * 32, 40 * MIB)


@pytest.fixture
def original(machine):  # noqa: F811
    """A machine that is off."""
    off(machine)
    return machine


@pytest.fixture
def listing(monkeypatch):
    """A host that tells what the copy holds."""

    def call(step, context, verb, *args, size=0):
        names = context.identifiers
        info = VolumeInfo(names["pool"], names["volume"], names["path"], 2 * GIB, TOLD.length_bytes)
        return {"digest_volume": TOLD, "volume_info": info}[verb]

    monkeypatch.setattr(templates.ListImage, "call", call)


def make(actor, original, title="Tools", **more):
    return templates.make_template(actor=actor, machine=original, title=title, **more)


def context_of(operation):
    return StepContext(operation.frozen, operation.identifiers, lambda: None)


def finish(operation, to=State.SUCCEEDED):
    running = claim(operation.pk, worker="worker")
    templates.ListImage().do(context_of(running))
    if to == State.SUCCEEDED:
        move(running, to, actor="worker")
        return
    move(running, State.UNDOING, actor="worker")
    templates.ListImage().undo(context_of(running))
    move(running, to, actor="worker")


def test_a_template_is_an_image_of_the_machines_project_alone(cast, original, listing):
    """Red when settle() leaves the deprecation, or the image is everybody's."""
    begun = make(cast.operator, original, description="With tools.")
    finish(begun)
    image = Image.objects.get(title="Tools")
    assert (image.sha256, image.size, image.virtual_size) == (TOLD.sha256, TOLD.length_bytes, 2 * GIB)
    assert (image.kind, image.source, image.deprecated_at) == ("disk", "", None)
    assert not image.every_project and list(image.projects.all()) == [cast.project]
    assert image.login_user == original.login_user and image.min_memory == original.image.min_memory
    place = image.attachments.get()
    assert place.path == f"{place.pool.path}/{begun.identifiers['volume']}"


@pytest.mark.parametrize("system", [{"firmware": "efi"}, {"loader": "/x.fd", "loader_type": "pflash"}])
def test_a_template_of_a_machine_with_uefi_starts_by_uefi(cast, original, listing, system):
    """Red when the image says nothing of it: what is made from it would not start."""
    see(original, {"os": system}, running=False)
    finish(make(cast.operator, original))
    assert Image.objects.get(title="Tools").uefi
    see(original, running=False)
    original.refresh_from_db()
    assert not templates._pinned(original, "t", "")["image"]["uefi"]


KEYS = {name: True for name in ("secure-boot", "enrolled-keys")}


@pytest.mark.parametrize(
    ("features", "tpm", "board"),
    [
        (KEYS, True, (True, True, True)),
        (KEYS | {"enrolled-keys": False}, False, (True, False, False)),
        (KEYS | {"secure-boot": False}, True, (True, False, True)),
    ],
)
def test_a_template_knows_the_machine_that_it_was_made_of(
    client, cast, chief, original, listing, features, tpm, board
):
    """Red when _pinned() keeps the disk alone: what is made from it had another board and any size."""
    told = [{"name": name, "enabled": enabled} for name, enabled in features.items()]
    change = {"os": {"firmware": "efi", "firmware_features": told}}
    if tpm:
        change["devices"] = {"tpms": [{"model": "tpm-crb", "backend": "emulator"}]}
    see(original, change, running=False)
    # What a hypervisor says is a stranger's text.
    seen = Definition.objects.get(uuid=original.uuid)
    seen.observed_persistent["devices"]["interfaces"] = [{"model": "e1000\x07" + "x" * 300}, {}]
    seen.save()
    finish(make(cast.operator, original))
    image = Image.objects.get(title="Tools")
    assert (image.uefi, image.secure_boot, image.tpm) == board
    known = {name: image.told[name] for name in ("vcpus", "memory", "bus", "cards", "chipset", "machine")}
    assert known == {
        "vcpus": original.vcpus, "memory": original.memory, "bus": "virtio", "cards": 2, "chipset": "q35",
        "machine": True,
    }  # fmt: skip
    assert image.told["card"] == "e1000" + "x" * 95
    client.force_login(chief)
    page = client.get(url("vms:image", args=[image.pk])).content.decode()
    assert "The machine that it is a template of" in page and "q35" in page


@pytest.mark.parametrize(
    ("defined", "target"),
    [
        ([("vda", None), ("sda", None)], "vda"),
        ([("sda", None), ("vda", None)], "sda"),
        ([("sda", 2), ("vda", 1)], "vda"),
        ([("sda", None), ("vda", 3)], "vda"),
        ([("sdb", 1), ("vda", 2), ("sda", 3)], "vda"),
        ([], "sda"),
        (None, "sda"),
    ],
)
def test_a_template_is_made_of_what_the_machine_starts_from(cast, original, defined, target):
    """Red when the disk is chosen by its name: an adopted machine's first one may hold data alone."""
    pool = original.disks.get().pool
    original.disks.create(pool=pool, target="sda", volume_name="data.qcow2", capacity=MIB)
    see(original, running=False)
    disks = [{"target": {"dev": name}, "boot_order": rank} for name, rank in defined or ()]
    seen = Definition.objects.filter(uuid=original.uuid)
    seen.update(observed_persistent=None if defined is None else {"devices": {"disks": disks}})
    begun = make(cast.operator, original)
    wanted = original.disks.get(target=target)
    assert begun.identifiers["source"] == f"{pool.path}/{wanted.volume_name}"
    assert begun.identifiers["capacity"] == wanted.capacity


@pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED])
def test_what_is_copied_takes_room_until_it_is_there(cast, original, listing, end):
    """Red when make_template() holds nothing, or settle() keeps what lies there as taken for ever."""
    begun = make(cast.operator, original)
    assert used("disk")["pool"] == (2 * GIB, 2 * GIB) and used("disk")["project"] == (0, 2 * GIB)
    finish(begun, end)
    assert used("disk")["pool"] == (0, 2 * GIB)


def test_none_is_made_without_room_for_it(client, cast, original):
    """Red when make_template() does not ask the pool: a copy takes what was promised to thin disks."""
    Counter.objects.filter(scope=original.disks.get().pool.pool.scope).update(limit=3 * GIB)
    with pytest.raises(Denied, match="not enough disk left"):
        make(cast.operator, original)
    assert not Operation.objects.filter(kind=templates.KIND).exists()
    client.force_login(cast.operator)
    answer = client.post(url("vms:template", args=[original.pk]), {"title": "Tools"})
    assert answer.status_code == 422 and "not enough disk left" in answer.content.decode()


def test_nothing_is_made_from_it_before_it_is_whole(cast, original, listing):
    """Red when ListImage makes the row without a deprecation."""
    running = claim(make(cast.operator, original).pk, worker="worker")
    templates.ListImage().do(context_of(running))
    templates.ListImage().do(context_of(running))
    image = Image.objects.get(title="Tools")
    assert image.deprecated_reason == templates.BEING_MADE and image.attachments.count() == 1


def test_what_fails_leaves_no_rows(cast, original, listing):
    """Red when ListImage.undo does nothing."""
    finish(make(cast.operator, original), State.FAILED)
    assert not Image.objects.filter(title="Tools").exists()
    assert not ImageAttachment.objects.filter(path__contains="gatehouse-example-").exists()


def test_the_same_image_is_not_kept_twice(cast, original, listing):
    finish(make(cast.operator, original))
    running = claim(make(cast.operator, original, "Again").pk, worker="worker")
    with pytest.raises(StepFailed, match="Tools") as failed:
        templates.ListImage().do(context_of(running))
    assert failed.value.code == "same_image"
    templates.ListImage().undo(context_of(running))
    assert Image.objects.filter(title="Tools").exists()


def test_templates_of_a_machine_are_versions_of_one_image_and_of_no_other(
    cast, original, listing, monkeypatch
):
    """Red when a template is called as its machine alone, or two of one day have one version.

    A machine may be called as an image is that it has nothing to do with.
    """
    type(original).objects.update(name="x" * 63)
    original.refresh_from_db()
    other = make_image(name=original.name)
    finish(make(cast.operator, original, "First"))
    again = VolumeDigest("cd" * 32, 40 * MIB)
    monkeypatch.setattr(f"{__name__}.TOLD", again)
    finish(make(cast.operator, original, "Second"))
    first, second = (Image.objects.get(title=title) for title in ("First", "Second"))
    assert first.name == second.name != other.name
    assert second.version == f"{first.version}.2"
    # A newer version can be handed in under that name.
    check_wanted(Wanted(kind="disk", name=first.name, title="Third", version=f"{first.version}.3"))


def test_a_template_is_made_by_an_operator_of_a_machine_that_is_off(cast, original):
    """Red when the verb `operate` is not asked for, or a machine that runs is copied."""
    with pytest.raises(Denied, match="operator or an admin"):
        make(cast.requester, original)
    with pytest.raises(Denied, match="title") as refused:
        make(cast.operator, original, "  ")
    assert refused.value.field == "title"
    type(original).objects.update(observed_state="running")
    with pytest.raises(Denied, match="Switch it off first"):
        make(cast.operator, original)
    assert not Operation.objects.filter(kind=templates.KIND).exists()


def test_the_machine_stays_off_until_it_is_copied(cast, original):
    """Red when the operation is not about the machine."""
    make(cast.operator, original)
    with pytest.raises(Denied, match="not finished"):
        power.act(actor=cast.requester, machine=original, verb="start")
    with pytest.raises(Denied, match="not finished"):
        power.bin_machine(actor=cast.requester, machine=original, confirm_name=original.name)


def test_while_it_is_cloned_no_template_is_made_of_it(cast, original, monkeypatch):
    monkeypatch.setattr(cloning.twins, "check_twin", lambda source: None)
    asked = cloning.request_clone(
        actor=cast.requester, machine=original, name="twin", lease_days=3, why="a try", token=uuid.uuid4()
    )
    operations.decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)
    with pytest.raises(Denied, match="being cloned"):
        make(cast.operator, original)


def test_the_page_says_what_stays_in_the_guest(client, cast, original):
    client.force_login(cast.operator)
    page = client.get(url("vms:template", args=[original.pk])).content.decode()
    assert "/etc/machine-id" in page and "another instance to cloud-init" in page
    original.image.cloud_init = False
    original.image.save()
    assert "no cloud-init" in client.get(url("vms:template", args=[original.pk])).content.decode()
    answer = client.post(url("vms:template", args=[original.pk]), {"title": "As it was left"})
    begun = Operation.objects.get(kind=templates.KIND)
    assert answer.url == url("operations:detail", args=[begun.pk])
    assert "As it was left" in client.get(answer.url).content.decode()
    assert url("vms:template", args=[original.pk]) not in _detail(client, cast.requester, original)
    type(original).objects.update(observed_state="shutoff")


def _detail(client, person, original):
    client.force_login(person)
    return client.get(url("vms:detail", args=[original.pk])).content.decode()


# Who may use an image


@pytest.fixture
def others(cast):
    """Another project, its requester, and an item that everybody is offered of an image of `cast.project`."""
    project = Project.objects.create(name="Other")
    person = User.objects.create_user("stranger", "stranger@example.org")
    Membership.objects.create(user=person, project=project, role=Role.REQUESTER)
    image = make_image(every_project=False)
    image.projects.add(cast.project)
    catalogue = make_catalogue(image, make_network())
    return project, person, catalogue


def ask(actor, project, catalogue):
    wish = make_wish(catalogue)
    return request_machine(actor=actor, project=project, wish=wish, token=uuid.uuid4())


def test_only_people_of_its_projects_can_ask_for_what_is_made_from_an_image(cast, others):
    """Red when checks does not ask for the image's projects."""
    project, person, catalogue = others
    assert ask(cast.requester, cast.project, catalogue).state == State.AWAITING_APPROVAL
    with pytest.raises(Denied, match="may not use"):
        ask(person, project, catalogue)
    catalogue.item.image.projects.add(project)
    catalogue.item.image.refresh_from_db()
    wish = make_wish(catalogue, name="theirs")
    made = request_machine(actor=person, project=project, wish=wish, token=uuid.uuid4())
    assert made.state == State.AWAITING_APPROVAL


def test_others_neither_see_it_nor_find_it_by_guessing(client, cast, others):
    """Red when asked_for_by() does not restrict the image, or the form offers other projects."""
    project, person, catalogue = others
    client.force_login(person)
    assert catalogue.item.description not in client.get(url("vms:catalogue")).content.decode()
    for name in ("vms:ask", "vms:what_if"):
        assert client.post(url(name, args=[catalogue.item.pk]), {"project": project.pk}).status_code == 404
    # Somebody in both projects asks in the one that may not use it.
    Membership.objects.create(user=person, project=cast.project, role=Role.REQUESTER)
    page = client.get(url("vms:ask", args=[catalogue.item.pk])).content.decode()
    assert f'value="{cast.project.pk}"' in page and f'value="{project.pk}"' not in page


def test_a_request_is_not_approved_once_its_project_may_not_use_the_image(cast, others):
    """Red when place() does not ask again."""
    _project, _person, catalogue = others
    asked = ask(cast.requester, cast.project, catalogue)
    catalogue.item.image.projects.clear()
    with pytest.raises(Denied, match="may not use the image"):
        operations.decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)


def test_an_item_is_offered_to_no_more_than_its_image(client, cast, chief, others):
    """Red when check_item() does not compare the item's projects with the image's."""
    project, _person, catalogue = others
    client.force_login(chief)
    page = client.get(f"{url('vms:item_add')}?image={catalogue.item.image_id}").content.decode()
    assert "Tiny" in page
    typed = {
        "name": "New",
        "description": "For a try.",
        "icon": "server",
        "image": catalogue.item.image_id,
        "flavours": [catalogue.flavour.pk],
        "networks": [catalogue.network.pk],
        "linked_clone": "1",
        "device_models": ["paravirtual"],
        "default_devices": "paravirtual",
        "accelerators": ["best"],
        "default_accelerator": "best",
        "lease_days": 3,
        "longest_lease_days": 30,
        "cost_month": 0,
        "cost_month_gib": 0,
        "every_project": "1",
    }
    assert "is only for the people" in client.post(url("vms:item_add"), typed).content.decode()
    refused = client.post(url("vms:item_add"), typed | {"every_project": "0", "projects": [project.pk]})
    assert "is only for the people" in refused.content.decode()
    client.post(url("vms:item_add"), typed | {"every_project": "0", "projects": [cast.project.pk]})
    assert list(CatalogueItem.objects.get(name="New").projects.all()) == [cast.project]
