"""Moves of volumes and pools of others, where somebody else is faster, or a worker stands still."""

import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from portal.core.errors import Denied
from portal.drivers.types import PoolKind, PoolSpec, VolumeSpec
from portal.hosts.enrolment import MakePool
from portal.hosts.models import BegunVolume, FoundPool, Volume
from portal.hosts.services import _queue
from portal.hosts.storage import further, moving, services, taking_over, uploading
from portal.hosts.storage.move_kinds import DeleteSource
from portal.operations import runner
from portal.operations import services as operations
from portal.operations.models import Operation
from portal.operations.registry import StepContext
from portal.operations.services import claim
from portal.operations.states import State
from portal.operations.transitions import StaleAttempt
from tests.factories import GIB, MIB, make_host, make_place
from tests.hosts.test_storage import code, done, fake, look, make, names, pool  # noqa: F401
from tests.hosts.test_taking_over import THEIRS, UUID, give, see, take, taken, theirs  # noqa: F401
from tests.hosts.test_volume_moves import NAME, Killed, begin, other, volume, whole  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.database]
# ruff: noqa: F811 (fixtures of other modules)


@pytest.fixture
def gone(fake, pool, other, volume, chief, monkeypatch):
    """A move whose worker died when the original was gone, before it said so."""
    begun, delete = begin(chief, volume, other), fake.delete_volume

    def dies(where, name):
        delete(where, name)
        if where == pool.pool.name:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fake, "delete_volume", dies)
        with pytest.raises(Killed):
            runner.carry_on(claim(begun.pk, worker="first"), worker="first")
    assert whole(fake, other) and names(fake, pool) == []
    return Operation.objects.get(pk=begun.pk)


@pytest.mark.parametrize("undo", [False, True])
def test_another_volume_of_the_name_that_went_is_left(fake, pool, other, chief, gone, undo):
    """Red when _delete() asks only who uses what has the original's name, not whether it is that."""
    theirs = fake.create_volume(VolumeSpec(pool.pool.name, NAME, 7 * MIB))
    if undo:
        operations.cancel(actor=chief, operation=gone)
    runner.carry_on(Operation.objects.get(pk=gone.pk), worker="second")
    assert names(fake, pool) == [NAME] and fake.volume_info(pool.pool.name, NAME) == theirs
    assert whole(fake, other)


def test_the_name_that_is_going_is_not_free_for_an_upload(fake, pool, chief, gone):
    """Red when uploading.begin() does not ask who works on the name."""
    look(chief, pool)
    with pytest.raises(Denied, match="not finished"):
        make(chief, pool, NAME)
    with pytest.raises(Denied, match="not finished"):
        uploading.begin(actor=chief, pool=pool, name=NAME)


def test_what_took_the_place_of_a_copy_is_left(fake, other, volume, chief, monkeypatch):
    """Red when copy_gone is told before the note goes by which the undo takes what has the name."""
    create = fake.create_volume

    def made(spec):
        told = create(spec)
        if spec.backing_path:
            fake.delete_volume(spec.pool, spec.name)
            create(VolumeSpec(spec.pool, spec.name, 9 * MIB, format="raw"))
        return told

    monkeypatch.setattr(fake, "create_volume", made)
    failed = done(begin(chief, volume, other))
    assert (failed.state, code(failed)) == (State.FAILED, "copy_gone")
    assert names(fake, other) == [NAME]


def test_a_worker_that_stood_still_deletes_nothing_that_was_taken_back(
    fake, pool, other, volume, chief, monkeypatch
):
    """Red when DeleteSource notes that the original goes without a look whose the operation is by now."""
    begun, real = begin(chief, volume, other), DeleteSource._check_copy

    def stands_still(step, context):
        real(step, context)
        monkeypatch.setattr(DeleteSource, "_check_copy", real)
        mine = Operation.objects.filter(pk=begun.pk)
        mine.update(heartbeat_at=timezone.now() - timedelta(minutes=1))
        operations.cancel(actor=chief, operation=mine.get())
        [mine] = operations.take_over_lapsed(worker="second")
        runner.carry_on(mine, worker="second")

    monkeypatch.setattr(DeleteSource, "_check_copy", stands_still)
    with suppress(StaleAttempt):
        runner.carry_on(claim(begun.pk, worker="first"), worker="first")
    assert whole(fake, pool) and not BegunVolume.objects.exists()


def test_what_was_written_while_it_was_copied_keeps_the_original(
    fake, pool, other, volume, chief, monkeypatch
):
    """Red when the copy does not compare when the original was written: its user came and went."""
    create, info, written = fake.create_volume, fake.volume_info, ["1"]

    def made(spec):
        told = create(spec)
        if spec.backing_path:
            written[0] = "2"
        return told

    monkeypatch.setattr(fake, "create_volume", made)
    monkeypatch.setattr(fake, "volume_info", lambda *where: replace(info(*where), written=written[0]))
    failed = done(begin(chief, volume, other))
    assert (failed.state, code(failed)) == (State.FAILED, "volume_changed") and whole(fake, pool)


def of_devices(host, name, kind):
    """A pool whose volumes are devices."""
    place = make_place(host, name, "")
    place.observed_kind = kind
    place.save()
    return place


def test_a_device_may_hold_more_than_is_reserved_for_it(other, pool):
    """Red when the allocation of a device is taken for what is written on it."""
    tank = of_devices(pool.host, "tank", PoolKind.ZFS)
    sparse = {"observed_path": "/dev/zvol/tank/z", "observed_format": "raw"}
    sparse |= {"observed_capacity": 40 * GIB, "observed_allocation": 0}
    assert moving.needs(Volume.objects.create(pool=tank, name="z", **sparse), other) == 40 * GIB


@pytest.mark.parametrize("act", ["move", "delete", "grow"])
def test_nothing_begins_in_a_pool_that_was_given_back_meanwhile(fake, other, theirs, chief, act):
    """Red when the pool of the volume is not asked for again behind its lock."""
    place = taken(chief, theirs)
    left = Volume.objects.select_related("pool__pool", "pool__host").get(name="left.qcow2")
    give(chief, place)
    begin_it = {
        "move": lambda: moving.move(actor=chief, volume=left, to=other, name="left.qcow2"),
        "grow": lambda: services.grow(actor=chief, volume=left, capacity=2 * MIB),
        "delete": lambda: services.delete(actor=chief, volume=left, confirm_name="left.qcow2"),
    }[act]
    with pytest.raises(Denied, match="pool is gone"):
        begin_it()


def test_what_another_host_has_too_is_not_taken_over(fake, pool, theirs, chief):
    """Red when pools that the portal does not know are not asked for what servers serve."""
    nfs = {"observed_kind": "netfs", "observed_source": "/disks", "observed_server": "nas"}
    FoundPool.objects.update(**nfs)
    fake._pools["theirs"] = replace(THEIRS, kind=PoolKind.NETFS, source="/disks", server="nas")
    second = make_host("second-host", "fake://second/")
    there = {"observed_name": "theirs", "observed_path": "/srv/theirs", **nfs}
    FoundPool.objects.create(host=second, uuid=UUID, **there)
    with pytest.raises(Denied, match="second-host has a pool there"):
        take(chief, FoundPool.objects.get(host=pool.host))


def test_a_host_without_a_pool_of_the_portals_own_gives_none(fake, chief):
    """Red when the first pool of a host can be one of somebody else's, or the one its enrolment makes."""
    host = make_host()
    enrolment = _queue("hosts.enrol", "Enrol", chief, host, "/var/lib/gatehouse", "")
    wanted = enrolment.frozen["pinned"]["pool"]
    fake.ensure_pool(PoolSpec(wanted["name"], wanted["uuid"], wanted["path"]))
    fake.ensure_pool(PoolSpec("vg0", str(uuid.uuid4()), "", PoolKind.LOGICAL, "vg0"))
    see(fake, host)
    for found in FoundPool.objects.all():
        assert "no pool of the portal's own yet" in taking_over.why_not(found)
        with pytest.raises(Denied):
            take(chief, found)
    MakePool().do(StepContext(enrolment.frozen, enrolment.identifiers, lambda: None))
    assert not host.pools.get().taken_over


def test_a_device_on_which_a_stopped_pool_of_others_lies_stays(pool, other, chief):
    """Red when only pools that the portal knows lie on devices, or deletion does not ask for them."""
    group = of_devices(pool.host, "vg0", PoolKind.LOGICAL)
    device = {"observed_path": "/dev/vg0/data", "observed_format": "raw", "observed_capacity": GIB}
    volume = Volume.objects.create(pool=group, name="data", **device)
    assert not further.lies_under(volume) and services.why_not(volume) == ""
    there = {"observed_kind": "fs", "observed_path": "/srv/fs", "observed_source": "/dev/vg0/data"}
    FoundPool.objects.create(
        host=pool.host, uuid=UUID, observed_name="fs", observed_active=False, **there
    )
    assert further.lies_under(volume)
    with pytest.raises(Denied, match="pool of the host lies on it"):
        services.delete(actor=chief, volume=volume, confirm_name="data")
