"""Volumes of pools that are no folders, on libvirt's driver for tests, which has pools of all kinds.

It parses and writes their definitions as every libvirt does. What LVM, iSCSI, Ceph and ZFS themselves make of
them it does not know.
"""

from dataclasses import replace
from xml.etree import ElementTree as ET

import libvirt
import pytest
from lxml import etree

from portal.drivers.errors import AlreadyExists, InvalidSpec, NotSupported, PoolFull
from portal.drivers.fake import FakeDriver
from portal.drivers.libvirt.errors import translate
from portal.drivers.libvirt.pool import Pools
from portal.drivers.libvirt.stored import Stored
from portal.drivers.libvirt.volume import Volumes
from portal.drivers.libvirt.xml.volume import VolumeElement
from portal.drivers.types import (
    FOLDER_KINDS,
    CloneMode,
    PoolKind,
    PoolSpec,
    VolumeSpec,
    VolumeVerb,
    can,
    names_of,
)
from tests.drivers.test_schema import POOLS
from tests.drivers.test_xml import UUID

MIB = 1 << 20
#: libvirt's own, of which it comes with one for each kind of definition.
SCHEMA = "/usr/share/libvirt/schemas/storagevol.rng"
BLOCKS = sorted(set(PoolKind) - FOLDER_KINDS)
MAKE = [kind for kind in BLOCKS if can(kind, VolumeVerb.CREATE)]


class OnTests:
    """The parts of the driver on libvirt's driver for tests."""

    def __init__(self, connection):
        self.connection = connection
        self.pools = Pools(connection)
        self.volumes = Volumes(connection, self.pools)
        self.stored = Stored(connection, self.pools)
        self.create_volume, self.delete_volume = self.volumes.create, self.volumes.delete
        self.list_volumes, self.resize_volume = self.volumes.list, self.stored.resize
        self.ensure_pool, self.remove_pool = self.pools.ensure, self.pools.remove


@pytest.fixture
def real():
    opened = libvirt.open("test:///default")
    yield OnTests(opened)
    # All connections of the process share what is there.
    for left in opened.listAllStoragePools():
        if left.name() == "blocks":
            left.destroy()
            left.undefine()
    for domain in opened.listAllDomains():
        if domain.name() in {"one", "two"}:
            domain.undefine()
    opened.close()


@pytest.fixture(params=["libvirt", "fake"])
def driver(request):
    if request.param == "fake":
        yield FakeDriver()
        return
    yield request.getfixturevalue("real")


def pool(driver, kind):
    """Make a pool of a kind."""
    path, source, server = POOLS[kind]
    driver.ensure_pool(PoolSpec("blocks", UUID, path, kind, source, server))


def raw(name="disk", **changes):
    return VolumeSpec("blocks", name, 8 * MIB, format="raw", **changes)


@pytest.mark.parametrize("kind", MAKE)
def test_a_volume_is_raw_made_listed_and_deleted(driver, kind):
    """Red when the definition is one of a file, or a volume without a format is told as nothing."""
    pool(driver, kind)
    made = driver.create_volume(raw(fresh=True))
    assert driver.list_volumes("blocks") == (made,)
    assert (made.format, made.capacity_bytes, made.name) == ("raw", 8 * MIB, "disk")
    for spec in (raw(fresh=True), VolumeSpec("blocks", "other", MIB)):
        with pytest.raises((AlreadyExists, InvalidSpec)):
            driver.create_volume(spec)
    driver.delete_volume("blocks", "disk")
    driver.delete_volume("blocks", "disk")
    assert driver.list_volumes("blocks") == ()


@pytest.mark.parametrize("kind", BLOCKS)
def test_what_libvirt_does_not_do_is_told_and_nothing_is_tried(driver, kind):
    """Red when the driver does not look into the table: libvirt's driver for tests does all of it."""
    pool(driver, kind)
    if can(kind, VolumeVerb.CREATE):
        made = driver.create_volume(raw())
        copy = raw("copy", backing_path=made.path, clone=CloneMode.FULL)
        if kind is PoolKind.LOGICAL:
            assert driver.create_volume(copy).format == "raw"
        else:
            with pytest.raises((NotSupported, InvalidSpec)):
                driver.create_volume(copy)
    else:
        with pytest.raises(NotSupported):
            driver.create_volume(raw())
        return
    if can(kind, VolumeVerb.GROW):
        return
    with pytest.raises(NotSupported):
        driver.resize_volume("blocks", "disk", 16 * MIB)


def test_what_libvirt_cannot_open_is_copied_into_no_other_pool(driver):
    """Red when the kind of the target alone counts: libvirt would look for a file called POOL/NAME."""
    pool(driver, PoolKind.RBD)
    made = driver.create_volume(raw())
    other = PoolSpec("other", UUID.replace("1", "3"), kind=PoolKind.LOGICAL, source="vg7")
    driver.ensure_pool(other)
    copy = replace(raw(), pool="other", backing_path=made.path, clone=CloneMode.FULL)
    try:
        with pytest.raises((NotSupported, InvalidSpec)):
            driver.create_volume(copy)
        assert driver.list_volumes("other") == ()
    finally:
        driver.remove_pool("other")


@pytest.mark.parametrize(
    ("kind", "verbs"),
    [
        # storage_backend_logical.c: createVol, buildVolFrom, deleteVol, uploadVol, downloadVol.
        ("logical", "create clone copy_from write read delete"),
        # storage_backend_iscsi.c: uploadVol, downloadVol.
        ("iscsi", "copy_from write read"),
        # storage_backend_rbd.c: createVol with buildVol, deleteVol, resizeVol; its clones are no copies.
        ("rbd", "create grow delete"),
        # storage_backend_zfs.c: createVol, deleteVol, uploadVol, downloadVol.
        ("zfs", "create copy_from write read delete"),
        ("dir", "create clone copy_from grow write read delete"),
        ("mpath", ""),
    ],
)
def test_each_kind_does_what_its_backend_has(kind, verbs):
    """Red when the table says more, or less, than libvirt's own tables."""
    assert {verb for verb in VolumeVerb if can(kind, verb)} == set(verbs.split())


def test_what_lies_on_a_lun_is_never_deleted(real):
    """Red when delete does not look into the table."""
    pool(real, PoolKind.ISCSI)
    there = real.connection.storagePoolLookupByName("blocks")
    there.createXML("<volume><name>unit:0:0:1</name><capacity>8388608</capacity></volume>")
    with pytest.raises(NotSupported):
        real.delete_volume("blocks", "unit:0:0:1")
    assert [info.format for info in real.list_volumes("blocks")] == ["raw"]


@pytest.mark.parametrize("kind", [PoolKind.LOGICAL, PoolKind.ZFS])
def test_a_volume_of_whole_extents_is_the_one_that_was_asked_for(kind, real):
    """Red when _is_same wants the size to a byte: LVM and ZFS round up."""
    pool(real, kind)
    asked = VolumeSpec("blocks", "disk", 5 * MIB, format="raw")
    there = real.connection.storagePoolLookupByName("blocks")
    there.createXML(VolumeElement.to_xml(raw(), kind))
    assert real.create_volume(asked).capacity_bytes == 8 * MIB
    with pytest.raises(AlreadyExists):
        real.create_volume(VolumeSpec("blocks", "disk", 9 * MIB, format="raw"))
    fake = FakeDriver()
    pool(fake, kind)
    odd = VolumeSpec("blocks", "disk", 5 * MIB + 512, format="raw")
    assert fake.create_volume(odd) == fake.create_volume(odd)
    assert fake.create_volume(odd).capacity_bytes > 5 * MIB + 512


@pytest.mark.parametrize("kind", MAKE)
def test_a_volume_fits_the_schema_and_is_reserved_in_full(real, kind):
    """Red when an allocation is written that is less: libvirt then makes a sparse volume; or no target."""
    pool(real, kind)
    made = real.create_volume(raw())
    assert made.allocation_bytes == made.capacity_bytes == 8 * MIB
    # libvirt 9.0 checks by its own flag, and then refuses the flag (VIR_STORAGE_VOL_CREATE_VALIDATE).
    schema, text = etree.RelaxNG(file=SCHEMA), VolumeElement.to_xml(raw(), kind)
    assert schema.validate(etree.fromstring(text)), schema.error_log
    assert not schema.validate(etree.fromstring(text.replace("<capacity", "<nonsense/><capacity")))


def test_no_volume_is_sparse_by_what_the_portal_writes():
    """Red when an allocation is written: libvirt makes a snapshot of LVM, lost once it has filled up."""
    root = ET.fromstring(VolumeElement.to_xml(raw(), PoolKind.LOGICAL))
    assert {part.tag for part in root} == {"name", "capacity", "target"} and not root.attrib


@pytest.mark.parametrize(
    "spec",
    [
        VolumeSpec("blocks", "disk", MIB),
        VolumeSpec("blocks", "disk", MIB, backing_path="/dev/vg0/x", backing_format="raw"),
    ],
)
def test_no_file_is_made_where_there_is_no_folder(spec):
    """Red when a qcow2, or a volume on another one, is written for a device."""
    with pytest.raises(InvalidSpec):
        VolumeElement.to_xml(spec, PoolKind.LOGICAL)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_pool_goes_and_what_it_lies_on_stays(real, kind, monkeypatch):
    """Red when one that is no folder is built, or deleted: libvirt would make or remove the volume group."""
    built, deleted = [], []
    start = libvirt.virStoragePool.create
    monkeypatch.setattr(
        libvirt.virStoragePool, "create", lambda pool, flags=0: (built.append(flags), start(pool, flags))
    )
    monkeypatch.setattr(libvirt.virStoragePool, "delete", lambda pool, flags=0: deleted.append(pool.name()))
    pool(real, kind)
    real.remove_pool("blocks")
    assert (built, deleted) == ([0], [])
    assert "blocks" not in {info.name for info in real.pools.list()}


def test_who_has_a_logical_volume_is_known_by_either_name(real):
    """Red when a domain that names the device mapper's node does not count: its disk would be nobody's."""
    pool(real, PoolKind.LOGICAL)
    real.create_volume(VolumeSpec("blocks", "web-data", 8 * MIB, format="raw"))
    for name, path in (("one", "/dev/vg0/web-data"), ("two", "/dev/mapper/vg0-web--data")):
        real.connection.defineXML(
            f"<domain type='test'><name>{name}</name><memory>65536</memory><os><type>hvm</type></os><devices>"
            f"<disk type='block'><source dev='{path}'/><target dev='vda'/></disk></devices></domain>"
        )
    assert real.stored.users("blocks", "web-data") == ("one", "two") == real.stored.pool_users("blocks")
    assert names_of("/srv/a/b.qcow2") == {"/srv/a/b.qcow2"}


def error_of(words):
    """Return libvirt's error for what a program said, for which it has no code."""
    error = libvirt.libvirtError("x")
    error.err = (libvirt.VIR_ERR_INTERNAL_ERROR, 0, words, 2, "", "", "", 0, 0)
    error.args = (words,)
    return error


@pytest.mark.parametrize(
    "words",
    [
        'Volume group "vg0" has insufficient free space (2559 extents): 2560 required.',
        "cannot create 'tank/disks/disk': out of space",
    ],
)
def test_a_full_pool_is_told_as_full(words):
    assert isinstance(translate(error_of(words)), PoolFull)


@pytest.mark.parametrize(
    "words",
    [
        'Logical Volume "disk" already exists in volume group "vg0"',
        "failed to create volume 'disks/disk': File exists",
        "storage volume name 'disk' already in use.",
    ],
)
def test_a_name_that_somebody_took_meanwhile_is_told_as_taken(real, monkeypatch, words):
    """Red when what lvcreate, zfs and Ceph say of a taken name is any error."""
    pool(real, PoolKind.LOGICAL)

    def taken(*args):
        raise error_of(words)

    monkeypatch.setattr(libvirt.virStoragePool, "createXML", taken)
    with pytest.raises(AlreadyExists):
        real.create_volume(raw())
