"""Machines of images with several disks, and templates of machines that have them."""

import json

import pytest
from django.urls import reverse as url

from portal.core.errors import Denied
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.types import CloneMode, VolumeSpec
from portal.hosts.images.in_use import stood_on
from portal.hosts.models import Image, Volume
from portal.hosts.storage.using import uses_of
from portal.operations import revisions, scopes, words
from portal.operations import services as operations
from portal.operations.models import Counter, Operation
from portal.operations.registry import StepFailed
from portal.operations.runner import carry_on
from portal.operations.services import claim
from portal.operations.states import State
from tests import factories
from tests.factories import MIB
from tests.vms.test_changes import see
from tests.vms.test_installing import FOLDER, ask, build, driver, offer  # noqa: F401 (fixtures)
from vms import power, prefill
from vms.changes import templates
from vms.models import Definition, Disk, VirtualMachine
from vms.services import cost_new

pytestmark = [pytest.mark.database, pytest.mark.django_db]
SIZES = (64 * MIB, 32 * MIB)
POOL = "example-pool"


@pytest.fixture
def catalogue(driver, monkeypatch):  # noqa: F811
    """An item of an image with three disks, which lies on a host."""
    monkeypatch.setattr("vms.building.WaitForAddress.do", lambda self, context: None)
    further = [{"sha256": "", "size": MIB, "capacity": size, "source": ""} for size in SIZES]
    found = offer(factories.make_image(further=further, min_memory=64 * MIB, login_user="ada"))
    place = found.item.image.attachments.get()
    Counter.objects.create(scope=place.pool.pool.scope, resource="disk", limit=4 << 30)
    for path, size in zip(place.paths, (128 * MIB, *SIZES), strict=True):
        driver.create_volume(VolumeSpec(POOL, path.removeprefix(f"{FOLDER}/"), size))
    return found


def volumes(driver):  # noqa: F811
    return {one.name: one for one in driver.list_volumes(POOL) if not one.name.startswith("gatehouse-")}


def taken(scope, resource="disk"):
    counter = Counter.objects.get(scope=scope, resource=resource)
    return counter.held, counter.used


@pytest.mark.parametrize("clone", CloneMode)
def test_a_machine_gets_every_disk_of_its_image_in_order(cast, driver, catalogue, clone):  # noqa: F811
    """Red when CloneVolume makes the first one alone, domain_spec names them in another order, or a quota
    counts the first.
    """
    catalogue.item.linked_clone = clone is CloneMode.LINKED
    catalogue.item.save()
    asked = ask(cast, catalogue)
    whole = 256 * MIB + sum(SIZES)
    project = scopes.of_project(cast.project)
    assert asked.frozen["sizes"]["disk"] == whole and taken(project) == (whole, 0)
    told = {fact.label: fact.value for fact in words.facts(asked.frozen)}
    assert told["Further disks of its image, each"] == "64 MiB, 32 MiB"
    done = build(cast, asked)
    assert done.state == State.SUCCEEDED
    machine = VirtualMachine.objects.get()
    place = machine.image.attachments.get()
    rows = list(machine.disks.order_by("target"))
    assert [(row.target, row.capacity) for row in rows] == [
        ("vda", 256 * MIB), ("vdb", SIZES[0]), ("vdc", SIZES[1])
    ]  # fmt: skip
    assert sum(row.capacity for row in rows) == whole
    assert taken(project) == (0, whole) and taken(place.pool.pool.scope) == (0, whole)
    made = volumes(driver)
    for row, source in zip(rows, place.paths, strict=True):
        backing = source if clone is CloneMode.LINKED else None
        assert (made[row.volume_name].capacity_bytes, made[row.volume_name].backing_path) == (
            row.capacity, backing
        )  # fmt: skip
    found = DomainElement.from_xml(driver.definition(str(machine.uuid)).persistent)
    assert [(disk.path, disk.target) for disk in found.disks] == [(row.path, row.target) for row in rows]
    assert power.volumes_of(machine)[:3] == [[POOL, row.volume_name] for row in rows]


@pytest.mark.parametrize("point", range(3))
@pytest.mark.parametrize("end", ["finish", "take back"])
def test_a_worker_that_dies_at_any_disk_leaves_a_whole_machine_or_nothing(
    cast, driver, catalogue, monkeypatch, point, end  # noqa: F811
):
    """Red when CloneVolume.undo deletes the first disk alone, or an image's own disk."""

    class Died(BaseException):
        """The worker ends here."""

    before, real, made = set(driver.list_volumes(POOL)), driver.create_volume, []

    def dies(spec):
        found = real(spec)
        made.append(spec.name)
        if len(made) == point + 1:
            raise Died
        return found

    asked = ask(cast, catalogue)
    operations.decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)
    monkeypatch.setattr(driver, "create_volume", dies)
    with pytest.raises(Died):
        carry_on(claim(asked.pk, worker="worker"), worker="worker")
    assert len(driver.list_volumes(POOL)) == len(before) + point + 1
    Operation.objects.filter(pk=asked.pk).update(state=State.QUEUED)
    if end == "take back":
        monkeypatch.setattr("vms.building.WriteSeed.do", lambda self, context: fail())
    carry_on(claim(asked.pk, worker="other"), worker="other")
    asked.refresh_from_db()
    if end == "finish":
        assert asked.state == State.SUCCEEDED and len(volumes(driver)) == 4
        return
    assert asked.state == State.FAILED
    assert set(driver.list_volumes(POOL)) == before
    assert not Disk.objects.exists() and taken(scopes.of_project(cast.project)) == (0, 0)


def fail():
    raise StepFailed("pool_full", "told to fail")


def test_what_is_lowered_leaves_the_further_disks_whole(cast, driver, catalogue):  # noqa: F811
    """Red when check_lowered compares the sum with the image's first disk alone."""
    asked = ask(cast, catalogue)
    least = 128 * MIB + sum(SIZES)

    def lower(size):
        return revisions.lower(
            actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, sizes={"disk": size}, note="less"
        )

    with pytest.raises(Denied, match="needs at least"):
        lower(least - 512)
    lower(least)
    asked.refresh_from_db()
    assert build(cast, asked).state == State.SUCCEEDED
    assert Disk.objects.get(target="vda").capacity == 128 * MIB


def test_the_form_says_what_comes_beside_and_counts_and_costs_it(client, cast, catalogue):
    """Red when look() or cost_new() knows the size's disk alone."""
    catalogue.item.cost_month_gib, catalogue.item.disk_most = 8, 1 << 30
    catalogue.item.save()
    assert cost_new(catalogue.item, catalogue.flavour) == catalogue.flavour.cost_month + 8
    client.force_login(cast.requester)
    page = client.get(url("vms:ask", args=[catalogue.item.pk])).content.decode()
    assert "2 further disks of the image, which count too: 64 MiB, 32 MiB" in page
    asked = ask(cast, catalogue, disk=512 * MIB)
    assert asked.frozen["pinned"]["cost_month"] == "10.50"
    assert prefill.like(asked).values["disk"] == 512 * MIB
    several = ask(cast, catalogue, name="web", count=3)
    assert several.frozen["sizes"]["disk"] == 3 * (256 * MIB + sum(SIZES))
    done = operations.decide(
        actor=cast.approver, operation=several, spec_hash=several.spec_hash, approved=True
    )
    assert Disk.objects.filter(target="vdc", capacity=SIZES[1]).count() == 3, done


def test_more_disks_than_a_sata_controller_has_are_refused_at_their_devices(cast, catalogue):
    """Red when nobody counts: the domain would be refused when it is defined."""
    image = catalogue.item.image
    catalogue.item.device_models = ["paravirtual", "emulated"]
    image.device_models = ["paravirtual", "emulated"]
    image.further = image.further * 2
    image.save()
    assert ask(cast, catalogue, name="four", devices="emulated")
    image.further = image.further + image.further[:1]
    with pytest.raises(Denied, match="has 6 disks, and a machine with these devices at most 5") as denied:
        ask(cast, catalogue, name="five", devices="emulated")
    assert denied.value.field == "devices"


def test_what_stands_on_a_further_disk_keeps_the_image_and_it_is_no_orphan(client, chief, catalogue):
    """Red when stood_on() or uses_of() knows the first volume alone."""
    image = catalogue.item.image
    place = image.attachments.get()
    told = {"observed_path": place.paths[2], "observed_capacity": MIB, "observed_allocation": MIB}
    volume = Volume.objects.create(pool=place.pool, name=place.paths[2].rpartition("/")[2], **told)
    assert [use.words for use in uses_of([volume])[volume.pk]] == [f"Image {image.label}"]
    clone = {**told, "observed_path": "/x", "observed_backing": place.paths[2]}
    Volume.objects.create(pool=place.pool, name="clone", **clone)
    assert "A volume stands on it: clone" in stood_on(image)[0]
    client.force_login(chief)
    page = client.get(url("vms:image", args=[image.pk])).content.decode()
    assert "64 MiB, 32 MiB" in page and place.paths[2] in page


# Templates


@pytest.fixture
def original(cast, driver, catalogue):  # noqa: F811
    """A machine of three disks that is off."""
    build(cast, ask(cast, catalogue))
    driver.destroy(str(VirtualMachine.objects.get().uuid))
    VirtualMachine.objects.update(observed_state="shutoff")
    return VirtualMachine.objects.get()


def make(cast, original, **more):
    return templates.make_template(actor=cast.operator, machine=original, title="Whole", **more)


def test_a_template_has_all_disks_and_machines_made_from_it_too(cast, driver, original, catalogue):  # noqa: F811
    """Red when CopyDisk copies the first one alone, or names them otherwise than further_names does."""
    begun = make(cast, original)
    pool = original.disks.first().pool.pool.scope
    assert taken(pool)[0] == 256 * MIB + sum(SIZES)
    carry_on(claim(begun.pk, worker="worker"), worker="worker")
    image = Image.objects.get(title="Whole")
    place = image.attachments.get()
    assert [disk["capacity"] for disk in image.further] == list(SIZES) and taken(pool)[0] == 0
    there = {one.path: one for one in driver.list_volumes(POOL)}
    for path, size in zip(place.paths, (256 * MIB, *SIZES), strict=True):
        assert (there[path].capacity_bytes, there[path].backing_path) == (size, None)
    # A further template of the same data disks is another image all the same.
    assert all(disk["source"] == "" and len(disk["sha256"]) == 64 for disk in image.further)
    catalogue.item.image = image
    catalogue.item.save()
    done = build(cast, ask(cast, catalogue, name="second"))
    assert done.state == State.SUCCEEDED
    made = VirtualMachine.objects.get(name="second")
    assert list(made.disks.order_by("target").values_list("capacity", flat=True)) == [256 * MIB, *SIZES]


@pytest.mark.parametrize("failing", ["CopyDisk", "ListImage"])
def test_a_template_that_fails_takes_back_every_copy(cast, driver, original, monkeypatch, failing):  # noqa: F811
    """Red when CopyDisk.undo deletes the first copy alone."""
    before = set(driver.list_volumes(POOL))
    real = getattr(templates, failing).do

    def fails(self, context):
        real(self, context)
        fail()

    monkeypatch.setattr(getattr(templates, failing), "do", fails)
    begun = make(cast, original)
    carry_on(claim(begun.pk, worker="worker"), worker="worker")
    begun.refresh_from_db()
    assert begun.state == State.FAILED and set(driver.list_volumes(POOL)) == before
    assert not Image.objects.filter(title="Whole").exists()


def test_one_can_have_the_boot_disk_alone(client, cast, driver, original):  # noqa: F811
    """Red when the page does not say which disks there are, or copies them whatever is chosen."""
    client.force_login(cast.operator)
    page = client.get(url("vms:template", args=[original.pk])).content.decode()
    assert "vdb (64 MiB), vdc (32 MiB)" in page and "All of them" in page
    original.disks.filter(target="vdc").update(device="/dev/mapper/x")
    typed = {"title": "Whole", "description": ""}
    refused = client.post(url("vms:template", args=[original.pk]), typed | {"whole": "1"})
    assert refused.status_code == 422 and "Its disk vdc is a device" in refused.content.decode()
    assert client.post(url("vms:template", args=[original.pk]), typed).status_code == 422
    assert client.post(url("vms:template", args=[original.pk]), typed | {"whole": "0"}).status_code == 302
    begun = Operation.objects.get(kind=templates.KIND)
    assert json.loads(json.dumps(begun.identifiers))["further"] == []


def test_the_order_is_that_of_the_definition(cast, driver, original):  # noqa: F811
    """Red when they are sorted by name: what is adopted may start from its last disk."""
    see(original, running=False)
    disks = [{"target": {"dev": name}} for name in ("vdc", "vda", "vdb")]
    Definition.objects.filter(uuid=original.uuid).update(observed_persistent={"devices": {"disks": disks}})
    assert templates.boot_disk(original).target == "vdc"
    assert [disk.target for disk in templates.further_disks(original)] == ["vda", "vdb"]
