"""Appliances: what is packed is read again, and what others may send is refused for what it is."""

import hashlib
import io
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from portal.drivers.errors import InvalidSpec
from portal.drivers.ova import archive, descriptor
from portal.drivers.ova.appliance import Appliance, PackedDisk

MIB = 1 << 20
DISKS = (PackedDisk("web-1-vda.qcow2", 4 << 30), PackedDisk("web-1-vdb.qcow2", MIB))
MACHINE = Appliance("web-1", 2, 512 * MIB, DISKS, ("lan",), bus="virtio")
#: As VirtualBox writes one (shortened): another namespace version, megabytes, an IDE disk in a VMDK.
FOREIGN = """<?xml version="1.0"?>
<Envelope ovf:version="1.0" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vbox="http://www.virtualbox.org/ovf/machine">
 <References><File ovf:id="file1" ovf:href="old disk1.vmdk"{file}/></References>
 <DiskSection><Info/><Disk ovf:capacity="{capacity}"{disk} ovf:diskId="vmdisk1" ovf:fileRef="file1"
  ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
 <VirtualSystem ovf:id="old"><Info/>
  <VirtualHardwareSection><Info/>
   <Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
   <Item><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:ResourceType>4</rasd:ResourceType>
    <rasd:VirtualQuantity>256</rasd:VirtualQuantity></Item>
   <Item><rasd:HostResource>/disk/vmdisk1</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
   {item}
  </VirtualHardwareSection>
  <vbox:Machine version="1.12"/>
 </VirtualSystem>{more}
</Envelope>"""
#: Each entity is ten of the one before.
BOMB = (
    b"<!DOCTYPE x [<!ENTITY a0 'ha'>"
    + b"".join(b"<!ENTITY a%d '%s'>" % (number, b"&a%d;" % (number - 1) * 10) for number in range(1, 10))
    + b"]><Envelope>&a9;</Envelope>"
)
PARTS = {"file": "", "disk": "", "capacity": "8589934592", "item": "", "more": ""}


def _item(kind: str, quantity: str) -> str:
    told = {"ResourceType": kind, "VirtualQuantity": quantity}
    return f"<Item>{''.join(f'<rasd:{name}>{value}</rasd:{name}>' for name, value in told.items())}</Item>"


def foreign(**changes: str) -> bytes:
    return FOREIGN.format(**{**PARTS, **changes}).encode()


def test_what_is_packed_is_read_again_and_its_checksums_hold(tmp_path):
    """Red when pack() computes a checksum of anything but the file that it packs."""
    disks = {"web-1-vda.qcow2": b"a" * (3 * MIB + 5), "web-1-vdb.qcow2": b""}
    for name, content in disks.items():
        (tmp_path / name).write_bytes(content)
    files = {name: tmp_path / name for name in disks}
    sums = archive.pack(tmp_path / "x.ova", MACHINE, files, {"domain.xml": b"<domain/>"})
    assert sums["web-1-vda.qcow2"] == hashlib.sha256(disks["web-1-vda.qcow2"]).hexdigest()
    with archive.opened(tmp_path / "x.ova") as found:
        assert found.appliance() == MACHINE
        manifest = found.checksums()
        assert manifest == {name: ("sha256", value) for name, value in sums.items()}
        for name, content in disks.items():
            assert found.unpack(name, tmp_path / "out") == sums[name]
            assert (tmp_path / "out").read_bytes() == content
    with tarfile.open(tmp_path / "x.ova") as tar:
        assert tar.getnames()[:2] == ["web-1.ovf", "web-1.mf"]


@pytest.mark.parametrize(
    "hardware",
    [
        {"bus": "virtio", "card": "virtio"},
        {"secure_boot": True, "tpm": True, "bus": "sata", "card": "e1000e"},
        {"tpm": True, "bus": "ide", "card": "e1000"},
        {"bus": "nvme"},
    ],
)
def test_firmware_hardware_and_system_are_written_and_read_again(tmp_path, hardware):
    """Red when one of them is not written, or read by another's word for it alone."""
    (tmp_path / "d").write_bytes(b"x")
    machine = Appliance("m", 1, MIB, (PackedDisk("d", MIB),), ("lan",), uefi=True, systems=("debian12",))
    machine = replace(machine, **hardware)
    archive.pack(tmp_path / "x.ova", machine, {"d": tmp_path / "d"}, {})
    with archive.opened(tmp_path / "x.ova") as found:
        assert found.appliance() == machine


@pytest.mark.parametrize(
    ("section", "item", "systems", "uefi"),
    [
        (
            '<OperatingSystemSection vmw:osType="debian11_64Guest"><Info/>'
            "<Description>Debian GNU/Linux 11 (64-bit)</Description></OperatingSystemSection>",
            '<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>',
            ("Debian GNU/Linux 11 (64-bit)", "debian11_64Guest"),
            True,
        ),
        (
            "<OperatingSystemSection><Info/><Description>Debian_64</Description>"
            "<vbox:OSType>Debian_64</vbox:OSType></OperatingSystemSection>",
            '<vbox:Hardware><vbox:Firmware type="EFI"/></vbox:Hardware>',
            ("Debian_64",),
            True,
        ),
        ("", '<vmw:Config vmw:key="firmware" vmw:value="bios"/>', (), False),
        ("", '<vmw:Config vmw:key="bootOrderSupported" vmw:value="efi"/>', (), False),
    ],
)
def test_others_words_for_firmware_and_system_are_understood(section, item, systems, uefi):
    told = foreign(item=item).decode()
    told = told.replace("<VirtualHardwareSection>", f"{section}<VirtualHardwareSection>")
    vmw = 'xmlns:vmw="http://www.vmware.com/schema/ovf"'
    found = descriptor.read(told.replace("<Envelope ", f"<Envelope {vmw} ").encode())
    assert (found.systems, found.uefi) == (systems, uefi)


def hardware(*items: tuple[str, str], parent: str = "7", more: str = "") -> bytes:
    """Return a descriptor whose disk hangs on the item 7; `items` are resource types with their models."""
    told = "".join(
        f"<Item><rasd:InstanceID>{place}</rasd:InstanceID><rasd:ResourceSubType>{model}</rasd:ResourceSubType>"
        f"<rasd:ResourceType>{kind}</rasd:ResourceType></Item>"
        for place, (kind, model) in enumerate(items, 7)
    )
    disk = "/disk/vmdisk1</rasd:HostResource>"
    text = foreign(item=told + more).decode().replace(disk, f"{disk}<rasd:Parent>{parent}</rasd:Parent>")
    return text.replace("<Envelope ", '<Envelope xmlns:vmw="http://www.vmware.com/schema/ovf" ').encode()


EFI = '<vmw:Config vmw:key="firmware" vmw:value="efi"/>'
SIGNED = '<vmw:Config vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="{}"/>'
CHIP = '<vbox:TrustedPlatformModule type="{}"/>'


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (hardware(("6", "VirtualSCSI"), ("10", "VmxNet3")), ("scsi", "vmxnet3", False, False)),
        (hardware(("6", "lsilogic"), ("10", "E1000")), ("scsi", "e1000", False, False)),
        (hardware(("20", "AHCI"), ("10", "E1000 E1000e")), ("sata", "e1000", False, False)),
        (hardware(("20", "vmware.sata.ahci"), more=EFI + SIGNED.format("true")), ("sata", "", True, False)),
        (hardware(("5", "PIIX4"), more=EFI + SIGNED.format("false")), ("ide", "", False, False)),
        (hardware(("5", ""), more=SIGNED.format("true")), ("ide", "", False, False)),
        (hardware(("6", "virtio-scsi"), ("10", "virtio")), ("virtio", "virtio", False, False)),
        (hardware(("20", "nobody's")), ("", "", False, False)),
        (hardware(("6", "<![CDATA[x]]>"), ("1", "vmware.vtpm")), ("scsi", "", False, True)),
        (hardware(("6", "lsilogic"), parent="99", more=CHIP.format("v2_0")), ("", "", False, True)),
        (hardware(more=CHIP.format("None")), ("", "", False, False)),
    ],
)
def test_others_words_for_hardware_are_understood_and_unknown_ones_say_nothing(content, found):
    """Red when another controller than the disk's counts, or a stranger's word is kept as it is."""
    told = descriptor.read(content)
    assert (told.bus, told.card, told.secure_boot, told.tpm) == found


def test_the_descriptor_of_another_maker_is_understood():
    found = descriptor.read(foreign())
    disk = PackedDisk("old disk1.vmdk", 8 << 30, "vmdk")
    assert found == Appliance("old", 1, 256 * MIB, (disk,), ())
    unit = ' ovf:capacityAllocationUnits="byte * 2^30"'
    assert descriptor.read(foreign(capacity="8", disk=unit)).disks == (disk,)


def test_a_descriptor_of_the_second_version_is_understood():
    told = foreign().replace(b"<Item><rasd:HostResource>", b"<StorageItem><rasd:HostResource>")
    told = told.replace(b"17</rasd:ResourceType></Item>", b"17</rasd:ResourceType></StorageItem>")
    assert b"<StorageItem>" in told and descriptor.read(told) == descriptor.read(foreign())


EMPTY = (
    '<Disk ovf:capacity="{}" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk2"/></DiskSection>'
)
SECOND = (
    "<Item><rasd:HostResource>ovf:/disk/vmdisk2</rasd:HostResource>"
    "<rasd:ResourceType>17</rasd:ResourceType></Item>"
)


@pytest.mark.parametrize("capacity", ["5", "${data.size}"])
def test_a_disk_that_begins_empty_is_left_out(capacity):
    """Red when a disk without a file is refused, or one is counted that the machine does not have."""
    told = foreign(item=SECOND).replace(b"</DiskSection>", EMPTY.format(capacity).encode())
    found = descriptor.read(told)
    assert (found.disks, found.blank) == (descriptor.read(foreign()).disks, 1)
    beside = foreign().replace(b"</DiskSection>", EMPTY.format(capacity).encode())
    assert descriptor.read(beside) == descriptor.read(foreign())
    with pytest.raises(InvalidSpec, match="begin empty"):
        descriptor.read(told.replace(b"/disk/vmdisk1", b"/disk/vmdisk2"))
    with pytest.raises(InvalidSpec, match="based on another"):
        descriptor.read(told.replace(b'"vmdisk2"/>', b'"vmdisk2" ovf:parentRef="vmdisk1"/>'))


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("byte", 1),
        ("byte * 2^30", 1 << 30),
        ("byte*2^20", MIB),
        ("bytes * 10^6", 10**6),
        ("byte * 1024 * 1024", MIB),
        ("MegaBytes", MIB),
        ("MB", MIB),
        ("MiB", MIB),
        ("GB", 1 << 30),
        ("GigaBytes", 1 << 30),
        ("TB", 1 << 40),
    ],
)
def test_units_are_understood_as_the_specification_and_others_write_them(unit, size):
    """Red when only powers of two are taken, or the short words are not."""
    found = descriptor.read(foreign(capacity="3", disk=f' ovf:capacityAllocationUnits="{unit}"'))
    assert found.disks[0].capacity_bytes == 3 * size
    told = foreign().replace(b">256<", b">1<").replace(b">MegaBytes<", f">{unit}<".encode())
    assert descriptor.read(told).memory_bytes == size


def test_one_of_several_configurations_counts():
    """Red when what they have each is added up, or limits count as sizes."""
    several = "".join(
        _item("3", number).replace("<Item>", f'<Item ovf:configuration="c{number}">') for number in "48"
    )
    several += _item("4", "8192").replace("<Item>", '<Item ovf:bound="max">')
    found = descriptor.read(foreign(item=several))
    assert (found.vcpus, found.memory_bytes) == (1, 256 * MIB)
    # Without the one that every configuration has.
    one = b"3</rasd:ResourceType><rasd:VirtualQuantity>1<"
    alone = foreign(item=several).replace(one, b"9" + one, 1)
    assert descriptor.read(alone).vcpus == 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"file": ' ovf:compression="gzip"'}, "packed or in pieces"),
        ({"file": ' ovf:chunkSize="2147483648"'}, "packed or in pieces"),
        ({"disk": ' ovf:parentRef="vmdisk0"'}, "based on another"),
        ({"capacity": "-1"}, "is no size"),
        ({"capacity": "9" * 25}, "is no size"),
        ({"capacity": "eight"}, "is no size"),
        ({"disk": ' ovf:capacityAllocationUnits="byte * 2^999999999"'}, "nobody knows the unit"),
        ({"disk": ' ovf:capacityAllocationUnits="byte * 2^64"'}, "nobody knows the unit"),
        ({"disk": ' ovf:capacityAllocationUnits="byte * 0"'}, "nobody knows the unit"),
        ({"disk": ' ovf:capacityAllocationUnits="parsec"'}, "nobody knows the unit"),
        ({"more": '<VirtualSystem ovf:id="second"/>'}, "holds 2 machines"),
        ({"item": _item("3", "99999")}, "is none"),
        ({"item": _item("4", "9" * 18)}, "is none"),
        ({"item": _item("4", "9" * 21)}, "is no size"),
    ],
)
def test_a_descriptor_that_cannot_be_taken_is_refused_with_the_reason(changes, reason):
    with pytest.raises(InvalidSpec, match=reason):
        descriptor.read(foreign(**changes))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no element found"),
        (b"<Envelope", "unclosed token"),
        (b"<domain/>", "no OVF envelope"),
        (b"\xff\xfe\x00", "no UTF-8"),
        (b"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/shadow'>]><Envelope>&a;</Envelope>", "DTD"),
        (BOMB, "DTD"),
        (b" " * (MIB + 1), "longer than"),
        (foreign().replace(b'fileRef="file1"', b'fileRef="file9"'), "in no file"),
        (foreign().replace(b"/disk/vmdisk1", b"/disk/other"), "does not list"),
        (foreign().replace(b"/disk/vmdisk1", b""), "has no disk"),
    ],
)
def test_what_is_no_descriptor_is_refused(content, reason):
    with pytest.raises(InvalidSpec, match=reason):
        descriptor.read(content)


def made(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return path


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


@pytest.mark.parametrize(
    "bad",
    [
        entry("../../etc/cron.d/x"),
        entry("/etc/passwd"),
        entry("folder/disk.vmdk"),
        entry("old disk1.vmdk", kind=tarfile.SYMTYPE, link="/etc/shadow"),
        entry("old disk1.vmdk", kind=tarfile.LNKTYPE, link="/etc/shadow"),
        entry("old disk1.vmdk", kind=tarfile.CHRTYPE),
        entry("old disk1.vmdk", kind=tarfile.FIFOTYPE),
        entry("a\nb"),
        entry("old.ovf", b"twice"),
    ],
)
def test_an_archive_that_holds_more_than_plain_files_is_refused(tmp_path, bad):
    """Red when _looked_at() takes links, devices or paths."""
    path = made(tmp_path / "x.ova", entry("old.ovf", foreign()), bad)
    with pytest.raises(InvalidSpec, match="no plain file|twice"), archive.opened(path):
        pass


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([entry("a.vmdk", b"x")], "0 descriptors"),
        ([entry("a.ovf", foreign()), entry("b.ovf", foreign())], "2 descriptors"),
        ([entry("old.ovf", foreign())], "not in the archive"),
        ([entry("old.ovf", b" " * (MIB + 1))], "longer than"),
    ],
)
def test_an_archive_that_is_no_appliance_is_refused(tmp_path, entries, reason):
    path = made(tmp_path / "x.ova", *entries)
    with archive.opened(path) as found, pytest.raises(InvalidSpec, match=reason):
        found.appliance()


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    made = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    made[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    made[148:156] = b"        "
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


PAX = header(tarfile.XHDTYPE, 512)
LIE = b"20 size=-1048576000\n".ljust(512, b"\0")


@pytest.mark.parametrize(
    "content",
    [
        header(tarfile.XHDTYPE, 8 << 30),
        header(tarfile.GNUTYPE_LONGNAME, 8 << 30),
        header(tarfile.XGLTYPE, -512),
        header(tarfile.REGTYPE, 1 << 40, "a.ovf"),
        header(tarfile.REGTYPE, 1 << 80, "a.ovf"),
        header(tarfile.REGTYPE, -1024, "a.ovf"),
        PAX + LIE + header(tarfile.REGTYPE, 0, "a.ovf"),
        (PAX + b"10 a=bcde\n".ljust(512, b"\0")) * 5000,
        (header(tarfile.XHDTYPE, MIB) + b"9 a=bcd\n".ljust(MIB, b"\0")) * 6,
        PAX + b"22 hdrcharset=\xff\xfe\xff\xff\n".ljust(512, b"\0") + header(tarfile.REGTYPE, 0, "a.ovf"),
    ],
    ids=range(10),
)
def test_headers_that_lie_are_refused_and_cost_nothing(tmp_path, content):
    """Red when tarfile reads from the file itself: it takes what a header says into memory."""
    (tmp_path / "x.ova").write_bytes(content + bytes(4096))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidSpec), archive.opened(tmp_path / "x.ova") as found:
            found.appliance()
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


def test_a_descriptor_may_stand_last_but_is_what_the_manifest_says(tmp_path):
    """Red when appliance() does not compare the descriptor."""
    for content, good in ((foreign(), True), (b"another", False)):
        line = f"SHA256(old.ovf)= {hashlib.sha256(content).hexdigest()}\n".encode()
        parts = entry("old disk1.vmdk", b"x"), entry("old.mf", line), entry("old.ovf", foreign())
        with archive.opened(made(tmp_path / "x.ova", *parts)) as found:
            if good:
                assert found.appliance().name == "old"
            else:
                with pytest.raises(InvalidSpec, match=r"old\.ovf.*not what the manifest says"):
                    found.appliance()


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"\x1f\x8b" + b"x" * 600])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "x.ova").write_bytes(content)
    with pytest.raises(InvalidSpec), archive.opened(tmp_path / "x.ova") as found:
        found.appliance()


@pytest.mark.parametrize("kind", ["sha1", "sha256", "sha512"])
def test_a_file_is_compared_with_the_manifest(tmp_path, kind):
    """Red when unpack() compares nothing."""
    content = b"disk" * 1000
    for hashed, good in ((content, True), (b"another", False)):
        line = f"{kind.upper()}(old disk1.vmdk)= {hashlib.new(kind, hashed).hexdigest()}\n".encode()
        path = made(
            tmp_path / "x.ova",
            entry("old.ovf", foreign()),
            entry("old.mf", line),
            entry("old disk1.vmdk", content),
        )
        with archive.opened(path) as found:
            if good:
                assert found.unpack("old disk1.vmdk", tmp_path / "out") == hashlib.sha256(content).hexdigest()
            else:
                with pytest.raises(InvalidSpec, match="not what the manifest says"):
                    found.unpack("old disk1.vmdk", tmp_path / "out")


def test_a_manifest_that_is_none_and_an_archive_that_is_cut_off_are_refused(tmp_path):
    path = made(tmp_path / "x.ova", entry("old.ovf", foreign()), entry("old.mf", b"rubbish\n"))
    with archive.opened(path) as found, pytest.raises(InvalidSpec, match="no checksum"):
        found.checksums()
    disk = entry("old disk1.vmdk", b"x" * MIB)
    path = made(tmp_path / "y.ova", entry("old.ovf", foreign()), disk)
    path.write_bytes(path.read_bytes()[: MIB // 2])
    with pytest.raises(InvalidSpec, match="which would have 1048576 bytes"), archive.opened(path):
        pass


def test_packing_and_unpacking_end_when_they_are_told_to(tmp_path):
    """Red when the check is asked before the first piece only."""
    (tmp_path / "d").write_bytes(b"x" * (8 * MIB))
    machine = Appliance("m", 1, MIB, (PackedDisk("d", MIB),))
    archive.pack(tmp_path / "whole.ova", machine, {"d": tmp_path / "d"}, {})
    asked = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        archive.pack(tmp_path / "x.ova", machine, {"d": tmp_path / "d"}, {}, check)
    asked.clear()
    with archive.opened(tmp_path / "whole.ova") as found, pytest.raises(InterruptedError):
        found.unpack("d", tmp_path / "out", check)
