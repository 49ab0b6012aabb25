"""What others named as they liked, on libvirt's own test hypervisor. Not for: the contract of drivers."""

import uuid

import libvirt
import pytest

from portal.drivers.errors import InvalidSpec, PoolNotFound, VolumeNotFound
from portal.drivers.libvirt.pool import Pools
from portal.drivers.libvirt.stored import Stored
from portal.drivers.libvirt.volume import Volumes
from portal.drivers.types import PoolSpec, VolumeSpec

POOL, VOLUME = "Téléchargements de moi", "my disk.img"
POOL_XML = f"<pool type='dir'><name>{POOL}</name><target><path>/home/me</path></target></pool>"
VOLUME_XML = f"<volume><name>{VOLUME}</name><capacity>1048576</capacity></volume>"


@pytest.fixture
def connection():
    made = libvirt.open("test:///default")
    pool = made.storagePoolDefineXML(POOL_XML)
    pool.create()
    pool.createXML(VOLUME_XML)
    yield made
    made.close()


def test_a_name_that_others_gave_is_looked_up(connection):
    """Red when a lookup asks for a name that the portal would give: nothing could be told of such a pool."""
    pools = Pools(connection)
    volumes, stored = Volumes(connection, pools), Stored(connection, pools)
    assert POOL in {info.name for info in pools.list()} and pools.refresh(POOL).name == POOL
    [info] = volumes.list(POOL)
    assert (info.name, volumes.info(POOL, VOLUME)) == (VOLUME, info)
    assert stored.users(POOL, VOLUME) == ()
    volumes.delete(POOL, VOLUME)
    assert volumes.list(POOL) == ()


@pytest.mark.parametrize("how", ["type='file'><source file='/home/me/my disk.img'", "type='volume'><source"])
def test_who_has_such_a_volume_keeps_the_pool(connection, monkeypatch, how):
    """Red when a volume that goes meanwhile ends the look, or only files are looked for."""
    source = how if "file" in how else f"{how} pool='{POOL}' volume='{VOLUME}'"
    disk = f"<disk {source}/><target dev='hda'/></disk>"
    connection.defineXML(
        "<domain type='test'><name>theirs</name><memory>1024</memory><os><type>hvm</type></os>"
        f"<devices>{disk}</devices></domain>"
    )
    there = connection.storagePoolLookupByName(POOL)
    there.createXML(VOLUME_XML.replace(VOLUME, "going"))
    found = there.listAllVolumes()
    there.storageVolLookupByName("going").delete()
    monkeypatch.setattr(Pools, "get", lambda _self, _name: there)
    monkeypatch.setattr(libvirt.virStoragePool, "listAllVolumes", lambda _self: found)
    assert Stored(connection, Pools(connection)).pool_users(POOL) == ("theirs",)


def test_nothing_is_made_by_such_a_name(connection):
    """Red when the looser check is the one for what is made, or a name ends at its NUL."""
    pools = Pools(connection)
    volumes = Volumes(connection, pools)
    for spec in (VolumeSpec(POOL, "a.qcow2", 1 << 20), VolumeSpec("default-pool", VOLUME, 1 << 20)):
        with pytest.raises(InvalidSpec):
            volumes.create(spec)
    with pytest.raises(InvalidSpec):
        pools.ensure(PoolSpec("My VMs", str(uuid.uuid4()), "/home/you"))
    for name in ("", f"{VOLUME}\0.qcow2"):
        with pytest.raises(InvalidSpec):
            volumes.info(POOL, name)
        with pytest.raises(InvalidSpec):
            volumes.list(name)
    for name in ("../default-pool", "<x/>"):
        with pytest.raises(VolumeNotFound):
            volumes.info(POOL, name)
        with pytest.raises(PoolNotFound):
            volumes.list(name)
