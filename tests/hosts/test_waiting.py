"""A volume that libvirt may still be writing is waited for, and not for ever."""

import uuid
from functools import partial

import pytest

from portal.drivers.errors import InvalidState
from portal.drivers.fake import FakeDriver
from portal.drivers.types import PoolSpec, VolumeSpec
from portal.hosts import sharing, steps
from portal.operations.registry import StepContext, StepFailed


class Asked(Exception):
    """Whoever waits asks whether to go on."""


class Delete(steps.HostStep):
    def do(self, context):
        steps.delete_waiting(self, context, "first", "one.qcow2")


@pytest.fixture
def host(monkeypatch):
    """A fake host with one volume in the pool `first`."""
    driver = FakeDriver()
    driver.ensure_pool(PoolSpec("first", str(uuid.uuid4()), "/first"))
    driver.create_volume(VolumeSpec("first", "one.qcow2", 1 << 20))
    monkeypatch.setattr(steps, "call", lambda _h, verb, *args, timeout: getattr(driver, verb)(*args))
    monkeypatch.setattr(steps, "LOOK_EVERY", 0)
    return driver


@pytest.fixture
def context():
    def check():
        raise Asked

    return StepContext({}, {"host": 1}, check)


def busy(monkeypatch, host):
    def writes(_pool, _name):
        raise InvalidState("it is being written")

    monkeypatch.setattr(host, "delete_volume", writes)


def test_a_volume_that_is_written_is_waited_for(monkeypatch, host, context):
    busy(monkeypatch, host)
    with pytest.raises(Asked):
        Delete().do(context)


def test_a_copy_that_does_not_end_is_left_to_the_reaper(monkeypatch, host, context):
    """Red when there is no end to the waiting: it would keep a worker for ever."""
    busy(monkeypatch, host)
    monkeypatch.setattr(steps, "WAIT_MOST", -1)
    with pytest.raises(StepFailed) as failed:
        Delete().do(context)
    assert failed.value.code == "invalid_state"


def test_a_large_copy_is_waited_for_longer(monkeypatch, host, context):
    """Red when the wait for a copy that a dead worker left is not by its size."""
    busy(monkeypatch, host)
    monkeypatch.setattr(steps, "WAIT_MOST", -1)
    with pytest.raises(Asked):
        steps.copy_volume(Delete(), context, VolumeSpec("first", "one.qcow2", 1 << 40))


def test_a_pool_that_does_not_run_is_not_waited_for(host, context):
    """Red when a pool that does not run is told as a volume that is written."""
    host.stopped_pools.add("first")
    with pytest.raises(StepFailed) as failed:
        Delete().do(context)
    assert failed.value.code == "pool_inactive"
    assert host.list_pools()[0].active is False and sharing.stacked(partial(Delete().call, context)) == {}
    host.ensure_pool(host._pools["first"])
    Delete().do(context)
    assert host.list_volumes("first") == ()
