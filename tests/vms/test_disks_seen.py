"""Two people who have the page of a disk open: the second sees that it is another by now, or elsewhere."""

import pytest
from django.urls import reverse as url

from portal.drivers.types import PoolSpec
from portal.hosts.models import PoolAttachment, StoragePool
from portal.operations.models import Counter, Operation
from portal.operations.states import State
from tests.factories import GIB
from tests.vms.test_attaching import surely  # noqa: F401 (a fixture)
from tests.vms.test_devices_seen import carries, refused
from tests.vms.test_moving import has_moved, host, move, work  # noqa: F401 (host: a fixture)
from vms.changes import attaching, disks, moving

pytestmark = [pytest.mark.database, pytest.mark.django_db]
TAKING = [("disk_delete", disks.REMOVE), ("disk_detach", attaching.DETACH)]
#: The buttons of a disk's page.
ALL = ["disk_delete", "disk_detach", "disk_move", "disk_bus", "disk_limits"]


@pytest.fixture
def second(client, surely):  # noqa: F811
    client.force_login(surely)
    return client


def page(client, host, target):  # noqa: F811
    """Return what the page of the disk carries, for the second person to press with."""
    return {"seen": client.get(url("vms:disk", args=[host.machine.pk, target])).context["carried"]}


def press(client, host, name, target, posted, **values):  # noqa: F811
    return client.post(url(f"vms:{name}", args=[host.machine.pk, target]), {**posted, **values})


def begun(kind):
    return Operation.objects.filter(kind=kind, state=State.QUEUED)


def give(host, volume, capacity=GIB):  # noqa: F811
    return host.machine.disks.create(
        pool=host.place, target="vdb", volume_name=volume, capacity=capacity
    )


@pytest.mark.parametrize(("name", "kind"), TAKING)
def test_another_disk_of_the_same_name_is_not_taken_unseen(host, second, name, kind):  # noqa: F811
    """Red when begin_taking() does not check what was seen: what somebody just added would be lost."""
    own = give(host, "old.qcow2")
    posted = {**page(second, host, "vdb"), "confirm_name": "vdb"}
    own.delete()
    give(host, "new.qcow2", 2 * GIB)
    answer = press(second, host, name, "vdb", posted)
    posted |= refused(answer, ("Volume", "old.qcow2", "new.qcow2"), ("Size", "1 GiB", "2 GiB"))
    assert not begun(kind).exists()
    assert press(second, host, name, "vdb", posted).status_code == 302
    assert begun(kind).get().identifiers["volume"] == "new.qcow2"


def test_a_disk_that_somebody_moved_is_shown_before_it_goes_on(cast, host, second):  # noqa: F811
    """Red when move_disk() does not check what was seen: it would be copied twice, and end elsewhere."""
    pool = StoragePool.objects.create(name="third")
    third = PoolAttachment.objects.create(
        host=host.row, pool=pool, path="/third", observed_available=9 * GIB
    )
    host.driver.ensure_pool(PoolSpec("third", str(pool.uuid), "/third"))
    Counter.objects.create(scope=pool.scope, resource="disk", limit=4 * GIB)
    before = host.disk.volume_name
    posted = {**page(second, host, "vda"), "pool": third.pk}
    assert work(move(cast, host)).state == State.SUCCEEDED and has_moved(host)
    answer = press(second, host, "disk_move", "vda", posted)
    changes = ("Volume", before, host.disk.volume_name), ("Pool", "first", "second")
    posted |= refused(answer, *changes, where="move_changes")
    assert f'<option value="{third.pk}" selected>' in answer.content.decode()
    assert not begun(moving.KIND).exists()
    assert press(second, host, "disk_move", "vda", posted).status_code == 302
    assert work(begun(moving.KIND).get()).state == State.SUCCEEDED


def test_who_wants_a_disk_where_it_is_by_now_is_told_that(cast, host, second):  # noqa: F811
    """Red when the form takes only pools that it shows: nobody would know what is wrong with the choice."""
    posted = {**page(second, host, "vda"), "pool": host.other.pk}
    assert work(move(cast, host)).state == State.SUCCEEDED
    answer = press(second, host, "disk_move", "vda", posted)
    text = answer.content.decode()
    assert answer.status_code == 422 and "The disk is in this pool already" in text
    assert f'<option value="{host.other.pk}"' not in text and not begun(moving.KIND).exists()


@pytest.mark.parametrize("name", ["disk_delete", "disk_detach", "disk_move", "disk_bus"])
def test_each_button_carries_what_the_page_showed(host, second, name):  # noqa: F811
    """Red when a form has no such field: each press of it would be refused."""
    give(host, "old.qcow2")
    answer = second.get(url("vms:disk", args=[host.machine.pk, "vdb"]))
    address = url(f"vms:{name}", args=[host.machine.pk, "vdb"])
    assert carries(answer, address)


@pytest.mark.parametrize("name", ALL)
def test_a_disk_that_is_gone_is_told(host, second, name):  # noqa: F811
    """Red when a button of its page is answered with 404."""
    own = give(host, "old.qcow2")
    posted = page(second, host, "vdb")
    own.delete()
    answer = press(second, host, name, "vdb", posted, confirm_name="vdb", pool=host.other.pk)
    assert "has this disk no more" in second.get(answer.url).content.decode()


@pytest.mark.parametrize(("name", "kind"), TAKING)
def test_what_nobody_signed_counts_as_nothing_seen(host, second, name, kind):  # noqa: F811
    """Red when a press without what was seen goes on."""
    give(host, "old.qcow2")
    answer = press(second, host, name, "vdb", {"seen": "x"}, confirm_name="vdb")
    assert [one.before for one in answer.context["changes"]] == ["", "", ""]
    assert not begun(kind).exists()
