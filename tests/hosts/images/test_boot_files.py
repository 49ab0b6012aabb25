"""An installer's kernel and initrd on its CD: found where osinfo-db says, and only what can be them."""

from dataclasses import replace

import pytest

from portal.drivers.types import VolumeInfo
from portal.hosts import enrolment
from portal.hosts.images import boot_files, services
from portal.hosts.models import Image
from portal.operations.registry import StepContext
from portal.operations.states import State
from tests.cds import KERNEL, make_cd
from tests.factories import make_host, make_image, make_place
from tests.hosts.images.conftest import WANTED, imported, send

DEBIAN = ["install.amd/vmlinuz", "install.amd/initrd.gz"]
INITRD = b"\x1f\x8b" + b"initrd" * 1000


def test_a_cds_kernel_and_initrd_lie_where_osinfo_db_says(tmp_path):
    """Red when the names are an own table's, or the pieces are another file's."""
    cd = str(make_cd(tmp_path / "a", {DEBIAN[0]: KERNEL, DEBIAN[1]: INITRD, "install.amd/other": b"x"}))
    assert boot_files.found(cd) == [DEBIAN]
    kernel, initrd = boot_files.places(cd, *DEBIAN)
    whole = (tmp_path / "a").read_bytes()
    assert whole[kernel.at : kernel.at + kernel.length] == KERNEL
    assert whole[initrd.at : initrd.at + initrd.length] == INITRD


@pytest.mark.parametrize(
    "files",
    [
        {DEBIAN[0]: KERNEL},
        {DEBIAN[1]: INITRD},
        {DEBIAN[0]: b"\x7fELF" + bytes(2000), DEBIAN[1]: INITRD},
        {DEBIAN[0]: b"MZ", DEBIAN[1]: INITRD},
        {"vmlinuz": KERNEL, "initrd.gz": INITRD},
    ],
    ids=["no initrd", "no kernel", "no Linux", "too short", "elsewhere"],
)
def test_what_is_no_installers_kernel_and_initrd_is_not_taken_for_them(tmp_path, files):
    """Red when one of the two does, or a file that QEMU takes for another kind of program."""
    cd = str(make_cd(tmp_path / "a", files))
    assert boot_files.found(cd) == [] and boot_files.places(cd, *DEBIAN) is None


def test_what_is_longer_than_such_files_are_is_not_taken(tmp_path, monkeypatch):
    """Red when the length is not asked for: a worker has all of it in its memory."""
    cd = str(make_cd(tmp_path / "a", {DEBIAN[0]: KERNEL, DEBIAN[1]: INITRD}))
    monkeypatch.setattr(boot_files, "MOST", len(INITRD) - 1)
    assert boot_files.found(cd) == [] and boot_files.places(cd, *DEBIAN) is None


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize("files", [{DEBIAN[0]: KERNEL, DEBIAN[1]: INITRD}, {"readme": b"x"}])
def test_an_import_notes_them_with_the_image(chief, keeper, pool, tmp_path, files):
    """Red when _make does not look."""
    wanted = replace(WANTED, kind="iso", name="installer", login_user="")
    upload = services.begin_upload(actor=chief, wanted=wanted)
    content = make_cd(tmp_path / "a", files).read_bytes()
    assert imported(send(chief, upload, content, name="a.iso")) == (State.SUCCEEDED, [])
    assert Image.objects.get().boot_files == ([DEBIAN] if DEBIAN[0] in files else [])


@pytest.mark.database
@pytest.mark.django_db
def test_a_proof_of_a_host_notes_them_of_cds_that_were_there_before(tmp_path, monkeypatch):
    """Red when spreading does not look, or forgets what it found where a file cannot be read."""
    cd = make_cd(tmp_path / "a", {DEBIAN[0]: KERNEL, DEBIAN[1]: INITRD})
    image = make_image(kind="iso", source=str(cd))
    place = make_place(make_host(), image=image)
    volume = VolumeInfo("pool", "a.iso", "/example/a.iso", 1, 1)
    monkeypatch.setattr(enrolment.UploadImages, "call", lambda *_told, **_sizes: volume)
    spec = {"pinned": {"pool": {"uuid": str(place.pool.uuid)}}}
    for _turn in ("there", "gone"):
        enrolment.UploadImages().do(StepContext(spec, {"host": place.host_id}, lambda: None))
        image.refresh_from_db()
        assert image.boot_files == [DEBIAN]
        cd.unlink(missing_ok=True)
