"""Images that people hand in on the real libvirt: copied there and deleted, whatever dies meanwhile."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings

from portal.drivers.seed import build_iso
from portal.drivers.types import SeedSpec
from portal.hosts.images import services, store
from portal.hosts.images.deleting import DELETE_IMAGE
from portal.hosts.images.importing import IMPORT_IMAGE
from portal.hosts.models import Image, ImageAttachment, PoolAttachment, StoragePool, Upload
from portal.operations.models import Operation
from portal.operations.states import State
from tests.conftest import let_heartbeats_lapse
from tests.factories import make_host
from tests.hosts.images.conftest import MIB, WANTED, send
from tests.vms.real import IMAGES, URI
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]


@pytest.fixture
def pool(real, transactional_db):
    """The real pool as the portal knows it."""
    made = StoragePool.objects.create(name=real[1].name, uuid=real[1].uuid)
    return PoolAttachment.objects.create(host=make_host(uri=URI), pool=made, path=real[1].path)


def handed_in(chief, content, **changes):
    upload = services.begin_upload(actor=chief, wanted=replace(WANTED, **changes))
    return upload, send(chief, upload, content, chunk=8 * MIB)


def volumes(real):
    """Return the portal's images in the pool; the one of the other tests is none."""
    return {info.name: info for info in real[0].list_volumes(real[1].name) if info.name != "tiny.qcow2"}


def left(upload):
    """Return what of an upload lies in the portal's own folder."""
    found = store.part_of(upload), store.taken_of(upload), store.image_of(upload)
    return [path.name for path in found if path.exists()]


def test_an_image_comes_and_goes_whatever_dies(chief, worker, real, pool):
    """Red when a step of the import cannot find what an earlier worker left."""
    content = (IMAGES / "tiny.qcow2").read_bytes()
    upload, operation = handed_in(chief, content)
    carry_out(worker, operation, *points(IMPORT_IMAGE))
    image = Image.objects.get()
    volume = volumes(real)[image.volume_name]
    assert Path(volume.path).read_bytes() == content and volume.format == "qcow2"
    assert ImageAttachment.objects.get().path == volume.path
    assert left(upload) == [store.image_of(upload).name] == [Path(image.source).name]
    deletion = services.delete_image(actor=chief, image=image, confirm_name=image.name)
    carry_out(worker, deletion, *points(DELETE_IMAGE))
    assert volumes(real) == {} and left(upload) == []
    assert not Image.objects.exists() and not Upload.objects.exists()


def test_a_cd_is_copied_as_it_is(chief, worker, real, pool):
    content = build_iso(SeedSpec("pool", "x.iso", "instance-id: x", "#cloud-config"))
    upload, operation = handed_in(chief, content, kind="iso", login_user="")
    carry_out(worker, operation)
    image = Image.objects.get()
    volume = volumes(real)[image.volume_name]
    assert (volume.format, Path(volume.path).read_bytes()) == ("iso", content)
    carry_out(worker, services.delete_image(actor=chief, image=image, confirm_name=image.name))
    assert volumes(real) == {}


def test_what_is_taken_back_leaves_nothing_whatever_dies(chief, worker, real, pool):
    """Red when the undo of a step leaves its file, its row or its volume."""
    upload, operation = handed_in(chief, (IMAGES / "tiny.qcow2").read_bytes())
    task, failing = operation.pk, "copy"
    for step in reversed(IMPORT_IMAGE.steps):
        for when in ("undo-before", "undo-after"):
            assert worker(task, f"{when}:{step.name}", failing) == -signal.SIGKILL
            let_heartbeats_lapse()
            task = "reap"
    assert worker(task) == 0
    assert Operation.objects.get().state == State.FAILED
    assert volumes(real) == {} and not Image.objects.exists() and not ImageAttachment.objects.exists()
    assert left(upload) == [store.part_of(upload).name]
    upload.refresh_from_db()
    services.give_up(actor=chief, upload=upload)
    assert left(upload) == [] and list(Path(settings.UPLOADS).rglob("*.*")) == []
