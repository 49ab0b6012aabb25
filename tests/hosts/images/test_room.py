"""What the portal's own disk, and QEMU's tool, do to uploads: none of it is the fault of a file."""

import errno
import resource
import secrets
from dataclasses import replace

import pytest

from portal.core.errors import Denied
from portal.drivers import sandbox
from portal.drivers.qcow2 import MAGIC
from portal.hosts.images import importing, room, services, store
from portal.hosts.images.store import StoreFull
from portal.hosts.models import Upload
from portal.operations import messages
from portal.operations.registry import StepContext, StepFailed
from portal.operations.states import State
from tests.hosts.images.conftest import MIB, WANTED, Piece, files, imported, send, send_chunk

pytestmark = [pytest.mark.database, pytest.mark.django_db]
RAW = (bytes(510) + b"\x55\xaa" + secrets.token_bytes(4096)).ljust(MIB, b"\0")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (sandbox.ProgramCut("qemu-img did not end within 120 s"), "program_cut"),
        (sandbox.ProgramFailed("qemu-img: error while writing: No space left on device"), "store_full"),
        (sandbox.ProgramFailed("qemu-img: error while writing: Disk quota exceeded"), "store_full"),
        (OSError(errno.EIO, "Input/output error"), "store_failed"),
    ],
    ids=lambda told: str(told)[-20:],
)
def test_what_is_not_the_files_fault_keeps_it(chief, uploads, pool, upload, monkeypatch, wrong, code):
    """Red when whatever QEMU's tool says, or fails to say, counts against the file."""

    def fails(*_args, **_options):
        raise wrong

    operation = send(chief, upload, RAW, name="disk.img")
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "run", fails)
        assert imported(operation) == (State.FAILED, [code])
    raw = operation.steps.get(error_code=code).error_raw
    assert "is kept" in messages.sentence(code, raw) and files(uploads) == [".part"]
    upload.refresh_from_db()
    assert services.can_retry(upload)
    assert imported(services.retry(actor=chief, upload=upload)) == (State.SUCCEEDED, [])


def test_what_qemu_finds_wrong_in_a_file_throws_it_away(chief, uploads, pool, disk, upload, monkeypatch):
    def finds(*_args, **_options):
        raise sandbox.ProgramFailed("qemu-img: Could not open: Image is corrupt")

    monkeypatch.setattr(sandbox, "run", finds)
    assert imported(send(chief, upload, disk)) == (State.FAILED, ["image_damaged"])
    assert files(uploads) == []


def test_what_has_no_room_is_not_begun(chief, upload, settings, monkeypatch):
    """Red when free space is not looked at before."""
    told = {"actor": chief, "upload": upload, "name": "a", "head": b"QFI\xfb"}
    with pytest.raises(Denied, match="takes at most 64"):
        services.start_file(**told, size=65 << 30)
    monkeypatch.setattr(store, "free_bytes", lambda: 10 * MIB)
    with pytest.raises(Denied, match="has room for"):
        services.start_file(**told, size=6 * MIB)
    with pytest.raises(Denied, match="empty"):
        services.start_file(**told, size=0)
    assert services.start_file(**told, size=5 * MIB) == 0


def test_a_full_disk_leaves_what_was_there_before_the_chunk(chief, disk, upload):
    """Red when a chunk that did not fit is left half there.

    The limit of a file's length makes the kernel write a part and then refuse, as a full disk does.
    """
    services.start_file(actor=chief, upload=upload, name="a", size=len(disk), head=disk[:4096])
    send_chunk(chief, upload, disk, 0, 2 * MIB)
    upload.refresh_from_db()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB, before[1]))
    try:
        with pytest.raises(StoreFull):
            store.append(upload, 2 * MIB, Piece(disk[2 * MIB :]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.part_of(upload).read_bytes() == disk[: 2 * MIB]
    send_chunk(chief, upload, disk, 2 * MIB, 2 * MIB)
    assert store.part_of(upload).read_bytes() == disk


QCOW2, TAR = b"QFI\xfb".ljust(4096, b"\0"), bytes(257) + b"ustar".ljust(300, b"\0")


@pytest.mark.parametrize(
    ("kind", "head", "files_there"),
    [("disk", QCOW2, 2), ("disk", RAW[:4096], 3), ("disk", TAR, 4), ("iso", RAW[:4096], 2)],
)
def test_room_is_asked_for_with_every_copy(chief, uploads, monkeypatch, kind, head, files_there):
    """Red when a raw disk counts as what is sent and one copy: its qcow2 is a third file."""
    upload = services.begin_upload(actor=chief, wanted=replace(WANTED, kind=kind, login_user=""))
    told = {"actor": chief, "upload": upload, "name": "a", "size": 10 * MIB, "head": head}
    monkeypatch.setattr(store, "free_bytes", lambda: files_there * 10 * MIB - 1)
    with pytest.raises(Denied, match="with the copies made of it. Make room first"):
        services.start_file(**told)
    upload.refresh_from_db()
    assert upload.file_size == 0
    monkeypatch.setattr(store, "free_bytes", lambda: files_there * 10 * MIB)
    assert services.start_file(**told) == 0


def begun(chief, size, head=QCOW2):
    upload = services.begin_upload(actor=chief, wanted=WANTED)
    services.start_file(actor=chief, upload=upload, name="a", size=size, head=head)
    upload.refresh_from_db()
    return upload


def test_what_other_uploads_still_need_is_left_to_them(chief, uploads, monkeypatch):
    """Red when an upload looks at free space alone: two at once would fill the disk."""
    monkeypatch.setattr(store, "free_bytes", lambda: 60 * MIB)
    first = begun(chief, 10 * MIB, RAW[:4096])
    assert room.needed_bytes(first) == 30 * MIB
    with pytest.raises(Denied, match="has room for 30 MiB beside the other uploads.* needs 32 MiB"):
        begun(chief, 16 * MIB)
    # What is there already is in what is free.
    send_chunk(chief, first, QCOW2.ljust(10 * MIB, b"\0"), 0, 4 * MIB)
    assert room.needed_bytes(first) == 16 * MIB
    second = begun(chief, 16 * MIB)
    send_chunk(chief, second, QCOW2.ljust(MIB, b"\0"), 0)
    assert room.needed_bytes(second) == 31 * MIB
    # One that failed waits for a person, who is asked to make room before it goes on.
    Upload.objects.filter(pk=first.pk).update(state=Upload.State.FAILED)
    store.part_of(first).write_bytes(QCOW2.ljust(10 * MIB, b"\0"))
    monkeypatch.setattr(store, "free_bytes", lambda: 40 * MIB)
    with pytest.raises(Denied, match="has room for 9 MiB beside the other uploads.* needs 10 MiB"):
        services.retry(actor=chief, upload=first)
    monkeypatch.setattr(store, "free_bytes", lambda: 41 * MIB)
    services.retry(actor=chief, upload=first)


def test_an_image_that_is_known_needs_no_more_room(chief, uploads, pool, upload):
    """Red when the worker's copy, which has become a qcow2 by then, still counts as to come."""
    operation = send(chief, upload, RAW, name="disk.img")
    for step in (importing.Take(), importing.Check(), importing.Register()):
        step.do(StepContext({}, operation.identifiers, lambda: None))
    upload.refresh_from_db()
    assert (upload.state, room.needed_bytes(upload)) == (Upload.State.HANDED, 0)


def test_a_chunk_is_refused_once_no_more_than_the_spare_is_free(chief, uploads, disk, upload, monkeypatch):
    """Red when only the kernel refuses a chunk: the portal's database lies on that disk."""
    services.start_file(actor=chief, upload=upload, name="a", size=len(disk), head=disk[:4096])
    send_chunk(chief, upload, disk, 0)
    with monkeypatch.context() as patch:
        patch.setattr(store, "free_bytes", lambda: 0)
        with pytest.raises(StoreFull):
            send_chunk(chief, upload, disk, MIB)
    assert store.part_of(upload).read_bytes() == disk[:MIB]
    assert send_chunk(chief, upload, disk, MIB) == 2 * MIB


@pytest.mark.parametrize("step", ["Take", "Check"])
def test_a_disk_that_fills_up_while_a_step_works_ends_it(chief, uploads, pool, upload, monkeypatch, step):
    """Red when free space is looked at only before: what others write meanwhile takes the spare."""
    operation = send(chief, upload, RAW, name="disk.img")
    context = StepContext({}, operation.identifiers, lambda: None)
    monkeypatch.setattr(importing, "CHECK_EVERY", 0)
    if step == "Take":
        answers = iter([len(RAW)])
        monkeypatch.setattr(store, "free_bytes", lambda: next(answers, 0))
    else:
        importing.Take().do(context)
        answers = iter([len(RAW)])
        monkeypatch.setattr(store, "free_bytes", lambda: next(answers, 0))
        monkeypatch.setattr(sandbox, "run", lambda *_args, check, **_options: check())
    with pytest.raises(StepFailed) as failed:
        getattr(importing, step)().do(context)
    assert failed.value.code == "store_full"
    assert store.part_of(upload).read_bytes() == RAW


def test_a_raw_disk_needs_room_for_the_qcow2_whatever_a_guest_wrote_into_it():
    """Red when `files_of` believes how what is said to be raw begins."""
    volume = {"kind": "volume", "title": "v", "name": "v"}
    assert room.files_of(Upload(wanted=volume), MAGIC + bytes(508)) == 2
    assert room.files_of(Upload(wanted=volume | {"raw": True}), MAGIC + bytes(508)) == 3
