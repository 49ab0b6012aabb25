"""Files of uploads that nobody goes on with, and what workers left: swept, or kept while it is of use."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from portal.hosts.images import importing, services, store
from portal.hosts.models import Upload
from portal.operations.states import State
from tests.hosts.images.conftest import MIB, WANTED, Piece, fail, files, imported, send, send_chunk

pytestmark = [pytest.mark.database, pytest.mark.django_db]
CD = replace(WANTED, kind="iso", name="installer", login_user="")


def test_an_upload_that_nobody_goes_on_with_is_swept(chief, uploads, disk, upload):
    """Red when what was touched since is swept too."""
    fresh = services.begin_upload(actor=chief, wanted=WANTED)
    for each in (fresh, upload):
        services.start_file(actor=chief, upload=each, name="a", size=len(disk), head=b"")
        send_chunk(chief, each, disk, 0)
    Upload.objects.update(touched_at=timezone.now() - timedelta(days=4))
    send_chunk(chief, fresh, disk, MIB)
    assert services.sweep_uploads() == 1
    assert Upload.objects.get() == fresh and files(uploads) == [".part"]
    assert services.sweep_uploads() == 0


def test_what_failed_late_can_be_tried_again_for_days(chief, uploads, pool, disk, upload, monkeypatch):
    """Red when the days count from the last chunk alone: a retry on the third would be swept as it fails."""
    operation = send(chief, upload, disk)
    Upload.objects.update(touched_at=timezone.now() - timedelta(days=4))
    monkeypatch.setattr(importing, "_copy_to", lambda *_told: fail())
    assert imported(operation)[0] == State.FAILED
    assert services.sweep_uploads() == 0
    upload.refresh_from_db()
    assert services.can_retry(upload)
    Upload.objects.update(touched_at=timezone.now() - timedelta(days=4))
    assert services.sweep_uploads() == 1


def test_what_a_worker_left_that_died_after_a_good_end_is_swept(chief, uploads, disk, upload, pool):
    """Red when the sweep looks at unfinished uploads alone."""
    state, _codes = imported(send(chief, upload, disk))
    upload.refresh_from_db()
    assert state == State.SUCCEEDED and upload.state == Upload.State.DONE
    store.part_of(upload).write_bytes(disk)
    assert services.sweep_uploads() == 0
    assert files(uploads) == [".qcow2"] and store.image_of(upload).read_bytes() == disk


def test_files_that_no_row_tells_of_are_swept(chief, uploads, disk, upload, pool):
    """Red when the sweep looks at rows alone: a chunk may arrive while its upload is thrown away."""
    imported(send(chief, upload, disk))
    late = services.begin_upload(actor=chief, wanted=replace(WANTED, version="2"))
    services.start_file(actor=chief, upload=late, name="a", size=len(disk), head=disk[:4096])
    late.refresh_from_db()
    services.give_up(actor=chief, upload=late)
    store.append(late, 0, Piece(disk))
    (uploads / "images" / "notes.iso").write_bytes(b"somebody's own")
    services.sweep_uploads()
    assert files(uploads) == [".iso", ".qcow2"]
    # The file of an image stays, whoever handed it in.
    Upload.objects.all().delete()
    services.sweep_uploads()
    assert files(uploads) == [".iso", ".qcow2"]
