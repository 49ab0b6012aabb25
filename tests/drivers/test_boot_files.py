"""Kernels and initrds, on libvirt's driver for tests, whose volumes hold nothing: a dict does for them."""

import hashlib
import uuid

import libvirt
import pytest

from portal.drivers.libvirt import upload, volume
from portal.drivers.libvirt.pool import Pools
from portal.drivers.libvirt.volume import Volumes
from portal.drivers.libvirt.xml.volume import PoolElement
from portal.drivers.types import BootFileSpec, PoolSpec, VolumeDigest

POOL = "bootfiles"


@pytest.fixture
def held(monkeypatch):
    """What volumes hold, by name; each write is a further entry of `writes`."""
    held = Held()
    held.writes = []

    def write(_connection, vol, content, at=0):
        held[vol.name()] = content
        held.writes.append(vol.name())

    def digest(_connection, vol, copy=None):
        content = held[vol.name()]
        return VolumeDigest(hashlib.sha256(content).hexdigest(), len(content))

    monkeypatch.setattr(upload, "write", write)
    monkeypatch.setattr(upload, "digest", digest)
    monkeypatch.setattr(volume, "_length", lambda vol: len(held[vol.name()]))
    return held


class Held(dict):
    writes: list[str]


@pytest.fixture
def volumes():
    connection = libvirt.open("test:///default")
    pools = Pools(connection)
    spec = PoolSpec(POOL, str(uuid.uuid4()), "/bootfiles")
    pool = connection.storagePoolDefineXML(PoolElement.to_xml(spec))
    pool.create()
    yield Volumes(connection, pools)
    # All connections of the process share what is there.
    pool.destroy()
    pool.undefine()
    connection.close()


@pytest.mark.parametrize(
    ("there", "writes"),
    [(b"kernel", 0), (b"kernet", 1), (b"kernel of before", 1), (None, 1)],
    ids=["the same", "another", "longer", "none"],
)
def test_what_a_guest_may_be_starting_from_is_not_written_again(volumes, held, tmp_path, there, writes):
    """Red when write_boot_file() asks nothing, or the length alone: a worker that died left zeros behind."""
    source = tmp_path / "linux"
    source.write_bytes(b"kernel")
    spec = BootFileSpec(POOL, "debian.kernel", str(source))
    if there is not None:
        volumes.write_raw(POOL, spec.name, there)
        held.writes.clear()
    made = volumes.write_boot_file(spec)
    assert held[spec.name] == b"kernel" and len(held.writes) == writes
    assert (made.name, made.capacity_bytes) == (spec.name, 6)


def test_a_part_of_a_file_is_just_that_and_what_is_appended(volumes, held, tmp_path):
    """Red when `at` is not heeded, or what is appended stands behind the file."""
    source = tmp_path / "cd.iso"
    source.write_bytes(b"before" + b"initrd" + b"after")
    volumes.write_boot_file(BootFileSpec(POOL, "web.initrd", str(source), b"preseed", 6, 6))
    assert held["web.initrd"] == b"initrdpreseed"
