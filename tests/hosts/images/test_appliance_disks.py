"""An appliance of several disks: all become one image, or a person chooses one by its number."""

import hashlib
import itertools
import subprocess
from dataclasses import replace

import pytest
from django.urls import reverse

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.ova import archive
from portal.drivers.ova.appliance import Appliance, PackedDisk
from portal.hosts.images import checking, copies, importing, services, store, values
from portal.hosts.models import Image, Upload
from portal.operations import messages
from portal.operations.models import Operation
from portal.operations.states import State
from tests.hosts.conftest import carry_out
from tests.hosts.images.conftest import MIB, WANTED, Died, die, fail, files, imported, send
from tests.hosts.images.test_appliances import disk, raw_of
from tests.hosts.images.test_fetching import site  # noqa: F401 a fixture
from tests.hosts.images.test_importing import begin as begin_import
from tests.hosts.images.test_importing import served  # noqa: F401 a fixture

pytestmark = [pytest.mark.database, pytest.mark.django_db]
NAMES = ("system (1).qcow2", "data.vmdk", "more.qcow2")
SIZES = (2 * MIB, 3 * MIB, 2 * MIB)


@pytest.fixture
def parts(tmp_path):
    """The disks of `ova`, as they lie in it; the content of each is beside it as raw."""
    made = {}
    for name, form, size in zip(NAMES, ("qcow2", "vmdk", "qcow2"), SIZES, strict=True):
        content = bytes([len(made) + 1]) * (size - 512)
        boot = bytes(510) + b"\x55\xaa"
        options = ("subformat=streamOptimized",) if form == "vmdk" else ()
        made[name] = disk(tmp_path / f"{len(made) + 1}.raw", form, boot + content, options)
    return made


@pytest.fixture
def ova(parts, tmp_path):
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
    packed = tuple(PackedDisk(name, size) for name, size in zip(parts, SIZES, strict=True))
    paths = {name: tmp_path / name for name in parts}
    archive.pack(tmp_path / "x.ova", Appliance("web-1", 2, 512 * MIB, packed), paths, {})
    return (tmp_path / "x.ova").read_bytes()


VERSIONS = itertools.count(1)


@pytest.fixture
def begin(chief, uploads, pool):
    def begun(number=None, **changes):
        wanted = replace(WANTED, min_memory=0, version=str(next(VERSIONS)), **changes)
        return services.begin_upload(actor=chief, wanted=wanted, disk=number)

    return begun


@pytest.fixture
def too_many(monkeypatch):
    """More disks than become one image."""
    monkeypatch.setattr(values, "MOST_TOGETHER", 2)


def words_of(operation, code):
    return messages.sentence(code, operation.steps.get(error_code=code).error_raw)


def test_of_too_many_disks_the_one_is_taken_that_a_person_chose(
    chief, begin, parts, ova, uploads, tmp_path, too_many
):
    """Red when the file goes that nobody chose from yet, or another disk than the chosen one is unpacked."""
    upload = begin()
    operation = send(chief, upload, ova)
    assert imported(operation) == (State.FAILED, ["appliance_disks"])
    assert "a machine with 3 disks" in words_of(operation, "appliance_disks")
    assert files(uploads) == [".part"]
    upload.refresh_from_db()
    assert [(each["number"], each["capacity"]) for each in upload.disks] == list(enumerate(SIZES, 1))
    assert upload.disks[1]["file"] == "data.vmdk" and services.must_choose(upload)
    with pytest.raises(Denied, match="Choose first which disk"):
        services.retry(actor=chief, upload=upload)
    for number, words in ((None, "Choose which disk"), (4, "no disk 4.*from 1 to 3"), (0, "no disk 0")):
        with pytest.raises(Denied, match=words) as refused:
            services.choose_disk(actor=chief, upload=upload, number=number)
        assert refused.value.field == "disk"
    chosen = services.choose_disk(actor=chief, upload=upload, number=2)
    assert imported(chosen) == (State.SUCCEEDED, [])
    image = Image.objects.get()
    assert raw_of(image, tmp_path / "back") == (tmp_path / "2.raw").read_bytes()
    # Each disk of one file is an image of its own.
    assert image.sha256 == hashlib.sha256(parts["data.vmdk"]).hexdigest()
    assert (image.told["disk"], image.told["disks"], image.virtual_size) == (2, 3, SIZES[1])
    assert AuditEntry.objects.filter(verb="image.disk_chosen").count() == 1
    assert files(uploads) == [".part", ".qcow2"]


def test_what_was_fetched_is_chosen_from_without_fetching_it_again(
    chief, uploads, pool, served, ova, too_many  # noqa: F811
):
    """Red when Take.undo() removes what came whole: the choice would fetch all of it once more."""
    served.body, served.told = ova, len(ova)
    assert imported(begin_import(chief, served)) == (State.FAILED, ["appliance_disks"])
    upload = Upload.objects.get()
    assert files(uploads) == [".fetched"]
    # As for a file that a browser sent there must be room for what is made of it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "free_bytes", lambda: 3 * len(ova) - 1)
        with pytest.raises(Denied, match="needs .* with the copies made of it"):
            services.choose_disk(actor=chief, upload=upload, number=2)
    chosen = services.choose_disk(actor=chief, upload=upload, number=2)
    assert imported(chosen) == (State.SUCCEEDED, [])
    assert len(served.asked) == 1 and Image.objects.get().told["disk"] == 2


def test_a_number_that_is_told_beforehand_asks_nobody(chief, begin, ova, tmp_path):
    """Red when the identity of an image is that of the archive: the second disk would be known already."""
    for number in (1, 3):
        assert imported(send(chief, begin(number), ova)) == (State.SUCCEEDED, [])
        image = Image.objects.latest("pk")
        assert raw_of(image, tmp_path / "back") == (tmp_path / f"{number}.raw").read_bytes()
    again = send(chief, begin(3), ova)
    assert imported(again) == (State.FAILED, ["image_known"])
    assert "Example Linux" in words_of(again, "image_known")


def test_a_number_that_the_appliance_has_no_disk_of_is_told(chief, begin, ova, uploads):
    """Red when such a number counts as the last disk, or as none."""
    upload = begin(9)
    operation = send(chief, upload, ova)
    assert imported(operation) == (State.FAILED, ["appliance_no_disk"])
    assert "no disk with the number 9" in words_of(operation, "appliance_no_disk")
    upload.refresh_from_db()
    assert services.must_choose(upload) and files(uploads) == [".part"]
    assert imported(services.choose_disk(actor=chief, upload=upload, number=1)) == (State.SUCCEEDED, [])


def test_after_a_wrong_number_all_can_be_taken(client, chief, begin, ova):
    """Red when the page offers one disk alone, or choose_disk() wants a number."""
    upload = begin(9)
    imported(send(chief, upload, ova))
    client.force_login(chief)
    page = client.get(reverse("vms:upload", args=[upload.pk])).content.decode()
    assert "One image of all of them" in page and "data.vmdk" in page
    answer = client.post(reverse("vms:upload_choose", args=[upload.pk]), {"disk": ""})
    assert answer.status_code == 302
    assert imported(Operation.objects.latest("pk")) == (State.SUCCEEDED, [])
    assert len(Image.objects.get().further) == 2


def check_whole(image, place, uploads, tmp_path):
    """Compare an image of all disks with what was packed, at the portal and in a pool."""
    assert [image.virtual_size, *(disk["capacity"] for disk in image.further)] == list(SIZES)
    kept = image.attachments.get()
    volumes = {one.path: one for one in place.driver.list_volumes(place.pool.name)}
    assert sorted(volumes) == sorted(kept.paths) and len(volumes) == 3
    for number, (source, path) in enumerate(zip(image.sources, kept.paths, strict=True), 1):
        subprocess.run(
            ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", source, tmp_path / "back"], check=True
        )
        assert (tmp_path / "back").read_bytes() == (tmp_path / f"{number}.raw").read_bytes()
        assert volumes[path].capacity_bytes == SIZES[number - 1]
    assert files(uploads) == [".part", ".qcow2", ".qcow2", ".qcow2"]


def test_all_disks_of_an_appliance_become_one_image_and_go_with_it(
    chief, begin, pool, parts, ova, uploads, tmp_path, monkeypatch, django_capture_on_commit_callbacks
):
    """Red when the first disk alone is taken, Copy leaves the others, or the deletion keeps one of them."""
    assert imported(send(chief, begin(), ova)) == (State.SUCCEEDED, [])
    image = Image.objects.get()
    check_whole(image, pool, uploads, tmp_path)
    assert image.sha256 == hashlib.sha256(ova).hexdigest()
    told = [hashlib.sha256(content).hexdigest() for content in parts.values()]
    assert [disk["sha256"] for disk in image.further] == told[1:]
    assert "disk" not in image.told and "further" not in image.told
    services.sweep_uploads()
    assert files(uploads) == [".qcow2", ".qcow2", ".qcow2"]
    users = []
    monkeypatch.setattr("portal.hosts.sharing.users_of", lambda ask, pool, name: users.append(name) or [])
    with django_capture_on_commit_callbacks(execute=True):
        carry_out(services.delete_image(actor=chief, image=image, confirm_name=image.name))
    assert users == image.volume_names and not Image.objects.exists()
    assert pool.driver.list_volumes(pool.pool.name) == () and files(uploads) == []


def test_files_that_only_the_image_tells_of_stay_as_long_as_it_does(chief, begin, pool, ova, uploads):
    """Red when the sweep knows the first file of an image alone."""
    assert imported(send(chief, begin(), ova)) == (State.SUCCEEDED, [])
    Upload.objects.all().delete()
    services.sweep_uploads()
    assert files(uploads) == [".qcow2", ".qcow2", ".qcow2"]
    carry_out(services.delete_image(actor=chief, image=Image.objects.get(), confirm_name=WANTED.name))
    services.sweep_uploads()
    assert files(uploads) == []


def test_a_disk_that_cannot_be_taken_ends_the_import_and_leaves_nothing(
    chief, begin, pool, parts, uploads, tmp_path
):
    """Red when the first disks stay with the portal, or a broken one is left out without a word."""
    parts["more.qcow2"] = b"KDMV" + bytes(5000)
    packed = tuple(PackedDisk(name, size) for name, size in zip(parts, SIZES, strict=True))
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
    paths = {name: tmp_path / name for name in parts}
    archive.pack(tmp_path / "x.ova", Appliance("web-1", 2, 512 * MIB, packed), paths, {})
    operation = send(chief, begin(), (tmp_path / "x.ova").read_bytes())
    assert imported(operation)[0] == State.FAILED
    assert files(uploads) == [] and not Image.objects.exists()
    assert pool.driver.list_volumes(pool.pool.name) == ()


POINTS = {
    "when the second is unpacked": (archive.Archive, "unpack", 2),
    "when the third is unpacked": (archive.Archive, "unpack", 3),
    "when the second is converted": (checking.imagefile, "to_qcow2", 1),
    "before the archive goes": (store, "remove", 5),
    "when the second of its disks is in the pool": (importing, "call", 2),
    "when all of its disks are in the pool": (importing, "call", 3),
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("end", ["finish", "take back"])
def test_a_worker_that_dies_at_any_disk_leaves_nothing_stray(
    chief, begin, pool, ova, uploads, tmp_path, monkeypatch, point, end
):
    """Red when Check.undo or take_back() leave a further disk, or claim() knows the first volume alone."""
    place, name, count = POINTS[point]
    real, calls = getattr(place, name), []

    def dies(*args, **kwargs):
        found = real(*args, **kwargs)
        calls.append(args)
        if len(calls) == count:
            raise Died
        return found

    upload = begin()
    operation = send(chief, upload, ova)
    die(monkeypatch, operation, place, name, dies)
    if end == "finish":
        assert imported(operation) == (State.SUCCEEDED, [])
        check_whole(Image.objects.get(), pool, uploads, tmp_path)
        return
    copy = importing.Copy.do

    def fails(self, context):
        copy(self, context)
        fail()

    monkeypatch.setattr(importing.Copy, "do", fails)
    assert imported(operation)[0] == State.FAILED
    assert files(uploads) == [".part"] and not Image.objects.exists()
    assert pool.driver.list_volumes(pool.pool.name) == ()
    services.give_up(actor=chief, upload=Upload.objects.get())
    assert files(uploads) == []


def test_what_was_in_the_pool_before_is_not_taken_back(chief, begin, pool, ova, monkeypatch):
    """Red when an import deletes a further disk that somebody else put there."""
    upload = begin()
    operation = send(chief, upload, ova)
    claim = copies.claim

    def quicker(place, image):
        pool.driver.upload_image(pool.pool.name, image.volume_names[1], image.sources[1])
        claim(place, image)

    monkeypatch.setattr(copies, "claim", quicker)
    copy = importing.Copy.do
    monkeypatch.setattr(importing.Copy, "do", lambda self, context: (copy(self, context), fail()))
    assert imported(operation)[0] == State.FAILED
    [left] = pool.driver.list_volumes(pool.pool.name)
    assert left.name.endswith("-disk2.qcow2")


def test_a_number_for_a_file_that_is_no_appliance_is_told(chief, begin, uploads, tmp_path):
    """Red when Check does not ask what a number was told for."""
    upload = begin(2)
    operation = send(chief, upload, disk(tmp_path / "raw"))
    assert imported(operation) == (State.FAILED, ["appliance_none"])
    assert "number 2" in words_of(operation, "appliance_none")
    upload.refresh_from_db()
    assert services.must_choose(upload) and files(uploads) == [".part"]
    with pytest.raises(Denied, match="no OVA: leave the number"):
        services.choose_disk(actor=chief, upload=upload, number=1)
    assert imported(services.choose_disk(actor=chief, upload=upload, number=None)) == (State.SUCCEEDED, [])
    with pytest.raises(Denied, match="nothing to try again"):
        services.choose_disk(actor=chief, upload=upload, number=None)


@pytest.mark.parametrize(
    ("kind", "number", "words"), [("iso", 1, "A CD has no"), ("disk", 0, "from 1 to 64")]
)
def test_a_number_that_can_be_none_is_refused_at_once(begin, kind, number, words):
    with pytest.raises(Denied, match=words) as refused:
        begin(number, kind=kind)
    assert refused.value.field == "disk"


def test_the_page_lists_the_disks_and_takes_the_number(client, chief, begin, ova, too_many):
    """Red when the page still offers to import it as it is."""
    upload = begin()
    imported(send(chief, upload, ova))
    client.force_login(chief)
    url = reverse("vms:upload", args=[upload.pk])
    operation = Operation.objects.get()
    assert url in client.get(reverse("operations:detail", args=[operation.pk])).content.decode()
    page = client.get(url).content.decode()
    assert "Which disk is taken?" in page and "data.vmdk" in page and "Import it again" not in page
    answer = client.post(reverse("vms:upload_choose", args=[upload.pk]), {"disk": "7"})
    assert answer.status_code == 422 and "There is no disk 7" in answer.content.decode()
    answer = client.post(reverse("vms:upload_choose", args=[upload.pk]), {"disk": "3"})
    assert answer.status_code == 302
    upload.refresh_from_db()
    assert upload.disk == 3 and upload.state == "handed"
    assert "Which disk is taken?" not in client.get(url).content.decode()
