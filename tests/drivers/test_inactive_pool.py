"""A pool that does not run, on libvirt's own test hypervisor. Not for: the contract of drivers."""

import uuid

import libvirt
import pytest

from portal.drivers.errors import PoolInactive, PoolNotFound
from portal.drivers.libvirt.pool import Pools
from portal.drivers.libvirt.volume import Volumes
from portal.drivers.libvirt.xml.volume import PoolElement
from portal.drivers.types import PoolSpec, VolumeSpec


@pytest.fixture
def connection():
    made = libvirt.open("test:///default")
    yield made
    made.close()


def test_what_works_in_a_pool_that_does_not_run_says_so(connection):
    """Red when get() does not look: it would be told as a volume that is being written, and waited for.

    Or when ensure() lets a pool start with its host again.
    """
    pools = Pools(connection)
    volumes = Volumes(connection, pools)
    spec = PoolSpec("example", str(uuid.uuid4()), "/example")
    connection.storagePoolDefineXML(PoolElement.to_xml(spec))
    for act in (
        lambda: volumes.delete("example", "a.qcow2"),
        lambda: volumes.info("example", "a.qcow2"),
        lambda: volumes.list("example"),
        lambda: volumes.create(VolumeSpec("example", "a.qcow2", 1 << 20)),
        lambda: pools.refresh("example"),
    ):
        with pytest.raises(PoolInactive):
            act()
    assert [info.active for info in pools.list() if info.name == "example"] == [False]
    pools.start("example")
    assert volumes.list("example") == ()
    pools.stop("example")
    pools.autostart("example", True)
    assert [(one.active, one.autostart) for one in pools.list() if one.name == "example"] == [(False, True)]
    pools.start("example")
    pools.autostart("example", False)
    pools.ensure(spec)
    assert [(one.active, one.autostart) for one in pools.list() if one.name == "example"] == [(True, False)]
    pools.remove("example")
    with pytest.raises(PoolNotFound):
        volumes.delete("example", "a.qcow2")


class Pool:
    """A pool that libvirtd died of stopping: it was stopped, and its folder was to go."""

    def __init__(self, kind):
        self.kind, self.calls = kind, []

    def storagePoolLookupByName(self, _name):  # noqa: N802 (libvirt's name; it is its own connection)
        return self

    def isActive(self):  # noqa: N802 (libvirt's name)
        return False

    def XMLDesc(self):  # noqa: N802 (libvirt's name)
        told = "<name>example</name><uuid>1b4f0e98-5b1c-4c39-9c2b-6f7d5f2f7878</uuid>"
        return f"<pool type='{self.kind}'>{told}<target><path>/example</path></target></pool>"

    def delete(self):
        self.calls.append("delete")

    def undefine(self):
        self.calls.append("undefine")


@pytest.mark.parametrize(("kind", "calls"), [("dir", ["delete", "undefine"]), ("logical", ["undefine"])])
def test_what_was_stopped_and_not_yet_removed_leaves_no_empty_folder(kind, calls):
    """Red when remove() lets the folder go only of what it stopped itself, or deletes what is no folder."""
    pool = Pool(kind)
    Pools(pool).remove("example")
    assert pool.calls == calls
