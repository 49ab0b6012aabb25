"""What the keeper has is sealed and taken without a copy, whatever died before; the rest is copied."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from portal.hosts.images import importing, passing, services, store
from portal.hosts.images import keeper as keeping
from portal.hosts.models import Image, Upload
from portal.operations.models import Operation
from portal.operations.registry import StepContext
from portal.operations.states import State
from tests.hosts.images.conftest import MIB, Died, Piece, fail, files, imported, send, send_chunk

pytestmark = [pytest.mark.database, pytest.mark.django_db]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def context_of(operation):
    return StepContext({}, operation.identifiers, lambda: None)


def inode(path):
    return path.stat().st_ino


def test_a_file_becomes_an_image_without_a_copy(
    chief, keeper, uploads, pool, disk, upload, monkeypatch, django_capture_on_commit_callbacks
):
    """Red when the worker copies what is sealed, or reads it again for a digest that is known."""
    monkeypatch.setattr(importing.Take, "_digest", None)
    operation = send(chief, upload, disk)
    sent = store.kept_of(upload.token)
    assert sent.read_bytes() == disk and not store.own_part_of(upload).exists()
    number = inode(sent)
    with django_capture_on_commit_callbacks(execute=True):
        assert imported(operation) == (State.SUCCEEDED, [])
    image = Image.objects.get()
    assert image.sha256 == sha256(disk) and inode(Path(image.source)) == number
    assert files(uploads) == [".qcow2"] and Path(image.source).read_bytes() == disk
    assert pool.driver.volume_info(pool.pool.name, image.volume_name)


def test_what_was_begun_without_a_keeper_ends_without_one(chief, keeper, pool, disk, upload, settings):
    """Red when an upload of before an upgrade begins anew, or what is still open is not copied."""
    path, settings.UPLOADS_SOCKET = settings.UPLOADS_SOCKET, settings.UPLOADS_SOCKET.with_name("none")
    services.start_file(actor=chief, upload=upload, name="a", size=len(disk), head=disk[:4096])
    send_chunk(chief, upload, disk, 0)
    settings.UPLOADS_SOCKET = path
    send_chunk(chief, upload, disk, MIB, 16 * MIB)
    part = store.own_part_of(upload)
    assert part.read_bytes() == disk and not store.is_kept(upload)
    with part.open("r+b") as still_open:
        importing.Take().do(context_of(Operation.objects.get()))
        still_open.write(b"changed")
    assert inode(store.taken_of(upload)) != inode(part) and store.taken_of(upload).read_bytes() == disk


def test_without_a_second_name_it_is_copied(chief, keeper, uploads, pool, disk, upload, monkeypatch):
    """Red when a file system without hard links makes imports fail, or the copy is written over the file."""

    def refuses(*_args, **_options):
        raise PermissionError(1, "Operation not permitted")

    operation = send(chief, upload, disk)
    # An earlier attempt, on another file system, gave it one.
    store.taken_of(upload).parent.mkdir()
    store.taken_of(upload).hardlink_to(store.kept_of(upload.token))
    monkeypatch.setattr(os, "link", refuses)
    importing.Take().do(context_of(operation))
    assert store.part_of(upload).read_bytes() == disk == store.taken_of(upload).read_bytes()
    assert inode(store.taken_of(upload)) != inode(store.part_of(upload))
    assert imported(operation) == (State.SUCCEEDED, [])


def test_a_copy_is_never_written_over_the_file(chief, keeper, pool, disk, upload, monkeypatch):
    """Red when the copy is opened while it still is the second name of what the browser sent."""

    def breaks(*_args):
        raise OSError(5, "Input/output error")

    operation = send(chief, upload, disk)
    monkeypatch.setattr(passing, "digest", breaks)
    importing.Take().do(context_of(operation))
    assert store.part_of(upload).read_bytes() == disk == store.taken_of(upload).read_bytes()
    assert inode(store.taken_of(upload)) != inode(store.part_of(upload))


def test_what_a_keeper_that_was_late_once_began_is_not_taken_for_the_file(
    chief, keeper, uploads, pool, disk, upload, monkeypatch, django_capture_on_commit_callbacks
):
    """Red when is_kept asks for the keeper's file alone: the whole of the other is lost."""
    opened, late = keeping._opened, threading.Event()

    def slowly(token):
        assert late.wait(20)
        return opened(token)

    monkeypatch.setattr(keeping, "_opened", slowly)
    told = {"upload": upload, "name": "example.qcow2", "size": len(disk), "head": disk[:4096]}
    services.start_file(actor=chief, **told)
    with monkeypatch.context() as patch:
        patch.setattr(passing, "PATIENCE", 0.1)
        assert send_chunk(chief, upload, disk, 0) == MIB
    late.set()
    while not store.kept_of(upload.token).exists():
        time.sleep(0.01)
    assert services.start_file(actor=chief, **told) == MIB
    operation = send(chief, upload, disk)
    with monkeypatch.context() as patch:
        patch.setattr(importing.Check, "do", lambda self, context: fail())
        assert imported(operation) == (State.FAILED, ["internal"])
    upload.refresh_from_db()
    assert services.can_retry(upload)
    with django_capture_on_commit_callbacks(execute=True):
        assert imported(services.retry(actor=chief, upload=upload)) == (State.SUCCEEDED, [])
    assert Image.objects.get().sha256 == sha256(disk) and files(uploads) == [".qcow2"]


def test_a_file_of_the_web_process_beside_what_is_sealed_is_copied_beside_it(
    chief, keeper, pool, disk, upload
):
    """Red when Take._copy removes the second name only of what is_kept: the copy is written over the file."""
    operation = send(chief, upload, disk)
    importing.Take().do(context_of(operation))
    part, other = store.own_part_of(upload), disk[:-1] + bytes([disk[-1] ^ 1])
    part.parent.mkdir()
    part.write_bytes(other)
    importing.Take().do(context_of(operation))
    assert store.kept_of(upload.token).read_bytes() == disk
    assert store.taken_of(upload).read_bytes() == other


def test_only_what_the_keeper_has_is_sealed(chief, keeper, uploads, disk, upload):
    """Red when seal opens part_of: the web process puts a file there, and could add to what is judged."""
    send(chief, upload, disk)
    store.own_part_of(upload).parent.mkdir()
    store.own_part_of(upload).write_bytes(disk)
    store.make_folder("images")
    store.seal(upload, lambda: None)
    with pytest.raises(store.StoreFull):
        store.own_part_of(upload).unlink()
        store.append(upload, len(disk), Piece(b"more"))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("act", ["fchmod", "link"])
def test_a_worker_that_dies_while_it_takes_a_file_is_followed_by_another(
    chief, keeper, pool, disk, upload, monkeypatch, act, when
):
    """Red when what an earlier attempt sealed or named is in the way of the next."""
    operation, do = send(chief, upload, disk), getattr(os, act)

    def dies(*args, **options):
        if when == "after":
            do(*args, **options)
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(os, act, dies)
        with pytest.raises(Died):
            importing.Take().do(context_of(operation))
    for _ in range(2):
        importing.Take().do(context_of(operation))
    assert inode(store.taken_of(upload)) == inode(store.part_of(upload))
    assert imported(operation) == (State.SUCCEEDED, [])
    assert Path(Image.objects.get().source).read_bytes() == disk


@pytest.mark.parametrize("step", ["Take", "Check", "Register", "Copy"])
@pytest.mark.parametrize("end", ["finish", "take back"])
def test_whoever_takes_over_finds_what_is_sealed(
    chief, keeper, uploads, pool, disk, upload, monkeypatch, step, end
):
    """Red when a step takes the second name of a file for a copy, and what the browser sent is lost."""
    operation = send(chief, upload, disk)
    context = context_of(operation)
    for each in (importing.Take, importing.Check, importing.Register, importing.Copy):
        each().do(context)
        if each.__name__ == step:
            break
    if end == "take back":
        with monkeypatch.context() as patch:
            patch.setattr(importing.Copy, "do", lambda self, context: fail())
            assert imported(operation) == (State.FAILED, ["internal"])
        assert files(uploads) == [".part"] and store.part_of(upload).read_bytes() == disk
        upload.refresh_from_db()
        operation = services.retry(actor=chief, upload=upload)
    assert imported(operation)[0] == State.SUCCEEDED
    assert Path(Image.objects.get().source).read_bytes() == disk


def test_what_is_thrown_away_goes_by_the_workers_sweep(
    chief, keeper, uploads, disk, upload, monkeypatch, django_capture_on_commit_callbacks
):
    """Red when throwing away fails where the web process may not delete, or nobody deletes it for it."""
    send_file_in_part(chief, upload, disk)
    asked = []
    monkeypatch.setattr(services.queue, "send", lambda task, *_args: asked.append(task))
    with monkeypatch.context() as patch, django_capture_on_commit_callbacks(execute=True):
        patch.setattr(Path, "unlink", refused)
        services.give_up(actor=chief, upload=upload)
    assert asked == ["hosts.sweep_uploads"] and not Upload.objects.exists() and files(uploads) == [".part"]
    services.sweep_uploads()
    assert files(uploads) == []


def send_file_in_part(chief, upload, disk):
    services.start_file(actor=chief, upload=upload, name="a", size=len(disk), head=disk[:4096])
    send_chunk(chief, upload, disk, 0)


def refused(*_args, **_options):
    raise PermissionError(13, "Permission denied")
