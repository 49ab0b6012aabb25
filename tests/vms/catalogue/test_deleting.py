"""Deleting an image: not while anything is made from it, and then everywhere."""

import uuid

import pytest

from portal.accounts.models import Role
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.types import Accelerator, DiskSpec, DomainSpec, PoolSpec, VolumeInfo
from portal.hosts.images import services
from portal.hosts.models import Image, ImageAttachment, Upload
from portal.operations.models import Operation
from portal.operations.services import decide
from portal.operations.states import State
from tests.factories import make_catalogue, make_image, make_network, make_wish
from tests.hosts.images.conftest import imported, make_pool
from vms.models import CatalogueItem
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def image(db, monkeypatch, tmp_path, settings, chief):
    """An image that was handed in, with its file, on two hosts."""
    settings.UPLOADS = tmp_path
    drivers = {}
    image = make_image(name="gone")
    upload = Upload.objects.create(person=chief, wanted={"kind": "disk"}, image=image, state="done")
    path = services.store.image_of(upload)
    path.parent.mkdir()
    path.write_bytes(b"an image")
    Image.objects.update(source=str(path))
    for name in ("first", "second"):
        place = make_pool(monkeypatch, drivers, name)
        volume = VolumeInfo(place.pool.name, image.volume_name, f"{place.path}/{image.volume_name}", 512, 512)
        place.driver._store(volume)
        ImageAttachment.objects.create(image=image, pool=place, path=volume.path)
    image.refresh_from_db()
    image.path, image.drivers = path, drivers
    return image


def delete(chief, image):
    return services.delete_image(actor=chief, image=image, confirm_name=image.name)


def test_an_image_goes_from_hosts_and_portal(chief, image, django_capture_on_commit_callbacks):
    operation = delete(chief, image)
    assert Image.objects.get().deprecated_at is not None
    with django_capture_on_commit_callbacks(execute=True):
        assert imported(operation) == (State.SUCCEEDED, [])
    assert not Image.objects.exists() and not image.path.exists() and not Upload.objects.exists()
    assert [list(driver._volumes) for driver in image.drivers.values()] == [[], []]
    verbs = set(AuditEntry.objects.values_list("verb", flat=True))
    assert {"image.deletion_begun", "image.deleted"} <= verbs


def test_who_uses_it_is_said(cast, chief, image):
    """Red when a room's uses are not asked for, or requests that wait do not count."""
    catalogue = make_catalogue(image, make_network())
    with pytest.raises(Denied, match=f"It is the image of {catalogue.item.name} in the catalogue."):
        delete(chief, image)
    wish = make_wish(catalogue, name="asked")
    request = request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())
    CatalogueItem.objects.filter(pk=catalogue.item.pk).update(image=make_image())
    with pytest.raises(Denied, match="^1 request for it is not finished.$"):
        delete(chief, image)
    decide(actor=cast.approver, operation=request, spec_hash=request.spec_hash, approved=True)
    with pytest.raises(Denied, match="The disks of asked stand on it. 1 request"):
        delete(chief, image)
    assert Image.objects.get(pk=image.pk).deprecated_at is None


def test_what_came_into_use_meanwhile_keeps_it(chief, image):
    """Red when the worker does not look again."""
    operation = delete(chief, image)
    make_catalogue(image, make_network())
    assert imported(operation) == (State.FAILED, ["image_used"])
    assert image.path.exists() and image.attachments.count() == 2


def test_what_a_domain_has_that_the_portal_knows_not_of_stays(chief, image):
    """Red when the host is not asked: a CD that somebody inserted there would go from under a guest."""
    place = ImageAttachment.objects.order_by("pk").first()
    driver, own = image.drivers[place.pool.host_id], str(uuid.uuid4())
    spec = DomainSpec(
        name="stranger",
        uuid=own,
        vcpus=1,
        memory_bytes=1 << 30,
        disks=(DiskSpec(place.path),),
        accelerator=Accelerator.EMULATION,
    )
    driver.define(spec)
    operation = delete(chief, image)
    assert imported(operation) == (State.FAILED, ["image_used"])
    assert "stranger on first" in operation.steps.get(name="volumes").error_raw
    assert image.attachments.count() == 2 and image.path.exists()
    driver.undefine(own)
    assert imported(delete(chief, image)) == (State.SUCCEEDED, [])


def test_a_host_without_its_pool_keeps_it_and_the_rest_goes_on_later(chief, image):
    second = ImageAttachment.objects.order_by("pk").last().pool
    driver = image.drivers[second.host_id]
    driver.remove_pool(second.pool.name)
    assert imported(delete(chief, image)) == (State.FAILED, ["pool_not_found"])
    assert image.attachments.count() == 1 and image.path.exists()
    driver.ensure_pool(PoolSpec(second.pool.name, str(second.pool.uuid), second.path))
    assert imported(delete(chief, image)) == (State.SUCCEEDED, [])


def test_the_name_is_typed_and_only_admins_delete(cast, chief, image):
    with pytest.raises(Denied, match="not the name"):
        services.delete_image(actor=chief, image=image, confirm_name="other")
    for role in Role:
        with pytest.raises(Denied, match="role in every project"):
            services.delete_image(actor=getattr(cast, role), image=image, confirm_name=image.name)
    assert not Operation.objects.exists()
