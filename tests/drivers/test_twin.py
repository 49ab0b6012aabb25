"""What a definition of anybody's becomes as that of another domain."""

import libvirt
import pytest

from portal.drivers.errors import InvalidSpec
from portal.drivers.inspection import Kind, inspect
from portal.drivers.libvirt.xml.twin import twin_of
from portal.drivers.types import TwinSpec

UUID, OTHER = "11111111-2222-4333-8444-555555555555", "11111111-2222-4333-8444-555555555556"
SPEC = TwinSpec(
    "twin",
    OTHER,
    "Twin",
    {"/a.qcow2": "/b.qcow2"},
    {"52:54:00:00:00:01": "52:54:00:00:00:02"},
    {"20001": "20002"},
)


def domain(devices="", head=f"<name>a</name><uuid>{UUID}</uuid>", tail=""):
    return f'<domain type="kvm" xmlns:q="http://libvirt.org/schemas/domain/qemu/1.0">{head}<devices>{devices}</devices>{tail}</domain>'


def test_its_own_identity_and_nothing_else():
    head = (
        f"<!-- mine --><name>a</name><uuid>{UUID}</uuid><genid>{UUID}</genid><memory>1</memory>"
        "<os><loader>/x</loader><nvram>/nvram/a</nvram></os>"
    )
    disk = '<disk device="disk"><source file="/a.qcow2" startupPolicy="optional"/><target dev="vda"/></disk>'
    made = twin_of(domain(disk, head), SPEC)
    assert "<!-- mine --><name>twin</name>" in made and f"<uuid>{OTHER}</uuid>" in made
    assert UUID not in made and "nvram" not in made and "<loader>/x</loader>" in made
    assert '<source file="/b.qcow2" startupPolicy="optional"/>' in made and "<title>Twin</title>" in made


@pytest.mark.parametrize(
    "nvram",
    [
        '<nvram template="/x_VARS.fd">/nvram/a</nvram>',
        '<nvram template="/x_VARS.fd" type="file"><source file="/nvram/a"/></nvram>',
        '<nvram template="/x_VARS.fd"/>',
    ],
)
def test_a_template_of_the_firmware_stays(nvram):
    """Red when _firmware takes every <nvram> away, or keeps the other's file or its type."""
    loader = '<loader readonly="yes" type="pflash">/x</loader>'
    made = twin_of(domain(head=f"<name>a</name><uuid>{UUID}</uuid><os>{loader}{nvram}</os>"), SPEC)
    assert f'<os>{loader}<nvram template="/x_VARS.fd"/></os>' in made


@pytest.mark.parametrize("how", ['readonly="no" type="pflash"', 'type="pflash"'])
def test_firmware_that_its_guest_writes_is_not_shared(how):
    """Red when _firmware does not look at <loader>, or takes one that says nothing for read-only."""
    head = f"<name>a</name><uuid>{UUID}</uuid><os><loader {how}>/a.fd</loader></os>"
    with pytest.raises(InvalidSpec, match="a.fd"):
        twin_of(domain(head=head), SPEC)


@pytest.mark.parametrize("driver", ['<driver name="qemu" type="raw" cache="none"/>', ""])
def test_a_copy_is_read_as_the_qcow2_that_it_is(driver):
    """Red when a raw disk stays raw: its guest would see the first sectors of a qcow2 instead of its own."""
    chain = '<backingStore type="file"><format type="raw"/><source file="/base"/></backingStore>'
    disk = f'<disk device="disk">{driver}<source file="/a.qcow2"/>{chain}<target dev="vda"/></disk>'
    cd = '<disk device="cdrom"><driver name="qemu" type="raw"/><source file="/a.iso"/><readonly/></disk>'
    made = twin_of(domain(disk + cd), TwinSpec("twin", OTHER, paths={**SPEC.paths, "/a.iso": "/b.iso"}))
    first, second = inspect(Kind.DOMAIN, made.encode()).understood["devices"]["disks"]
    assert first["source"] == {"file": "/b.qcow2"} and first["driver"]["type"] == "qcow2"
    assert "/base" not in made and ("none" in made) == bool(driver)
    assert second["source"] == {"file": "/b.iso"} and second["driver"]["type"] == "raw"


def test_the_guest_is_told_its_own_identity():
    """Red when sysinfo keeps the old UUID: libvirt refuses the twin, after all disks were copied."""
    told = f"<entry name='serial'>{UUID.upper()}</entry><entry name='uuid'>{UUID}</entry>"
    board = "<baseBoard><entry name='serial'>S-1</entry></baseBoard>"
    head = (
        f"<name>a</name><uuid>{UUID}</uuid><memory>1024</memory><os><type>hvm</type></os>"
        f"<sysinfo type='smbios'><system>{told}</system>{board}</sysinfo>"
    )
    made = twin_of(domain(head=head).replace('type="kvm"', 'type="test"'), SPEC)
    assert made.count(OTHER) == 3 and UUID not in made.lower() and ">S-1<" in made
    connection = libvirt.open("test:///default")
    connection.defineXML(made)
    connection.close()


@pytest.mark.parametrize(
    ("device", "own"),
    [
        ("<graphics type='vnc' port='5901' autoport='no'/>", "<graphics type='vnc' port='-1'/>"),
        ("<graphics type='spice' tlsPort='5902'/>", "<graphics type='spice' tlsPort='-1'/>"),
        (
            "<graphics type='vnc' socket='/s'><listen type='socket' socket='/s'/></graphics>",
            "<graphics type='vnc'><listen type='socket'/></graphics>",
        ),
        ("<vsock><cid auto='no' address='3'/></vsock>", "<vsock><cid auto='yes'/></vsock>"),
        (
            "<serial type='file'><source path='/a.log'/><log file='/b.log'/><target port='0'/></serial>",
            "<serial type='pty'><target port='0'/></serial>",
        ),
        (
            "<console type='tcp'><source mode='bind' service='4555'/><protocol type='raw'/></console>",
            "<console type='pty'/>",
        ),
        (
            "<channel type='unix'><source mode='bind' path='/s'/><target type='virtio' name='a'/></channel>",
            "<channel type='unix'><source mode='bind'/><target type='virtio' name='a'/></channel>",
        ),
        (
            "<interface type='bridge'><mac address='52:54:00:00:00:01'/><target dev='web'/></interface>",
            "<interface type='bridge'><mac address='52:54:00:00:00:02'/></interface>",
        ),
    ],
)
def test_ports_files_and_sockets_are_not_shared(device, own):
    """Red when `set_apart` is not asked, or a device has no line in its table: two could not run at once."""
    assert own in twin_of(domain(device), SPEC).replace('"', "'")


@pytest.mark.parametrize(
    "device",
    [
        '<graphics type="vnc" port="-1" autoport="yes"><listen type="address"/></graphics>',
        '<serial type="tcp"><source mode="connect" host="logs" service="4555"/></serial>',
        '<channel type="spicevmc"><target type="virtio" name="com.redhat.spice.0"/></channel>',
    ],
)
def test_what_is_chosen_at_the_start_or_called_from_here_stays(device):
    """Red when `set_apart` changes what two can have."""
    assert device in twin_of(domain(device), SPEC)


def test_its_card_has_the_same_limits():
    limits = '<bandwidth><inbound average="9" floor="2"/><outbound average="8" peak="9"/></bandwidth>'
    card = f'<interface type="network"><mac address="52:54:00:00:00:01"/>{limits}</interface>'
    made = twin_of(domain(card), SPEC)
    assert limits in made and "52:54:00:00:00:02" in made


def test_a_network_of_its_own_gets_its_own_port_and_card():
    """Red when the arguments of the emulator are left as they are."""
    line = (
        '<q:commandline><q:arg value="-netdev"/>'
        '<q:arg value="user,id=own0,hostfwd=tcp:127.0.0.1:20001-:22"/><q:arg value="-device"/>'
        '<q:arg value="e1000e,netdev=own0,mac=52:54:00:00:00:01,bus=pcie.0,addr=0x10"/></q:commandline>'
    )
    made = twin_of(domain(tail=line), SPEC)
    assert "127.0.0.1:20002-:22" in made and "mac=52:54:00:00:00:02," in made and "20001" not in made
    with pytest.raises(InvalidSpec, match="20001"):
        twin_of(domain(tail=line), TwinSpec("twin", OTHER, macs=SPEC.macs))


@pytest.mark.parametrize(
    "device",
    [
        '<disk device="disk"><source file="/other.qcow2"/></disk>',
        '<disk type="block"><source dev="/dev/sda"/></disk>',
        '<disk type="volume"><source pool="p" volume="v"/></disk>',
        '<disk type="network"><source protocol="rbd" name="p/i"/></disk>',
        '<interface type="bridge"><mac address="52:54:00:00:00:09"/></interface>',
        '<interface type="bridge"/>',
        '<hostdev mode="subsystem" type="pci"/>',
        '<interface type="hostdev"><mac address="52:54:00:00:00:01"/></interface>',
        '<interface type="vdpa"><mac address="52:54:00:00:00:01"/><source dev="/dev/a"/></interface>',
        '<interface type="direct"><mac address="52:54:00:00:00:01"/><source mode="passthrough"/></interface>',
        '<memory model="nvdimm"><source><path>/memory/a</path></source></memory>',
        '<tpm model="tpm-tis"><backend type="passthrough"><device path="/dev/tpm0"/></backend></tpm>',
        '<tpm model="tpm-tis"><backend type="external"><source type="unix" path="/a"/></backend></tpm>',
        '<tpm model="tpm-tis"><backend type="emulator"><source type="dir" path="/a"/></backend></tpm>',
    ],
)
def test_what_two_cannot_have_is_refused(device):
    """Red when _card, _memory or _tpm refuses nothing, or _OWN has no line of them."""
    with pytest.raises(InvalidSpec):
        twin_of(domain(device), SPEC)


@pytest.mark.parametrize(
    "device",
    [
        '<disk device="cdrom"><target dev="sda"/></disk>',
        '<disk device="cdrom"><source file="/install.iso"/><readonly/></disk>',
        '<disk device="disk"><source file="/cluster.qcow2"/><shareable/></disk>',
        '<memory model="dimm"><source><pagesize>2048</pagesize></source></memory>',
        '<tpm model="tpm-crb"><backend type="emulator" version="2.0"/></tpm>',
    ],
)
def test_what_two_can_have_stays(device):
    assert device in twin_of(domain(device), SPEC)
