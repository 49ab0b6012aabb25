"""Pools that are no folders: added, told apart, and no machines or images in them."""

import re
import uuid
from dataclasses import replace

import pytest
from django.urls import reverse

from portal.core.errors import Denied
from portal.drivers.observations import HostTold
from portal.drivers.types import PoolInfo, PoolKind
from portal.hosts import enrolment, readiness
from portal.hosts.images import importing
from portal.hosts.models import ImageAttachment, PoolAttachment, Upload
from portal.hosts.observations import note, now
from portal.hosts.storage import pool_kinds, pools
from portal.operations import services as operations
from portal.operations.models import Counter
from portal.operations.registry import StepContext
from portal.operations.states import State
from tests import factories
from tests.factories import GIB, make_host
from tests.hosts.test_adding_pools import image_of
from tests.hosts.test_storage import Died, code, done, fake, look, pool, row  # noqa: F401 (fixtures)
from vms.adoption import found
from vms.changes import moving
from vms.models import VirtualMachine
from vms.services import request_machine

pytestmark = [pytest.mark.django_db, pytest.mark.database]
SECRET = "6f0a6c6e-1f0e-4c53-9f6e-2f4d8e0f7a11"
VG = {"name": "fast", "kind": "logical", "path": "", "source": "vg0", "server": ""}
TARGET = "iqn.2026-01.org.example:disks"
ISCSI = {**VG, "name": "san", "kind": "iscsi", "source": TARGET, "server": "san.example.org"}
CEPH = {**VG, "name": "ceph", "kind": "rbd", "source": "disks", "server": "mon.example.org:6789"}
ZFS = {**VG, "name": "tank", "kind": "zfs", "source": "tank/disks"}
EACH = [VG, ISCSI, CEPH, ZFS]


@pytest.fixture
def host(fake, pool):  # noqa: F811
    """A host that has every kind of pool."""
    fake.kinds = tuple(PoolKind)
    return pool.host


def add(chief, host, values, **changes):
    return pools.add(actor=chief, host=host, **{**values, **changes})


def added(chief, host, values):
    """Add a pool, and return it."""
    assert done(add(chief, host, values)).state == State.SUCCEEDED
    return PoolAttachment.objects.select_related("pool", "host").get(pool__name=values["name"])


def context_of(operation):
    return StepContext(operation.frozen, operation.identifiers, lambda: None)


@pytest.mark.parametrize("values", EACH)
def test_a_pool_is_added_known_for_what_it_is_and_removed(fake, host, chief, values, tmp_path, monkeypatch):  # noqa: F811
    """Red when the kind is not noted from the first moment on, or images are copied there."""
    image_of(tmp_path, "one")
    uploaded = []
    monkeypatch.setattr(fake, "upload_image", lambda *told: uploaded.append(told))
    place = added(chief, host, values)
    assert (place.observed_kind, place.path, place.has_folder) == (values["kind"], "", False)
    enrolment.ENROL.steps[-1].do(StepContext({}, {"host": host.pk}, lambda: None))
    assert not place.images.exists() and uploaded == []
    gone = pools.remove(actor=chief, pool=place, confirm_name=values["name"])
    assert done(gone).state == State.SUCCEEDED
    assert not PoolAttachment.objects.filter(pk=place.pk).exists()


def test_a_removal_that_is_undone_brings_the_pool_back_as_it_was(fake, host, chief):  # noqa: F811
    """Red when Forget's undo makes it a folder, in which machines are placed."""
    place = added(chief, host, VG)
    begun = pools.remove(actor=chief, pool=place, confirm_name="fast")
    pool_kinds.Forget().do(context_of(begun))
    pool_kinds.Forget().undo(context_of(begun))
    assert PoolAttachment.objects.get(pool__name="fast").observed_kind == "logical"


def test_the_watcher_tells_the_kind_of_pools_that_were_there_before(fake, pool):  # noqa: F811
    """Red when _write_pools leaves the kind out."""
    told = tuple(replace(info, kind="netfs") for info in fake.list_pools())
    note(pool.host_id, HostTold(*now(), pools=told))
    pool.refresh_from_db()
    assert pool.observed_kind == "netfs" and pool.has_folder


@pytest.mark.parametrize(
    ("values", "changes", "field"),
    [
        (VG, {"source": ""}, "source"),
        (VG, {"source": "vg0/../../etc"}, "source"),
        (VG, {"source": "-f"}, "source"),
        (VG, {"path": "/srv/fast"}, "path"),
        (VG, {"server": "san"}, "server"),
        (VG, {"user": "a", "secret": SECRET}, "user"),
        (ISCSI, {"source": "disks"}, "source"),
        (ISCSI, {"source": "iqn.2026-01.org.example:a'><b"}, "source"),
        (ISCSI, {"server": ""}, "server"),
        (ISCSI, {"server": "san:0"}, "server"),
        (ISCSI, {"server": "san:99999"}, "server"),
        (ISCSI, {"user": "gate", "secret": ""}, "secret"),
        (ISCSI, {"user": "gate", "secret": "my password"}, "secret"),
        (ISCSI, {"user": "", "secret": SECRET}, "user"),
        (CEPH, {"source": "disks/one"}, "source"),
        (CEPH, {"server": "-oProxy"}, "server"),
        (ZFS, {"source": "tank//disks"}, "source"),
        (ZFS, {"source": "tank/../etc"}, "source"),
        (ZFS, {"source": "/tank"}, "source"),
        (ZFS, {"name": "example-pool"}, "name"),
    ],
)
def test_hostile_values_reach_no_host(host, chief, values, changes, field):
    with pytest.raises(Denied) as denied:
        add(chief, host, values, **changes)
    assert denied.value.field == field


def test_a_secret_is_named_and_never_held(fake, host, chief):  # noqa: F811
    """Red when the secret's UUID does not reach the host."""
    assert done(add(chief, host, CEPH, user="gatehouse", secret=SECRET.upper())).state == State.SUCCEEDED
    spec = fake._pools["ceph"]
    assert (spec.user, spec.secret) == ("gatehouse", SECRET)


def test_what_one_pool_has_no_other_one_gets(fake, host, chief):  # noqa: F811
    """Red when _is_shared forgets a kind, or takes what another host or server has for the same."""
    second = make_host("second-host", "fake://second/")
    for values in EACH:
        add(chief, host, values)
    for on, values, changes in (
        (host, VG, {}),
        (host, ZFS, {"source": "tank"}),
        (host, ZFS, {"source": "tank/disks/more"}),
        (second, ISCSI, {"server": "other.example.org"}),
        (second, CEPH, {"server": "MON.example.org"}),
    ):
        with pytest.raises(Denied, match="lies there") as denied:
            add(chief, on, values, **{"name": "again", **changes})
        assert denied.value.field == "source"
    add(chief, second, VG)
    add(chief, second, ZFS)
    add(chief, second, CEPH, server="other.example.org")
    add(chief, host, VG, name="slow", source="vg1")


def test_a_group_that_a_pool_of_somebody_else_has_is_left(fake, host, chief, monkeypatch):  # noqa: F811
    """Red when Define looks at folders alone, or takes the empty path of another pool for the same folder."""
    infos = fake.list_pools

    def told():
        return (*infos(), *(_named(path) for path in ("/dev/vg0", "")))

    monkeypatch.setattr(fake, "list_pools", told)
    failed = done(add(chief, host, VG))
    assert (failed.state, code(failed)) == (State.FAILED, "folder_taken") and "fast" not in fake._pools
    added(chief, host, CEPH)


def _named(path):
    return PoolInfo(f"theirs{path.replace('/', '-')}", str(uuid.uuid4()), path, True, GIB, 0, GIB, "logical")


def emptiest(place):
    """Let a pool have most room, and by a slip an image."""
    PoolAttachment.objects.filter(pk=place.pk).update(observed_available=900 * GIB)
    Counter.objects.filter(scope=place.pool.scope).update(limit=900 * GIB)


def test_machines_are_placed_in_folders_alone(fake, host, pool, chief, cast):  # noqa: F811
    """Red when places_of takes the pool with most room, whatever it is made of."""
    place, image = added(chief, host, VG), pool.images.get().image
    emptiest(place)
    ImageAttachment.objects.create(image=image, pool=place, path="/dev/vg0/image")
    Counter.objects.update_or_create(scope=host.scope, resource="vcpu", defaults={"limit": 8})
    Counter.objects.update_or_create(scope=host.scope, resource="memory", defaults={"limit": 16 * GIB})
    Counter.objects.update_or_create(scope=pool.pool.scope, resource="disk", defaults={"limit": 64 * GIB})
    catalogue = factories.make_catalogue(image, factories.make_network())
    wish = factories.make_wish(catalogue)
    waiting = request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())
    operations.decide(actor=cast.approver, operation=waiting, spec_hash=waiting.spec_hash, approved=True)
    assert VirtualMachine.objects.get().disks.get().pool == pool


def test_disks_are_moved_to_folders_alone(fake, host, pool, chief, cast):  # noqa: F811
    """Red when a disk, which is a file, is moved to devices."""
    place = added(chief, host, VG)
    emptiest(place)
    machine = factories.make_machine(cast, "web", host)
    disk = machine.disks.create(pool=pool, volume_name="web.qcow2", capacity=GIB)
    assert moving.places(disk) == []
    with pytest.raises(Denied, match="no folder"):
        moving.move_disk(actor=cast.operator, disk=disk, to=place)


def test_a_disk_on_a_device_becomes_no_row(fake, host, pool, chief):  # noqa: F811
    """Red when adoption counts a logical volume, which would be deleted with the machine."""
    place = added(chief, host, VG)
    disks = [
        {"device": "disk", "target": {"dev": "vda"}, "source": {"file": f"{pool.path}/a.qcow2"}},
        {"device": "disk", "target": {"dev": "vdb"}, "source": {"pool": "fast", "volume": "data"}},
    ]
    told = found.own_places({"devices": {"disks": disks}}, uuid.uuid4(), [place, pool])
    assert [drive.target for drive, _place in told] == ["vda"]


def test_an_import_copies_no_image_to_devices(fake, host, pool, chief, monkeypatch):  # noqa: F811
    """Red when Copy takes all pools."""
    place, copied = added(chief, host, VG), []
    image = factories.make_image(name="new", source="/x")
    upload = Upload.objects.create(person=chief, wanted={"title": "new"}, image=image)
    monkeypatch.setattr(importing, "_copy_to", lambda where, _image: copied.append(where))
    importing.Copy().do(StepContext({}, {"upload": upload.pk}, lambda: None))
    assert pool in copied and place not in copied


def test_the_pages_say_what_a_pool_is(fake, host, chief, client):  # noqa: F811
    """Red when the list or the page shows an empty folder."""
    place = added(chief, host, CEPH)
    client.force_login(chief)
    listed = client.get(reverse("hosts:pools")).content.decode()
    assert "A pool of Ceph (RBD)" in listed
    page = re.sub(r"\s+", " ", client.get(reverse("hosts:pool", args=[place.pk])).content.decode())
    assert "mon.example.org:6789 disks" in page and "A pool of Ceph (RBD)" in page and ">Folder<" not in page
    assert "A pool of Ceph (RBD)" in client.get(reverse("hosts:detail", args=[host.pk])).content.decode()


def test_the_form_takes_what_each_kind_needs(fake, host, chief, client):  # noqa: F811
    """Red when a field that a kind has not is required, or one that it needs is not asked for."""
    enrolment.Reach().do(StepContext({}, {"host": host.pk}, lambda: None))
    client.force_login(chief)
    url = reverse("hosts:pool-add", args=[host.pk])
    page = client.get(url).content.decode()
    for kind in PoolKind:
        assert f'value="{kind}"' in page
    assert "A volume group (LVM)" in page and "never the password" not in page
    for values, words in (
        ({**VG, "source": ""}, "as vgs shows it"),
        ({**CEPH, "user": "gate", "secret": "password"}, "never the password"),
        ({"name": "a", "kind": "dir"}, "Name a folder by its full path"),
    ):
        wrong = client.post(url, values)
        assert wrong.status_code == 422 and words in wrong.content.decode()
    for values in (VG, {**CEPH, "user": "gate", "secret": SECRET}):
        assert client.post(url, values).status_code == 302


def test_a_target_is_never_nearly_full(fake, host, chief):  # noqa: F811
    """Red when the report asks to free space where LUNs take all there is."""
    added(chief, host, ISCSI)
    PoolAttachment.objects.filter(pool__name="san").update(observed_capacity=GIB, observed_available=0)
    [found] = [one for one in readiness.report(host) if one.title == "Pool san"]
    assert found.tone == "good" and "A target (iSCSI)" in found.found
