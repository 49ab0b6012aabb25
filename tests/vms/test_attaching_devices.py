"""Volumes that are devices of their host, as those of LVM, as disks of machines."""

import uuid

import pytest
from django.utils import timezone

from portal.core.errors import Denied
from portal.drivers.types import PoolKind, PoolSpec, VolumeSpec
from portal.hosts.models import PoolAttachment, StoragePool, Volume
from portal.hosts.storage import looking, pools, using
from portal.operations.models import Counter
from portal.operations.states import State
from tests.factories import GIB
from tests.vms.test_attaching import attach, consent, surely  # noqa: F401 (surely: a fixture)
from tests.vms.test_moving import host, look, work  # noqa: F401 (host: a fixture)
from vms.changes import attaching, disks, moving, twins
from vms.models import Disk

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def logical(host):  # noqa: F811
    """A volume of 1 GiB of LVM that nobody uses, seen in a pool of the host."""
    spec = PoolSpec("lvm", str(uuid.uuid4()), kind=PoolKind.LOGICAL, source="vg0")
    host.driver.ensure_pool(spec)
    host.driver.create_volume(VolumeSpec("lvm", "data", GIB, format="raw"))
    pool = StoragePool.objects.create(name=spec.name, uuid=spec.uuid)
    place = PoolAttachment.objects.create(
        host=host.row, pool=pool, observed_kind="logical", observed_available=99 * GIB
    )
    Counter.objects.create(scope=pool.scope, resource="disk", limit=4 * GIB)
    looking.note_volumes(place.pk, host.driver.list_volumes("lvm"), timezone.now())
    return Volume.objects.get(name="data")


def test_a_volume_of_lvm_is_a_device(cast, surely, host, logical):  # noqa: F811
    """Red when it is taken for a file of a folder without a name."""
    assert attaching.volumes_for(host.machine) == [logical]
    assert work(consent(cast, attach(surely, host, logical))).state == State.SUCCEEDED
    disk = Disk.objects.get(target="vdb")
    assert disk.path == disk.device == "/dev/vg0/data"
    text = host.driver.definition(str(host.machine.uuid)).running
    assert '<source dev="/dev/vg0/data"' in text and 'type="block"' in text
    look(host)
    assert [use.words for use in using.uses_of([logical])[logical.pk]] == ["Machine example"]

    grown = {"capacity": 2 * GIB, "seen": GIB, "why": "more", "token": uuid.uuid4()}
    with pytest.raises(Denied, match="makes no volumes of the disk's pool larger"):
        disks.request_growth(actor=cast.requester, disk=disk, **grown)
    with pytest.raises(Denied, match="Only files are moved"):
        moving.move_disk(actor=surely, disk=disk, to=host.other)
    with pytest.raises(Denied, match="only files are copied"):
        twins.check_copied(host.machine)

    assert work(attaching.detach(actor=surely, disk=disk)).state == State.SUCCEEDED
    assert "/dev/vg0/data" not in host.driver.definition(str(host.machine.uuid)).persistent
    assert host.driver.volume_info("lvm", "data").capacity_bytes == GIB
    look(host)
    logical.refresh_from_db()
    assert logical.made and attaching.volumes_for(host.machine) == [logical]


def test_a_disk_of_lvm_goes_with_its_machine(cast, surely, host, logical):  # noqa: F811
    work(consent(cast, attach(surely, host, logical)))
    look(host)
    gone = disks.remove_disk(actor=cast.requester, disk=Disk.objects.get(target="vdb"), confirm_name="vdb")
    assert work(gone).state == State.SUCCEEDED
    assert host.driver.list_volumes("lvm") == () and not Disk.objects.filter(target="vdb").exists()


def test_what_another_pool_of_the_host_lies_on_is_no_disk(cast, chief, surely, host, logical):  # noqa: F811
    """Red when only pools of one kind are compared: a guest would write to what the host has mounted."""
    host.row.readiness = {"pool_kinds": ["dir", "fs"]}
    host.row.save()
    place = {"path": "/srv/disks", "source": "/dev/mapper/vg0-data", "server": "", "user": "", "secret": ""}
    pools.add(actor=chief, host=host.row, name="disks", kind="fs", **place)
    assert attaching.volumes_for(host.machine) == []
    with pytest.raises(Denied, match="Another pool of the host lies on it"):
        attach(surely, host, logical)


def test_a_new_disk_is_a_file_though_lvm_has_more_room(cast, host, logical):  # noqa: F811
    """Red when any pool of the host is taken: a file cannot lie in one that is no folder."""
    asked = disks.request_disk(
        actor=cast.requester, machine=host.machine, capacity=GIB, why="data", token=uuid.uuid4()
    )
    folders = [host.place.pool.scope, host.other.pool.scope]
    Counter.objects.filter(scope__in=folders).update(limit=2 * GIB)
    Counter.objects.filter(scope=host.other.pool.scope).update(limit=0)
    with pytest.raises(Denied, match="not enough disk"):
        consent(cast, asked)


def test_a_volume_of_ceph_is_not_attached(surely, host, logical):  # noqa: F811
    PoolAttachment.objects.filter(pk=logical.pool_id).update(observed_kind="rbd")
    Volume.objects.filter(pk=logical.pk).update(observed_path="disks/data")
    assert attaching.volumes_for(host.machine) == []
    with pytest.raises(Denied, match="no device of the host"):
        attach(surely, host, Volume.objects.get(pk=logical.pk))
