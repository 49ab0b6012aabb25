"""Raw disks of data in an appliance: those that its machine has besides the one that it starts from."""

import os
import subprocess
from dataclasses import replace

import pytest
from django.urls import reverse

from portal.drivers.ova import archive
from portal.drivers.ova.appliance import Appliance, PackedDisk
from portal.hosts.images import checking, importing, services, store
from portal.hosts.models import Image
from portal.operations import messages
from portal.operations.models import Operation
from portal.operations.registry import StepContext
from portal.operations.states import State
from tests.drivers.test_imagefile import disk_bytes
from tests.hosts.images.conftest import MIB, WANTED, Died, die, files, imported, send
from tests.hosts.images.test_appliances import raw_of

pytestmark = [pytest.mark.database, pytest.mark.django_db]
#: What a file system without a partition table leaves in the first sector: nothing.
DATA = (bytes(1080) + b"\x53\xef" + b"a file system of data").ljust(3 * MIB, b"\0")


def ova(tmp_path, *contents, sizes=None):
    """Return an appliance of disks as they are; `sizes` is what the descriptor says of them."""
    paths = {f"disk{number}.img": tmp_path / f"disk{number}.img" for number in range(len(contents))}
    for path, content in zip(paths.values(), contents, strict=True):
        path.write_bytes(content)
    told = sizes or [-(-len(content) // 512) * 512 for content in contents]
    disks = tuple(PackedDisk(name, size) for name, size in zip(paths, told, strict=True))
    archive.pack(tmp_path / "x.ova", Appliance("web-1", 2, 512 * MIB, disks), paths, {})
    return (tmp_path / "x.ova").read_bytes()


@pytest.fixture
def begin(chief, uploads, pool):
    return lambda number=None: services.begin_upload(
        actor=chief, wanted=replace(WANTED, min_memory=0), disk=number
    )


def test_a_raw_disk_of_data_besides_the_boot_disk_becomes_an_image(chief, begin, uploads, tmp_path, client):
    """Red when Check asks for a boot sector in it, or nobody is told that no machine starts from it."""
    operation = send(chief, begin(2), ova(tmp_path, disk_bytes(2 * MIB), DATA))
    assert imported(operation) == (State.SUCCEEDED, [])
    image = Image.objects.get()
    assert (image.format, image.virtual_size) == ("qcow2", 3 * MIB)
    assert raw_of(image, tmp_path / "back") == DATA
    assert operation.steps.get(name="check").remark == "appliance_data"
    assert "no machine starts" in messages.sentence("appliance_data")
    assert files(uploads) == [".part", ".qcow2"]
    client.force_login(chief)
    assert "data alone" in client.get(reverse("vms:image", args=[image.pk])).content.decode()


def test_of_several_disks_the_one_of_data_can_be_chosen_from_the_list(chief, begin, tmp_path):
    upload = begin(9)
    send(chief, upload, ova(tmp_path, disk_bytes(2 * MIB), DATA))
    assert imported(Operation.objects.get())[1] == ["appliance_no_disk"]
    chosen = services.choose_disk(actor=chief, upload=upload, number=2)
    assert imported(chosen) == (State.SUCCEEDED, [])
    assert Image.objects.get().told["data"] is True


def test_one_of_data_comes_with_the_boot_disk_when_all_are_taken(chief, begin, tmp_path):
    """Red when a further disk must be bootable, or the image of all counts as one of data alone."""
    operation = send(chief, begin(), ova(tmp_path, disk_bytes(2 * MIB), DATA))
    assert imported(operation) == (State.SUCCEEDED, [])
    image = Image.objects.get()
    assert [disk["capacity"] for disk in image.further] == [3 * MIB] and "data" not in image.told
    assert operation.steps.get(name="check").remark == ""


def test_a_disk_that_can_be_booted_is_none_of_data(chief, begin, tmp_path):
    operation = send(chief, begin(2), ova(tmp_path, disk_bytes(2 * MIB), disk_bytes(2 * MIB)))
    assert imported(operation) == (State.SUCCEEDED, [])
    assert "data" not in Image.objects.get().told and operation.steps.get(name="check").remark == ""


@pytest.mark.parametrize(("number", "count"), [(1, 2), (None, 1)])
def test_the_disk_that_a_machine_starts_from_must_be_bootable(
    chief, begin, uploads, tmp_path, number, count
):
    """Red when every disk of an appliance may lack a boot sector: no machine would start from the image."""
    operation = send(chief, begin(number), ova(tmp_path, *[DATA] * count))
    assert imported(operation) == (State.FAILED, ["image_unknown"])
    assert files(uploads) == [] and not Image.objects.exists()


@pytest.mark.parametrize("length", [3 * MIB - 512, 3 * MIB + 1, 100])
def test_what_is_not_as_long_as_the_descriptor_says_is_refused(chief, begin, uploads, tmp_path, length):
    """Red when any file beside the boot disk counts as a raw disk, such as half of one."""
    content = ova(tmp_path, disk_bytes(2 * MIB), DATA.ljust(length, b"x")[:length], sizes=[2 * MIB, 3 * MIB])
    operation = send(chief, begin(2), content)
    assert imported(operation) == (State.FAILED, ["appliance_no_data"])
    raw = operation.steps.get(error_code="appliance_no_data").error_raw
    assert f"{3 * MIB} bytes, and not {length}" in messages.sentence("appliance_no_data", raw)
    assert files(uploads) == [] and not Image.objects.exists()


def test_a_last_sector_that_is_not_whole_is_filled_up(chief, begin, tmp_path):
    operation = send(chief, begin(2), ova(tmp_path, disk_bytes(2 * MIB), DATA[: 2 * MIB - 100]))
    assert imported(operation) == (State.SUCCEEDED, [])
    assert Image.objects.get().virtual_size == 2 * MIB


def _iso():
    volume = bytearray(64 << 10)
    volume[0x8000:0x8007] = b"\x01CD001\x01"
    return bytes(volume)


@pytest.mark.parametrize(
    ("begins", "code"),
    [
        (b"\x1f\x8b", "image_packed"),
        (b"LUKS\xba\xbe", "image_foreign"),
        (b"COWD", "image_foreign"),
        (b"conectix", "image_damaged"),
        (b"KDMV", "image_damaged"),
        (b"QFI\xfb", "image_foreign"),
        (_iso(), "image_is_iso"),
        (None, "image_empty"),
    ],
)
def test_what_looks_like_something_else_is_judged_as_that(chief, begin, uploads, tmp_path, begins, code):
    """Red when a disk of data is taken byte for byte before its bytes were looked at."""
    content = b"" if begins is None else begins.ljust(MIB, b"\0")
    operation = send(chief, begin(2), ova(tmp_path, disk_bytes(2 * MIB), content))
    assert imported(operation) == (State.FAILED, [code])
    assert files(uploads) == [] and not Image.objects.exists()


def test_a_qcow2_that_reads_another_file_is_no_disk_of_data(chief, begin, uploads, tmp_path):
    path = tmp_path / "a.qcow2"
    backing = ["-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow"]
    subprocess.run(["qemu-img", "create", "-q", *backing, path, "1G"], check=True)
    operation = send(chief, begin(2), ova(tmp_path, disk_bytes(2 * MIB), path.read_bytes()))
    assert imported(operation) == (State.FAILED, ["image_backed"]) and files(uploads) == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["to_qcow2", "remove"])
def test_a_worker_that_dies_while_it_takes_a_disk_of_data(
    chief, begin, uploads, tmp_path, monkeypatch, what, when
):
    """Red when that it is one is told by what was judged last alone: whoever goes on finds a qcow2."""
    upload = begin(2)
    operation = send(chief, upload, ova(tmp_path, disk_bytes(2 * MIB), DATA))
    importing.Take().do(StepContext({}, operation.identifiers, lambda: None))
    place = checking.imagefile if what == "to_qcow2" else store
    real = getattr(place, what)

    def dies(*told, **more):
        # Of what is removed, that which comes after the conversion.
        if what == "remove" and not store.image_of(upload).exists():
            return real(*told, **more)
        if when == "after":
            real(*told, **more)
        raise Died

    die(monkeypatch, operation, place, what, dies)
    assert imported(operation) == (State.SUCCEEDED, [])
    assert operation.steps.get(name="check").remark == "appliance_data"
    assert raw_of(Image.objects.get(), tmp_path / "back") == DATA
    assert files(uploads) == [".part", ".qcow2"] and not os.path.exists(store.unpacked_of(upload))
