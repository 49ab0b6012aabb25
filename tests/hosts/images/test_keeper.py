"""The keeper: what browsers send is written where the web process cannot change it, and needs no copy."""

import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest
from django.urls import reverse

from portal.hosts.images import importing, passing, services, store
from portal.hosts.images import keeper as keeping
from portal.hosts.images.keeper import Keeper
from portal.hosts.images.store import StoreFull, WrongOffset
from portal.hosts.models import Image, Upload
from portal.operations.models import Operation
from portal.operations.registry import StepContext
from portal.operations.states import State
from tests.hosts.images.conftest import MIB, Piece, imported, send, send_chunk

pytestmark = [pytest.mark.database, pytest.mark.django_db]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def context_of(operation):
    return StepContext({}, operation.identifiers, lambda: None)


def inode(path):
    return path.stat().st_ino


def test_the_web_process_can_read_the_file_and_nothing_else(chief, keeper, uploads, disk, upload):
    """Red when the folder or the file can be written to by the group, which the web process is of."""
    send(chief, upload, disk)
    sent = store.kept_of(upload.token)
    assert oct(sent.parent.stat().st_mode & 0o7777) == "0o750"
    assert oct(sent.stat().st_mode & 0o7777) == "0o640"
    assert oct(keeper.path.stat().st_mode & 0o777) == "0o660"
    (uploads / "images").mkdir()
    (uploads / "images").chmod(0o770)
    importing.Take().do(context_of(Operation.objects.get()))
    assert oct(sent.stat().st_mode & 0o7777) == "0o440"
    assert oct((uploads / "images").stat().st_mode & 0o7777) == "0o750"


AS_ANOTHER = """
import os, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(65534)
path, link = sys.argv[1], sys.argv[3]
def fails(act, *args):
    try:
        act(*args)
    except PermissionError:
        return True
reading = os.open(path, os.O_RDONLY)
assert os.pread(reading, 4, 0) == b"QFI\\xfb"
assert fails(os.open, path, os.O_RDWR)
assert fails(os.open, f"/proc/self/fd/{reading}", os.O_RDWR)
assert fails(os.truncate, path, 0) and fails(os.chmod, path, 0o666) and fails(os.unlink, path)
assert fails(os.rename, path, path + "x") and fails(os.open, path + "x", os.O_CREAT | os.O_WRONLY)
try:
    os.link(path, link)
except OSError:
    pass
else:
    assert fails(os.open, link, os.O_RDWR)
print("nothing")
"""


def test_another_user_of_the_group_changes_nothing_of_it(settings, upload, disk):
    """Red when the file or its folder can be written to by the group; tried as a user without rights.

    Where nobody is root there is no other user, and the modes are all that can be looked at (above).
    """
    with tempfile.TemporaryDirectory(prefix="gttest-k-") as folder:
        root, group = Path(folder), 65534 if os.getuid() == 0 else os.getgid()
        settings.UPLOADS, settings.UPLOADS_SOCKET = root / "uploads", root / "uploads.sock"
        settings.UPLOADS.mkdir(mode=0o750)
        os.chown(settings.UPLOADS, -1, group)
        root.chmod(0o777)
        running = Keeper(settings.UPLOADS_SOCKET)
        running.start()
        passing.append(upload.token, 0, iter([disk]))
        running.stop()
        path = store.kept_of(upload.token)
        assert (path.stat().st_gid, path.parent.stat().st_gid) == (group, group)
        (settings.UPLOADS / "images").mkdir(mode=0o700)
        for _ in ("as it is sent", "sealed"):
            if os.getuid() == 0:
                command = [sys.executable, "-c", AS_ANOTHER, path, str(group), root / "link"]
                said = subprocess.run(command, capture_output=True, text=True, check=False)
                assert (said.stdout, said.stderr) == ("nothing\n", "")
            (root / "link").unlink(missing_ok=True)
            store.seal(upload, lambda: None)


def test_nothing_is_written_to_what_was_taken(chief, keeper, pool, disk, upload):
    """Red when the keeper does not look at the seal: it may be root, and believes no row."""
    operation = send(chief, upload, disk)
    importing.Take().do(context_of(operation))
    Upload.objects.filter(pk=upload.pk).update(state=Upload.State.OPEN, file_size=2 * len(disk))
    for offset in (0, len(disk)):
        told = passing.append(upload.token, offset, iter([b"more"]))
        assert "there" not in told
    upload.refresh_from_db()
    with pytest.raises(StoreFull):
        store.append(upload, len(disk), Piece(b"more"))
    assert store.taken_of(upload).read_bytes() == disk


def test_a_chunk_under_way_is_not_sealed_over(chief, keeper, uploads, disk, upload):
    """Red when the seal does not wait for the lock: the rest of the chunk would change what was judged."""
    upload.file_size = len(disk)
    waiting, may_end, looked = threading.Event(), threading.Event(), []

    def slowly():
        yield disk[:MIB]
        waiting.set()
        assert may_end.wait(10)
        yield disk[MIB:]

    def look():
        looked.append(inode(store.kept_of(upload.token)))
        may_end.set()

    sender = threading.Thread(target=passing.append, args=(upload.token, 0, slowly()))
    sender.start()
    assert waiting.wait(10)
    while not store.is_kept(upload):
        pass
    (uploads / "images").mkdir()
    store.seal(upload, look)
    sender.join()
    assert looked and store.taken_of(upload).read_bytes() == disk


def test_where_a_chunk_begins_is_told_to_who_is_wrong(chief, keeper, disk, upload):
    """Red when the keeper writes wherever the web process says."""
    services.start_file(actor=chief, upload=upload, name="a", size=len(disk), head=disk[:4096])
    assert send_chunk(chief, upload, disk, 0) == MIB
    for offset in (0, MIB - 1, MIB + 1):
        with pytest.raises(WrongOffset) as wrong:
            send_chunk(chief, upload, disk, offset)
        assert wrong.value.offset == MIB
    upload.refresh_from_db()
    # A browser that left in the midst: what came is good.
    with pytest.raises(ConnectionAbortedError):
        store.append(upload, MIB, Leaving(disk[MIB : MIB + 1000]))
    until_free(upload)
    assert services.start_file(actor=chief, upload=upload, name="a", size=len(disk), head=disk[:4096]) == (
        MIB + 1000
    )
    assert store.part_of(upload).read_bytes() == disk[: MIB + 1000]


class Leaving(Piece):
    def read(self, size):
        if not self.content:
            raise ConnectionAbortedError
        return super().read(size)


def until_free(upload):
    """Wait until nobody writes to the file."""
    with store.open_part(upload) as file:
        fcntl.flock(file, fcntl.LOCK_EX)


@pytest.mark.parametrize("full", ["before", "in the midst"])
def test_a_full_disk_leaves_the_file_as_it_was(chief, keeper, disk, upload, monkeypatch, full):
    """Red when a part of a chunk stays, or its bytes are in the digest."""
    services.start_file(actor=chief, upload=upload, name="a", size=len(disk), head=disk[:4096])
    send_chunk(chief, upload, disk, 0)
    with monkeypatch.context() as patch:
        if full == "before":
            patch.setattr(store, "free_bytes", lambda: 0)
        else:
            patch.setattr(keeping, "_copy", half)
        with pytest.raises(StoreFull):
            send_chunk(chief, upload, disk, MIB)
    assert store.part_of(upload).read_bytes() == disk[:MIB]
    assert imported_digest(chief, upload, disk) == sha256(disk)


def half(talk, file):
    """Write a part, and meet a full disk."""
    file.seek(0, os.SEEK_END)
    file.write(b"wrong")
    raise OSError(28, "No space left on device")


def imported_digest(chief, upload, disk):
    send(chief, upload, disk, name="a")
    store.taken_of(upload).parent.mkdir(exist_ok=True)
    store.seal(upload, lambda: None)
    return passing.digest(upload.token, len(disk))


def test_a_digest_is_of_what_is_sealed_alone(chief, keeper, disk, upload):
    """Red when the keeper answers before: bytes that are taken back would be in it."""
    send(chief, upload, disk)
    assert passing.digest(upload.token, len(disk)) == ""
    store.taken_of(upload).parent.mkdir()
    store.seal(upload, lambda: None)
    assert passing.digest(upload.token, len(disk)) == sha256(disk)
    assert passing.digest(upload.token, len(disk) - 1) == "" == passing.digest(uuid4(), 5)


def test_another_file_of_the_same_name_has_a_digest_of_its_own(chief, keeper, disk, upload):
    """Red when the digest of a file that was deleted goes on."""
    send(chief, upload, disk)
    store.kept_of(upload.token).unlink()
    other = disk[:-1] + b"x"
    passing.append(upload.token, 0, iter([other]))
    store.taken_of(upload).parent.mkdir()
    store.seal(upload, lambda: None)
    assert passing.digest(upload.token, len(disk)) == sha256(other)


@pytest.mark.parametrize("behind", [0, 64 << 20])
def test_after_a_restart_of_the_keeper_the_file_goes_on(
    chief, keeper, uploads, pool, disk, upload, monkeypatch, behind
):
    """Red when a keeper forgets files, or the worker believes in a digest that is not there."""
    monkeypatch.setattr(keeping, "MOST_BEHIND", behind)
    services.start_file(actor=chief, upload=upload, name="a", size=len(disk), head=disk[:4096])
    send_chunk(chief, upload, disk, 0)
    keeper.stop()
    with pytest.raises(passing.Away):
        send_chunk(chief, upload, disk, MIB)
    again = Keeper(keeper.path)
    again.start()
    send_chunk(chief, upload, disk, MIB, 16 * MIB)
    again.stop()
    assert imported(Operation.objects.get()) == (State.SUCCEEDED, [])
    assert Image.objects.get().sha256 == sha256(disk)
    keeper.start()


def test_the_browser_is_told_to_wait_for_a_keeper_that_is_away(chief, keeper, client, disk, upload):
    """Red when the answer is another than the page's script tries again after, or another file is begun."""
    services.start_file(actor=chief, upload=upload, name="a", size=len(disk), head=disk[:4096])
    send_chunk(chief, upload, disk, 0)
    keeper.stop()
    client.force_login(chief)
    url = reverse("vms:upload_chunk", args=[upload.pk, MIB])
    answer = client.post(url, disk[MIB : 2 * MIB], content_type="application/octet-stream")
    assert answer.status_code == 503 and not store.own_part_of(upload).exists()
    keeper.start()
    answer = client.post(url, disk[MIB : 2 * MIB], content_type="application/octet-stream")
    assert answer.json() == {"offset": 2 * MIB}


def test_what_asks_for_nothing_known_is_hung_up_on(keeper, upload):
    """Red when a token that is none becomes a path, or one bad question ends the keeper."""
    for question in (
        b'{"verb": "append", "token": "../../x"}',
        b"[]",
        b"",
        b'{"verb": "append"}',
        b"\xff" * 2000,
    ):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(keeper.path))
            link.sendall(question + b"\n")
            link.shutdown(socket.SHUT_WR)
            try:
                assert link.recv(100) == b""
            except ConnectionResetError:
                continue
    assert passing.append(upload.token, 0, iter([b"x"])) == {"there": 1}


def test_of_a_chunk_that_takes_long_what_came_counts(keeper, upload, monkeypatch):
    """Red when a slow browser keeps a file locked for ever, or what it sent is lost."""
    monkeypatch.setattr(keeping, "CHUNK_SECONDS", 0.2)
    path = store.kept_of(upload.token)

    def slowly():
        yield bytes(MIB)
        while store.length(path) < MIB:
            time.sleep(0.01)
        for _ in range(30):
            time.sleep(0.02)
            yield bytes(MIB)

    told = passing.append(upload.token, 0, slowly())
    assert MIB <= told["there"] == store.length(path) < 15 * MIB


def test_who_waits_long_for_the_lock_is_told_where_the_file_ends(keeper, upload, monkeypatch):
    """Red when two that send one file wait for each other for ever."""
    monkeypatch.setattr(keeping, "LOCK_SECONDS", 0.1)
    passing.append(upload.token, 0, iter([b"12345"]))
    with store.open_part(upload) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert passing.append(upload.token, 5, iter([b"6"])) == {"wrong": 5}
    assert passing.append(upload.token, 5, iter([b"6"])) == {"there": 6}


def test_no_chunk_is_longer_than_a_chunk(keeper, upload, monkeypatch):
    """Red when the keeper takes whatever comes: the spare of the disk is looked at once a chunk."""
    monkeypatch.setattr(passing, "MOST_CHUNK", 5 * MIB)
    assert passing.append(upload.token, 0, iter([bytes(MIB)] * 20)) == {"there": 5 * MIB}
