"""What reads or writes a disk has time by its size; what does not, waits behind no copy."""

import uuid

import pytest

from portal.drivers.pool import LONG
from portal.drivers.types import CloneMode, VolumeDigest, VolumeInfo
from portal.hosts import enrolment, steps
from portal.hosts.images import copies, importing
from portal.hosts.models import Image, ImageAttachment
from portal.hosts.storage.downloading import Fetch
from portal.hosts.storage.kinds import Make
from portal.operations.registry import StepContext
from tests.factories import GIB, make_host, make_image, make_place
from vms.building import CloneVolume
from vms.changes.cloning import CopyDisks
from vms.changes.moving import _CopyFile
from vms.changes.templates import CopyDisk, ListImage
from vms.exports.kind import Bring

pytestmark = [pytest.mark.database, pytest.mark.django_db]
TIB = 1024 * GIB
STEPS = (CopyDisks(), CopyDisk(), ListImage(), _CopyFile(), Make(), Fetch(), Bring())
#: What reads or writes whole disks; all else is done in a moment.
COPIES = {"create_volume", "download_volume", "digest_volume"}
DISK = {"pool": "first", "volume": "copy.qcow2", "capacity": TIB, "source": "/first/disk.qcow2"}
NAMES = {
    **DISK,
    "host": 1,
    "disks": [{**DISK, "file": "disk.qcow2"}],
    "folder": "folder",
    "name": "copy.qcow2",
    "source_name": "disk.qcow2",
    "format": "qcow2",
    "path": "/first/disk.qcow2",
    "to_pool": "second",
    "to_volume": "copy.qcow2",
    "image_path": "/first/image",
}


@pytest.fixture
def given(monkeypatch, tmp_path):
    """The seconds that each verb was given, by a host that does all at once."""
    found = {}
    info = VolumeInfo("first", "copy.qcow2", "/first/copy.qcow2", TIB, 0, length_bytes=TIB)
    told = {"digest_volume": VolumeDigest("ab" * 32, TIB), "volume_info": info}
    answers = {**told, "list_volumes": (), "volume_users": ()}

    def call(_host, verb, *_args, timeout):
        found[verb] = max(found.get(verb, 0), timeout)
        return answers.get(verb)

    monkeypatch.setattr(steps, "call", call)
    monkeypatch.setattr("vms.exports.kind.FOLDER", tmp_path)
    monkeypatch.setattr("portal.hosts.storage.downloading.FOLDER", tmp_path)
    monkeypatch.setattr("vms.changes.templates._list", lambda *_told: None)
    return found


def context(sha256="", size=TIB):
    pinned = {"image": {"sha256": sha256}, "clone": CloneMode.FULL.value}
    names = {**NAMES, "mark": str(uuid.uuid4())}
    return StepContext({"pinned": pinned, "sizes": {"disk": size}}, names, lambda: None)


@pytest.mark.parametrize("step", STEPS, ids=[step.name for step in STEPS])
def test_a_disk_of_a_terabyte_has_the_time_that_it_takes(given, step):
    """Red for each step that does not tell how many bytes it reads or writes."""
    step.do(context())
    copied = {verb: seconds for verb, seconds in given.items() if verb in COPIES}
    assert copied and set(copied.values()) == {3600 + TIB / (10 << 20)}
    assert all(seconds <= LONG for verb, seconds in given.items() if verb not in COPIES)


def test_an_image_has_time_by_its_size(given, monkeypatch):
    """Red when a large one has the time of a small: the import, and each proof of its host, would fail."""
    large = {"upload_image": VolumeInfo("first", "a.qcow2", "/first/a.qcow2", TIB, TIB)}
    place, image = make_place(make_host()), make_image(name="large", size=64 * GIB)
    ImageAttachment.objects.all().delete()
    Image.objects.exclude(pk=image.pk).delete()
    for room in (steps, importing, copies):

        def call(_host, verb, *_args, timeout):
            given[verb] = timeout
            return large.get(verb, ())

        monkeypatch.setattr(room, "call", call)
    spec = {"pinned": {"pool": {"uuid": str(place.pool.uuid)}}}
    enrolment.UploadImages().do(StepContext(spec, {"host": place.host_id}, lambda: None))
    assert given.pop("upload_image") == 3600 + 64 * GIB / (10 << 20)
    importing._copy_to(place, image)
    assert given["upload_image"] == 3600 + 64 * GIB / (10 << 20)
    assert image.attachments.get().path == "/first/a.qcow2"


@pytest.mark.parametrize(("image", "seconds"), [(2 * GIB, 600), (40 * GIB, 3600 + 4096)])
def test_a_build_has_time_by_its_image_and_not_by_its_disk(given, image, seconds):
    """Red when a small image queues behind copies of large disks, or a large one has the time of a small."""
    made = make_image(virtual_size=image)
    CloneVolume().do(context(made.sha256))
    assert given["create_volume"] == seconds
