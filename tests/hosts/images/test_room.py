"""What the portal's own disk, and QEMU's tool, do to uploads: none of it is the fault of a file."""

import errno
import resource
import secrets

import pytest

from portal.core.errors import Denied
from portal.drivers import sandbox
from portal.hosts.images import services, store
from portal.hosts.images.store import StoreFull
from portal.operations import messages
from portal.operations.states import State
from tests.hosts.images.conftest import MIB, Piece, files, imported, send, send_chunk

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
    told = {"actor": chief, "upload": upload, "name": "a", "head": b""}
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
