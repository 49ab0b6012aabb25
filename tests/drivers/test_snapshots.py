"""A disk with snapshots does not move, on libvirt's own test hypervisor. Not for: copies, which it lacks."""

import libvirt
import pytest

from portal.drivers.errors import HasSnapshots
from portal.drivers.libvirt.moving import Moving
from portal.drivers.types import CopyStage

HERE, THERE = "/example/disk.qcow2", "/other/disk.qcow2"
DOMAIN = f"""<domain type='test'><name>example</name><memory>8192</memory><os><type>hvm</type></os><devices>
<disk type='file'><driver name='qemu' type='qcow2'/><source file='{HERE}'/><target dev='vda'/></disk>
</devices></domain>"""


@pytest.fixture
def domain():
    connection = libvirt.open("test:///default")
    made = connection.defineXML(DOMAIN)
    yield made
    connection.close()


@pytest.mark.parametrize("runs", [False, True])
def test_a_disk_with_snapshots_stays(domain, runs):
    """Red when begin, look or finish does not ask: the snapshots would go with the old file."""
    moving, uuid = Moving(domain.connect()), domain.UUIDString()
    if runs:
        domain.create()
    assert moving.look(uuid, "vda", THERE).stage is CopyStage.NONE
    domain.snapshotCreateXML("<domainsnapshot/>")
    with pytest.raises(HasSnapshots):
        moving.look(uuid, "vda", THERE)
    with pytest.raises(HasSnapshots):
        moving.finish(uuid, "vda", HERE, THERE, copied=True)
    if runs:
        with pytest.raises(HasSnapshots):
            moving.begin(uuid, "vda", HERE, THERE)
    assert HERE in domain.XMLDesc()
