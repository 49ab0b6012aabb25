"""libvirtd dies in the middle of every change of pools and volumes, and each ends done or wholly undone.

As tests/vms/test_libvirt_dies_live.py asks of machines, on a further host of its own.
"""

import hashlib
import random
import subprocess
import uuid
from types import SimpleNamespace

import libvirt
import pytest
from django.db.models import Q
from django.utils import timezone

from portal.drivers.observations import HostTold
from portal.drivers.types import PoolSpec
from portal.hosts.images import services as images
from portal.hosts.models import (
    BegunVolume,
    FoundPool,
    Image,
    ImageAttachment,
    PoolAttachment,
    StoragePool,
    Volume,
)
from portal.hosts.observations import note, now
from portal.hosts.storage import downloading, moving, pools, services, taking_over, uploading
from portal.hosts.storage.looking import note_volumes
from portal.operations.models import Counter, Operation
from portal.operations.states import UNFINISHED
from tests.factories import MIB, make_host, make_image
from tests.hosts.images.conftest import WANTED, send
from tests.killed_turns import ROOT, Peaceful, Scene, go_through, kills, opened, worker  # noqa: F401 (fixtures)

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
OWN, THEIRS, FURTHER = ("gttest-a", "gttest-b"), "gttest-theirs", "gttest-c"


# The host


@pytest.fixture(scope="module")
def stage(kills, tmp_path_factory):  # noqa: F811
    """Two pools of the portal's, in the first a raw volume of noise, and one of somebody else's."""
    folder, here = kills.host.folder / ROOT.strip("/"), tmp_path_factory.mktemp("disks")
    noise = random.Random(1).randbytes(3 * MIB).ljust(8 * MIB, b"\0")
    (here / "noise.raw").write_bytes(noise)
    converting = ["qemu-img", "convert", "-O", "qcow2", here / "noise.raw", here / "disk.qcow2"]
    subprocess.run(converting, check=True)
    own = [PoolSpec(name, str(uuid.uuid4()), f"{ROOT}/{name}") for name in OWN]
    with opened(kills.uri) as driver:
        for pool in own:
            driver.ensure_pool(pool)
    (folder / OWN[0] / "noise.raw").write_bytes(noise)
    (folder / THEIRS).mkdir()
    (folder / THEIRS / "My notes.img").write_bytes(b"notes" * 1000)
    connection = libvirt.open(kills.uri)
    text = f"<pool type='dir'><name>{THEIRS}</name><target><path>{ROOT}/{THEIRS}</path></target></pool>"
    connection.storagePoolDefineXML(text).create()
    connection.close()
    return SimpleNamespace(own=own, files=folder, disk=here / "disk.qcow2", **vars(kills))


class Shelves(Scene):
    """The portal's rows of the pools for one test, and what it asks of them."""

    def __init__(self, stage, worker, chief):  # noqa: F811
        super().__init__(stage, worker)
        self.chief, self.host = chief, make_host(uri=stage.uri)
        for spec in stage.own:
            pool = StoragePool.objects.create(name=spec.name, uuid=spec.uuid)
            PoolAttachment.objects.create(host=self.host, pool=pool, path=spec.path)

    def doing(self, **more):
        return {"actor": self.chief} | more

    def see(self):
        """Let the portal see what is on the host."""
        with opened(self.stage.uri) as driver:
            note(self.host.pk, HostTold(*now(), pools=driver.list_pools()))
            for place in PoolAttachment.objects.filter(observed_active=True).select_related("pool"):
                note_volumes(place.pk, driver.list_volumes(place.pool.name), timezone.now())

    def on_host(self):
        """Return the host's pools, and the volumes of each that runs."""
        with opened(self.stage.uri) as driver:
            found = driver.list_pools()
            return found, {one.name: driver.list_volumes(one.name) for one in found if one.active}

    def state(self):
        there, volumes = self.on_host()
        files = sorted(self.stage.files.rglob("*"))
        return {
            "pools": [(one.name, one.path, one.active, one.autostart, one.persistent) for one in there],
            "volumes": [(one.path, one.capacity_bytes, one.format, one.backing_path)
                        for found in volumes.values() for one in found],
            "files": [(str(path), path.is_file() and digest(path)) for path in files],
            "taken": taken(),
            "rows": [row for rows, names in ROWS for row in rows.values_list(*names)],
        }

    def agree(self):
        assert not Operation.objects.filter(state__in=UNFINISHED).exists()
        assert not BegunVolume.objects.exists() and taken() == []
        there, volumes = self.on_host()
        places = PoolAttachment.objects.select_related("pool")
        told = [(one.pool.uuid, one.path, one) for one in places]
        told += [(one.uuid, one.observed_path, one) for one in FoundPool.objects.all()]
        known = {(str(own), path, one.observed_active, one.observed_autostart) for own, path, one in told}
        assert known == {(one.uuid, one.path, one.active, one.autostart) for one in there}
        for place in places:
            names = ("name", "observed_path", "observed_capacity", "observed_format")
            rows = place.volumes.exclude(IMAGES).values_list(*names)
            found = volumes.get(place.pool.name, ())
            if place.observed_active and place.observed_volumes_at is not None:
                told = {(one.name, one.path, one.capacity_bytes, one.format)
                        for one in found if not one.name.startswith("gatehouse-")}
                assert set(rows) == told, place
            paths = {one.path for one in found if one.name.startswith("gatehouse-")}
            assert paths == set(place.images.values_list("path", flat=True))
        pool_folders = {one.path for one in there}
        left = [one for one in self.stage.files.iterdir() if f"{ROOT}/{one.name}" not in pool_folders]
        assert all(any(one.iterdir()) for one in left), left


POOL = ("pool__name", "path", "observed_active", "observed_autostart", "taken_over")
VOLUME = ("pool__pool__name", "name", "made", "observed_capacity", "observed_format")
#: Whoever copies images into a pool does not look into it.
IMAGES = Q(name__startswith="gatehouse-")
ROWS = (
    (PoolAttachment.objects.all(), POOL),
    (Volume.objects.exclude(IMAGES), VOLUME),
    (FoundPool.objects.all(), ("observed_name", "observed_path", "observed_active", "observed_autostart")),
    (Image.objects.all(), ("title", "deprecated_reason")),
    (ImageAttachment.objects.all(), ("image__title", "pool__pool__name", "path")),
)


def taken():
    """Return what counters say is held or used."""
    return [(row.scope, row.held, row.used) for row in Counter.objects.all() if row.held or row.used]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# What is done


def place(name):
    return PoolAttachment.objects.select_related("pool", "host").get(pool__name=name)


def row(name):
    return Volume.objects.select_related("pool__pool", "pool__host").get(name=name)


def add_pool(there):
    told = {"kind": "dir", "path": f"{ROOT}/{FURTHER}", "source": "", "server": ""}
    return pools.add(**there.doing(host=there.host, name=FURTHER, **told))


def remove_pool(there):
    return pools.remove(**there.doing(pool=place(FURTHER), confirm_name=FURTHER))


def clear_folder(there):
    """Take away what lies there still, as somebody on the host would."""
    for left in (there.stage.files / FURTHER).iterdir():
        left.unlink()
    (there.stage.files / FURTHER).rmdir()


def with_image(there):
    """Let the portal have an image, which a new pool gets."""
    path = there.stage.disk
    told = {"size": path.stat().st_size, "virtual_size": 8 * MIB, "sha256": digest(path)}
    make_image(source=str(path), **told)
    for name in OWN:
        with opened(there.stage.uri) as driver:
            volume = driver.upload_image(name, Image.objects.get().volume_name, str(path))
        ImageAttachment.objects.create(image=Image.objects.get(), pool=place(name), path=volume.path)


def of_pool(service, **more):
    return lambda there: service(**there.doing(pool=place(OWN[1]), **more))


def take_over(there):
    found = FoundPool.objects.get(observed_name=THEIRS)
    return taking_over.take_over(**there.doing(found=found, seen=taking_over.seen_as(found)))


def give_back(there):
    taking_over.give_back(**there.doing(pool=place(THEIRS), confirm_name=THEIRS))


def make(there):
    told = {"name": "data.qcow2", "capacity": 8 * MIB, "form": "qcow2"}
    return services.create(**there.doing(pool=place(OWN[0]), **told))


def grow(there):
    return services.grow(**there.doing(volume=row("data.qcow2"), capacity=16 * MIB))


def delete(name):
    return lambda there: services.delete(**there.doing(volume=row(name), confirm_name=name))


def clone(there):
    return services.clone(**there.doing(volume=row("noise.raw"), name="copy.raw"))


def move(number):
    told = {"name": "noise.raw"}
    return lambda there: moving.move(**there.doing(volume=row("noise.raw"), to=place(OWN[number]), **told))


def upload(there):
    begun = uploading.begin(**there.doing(pool=place(OWN[0]), name="mine.qcow2"))
    return send(there.chief, begun, there.stage.disk.read_bytes())


def download(there):
    return services.download(**there.doing(volume=row("noise.raw")))


def look_at_file(there):
    """Look that what was brought here is what lies there."""
    volume = row("noise.raw")
    subject = services.subject_of(volume.pool, volume.name)
    _length, pieces = downloading.take(**there.doing(volume=volume, subject=subject))
    assert b"".join(pieces) == (there.stage.files / OWN[0] / volume.name).read_bytes()


def import_image(there):
    begun = images.begin_upload(**there.doing(wanted=WANTED))
    return send(there.chief, begun, there.stage.disk.read_bytes())


def delete_image(there):
    return images.delete_image(**there.doing(image=Image.objects.get(), confirm_name=WANTED.name))


#: What is done, each with what takes it back.
VERBS = {
    "pool": (Peaceful(add_pool), remove_pool),
    "running": (of_pool(pools.stop), of_pool(pools.start)),
    "autostart": (of_pool(pools.set_autostart, on=False), Peaceful(of_pool(pools.set_autostart, on=True))),
    "volume": (make, grow, delete("data.qcow2")),
    "clone": (clone, Peaceful(delete("copy.raw"))),
    "move": (move(1), Peaceful(move(0))),
    "upload": (upload, Peaceful(delete("mine.qcow2"))),
    "download": (download, look_at_file),
    "image": (import_image, delete_image),
}


#: Of a file that is sent in parts: when one begins, all is as it was when the one before it ended.
SENT = {"createXML", "finish", "delete"}


@pytest.fixture
def there(stage, worker, chief):  # noqa: F811
    made = Shelves(stage, worker, chief)
    yield made
    images_left = [one.path for one in ImageAttachment.objects.all()]
    for path in images_left:
        (stage.files / path.removeprefix(f"{ROOT}/")).unlink()


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_stored_is_changed_or_not(there, verb):
    """Red when STOP ends with See, which does not stop a pool again that libvirt runs by itself."""
    go_through(there, VERBS[verb], only=SENT if verb in ("upload", "image") else ())


def test_a_pool_that_gets_the_images_is_there_with_them(there):
    """What turns it red, test_adding_pools.py tries: FillFurtherPools without `once_reached`."""
    with_image(there)
    go_through(there, (add_pool, Peaceful(remove_pool), clear_folder), only=SENT)


def test_a_pool_is_taken_over_or_not(there):
    """As an adoption of a domain, which test_libvirt_dies_live.py asks of."""
    go_through(there, (take_over, give_back), reads=True)
