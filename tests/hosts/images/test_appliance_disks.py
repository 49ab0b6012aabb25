"""An appliance of several disks: a person chooses by its number which one is taken."""

import hashlib
import itertools
from dataclasses import replace

import pytest
from django.urls import reverse

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.ova import archive
from portal.drivers.ova.appliance import Appliance, PackedDisk
from portal.hosts.images import services, store
from portal.hosts.models import Image, Upload
from portal.operations import messages
from portal.operations.models import Operation
from portal.operations.states import State
from tests.hosts.images.conftest import MIB, WANTED, files, imported, send
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


def words_of(operation, code):
    return messages.sentence(code, operation.steps.get(error_code=code).error_raw)


def test_of_several_disks_the_one_is_taken_that_a_person_chose(chief, begin, parts, ova, uploads, tmp_path):
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
    chief, uploads, pool, served, ova  # noqa: F811
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


def test_the_page_lists_the_disks_and_takes_the_number(client, chief, begin, ova):
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
