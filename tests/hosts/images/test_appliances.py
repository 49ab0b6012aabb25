"""Appliances (OVA) that people hand in: a disk becomes an image, and what is no such thing is told."""

import hashlib
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from django.urls import reverse

from portal.drivers.ova import archive
from portal.drivers.ova.appliance import Appliance, PackedDisk
from portal.hosts.images import appliances, checking, importing, services, store
from portal.hosts.models import Image, Upload
from portal.operations import messages
from portal.operations.states import State
from tests.drivers.test_imagefile import disk_bytes
from tests.drivers.test_ova import BOMB, EMPTY, SECOND, entry, foreign, made
from tests.hosts.images.conftest import MIB, WANTED, Died, die, fail, files, imported, send

pytestmark = [pytest.mark.database, pytest.mark.django_db]
OVA = replace(WANTED, min_memory=0)
STREAM = ("subformat=streamOptimized",)


@pytest.fixture
def upload(chief, uploads):
    return services.begin_upload(actor=chief, wanted=OVA)


def disk(path, form="qcow2", content=None, options=()):
    """Return a disk of a format with a boot sector and noise, as bytes; `path` is its content as raw."""
    path.write_bytes(content or disk_bytes(2 * MIB))
    if form == "raw":
        return path.read_bytes()
    target = path.with_suffix(f".{form}")
    told = [word for option in options for word in ("-o", option)]
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, *told, path, target], check=True)
    return target.read_bytes()


def packed(tmp_path, content, name="disk.qcow2", **changes):
    """Return an appliance of one disk as the portal itself writes one."""
    (tmp_path / name).write_bytes(content)
    machine = Appliance("web-1", 2, 512 * MIB, (PackedDisk(name, 2 * MIB),), ("lan",))
    archive.pack(tmp_path / "x.ova", replace(machine, **changes), {name: tmp_path / name}, {})
    return (tmp_path / "x.ova").read_bytes()


def foreign_ova(tmp_path, *parts):
    return made(tmp_path / "y.ova", *parts).read_bytes()


def raw_of(image, target):
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image.source, target], check=True)
    return Path(target).read_bytes()


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("qcow2", ()),
        ("raw", ()),
        ("vmdk", STREAM),
        ("vmdk", ("subformat=monolithicSparse",)),
        ("vpc", ("force_size=on",)),
    ],
)
def test_a_disk_of_each_format_becomes_an_image(chief, uploads, pool, upload, tmp_path, form, options):
    """Red when the disk is taken for what the descriptor says of its format, or the archive for the disk."""
    whole = disk(tmp_path / "raw", form, options=options)
    content = packed(tmp_path, whole, uefi=True, systems=("debian11",))
    operation = send(chief, upload, content, name="web-1.ova")
    assert imported(operation) == (State.SUCCEEDED, [])
    image = Image.objects.get()
    assert (image.format, image.virtual_size) == ("qcow2", 2 * MIB)
    assert image.sha256 == hashlib.sha256(content).hexdigest()
    assert (image.os, image.uefi, image.min_memory) == ("debian11", True, 512 * MIB)
    assert (image.told["name"], image.told["vcpus"], image.told["networks"]) == ("web-1", 2, ["lan"])
    assert raw_of(image, tmp_path / "back") == (tmp_path / "raw").read_bytes()
    volume = pool.driver.volume_info(pool.pool.name, image.volume_name)
    assert volume.format == "qcow2" and image.attachments.get().path == volume.path
    # Neither the archive nor what was unpacked of it; what the browser sent goes with the commit.
    assert files(uploads) == [".part", ".qcow2"]


def test_a_disk_that_begins_empty_is_told_and_keeps_nobody_from_the_other(
    chief, uploads, pool, upload, tmp_path, client
):
    """Red when Check does not return the remark, or one must choose among disks of which one has no file."""
    told = foreign(item=SECOND).replace(b"</DiskSection>", EMPTY.format(5).encode())
    whole = disk(tmp_path / "raw", "vmdk", options=STREAM)
    content = foreign_ova(tmp_path, entry("old.ovf", told), entry(VMDK, whole))
    operation = send(chief, upload, content)
    assert imported(operation) == (State.SUCCEEDED, [])
    assert operation.steps.get(name="check").remark == "appliance_blank"
    assert "begins empty" in messages.sentence("appliance_blank")
    image = Image.objects.get()
    assert (image.told["blank"], "disk" in image.told) == (1, False)
    assert image.sha256 == hashlib.sha256(content).hexdigest()
    client.force_login(chief)
    assert "Disks that begin empty" in client.get(reverse("vms:image", args=[image.pk])).content.decode()


def test_what_a_person_said_is_not_said_otherwise(chief, uploads, pool, tmp_path):
    """Red when the descriptor overrules the form."""
    wanted = replace(WANTED, os="win10", min_memory=64 * MIB)
    upload = services.begin_upload(actor=chief, wanted=wanted)
    content = packed(tmp_path, disk(tmp_path / "raw"), systems=("debian11",))
    imported(send(chief, upload, content))
    image = Image.objects.get()
    assert (image.os, image.min_memory, image.told["os"]) == ("win10", 64 * MIB, "debian11")


@pytest.mark.parametrize(
    ("hardware", "models"),
    [
        ({"bus": "virtio", "card": "virtio"}, ["paravirtual"]),
        ({"bus": "virtio", "card": "e1000"}, ["emulated"]),
        ({"bus": "sata", "card": "e1000e", "secure_boot": True, "tpm": True}, ["emulated"]),
    ],
)
def test_its_firmware_and_hardware_are_what_machines_get(
    chief, uploads, pool, tmp_path, client, hardware, models
):
    """Red when _make() forgets the board, or gives virtio to a system that may have no drivers for it."""
    upload = services.begin_upload(actor=chief, wanted=replace(OVA, device_models=()))
    packing = {"uefi": True, **hardware}
    assert imported(send(chief, upload, packed(tmp_path, disk(tmp_path / "raw"), **packing)))[1] == []
    image = Image.objects.get()
    assert image.device_models == models
    secure = hardware.get("secure_boot", False)
    assert (image.uefi, image.secure_boot, image.tpm) == (True, secure, secure)
    assert (image.told["card"], image.told["cards"]) == (hardware["card"], 1)
    client.force_login(chief)
    page = client.get(reverse("vms:image", args=[image.pk])).content.decode()
    assert hardware["card"] in page and ("UEFI with Secure Boot and a TPM" in page) == secure
    # What a person says counts.
    said = services.begin_upload(actor=chief, wanted=replace(OVA, version="2"))
    imported(send(chief, said, packed(tmp_path, disk(tmp_path / "raw", content=disk_bytes(MIB)), **packing)))
    assert Image.objects.get(version="2").device_models == ["paravirtual"]


def test_a_disk_by_itself_needs_a_gib_where_nothing_is_said(chief, uploads, pool, upload, tmp_path):
    imported(send(chief, upload, disk(tmp_path / "raw")))
    image = Image.objects.get()
    assert (image.min_memory, image.told, image.uefi) == (1 << 30, {}, False)
    assert image.device_models == ["paravirtual"]


VMDK = "old disk1.vmdk"
LINK = entry(VMDK, kind=tarfile.SYMTYPE, link="/etc/shadow")
NO_DISK = entry("old.ovf", foreign())
LIED = f"SHA256({VMDK})= {'0' * 64}\n".encode()


@pytest.mark.parametrize(
    ("parts", "code", "words"),
    [
        ([NO_DISK], "appliance_unfit", "'old disk1.vmdk' is not in the archive"),
        ([NO_DISK, entry(VMDK, b"x"), entry("old.mf", LIED)], "appliance_unfit", "its SHA256 differs"),
        ([NO_DISK, entry(VMDK, b"x"), entry("../../etc/cron.d/x")], "appliance_unfit", "no plain file"),
        ([NO_DISK, LINK], "appliance_unfit", "no plain file"),
        ([NO_DISK, entry(VMDK, b"x"), entry(VMDK, b"y")], "appliance_unfit", "twice"),
        ([entry("old.ovf", BOMB), entry(VMDK, b"x")], "appliance_unfit", "DTD"),
        ([NO_DISK, entry(VMDK, b"conectix" + bytes(2000))], "image_damaged", "its header"),
        ([NO_DISK, entry(VMDK, b"# Disk DescriptorFile" + bytes(2000))], "image_foreign", "VMDK"),
        ([NO_DISK, entry(VMDK, b"\x1f\x8b" + bytes(2000))], "image_packed", "gzip"),
        ([NO_DISK, entry(VMDK, b"")], "image_empty", "empty"),
        ([NO_DISK, entry(VMDK, bytes(2000))], "image_unknown", "no disk"),
        ([entry("a.txt", b"x")], "image_packed", "tar"),
    ],
)
def test_what_is_no_appliance_that_can_be_taken_is_told_and_goes(
    chief, uploads, pool, upload, tmp_path, parts, code, words
):
    """Red when what is unpacked is left, or the sentence does not name what was found."""
    operation = send(chief, upload, foreign_ova(tmp_path, *parts))
    assert imported(operation) == (State.FAILED, [code])
    assert words in messages.sentence(code, operation.steps.get(error_code=code).error_raw)
    assert files(uploads) == [] and not Image.objects.exists()
    assert pool.driver.list_volumes(pool.pool.name) == ()


def test_a_disk_that_reads_another_file_is_refused(chief, uploads, pool, upload, tmp_path):
    path = tmp_path / "a.qcow2"
    backing = ["-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow"]
    subprocess.run(["qemu-img", "create", "-q", *backing, path, "1G"], check=True)
    operation = send(chief, upload, packed(tmp_path, path.read_bytes()))
    assert imported(operation) == (State.FAILED, ["image_backed"])
    assert files(uploads) == []


def test_an_appliance_is_no_cd(chief, uploads, pool, tmp_path):
    upload = services.begin_upload(actor=chief, wanted=replace(WANTED, kind="iso", login_user=""))
    content = packed(tmp_path, disk(tmp_path / "raw"))
    assert imported(send(chief, upload, content)) == (State.FAILED, ["image_packed"])


@pytest.mark.parametrize("room", [MIB, 3 * MIB])
def test_a_full_disk_is_told_and_the_file_is_kept(chief, uploads, pool, upload, tmp_path, monkeypatch, room):
    """Red when the disk's size is not looked at before it is unpacked, or its room before it is
    converted, or when
    Check.undo leaves what was unpacked.
    """
    form, options = ("raw", ()) if room == MIB else ("vmdk", STREAM)
    noise = disk_bytes(6 * MIB) if form == "raw" else (disk_bytes(512) + b"gatehouse" * (8 * MIB // 9))
    content = packed(tmp_path, disk(tmp_path / "raw", form, noise[: 8 * MIB // 512 * 512], options))
    operation = send(chief, upload, content)
    importing.Take().do(context := importing.StepContext({}, operation.identifiers, lambda: None))
    with monkeypatch.context() as patched:
        patched.setattr(store, "free_bytes", lambda: room)
        with pytest.raises(importing.StepFailed) as failed:
            importing.Check().do(context)
    assert failed.value.code == "store_full"
    importing.Check().undo(context)
    importing.Take().undo(context)
    assert files(uploads) == [".part"]
    assert imported(operation) == (State.SUCCEEDED, [])


POINTS = {
    "while it unpacks": (archive.Archive, "unpack", "before"),
    "when it is unpacked": (archive.Archive, "unpack", "after"),
    "while it converts": (checking.imagefile, "to_qcow2", "before"),
    "when it is converted": (checking.imagefile, "to_qcow2", "after"),
    "before the archive goes": (store, "remove", "before"),
    "when the archive is gone": (store, "remove", "after"),
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("end", ["finish", "take back"])
def test_a_worker_that_dies_at_any_point_leaves_nothing_stray(
    chief, uploads, pool, upload, tmp_path, monkeypatch, point, end
):
    """Red when a half conversion counts as the image, or what the appliance says goes with the archive."""
    content = packed(tmp_path, disk(tmp_path / "raw", "vmdk", options=STREAM), uefi=True)
    operation = send(chief, upload, content)
    importing.Take().do(importing.StepContext({}, operation.identifiers, lambda: None))
    place, name, when = POINTS[point]
    real = getattr(place, name)

    def dies(*args, **kwargs):
        if when == "after":
            real(*args, **kwargs)
        else:
            # Half of a file.
            for target in (store.unpacked_of(upload), store.image_of(upload)):
                if name != "remove" and not target.exists():
                    target.write_bytes(b"half")
        raise Died

    die(monkeypatch, operation, place, name, dies)
    if end == "finish":
        assert imported(operation) == (State.SUCCEEDED, [])
        image = Image.objects.get()
        assert image.uefi and image.told["name"] == "web-1" and image.virtual_size == 2 * MIB
        assert raw_of(image, tmp_path / "back") == (tmp_path / "raw").read_bytes()
        assert files(uploads) == [".part", ".qcow2"]
        return
    monkeypatch.setattr(importing.Copy, "do", lambda self, context: fail())
    assert imported(operation)[0] == State.FAILED
    assert files(uploads) == [".part"] and not Image.objects.exists()
    services.give_up(actor=chief, upload=Upload.objects.get())
    assert files(uploads) == []


@pytest.mark.parametrize(
    ("words", "system"),
    [
        (("debian11",), "debian11"),
        (("Debian GNU/Linux 11 (64-bit)", "debian11_64Guest"), "debian11"),
        (("Other", "debian10_64Guest"), "debian10"),
        (("Debian_64",), ""),
        (("Ubuntu22_LTS_64",), "ubuntu22.04"),
        (("ubuntu64Guest",), ""),
        (("fedora64Guest",), ""),
        (("windows9_64Guest",), "win10"),
        (("Windows11_64",), "win11"),
        (("windows2019srv_64Guest",), "win2k19"),
        (("windows2019srvNext_64Guest",), "win2k22"),
        (("Microsoft Windows Server 2022 (64-bit)",), "win2k22"),
        (("centos7_64Guest",), "centos7.0"),
        (("../etc/x", ""), ""),
        ((), ""),
    ],
)
def test_others_names_of_systems_are_translated(words, system):
    """Red when the width of a processor counts as a release."""
    assert appliances.system_of(words) == system


def test_what_an_appliance_is_called_can_be_shown():
    found = Appliance("a\n\x1b[31m" + "b" * 300, 1, MIB, (), networks=("x\0", "", "x\0"))
    told = appliances.said_by(found)
    assert told["name"].isprintable() and len(told["name"]) == 100 and told["networks"] == ["x"]
