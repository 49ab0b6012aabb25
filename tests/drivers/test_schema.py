"""Every shape of definition that the portal writes fits libvirt's own schema.

The portal does not let a host check that each time (see `Domains.define`); libvirt's driver for tests, which
needs no daemon, checks it here.
"""

from dataclasses import replace

import libvirt
import pytest

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.libvirt.xml.network import NetworkElement
from portal.drivers.libvirt.xml.volume import PoolElement
from portal.drivers.types import Accelerator, DirectBoot, DiskSpec, NicSpec, PoolKind, PoolSpec
from tests.drivers.test_xml import DOMAIN, EMULATED, NETWORK, OWN, UUID, WINDOWS

SECOND = (DiskSpec("/pool/web.qcow2"), DiskSpec("/pool/data.img", "vdb", "raw"))
CARDS = (NicSpec("52:54:00:00:00:01", "net"), NicSpec("52:54:00:00:00:02", "lan"))
DOMAINS = {
    "paravirtual": DOMAIN,
    "emulated": EMULATED,
    "own network": OWN,
    "own network, emulated": replace(EMULATED, nics=OWN.nics),
    "kvm": replace(DOMAIN, accelerator=Accelerator.KVM),
    "kernel of the host's": replace(DOMAIN, boot=DirectBoot("/k", "/i", "console=ttyS0")),
    "installer of a CD": replace(DOMAIN, cds=("/cd/one.iso",), installs=True),
    "installer of a network": replace(DOMAIN, boot=DirectBoot("/k", "/i"), installs=True),
    "windows": WINDOWS,
    "windows, emulated": replace(
        WINDOWS, accelerator=Accelerator.EMULATION, devices=EMULATED.devices, disks=EMULATED.disks
    ),
    "uefi": replace(DOMAIN, uefi=True),
    "tpm": replace(DOMAIN, tpm=True),
    "bare": replace(DOMAIN, disks=(), nics=(), seed_path=None, title=""),
    "memory below its ceiling": replace(DOMAIN, memory_now_bytes=128 << 20),
    "two disks and cards": replace(DOMAIN, disks=SECOND, nics=CARDS),
}
NETWORKS = {
    "nat": NETWORK,
    "isolated": replace(NETWORK, nat=False),
    "lan": replace(NETWORK, address="", dhcp_start="", dhcp_end="", host_bridge=True),
}
#: Of each kind: its folder, what it lies on and who serves it.
POOLS = {
    PoolKind.DIR: ("/srv/pool", "", ""),
    PoolKind.FS: ("/srv/pool", "/dev/sdb1", ""),
    PoolKind.NETFS: ("/srv/pool", "/export/disks", "nas.example.org"),
    PoolKind.LOGICAL: ("", "vg0", ""),
    PoolKind.ISCSI: ("", "iqn.2026-01.org.example:disks", "san.example.org:3260"),
    PoolKind.RBD: ("", "disks", "mon.example.org:6789"),
    PoolKind.ZFS: ("", "tank/disks", ""),
}


@pytest.fixture(scope="module")
def connection():
    opened = libvirt.open("test:///default")
    yield opened
    opened.close()


@pytest.mark.parametrize("shape", DOMAINS)
def test_a_domain_fits_the_schema(connection, shape):
    """Red when DomainElement writes an element or an attribute that libvirt does not know."""
    text = DomainElement.to_xml(DOMAINS[shape])
    connection.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)


@pytest.mark.parametrize("shape", NETWORKS)
def test_a_network_fits_the_schema(connection, shape):
    """Red when NetworkElement writes what libvirt does not know."""
    connection.networkDefineXMLFlags(
        NetworkElement.to_xml(NETWORKS[shape]), libvirt.VIR_NETWORK_DEFINE_VALIDATE
    )


@pytest.mark.parametrize("kind", PoolKind)
def test_a_pool_fits_the_schema_and_reads_back(connection, kind):
    """Red when PoolElement writes what libvirt does not know, or forgets a value."""
    path, source, server = POOLS[kind]
    spec = PoolSpec("pool", UUID, path, kind, source, server)
    text = PoolElement.to_xml(spec)
    pool = connection.storagePoolDefineXML(text, libvirt.VIR_STORAGE_POOL_DEFINE_VALIDATE)
    told = pool.XMLDesc()
    pool.undefine()
    assert PoolElement.from_xml(text) == PoolElement.from_xml(told) == spec


SECRET = "6f0a6c6e-1f0e-4c53-9f6e-2f4d8e0f7a11"


@pytest.mark.parametrize(("kind", "way"), [(PoolKind.RBD, "ceph"), (PoolKind.ISCSI, "chap")])
def test_a_pool_asks_by_a_secret_of_the_hosts(connection, kind, way):
    """Red when the secret or its user is not written or read, or the way is another kind's."""
    path, source, server = POOLS[kind]
    spec = PoolSpec("pool", UUID, path, kind, source, server, "gatehouse", SECRET)
    text = PoolElement.to_xml(spec)
    pool = connection.storagePoolDefineXML(text, libvirt.VIR_STORAGE_POOL_DEFINE_VALIDATE)
    told = pool.XMLDesc()
    pool.undefine()
    assert f'type="{way}"' in text and PoolElement.from_xml(told) == spec
    for changes in ({"user": ""}, {"secret": ""}, {"secret": "password"}, {"user": "a'><b"}):
        with pytest.raises(InvalidSpec):
            PoolElement.to_xml(replace(spec, **changes))


@pytest.mark.parametrize("kind", sorted(set(PoolKind) - {PoolKind.RBD, PoolKind.ISCSI}))
def test_what_asks_for_no_password_gets_no_secret(kind):
    path, source, server = POOLS[kind]
    with pytest.raises(InvalidSpec):
        PoolElement.to_xml(PoolSpec("pool", UUID, path, kind, source, server, "gatehouse", SECRET))


@pytest.mark.parametrize("kind", PoolKind)
def test_a_pool_has_what_its_kind_needs_and_nothing_else(kind):
    """Red when check_pool lets a value through that the kind does not take."""
    path, source, server = POOLS[kind]
    wrong = [(path and "", source, server), (path, "../x y", server), (path, source, server and "a b")]
    wrong += [(path or "/x", source, server), (path, source, server or "nas")]
    # Of what is a name, none that leads out of /dev.
    wrong += [(path, f"{source}/../../etc", server), (path, f"{source}/", server)] if not path else []
    for values in wrong:
        if values != (path, source, server):
            with pytest.raises(InvalidSpec):
                PoolElement.to_xml(PoolSpec("pool", UUID, values[0], kind, *values[1:]))


def test_the_schema_refuses_what_libvirt_does_not_know(connection):
    """libvirt itself would take this and forget the element, so a slip would go unseen."""
    text = DomainElement.to_xml(DOMAIN).replace("<devices>", "<devices><nonsense />")
    connection.defineXMLFlags(text, 0)
    with pytest.raises(libvirt.libvirtError, match="nonsense|validate"):
        connection.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
