"""Importing an image from an address: by a worker, with the SHA-256 that was told."""

import errno
import hashlib
import ipaddress
import json
import os
import subprocess
from pathlib import Path

import pytest
from django.urls import reverse

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.hosts.images import importing, services, store
from portal.hosts.models import Image, Upload
from portal.operations import messages, runner
from portal.operations.models import Operation, StepRecord
from portal.operations.registry import StepContext
from portal.operations.states import State
from tests.factories import make_image
from tests.hosts.images.conftest import WANTED, fail, files, imported
from tests.hosts.images.test_fetching import site  # noqa: F401 a fixture

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def served(site, tmp_path, settings, monkeypatch):  # noqa: F811
    """A site that serves a disk, which the portal may fetch from."""
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "16M"], check=True)
    site.body = path.read_bytes()
    site.told = len(site.body)
    settings.IMPORT_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    monkeypatch.setattr(runner, "PATIENCE", 0)
    monkeypatch.setattr(runner, "PAUSE", 0)
    return site


def begin(chief, site, **changes):  # noqa: F811
    values = {"address": site.url, "sha256": hashlib.sha256(site.body).hexdigest()}
    return services.begin_import(actor=chief, wanted=WANTED, **values | changes)


def test_a_file_of_an_address_becomes_an_image(chief, uploads, pool, served):
    assert imported(begin(chief, served)) == (State.SUCCEEDED, [])
    image = Image.objects.get()
    assert Path(image.source).read_bytes() == served.body and image.attachments.count() == 1
    assert Upload.objects.get().file_name == "file"


@pytest.mark.parametrize("breaks", [True, False])
def test_a_signed_address_is_kept_by_its_upload_alone_until_it_is_fetched(
    chief, client, uploads, pool, served, breaks
):
    """Red when the query, which lets anybody fetch the file, is in the trail, the request, a page, a step."""
    served.breaks_after = 1000 if breaks else None
    operation = begin(chief, served, address=f"{served.url}?token=sesame")
    upload = Upload.objects.get()
    assert upload.address.endswith("?token=sesame")
    imported(operation)
    told = AuditEntry.objects.get(verb="image.fetch_begun").after
    assert told["address"] == served.url and json.loads(operation.spec)["pinned"]["address"] == served.url
    kept = [entry.__dict__ for entry in AuditEntry.objects.all()]
    kept += [row.__dict__ for row in [*Operation.objects.all(), *StepRecord.objects.all()]]
    assert "sesame" not in str(kept)
    client.force_login(chief)
    for name, key in (("vms:upload", upload.pk), ("operations:detail", operation.pk)):
        page = client.get(reverse(name, args=[key]))
        assert page.status_code == 200 and b"sesame" not in page.content
    upload.refresh_from_db()
    # What failed is tried again by the whole address.
    assert ("sesame" in upload.address) == breaks and upload.shown_address == served.url


def test_a_redirect_to_no_address_is_told_without_its_query(chief, uploads, pool, served):
    served.redirects = {"/file": "http://[x?token=sesame"}
    operation = begin(chief, served)
    assert imported(operation) == (State.FAILED, ["fetch_address"])
    assert operation.steps.get(error_code="fetch_address").error_raw == "http://[x"


def test_the_portals_own_machine_is_closed_unless_the_installation_allows_it(
    chief, uploads, pool, served, settings
):
    """Red when the setting is not passed on."""
    settings.IMPORT_NETWORKS = []
    operation = begin(chief, served)
    assert imported(operation) == (State.FAILED, ["fetch_closed"])
    assert served.asked == [] and files(uploads) == []
    raw = operation.steps.get(error_code="fetch_closed").error_raw
    assert messages.sentence("fetch_closed", raw).startswith("127.0.0.1 is closed")


def test_another_file_than_was_told_is_thrown_away(chief, uploads, pool, served):
    operation = begin(chief, served, sha256="0" * 64)
    assert imported(operation) == (State.FAILED, ["image_checksum"])
    assert files(uploads) == [] and not Image.objects.exists()


def test_a_broken_connection_goes_on_and_a_lasting_one_is_told(chief, uploads, pool, served):
    served.breaks_after = 1000
    operation = begin(chief, served)
    assert imported(operation) == (State.FAILED, ["fetch_broken"])
    upload = Upload.objects.get()
    assert files(uploads) == [] and services.can_retry(upload)
    served.breaks_after = None
    assert imported(services.retry(actor=chief, upload=upload)) == (State.SUCCEEDED, [])


def test_what_came_whole_is_not_fetched_again(chief, uploads, pool, served, monkeypatch):
    """Red when Take removes what it fetched although its checksum was right, or does not look for it.

    It goes with the upload, and of what is an image by now no second name is left.
    """
    with monkeypatch.context() as patch:
        patch.setattr(importing, "_copy_to", lambda *_told: fail())
        assert imported(begin(chief, served))[0] == State.FAILED
    upload = Upload.objects.get()
    assert files(uploads) == [".fetched"] and services.can_retry(upload)
    served.body = b"another file by now"
    assert imported(services.retry(actor=chief, upload=upload)) == (State.SUCCEEDED, [])
    assert len(served.asked) == 1
    store.keep(upload)
    assert files(uploads) == [".qcow2"]


def test_what_was_fetched_goes_with_its_upload(chief, uploads, pool, served, monkeypatch):
    """Red when store.forget() leaves it: it would lie there until a sweep finds no row for it."""
    monkeypatch.setattr(importing, "_copy_to", lambda *_told: fail())
    imported(begin(chief, served))
    services.give_up(actor=chief, upload=Upload.objects.get())
    assert files(uploads) == []


def test_what_changed_on_disk_is_thrown_away_and_fetched_again(chief, uploads, pool, served, monkeypatch):
    """Red when what is there already is believed without its checksum."""
    with monkeypatch.context() as patch:
        patch.setattr(importing, "_copy_to", lambda *_told: fail())
        imported(begin(chief, served))
    upload = Upload.objects.get()
    store.fetched_of(upload).write_bytes(bytes(len(served.body)))
    assert imported(services.retry(actor=chief, upload=upload)) == (State.FAILED, ["image_checksum"])
    assert files(uploads) == []
    upload.refresh_from_db()
    assert imported(services.retry(actor=chief, upload=upload)) == (State.SUCCEEDED, [])


@pytest.mark.parametrize("names", [True, False], ids=["hard links", "none"])
def test_a_worker_that_died_after_it_took_what_it_fetched(chief, uploads, pool, served, monkeypatch, names):
    """Red when Take fetches again what came whole, or name_fetched() raises without second names."""

    def no_link(*_told, **_options):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not names:
        monkeypatch.setattr(os, "link", no_link)
    operation = begin(chief, served)
    importing.Take().do(StepContext({}, operation.identifiers, lambda: None))
    assert files(uploads) == ([".fetched", ".taken"] if names else [".taken"])
    assert imported(operation) == (State.SUCCEEDED, [])
    assert len(served.asked) == (1 if names else 2)


def test_what_is_larger_than_the_portal_takes_is_not_fetched(chief, uploads, pool, served, settings):
    settings.UPLOAD_MOST_BYTES = len(served.body) - 1
    assert imported(begin(chief, served)) == (State.FAILED, ["image_long"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sha256": ""}, "sha256"),
        ({"sha256": "abc"}, "sha256"),
        ({"address": "file:///etc/shadow"}, "address"),
        ({"address": "https://user:word@example.org/"}, "address"),
        ({"address": "https://example.org/" + "a" * 2000}, "address"),
    ],
)
def test_what_is_refused_at_once(chief, uploads, served, changes, field):
    with pytest.raises(Denied) as refused:
        begin(chief, served, **changes)
    assert refused.value.field == field and not Upload.objects.exists()


def test_what_is_there_already_is_not_fetched(chief, uploads, served):
    make_image(title="Known", sha256=hashlib.sha256(served.body).hexdigest())
    with pytest.raises(Denied, match="This is Known 1, which is there already"):
        begin(chief, served)
