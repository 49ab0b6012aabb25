"""Golden XML, the way back, and values that must never reach a host."""

import pickle
import uuid
from dataclasses import replace
from io import BytesIO

import pycdlib
import pytest

from portal.drivers.errors import InvalidSpec, NotSupported, PoolFull
from portal.drivers.libvirt.xml.domain import DomainElement
from portal.drivers.libvirt.xml.network import NetworkElement
from portal.drivers.libvirt.xml.volume import PoolElement, VolumeElement
from portal.drivers.registry import driver_for
from portal.drivers.seed import build_iso
from portal.drivers.types import (
    Accelerator,
    DeviceModel,
    DirectBoot,
    DiskSpec,
    DomainSpec,
    NetworkSpec,
    NicSpec,
    PoolSpec,
    SeedSpec,
    VolumeSpec,
)

UUID = "11111111-2222-4333-8444-555555555555"
HOSTILE = ["<a", "a&b", 'a"b', "a'b", "../x", "a/b", "a\nb", "a\n", "", " a", "-a", "a\0", "é"]
DOMAIN = DomainSpec(
    name="web",
    uuid=UUID,
    vcpus=2,
    memory_bytes=256 * 1024**2,
    disks=(DiskSpec("/pool/web.qcow2"),),
    nics=(NicSpec("52:54:00:00:00:01", "net"),),
    seed_path="/pool/web.iso",
    title="<&\"'>",
    accelerator=Accelerator.EMULATION,
)
NETWORK = NetworkSpec("net", UUID, "gt0", "10.1.0.1", 24, "10.1.0.10", "10.1.0.20")
NETWORK_XML = f"""<network xmlns:dnsmasq="http://libvirt.org/schemas/network/dnsmasq/1.0">
  <name>net</name>
  <uuid>{UUID}</uuid>
  <forward mode="nat" />
  <bridge name="gt0" stp="on" delay="0" />
  <ip address="10.1.0.1" prefix="24">
    <dhcp>
      <range start="10.1.0.10" end="10.1.0.20" />
    </dhcp>
  </ip>
  <dnsmasq:options>
    <dnsmasq:option value="no-ping" />
  </dnsmasq:options>
</network>"""
VOLUME_XML = """<volume type="file">
  <name>web.qcow2</name>
  <capacity unit="bytes">1048576</capacity>
  <allocation unit="bytes">0</allocation>
  <target>
    <format type="qcow2" />
    <compat>1.1</compat>
  </target>
  <backingStore>
    <path>/pool/base&lt;&amp;.qcow2</path>
    <format type="qcow2" />
  </backingStore>
</volume>"""
DOMAIN_HEAD = f"""<domain type="qemu">
  <name>web</name>
  <uuid>{UUID}</uuid>
  <title>&lt;&amp;"'&gt;</title>
  <memory unit="KiB">262144</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch="x86_64" machine="q35">hvm</type>
    <boot dev="hd" />
  </os>
  <features>
    <acpi />
    <tcg>
      <tb-cache unit="MiB">32</tb-cache>
    </tcg>
  </features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type="pci" index="0" model="pcie-root" />
"""
DOMAIN_DISKS = """    <controller type="scsi" index="0" model="virtio-scsi" />
    <disk type="file" device="disk">
      <driver name="qemu" type="qcow2" discard="unmap" />
      <source file="/pool/web.qcow2" />
      <target dev="vda" bus="virtio" />
    </disk>
    <disk type="file" device="cdrom">
      <driver name="qemu" type="raw" />
      <source file="/pool/web.iso" />
      <target dev="sda" bus="scsi" />
      <readonly />
    </disk>
    <interface type="network">
      <mac address="52:54:00:00:00:01" />
      <source network="net" />
      <model type="virtio" />
    </interface>
"""
DOMAIN_CONSOLES = """    <serial type="pty">
      <target port="0" />
    </serial>
    <console type="pty">
      <target type="serial" port="0" />
    </console>
    <channel type="unix">
      <target type="virtio" name="org.qemu.guest_agent.0" />
    </channel>
    <controller type="usb" index="0" model="qemu-xhci" />
    <input type="tablet" bus="usb" />
    <graphics type="vnc">
      <listen type="socket" />
    </graphics>
    <video>
      <model type="virtio" />
    </video>
"""


EMULATED = replace(DOMAIN, devices=DeviceModel.EMULATED, disks=(DiskSpec("/pool/web.qcow2", "sda"),))
EMULATED_DEVICES = """    <disk type="file" device="disk">
      <driver name="qemu" type="qcow2" discard="unmap" />
      <source file="/pool/web.qcow2" />
      <target dev="sda" bus="sata" />
    </disk>
    <disk type="file" device="cdrom">
      <driver name="qemu" type="raw" />
      <source file="/pool/web.iso" />
      <target dev="sdf" bus="sata" />
      <readonly />
    </disk>
    <interface type="network">
      <mac address="52:54:00:00:00:01" />
      <source network="net" />
      <model type="e1000e" />
    </interface>
    <serial type="pty">
      <target port="0" />
    </serial>
    <console type="pty">
      <target type="serial" port="0" />
    </console>
    <controller type="usb" index="0" model="ich9-ehci1" />
    <input type="tablet" bus="usb" />
    <graphics type="vnc">
      <listen type="socket" />
    </graphics>
    <video>
      <model type="vga" />
    </video>
    <memballoon model="none" />
  </devices>
</domain>"""


def test_emulated_devices_are_golden_and_read_back() -> None:
    """Red when any device of it is virtio: a system without those drivers would not see it."""
    text = DomainElement.to_xml(EMULATED)
    port = '    <controller type="pci" model="pcie-root-port" />\n'
    assert text == DOMAIN_HEAD + port * 12 + EMULATED_DEVICES
    assert DomainElement.from_xml(text) == EMULATED


def test_a_disk_is_named_as_its_devices_name_it() -> None:
    """Red when one pattern of targets serves both models; the seed's place is no disk's."""
    for spec, target in ((DOMAIN, "sda"), (EMULATED, "vda"), (EMULATED, "sdf")):
        with pytest.raises(InvalidSpec):
            DomainElement.to_xml(replace(spec, disks=(DiskSpec("/pool/web.qcow2", target),)))


def test_domain_is_golden_and_reads_back() -> None:
    text = DomainElement.to_xml(DOMAIN)
    port = '    <controller type="pci" model="pcie-root-port" />\n'
    assert text.startswith(DOMAIN_HEAD + port * 12 + DOMAIN_DISKS + DOMAIN_CONSOLES)
    assert DomainElement.from_xml(text) == DOMAIN
    less = replace(DOMAIN, memory_now_bytes=128 << 20)
    assert DomainElement.from_xml(DomainElement.to_xml(less)) == less


WINDOWS = replace(
    DOMAIN,
    title="",
    seed_path=None,
    accelerator=Accelerator.KVM,
    cds=("/cd/windows.iso", "/cd/virtio.iso"),
    installs=True,
    uefi=True,
    secure_boot=True,
    tpm=True,
    windows=True,
)
WINDOWS_HEAD = f"""<domain type="kvm">
  <name>web</name>
  <uuid>{UUID}</uuid>
  <memory unit="KiB">262144</memory>
  <vcpu>2</vcpu>
  <os firmware="efi">
    <type arch="x86_64" machine="q35">hvm</type>
    <firmware>
      <feature enabled="yes" name="enrolled-keys" />
      <feature enabled="yes" name="secure-boot" />
    </firmware>
    <boot dev="cdrom" />
    <boot dev="hd" />
  </os>
  <features>
    <acpi />
    <smm state="on" />
    <hyperv mode="custom">
      <relaxed state="on" />
      <vapic state="on" />
      <vpindex state="on" />
      <synic state="on" />
      <stimer state="on" />
      <frequencies state="on" />
      <spinlocks state="on" retries="8191" />
    </hyperv>
  </features>
  <cpu mode="host-model" />
  <clock offset="localtime">
    <timer name="rtc" tickpolicy="catchup" />
    <timer name="pit" tickpolicy="delay" />
    <timer name="hpet" present="no" />
    <timer name="hypervclock" present="yes" />
  </clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
"""
WINDOWS_DRIVES = """    <disk type="file" device="cdrom">
      <driver name="qemu" type="raw" />
      <source file="/cd/windows.iso" />
      <target dev="sdb" bus="sata" />
      <readonly />
    </disk>
    <disk type="file" device="cdrom">
      <driver name="qemu" type="raw" />
      <source file="/cd/virtio.iso" />
      <target dev="sdc" bus="sata" />
      <readonly />
    </disk>
"""
WINDOWS_TPM = """    <tpm model="tpm-crb">
      <backend type="emulator" version="2.0" />
    </tpm>
"""


def test_a_domain_for_windows_is_golden_and_reads_back() -> None:
    """Red when a CD is on a bus that Windows' setup has no driver for, or the seed comes before the CDs."""
    text = DomainElement.to_xml(WINDOWS)
    assert text.startswith(WINDOWS_HEAD)
    assert WINDOWS_DRIVES in text and WINDOWS_TPM in text
    assert DomainElement.from_xml(text) == WINDOWS


def test_a_processor_that_is_emulated_has_no_interfaces_of_hyperv() -> None:
    """Red when they are written for every accelerator: QEMU does not start with them then."""
    text = DomainElement.to_xml(replace(WINDOWS, accelerator=Accelerator.EMULATION))
    assert "hyperv" not in text and '<clock offset="localtime">' in text


@pytest.mark.parametrize("spec", [DOMAIN, EMULATED], ids=["paravirtual", "emulated"])
def test_an_installers_cds_read_back_beside_the_seed(spec: DomainSpec) -> None:
    """Red when the first cdrom of a domain is taken for its seed."""
    made = replace(spec, cds=("/cd/one.iso", "/cd/two.iso"), installs=True)
    text = DomainElement.to_xml(made)
    assert text.index("/cd/one.iso") < text.index("/pool/web.iso")
    assert DomainElement.from_xml(text) == made


def test_an_installer_that_restarts_is_off() -> None:
    """Red when on_reboot stays: a kernel given from outside would begin the installation again."""
    assert "<on_reboot>destroy</on_reboot>" in DomainElement.to_xml(replace(DOMAIN, installs=True))
    assert "<on_reboot>restart</on_reboot>" in DomainElement.to_xml(DOMAIN)


@pytest.mark.parametrize(
    "spec",
    [
        replace(DOMAIN, cds=("/a.iso", "/b.iso", "/c.iso")),
        replace(DOMAIN, cds=("../a.iso",)),
        replace(EMULATED, cds=("/a.iso",), disks=(DiskSpec("/pool/web.qcow2", "sde"),)),
    ],
)
def test_cds_that_have_no_drive_of_their_own_are_refused(spec: DomainSpec) -> None:
    with pytest.raises(InvalidSpec):
        DomainElement.to_xml(spec)


def test_network_is_golden_and_reads_back() -> None:
    assert NetworkElement.to_xml(NETWORK) == NETWORK_XML
    isolated = replace(NETWORK, nat=False)
    assert NetworkElement.from_xml(NETWORK_XML) == NETWORK
    assert NetworkElement.from_xml(NetworkElement.to_xml(isolated)) == isolated


OWN = replace(DOMAIN, nics=(NicSpec("52:54:00:00:00:01", ssh_port=22022),))
OWN_XML = """  <qemu:commandline>
    <qemu:arg value="-netdev" />
    <qemu:arg value="user,id=own0,hostfwd=tcp:127.0.0.1:22022-:22" />
    <qemu:arg value="-device" />
    <qemu:arg value="virtio-net-pci,netdev=own0,mac=52:54:00:00:00:01,bus=pcie.0,addr=0x10" />
  </qemu:commandline>
</domain>"""


def test_a_network_of_ones_own_is_golden_and_reads_back() -> None:
    """Red when the port listens on more than the host's loopback, or the card is put into <devices> too."""
    text = DomainElement.to_xml(OWN)
    assert text.startswith('<domain xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0" type="qemu">')
    assert text.endswith(OWN_XML) and "<interface" not in text
    assert DomainElement.from_xml(text) == OWN
    emulated = replace(EMULATED, nics=OWN.nics)
    assert 'value="e1000e,netdev=own0,mac=52:54:00:00:00:01,bus=pcie' in DomainElement.to_xml(emulated)
    assert DomainElement.from_xml(DomainElement.to_xml(emulated)) == emulated


@pytest.mark.parametrize(
    "nic", [NicSpec("52:54:00:00:00:01"), NicSpec("52:54:00:00:00:01", "net", 22022)]
    + [NicSpec("52:54:00:00:00:01", ssh_port=port) for port in (22, -1, 65536)],
)
def test_a_card_has_a_network_or_a_port(nic: NicSpec) -> None:
    with pytest.raises(InvalidSpec):
        DomainElement.to_xml(replace(DOMAIN, nics=(nic,)))


def test_volume_is_golden_and_pool_reads_back() -> None:
    spec = VolumeSpec("pool", "web.qcow2", 1048576, backing_path="/pool/base<&.qcow2")
    assert VolumeElement.to_xml(spec) == VOLUME_XML
    pool = PoolSpec("pool", UUID, "/pool")
    assert PoolElement.from_xml(PoolElement.to_xml(pool)) == pool


def test_emulated_kernel_gets_its_arguments_once() -> None:
    boot = DirectBoot("/k", "/i", "console=ttyS0 no_timer_check")
    text = DomainElement.to_xml(replace(DOMAIN, boot=boot))
    read = DomainElement.from_xml(text).boot
    assert read == replace(boot, cmdline="console=ttyS0 no_timer_check panic=5")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(name: str) -> None:
    for build in (
        lambda: DomainElement.to_xml(replace(DOMAIN, name=name)),
        lambda: DomainElement.to_xml(replace(DOMAIN, nics=(NicSpec("52:54:00:00:00:01", name),))),
        lambda: NetworkElement.to_xml(replace(NETWORK, name=name)),
        lambda: NetworkElement.to_xml(replace(NETWORK, bridge=name)),
        lambda: PoolElement.to_xml(PoolSpec(name, UUID, "/pool")),
        lambda: VolumeElement.to_xml(VolumeSpec("pool", name, 512)),
        lambda: VolumeElement.raw_xml(name, 512),
    ):
        with pytest.raises(InvalidSpec):
            build()


@pytest.mark.parametrize(
    "change",
    [
        {"uuid": "x"},
        {"uuid": UUID.replace("-", "")},
        {"title": "a\nb"},
        {"vcpus": 0},
        {"memory_bytes": 1000},
        {"seed_path": "relative.iso"},
        {"disks": (DiskSpec("/pool/../etc/shadow"),)},
        {"disks": (DiskSpec("/a", format="vmdk"),)},
        {"disks": (DiskSpec("/a"), DiskSpec("/b"))},
        {"nics": (NicSpec("53:54:00:00:00:01", "net"),)},
    ],
)
def test_hostile_domains_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidSpec):
        DomainElement.to_xml(replace(DOMAIN, **change))


@pytest.mark.parametrize(
    "change",
    [{"dhcp_end": "10.2.0.1"}, {"dhcp_start": "10.1.0.1"}, {"prefix": 40}, {"address": "x"}],
)
def test_impossible_networks_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidSpec):
        NetworkElement.to_xml(replace(NETWORK, **change))


def test_seed_holds_its_documents() -> None:
    content = build_iso(SeedSpec("pool", "a.iso", "instance-id: é\n", "#cloud-config\n", "version: 2\n"))
    iso = pycdlib.PyCdlib()
    iso.open_fp(BytesIO(content))
    label = iso.pvd.volume_identifier.decode().strip()
    read = {}
    for name in ("meta-data", "user-data", "network-config"):
        target = BytesIO()
        iso.get_file_from_iso_fp(target, rr_path=f"/{name}")
        read[name] = target.getvalue().decode()
    iso.close()
    assert label == "cidata"
    assert read["meta-data"] == "instance-id: é\n"
    assert read["user-data"] == "#cloud-config\n"
    assert read["network-config"] == "version: 2\n"


def test_errors_survive_a_process_boundary_and_schemes_are_known() -> None:
    error = pickle.loads(pickle.dumps(PoolFull("no room", retryable=True)))
    assert (type(error), error.raw, error.retryable) == (PoolFull, "no room", True)
    with pytest.raises(NotSupported):
        driver_for(f"nonsense://{uuid.uuid4()}")


@pytest.mark.parametrize("text", ["<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "<a", "<domain/>"])
def test_unexpected_xml_is_refused(text: str) -> None:
    with pytest.raises(InvalidSpec):
        DomainElement.from_xml(text)
