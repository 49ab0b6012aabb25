"""Handing in an image: in chunks, with breaks, by whom; and what becomes of it."""

import hashlib
import secrets
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from portal.accounts.models import Membership, Role, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.errors import HostUnreachable
from portal.drivers.seed import build_iso
from portal.drivers.types import SeedSpec
from portal.hosts import enrolment, steps
from portal.hosts.images import importing, services, store
from portal.hosts.images.store import WrongOffset
from portal.hosts.images.values import Wanted
from portal.hosts.models import Health, Image, ImageAttachment, PoolAttachment, Upload
from portal.operations import messages
from portal.operations.models import Operation
from portal.operations.registry import StepContext
from portal.operations.services import cancel
from portal.operations.states import State
from tests.drivers.test_imagefile import disk_bytes
from tests.factories import make_image
from tests.hosts.images.conftest import (
    MIB,
    WANTED,
    Died,
    Piece,
    fail,
    files,
    imported,
    make_pool,
    send,
    send_chunk,
)

pytestmark = [pytest.mark.database, pytest.mark.django_db]
#: How qemu-img makes the formats that are converted.
OTHERS = {
    "vmdk": "subformat=monolithicSparse",
    "vdi": "static=off",
    "vpc": "force_size=on",
    "vhdx": "subformat=dynamic",
}
CD = replace(WANTED, kind="iso", name="installer", login_user="")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_disk_becomes_an_image_on_every_host(chief, cast, uploads, pool, disk):
    wanted = replace(WANTED, os="debian12", every_project=False, projects=(cast.project.pk,))
    upload = services.begin_upload(actor=chief, wanted=wanted, sha256=sha256(disk).upper())
    assert imported(send(chief, upload, disk)) == (State.SUCCEEDED, [])
    image = Image.objects.get()
    assert (image.sha256, image.size, image.virtual_size) == (sha256(disk), len(disk), 16 * MIB)
    assert (image.kind, image.os, image.every_project, image.format) == ("disk", "debian12", False, "qcow2")
    assert list(image.projects.all()) == [cast.project]
    assert Path(image.source).read_bytes() == disk
    copy = ImageAttachment.objects.get()
    assert pool.driver.volume_info(pool.pool.name, image.volume_name).path == copy.path
    upload.refresh_from_db()
    assert (upload.state, upload.image) == ("done", image)
    verbs = set(AuditEntry.objects.values_list("verb", flat=True))
    assert {"image.upload_begun", "image.upload_file", "image.imported", "operation.succeeded"} <= verbs


def test_what_was_sent_goes_when_the_image_is_there(
    chief, uploads, pool, disk, upload, django_capture_on_commit_callbacks
):
    operation = send(chief, upload, disk)
    with django_capture_on_commit_callbacks(execute=True):
        imported(operation)
    assert files(uploads) == [".qcow2"]


def test_people_of_other_projects_do_not_see_the_image(chief, cast, uploads, pool, disk):
    """Red when the projects are not taken over from what was wanted."""
    other = cast.project.__class__.objects.create(name="elsewhere")
    wanted = replace(WANTED, every_project=False, projects=(other.pk,))
    imported(send(chief, services.begin_upload(actor=chief, wanted=wanted), disk))
    assert Image.objects.restrict(chief, "view").exists()
    assert not Image.objects.restrict(cast.requester, "view").exists()


def test_a_raw_disk_becomes_a_qcow2_and_a_cd_stays_one(chief, uploads, pool):
    raw = (bytes(510) + b"\x55\xaa" + secrets.token_bytes(4096)).ljust(MIB, b"\0")
    upload = services.begin_upload(actor=chief, wanted=WANTED)
    assert imported(send(chief, upload, raw, name="disk.img")) == (State.SUCCEEDED, [])
    image = Image.objects.get()
    assert (image.format, image.virtual_size, image.sha256) == ("qcow2", MIB, sha256(raw))
    assert Path(image.source).read_bytes().startswith(b"QFI\xfb")
    iso = build_iso(SeedSpec("pool", "x.iso", "instance-id: x", "#cloud-config"))
    upload = services.begin_upload(actor=chief, wanted=CD)
    assert imported(send(chief, upload, iso, name="cd.iso")) == (State.SUCCEEDED, [])
    image = Image.objects.get(kind="iso")
    assert image.volume_name.endswith(".iso") and Path(image.source).read_bytes() == iso
    assert pool.driver.volume_info(pool.pool.name, image.volume_name).format == "iso"


def test_a_break_at_99_percent_goes_on_there(chief, pool, disk, upload):
    """Red when a chunk is taken wherever it comes from: the file would have a part twice."""
    head, size = disk[:4096], len(disk)
    told = {"actor": chief, "upload": upload, "name": "a.qcow2", "size": size, "head": head}
    assert services.start_file(**told) == 0
    most = size * 99 // 100
    assert send_chunk(chief, upload, disk, 0, most) == most
    with pytest.raises(WrongOffset) as wrong:
        send_chunk(chief, upload, disk, 0, 100)
    assert wrong.value.offset == most
    # A new page asks again, and goes on.
    assert services.start_file(**told) == most
    with pytest.raises(WrongOffset):
        send_chunk(chief, upload, disk, most + 1, 100)
    assert send_chunk(chief, upload, disk, most, MIB) == size
    # The answer to the last chunk was lost, so it comes again.
    assert send_chunk(chief, upload, disk, most, MIB) == size
    assert imported(Operation.objects.get(subject=upload.topic)) == (State.SUCCEEDED, [])
    assert Image.objects.get().sha256 == sha256(disk)


def test_a_last_chunk_that_comes_again_is_imported(chief, pool, disk, upload, monkeypatch):
    """Red when the browser is told that all is there, and nothing is made of it: the process died between."""
    told = {"name": "a.qcow2", "size": len(disk), "head": disk[:4096]}
    services.start_file(actor=chief, upload=upload, **told)
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(services, "_hand_over", lambda *_told: 1 / 0)
        send_chunk(chief, upload, disk, 0, len(disk))
    assert not Operation.objects.exists()
    assert send_chunk(chief, upload, disk, 0, len(disk)) == len(disk)
    assert imported(Operation.objects.get(subject=upload.topic)) == (State.SUCCEEDED, [])


def test_another_file_does_not_go_on_in_its_place(chief, disk, upload):
    """Red when the file is known by its beginning alone: disks of one size often begin alike."""
    told = {"actor": chief, "upload": upload, "name": "a", "size": len(disk), "head": disk[:4096]}
    told |= {"samples": "YQ==", "modified": "1750000000000"}
    assert services.start_file(**told) == services.start_file(**told) == 0
    for changes in {"head": b"x"}, {"size": 5}, {"name": "b"}, {"samples": "Yg=="}, {"modified": "1"}:
        with pytest.raises(Denied, match="This is another file"):
            services.start_file(**told | changes)


def test_it_is_never_longer_than_was_told(chief, disk, upload):
    services.start_file(actor=chief, upload=upload, name="a", size=100, head=b"")
    with pytest.raises(Denied, match="more than the file has"):
        services.receive(actor=chief, upload=upload, offset=0, stream=Piece(disk), length=101)
    # Whatever the length was said to be.
    services.receive(actor=chief, upload=upload, offset=0, stream=Piece(disk), length=99)
    assert store.length(store.part_of(upload)) == 100
    with pytest.raises(Denied, match="at most"):
        services.receive(actor=chief, upload=upload, offset=0, stream=Piece(b""), length=17 * MIB)


def test_a_name_that_no_database_keeps_ends_the_import_like_others(chief, uploads, pool, disk, upload):
    """Red when the text goes into the row as it came: PostgreSQL refuses it, and the worker would throw."""
    bad = bytearray(disk)
    struct.pack_into(">QI", bad, 8, 480, 3)
    bad[480:483] = b"a\0b"
    operation = send(chief, upload, bytes(bad))
    assert imported(operation) == (State.FAILED, ["image_backed"])
    assert operation.steps.get(error_code="image_backed").error_raw == "a\ufffdb" and files(uploads) == []


def test_the_wrong_checksum_throws_the_file_away(chief, uploads, pool, disk):
    upload = services.begin_upload(actor=chief, wanted=WANTED, sha256="0" * 64)
    assert imported(send(chief, upload, disk)) == (State.FAILED, ["image_checksum"])
    upload.refresh_from_db()
    assert (upload.state, files(uploads)) == ("failed", [])
    assert not Image.objects.exists() and not services.can_retry(upload)


def test_a_backing_file_of_the_host_is_refused_and_nothing_is_left(chief, uploads, pool, tmp_path, upload):
    path = tmp_path / "a.qcow2"
    backing = ["-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow"]
    subprocess.run(["qemu-img", "create", "-q", *backing, path, "1G"], check=True)
    operation = send(chief, upload, path.read_bytes())
    assert imported(operation) == (State.FAILED, ["image_backed"])
    assert operation.steps.get(error_code="image_backed").error_raw == "/etc/shadow"
    assert files(uploads) == [] and not Image.objects.exists()
    assert pool.driver.list_volumes(pool.pool.name) == ()


@pytest.mark.parametrize(("form", "option"), OTHERS.items())
def test_a_disk_of_others_becomes_a_qcow2(chief, uploads, pool, upload, tmp_path, form, option):
    """Red when Check does not convert each format that `judge` takes."""
    raw, path = tmp_path / "a.raw", tmp_path / "a.other"
    raw.write_bytes(disk_bytes(2 * MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, "-o", option, raw, path], check=True)
    assert imported(send(chief, upload, path.read_bytes(), name=f"a.{form}")) == (State.SUCCEEDED, [])
    image = Image.objects.get()
    assert (image.format, image.virtual_size) == ("qcow2", 2 * MIB)
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, image.source], check=True)
    assert files(uploads) == [".part", ".qcow2"]


def test_half_of_an_image_is_refused_with_what_was_found(chief, uploads, pool, disk, upload):
    """Red when `judge` believes the header, which is whole: machines would have holes in their disks."""
    operation = send(chief, upload, disk[: len(disk) // 2])
    assert imported(operation) == (State.FAILED, ["image_corrupt"])
    words = messages.sentence("image_corrupt", operation.steps.get(error_code="image_corrupt").error_raw)
    assert "exceeding the end of the file" in words and "is missing" in words
    assert files(uploads) == [] and not Image.objects.exists()


def test_a_link_in_place_of_what_was_sent_is_not_followed(chief, uploads, pool, disk, upload, tmp_path):
    """Red when the worker opens whatever lies there: the web process could show it the portal's keys."""
    operation = send(chief, upload, disk)
    secret, part = tmp_path / "secret", store.part_of(upload)
    secret.write_bytes(disk)
    part.unlink()
    part.symlink_to(secret)
    Upload.objects.filter(pk=upload.pk).update(file_size=part.lstat().st_size)
    assert imported(operation) == (State.FAILED, ["upload_gone"])
    assert not Image.objects.exists()


def test_an_iso_that_is_none_is_refused(chief, uploads, pool, disk):
    upload = services.begin_upload(actor=chief, wanted=CD)
    assert imported(send(chief, upload, disk)) == (State.FAILED, ["iso_invalid"])


def test_the_same_content_is_not_taken_twice(chief, uploads, pool, disk, upload):
    known = make_image(sha256=sha256(disk), title="Known")
    assert imported(send(chief, upload, disk)) == (State.FAILED, ["image_known"])
    assert Image.objects.get() == known
    # The browser's file is kept: the other image may go.
    upload.refresh_from_db()
    assert services.can_retry(upload) and files(uploads) == [".part"]
    known.delete()
    assert imported(services.retry(actor=chief, upload=upload)) == (State.SUCCEEDED, [])


def test_a_host_that_is_away_gets_it_later(chief, uploads, disk, upload, monkeypatch):
    """Red when one host that fails makes the import fail, or nobody is told."""
    drivers = {}
    first = make_pool(monkeypatch, drivers)
    second = make_pool(monkeypatch, drivers, "second-host")
    second.driver.remove_pool(second.pool.name)
    operation = send(chief, upload, disk)
    assert imported(operation) == (State.SUCCEEDED, [])
    assert operation.steps.get(name="copy").remark == "image_not_everywhere"
    assert [copy.pool for copy in ImageAttachment.objects.all()] == [first]


def test_a_host_that_restarts_gets_it_all_the_same(chief, uploads, disk, upload, monkeypatch):
    """Red when Copy does without `once_reached`: half a volume would lie there, without a row."""
    drivers, calls = {}, []
    places = [make_pool(monkeypatch, drivers, name) for name in ("example-host", "second-host")]
    copy = places[0].driver.upload_image

    def dying(*told):
        calls.append(told)
        if len(calls) == 1:
            raise HostUnreachable("end of file while reading data")
        return copy(*told)

    monkeypatch.setattr(places[0].driver, "upload_image", dying)
    monkeypatch.setattr(steps, "PAUSE", 0)
    operation = send(chief, upload, disk)
    assert imported(operation) == (State.SUCCEEDED, [])
    assert operation.steps.get(name="copy").remark == "" and len(calls) == 2
    assert {found.pool for found in ImageAttachment.objects.all()} == set(places)


def test_where_no_host_takes_it_all_is_taken_back(chief, uploads, pool, disk, upload):
    pool.driver.pool_bytes = MIB
    assert imported(send(chief, upload, disk)) == (State.FAILED, ["pool_full"])
    assert not Image.objects.exists() and files(uploads) == [".part"]
    pool.driver.pool_bytes = 1 << 40
    upload.refresh_from_db()
    assert imported(services.retry(actor=chief, upload=upload)) == (State.SUCCEEDED, [])


STEPS = ("Take", "Check", "Register", "Copy")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("end", ["finish", "take back"])
def test_whoever_takes_over_finds_its_way(chief, uploads, pool, disk, upload, monkeypatch, step, when, end):
    """A worker that dies in any step, its work done or not, is followed by one that finishes or takes back.

    Red when a step does not expect what an earlier attempt left.
    """
    operation = send(chief, upload, disk)
    kind, do = getattr(importing, step), getattr(importing, step).do

    def dies(self, context):
        if when == "after":
            do(self, context)
        raise Died

    monkeypatch.setattr(kind, "do", dies)
    with pytest.raises(Died):
        imported(operation)
    monkeypatch.setattr(kind, "do", do)
    Operation.objects.filter(pk=operation.pk).update(state=State.QUEUED)
    if end == "take back":
        monkeypatch.setattr(importing.Copy, "do", lambda self, context: fail())
    state, _codes = imported(operation)
    if end == "finish":
        assert state == State.SUCCEEDED and Image.objects.get().attachments.count() == 1
        assert Path(Image.objects.get().source).read_bytes() == disk
    else:
        assert state == State.FAILED and not Image.objects.exists()
        assert files(uploads) == [".part"]
        assert pool.driver.list_volumes(pool.pool.name) == ()


def test_a_queued_import_can_be_cancelled_and_thrown_away(chief, uploads, pool, disk, upload):
    operation = send(chief, upload, disk)
    with pytest.raises(Denied, match="Cancel that first"):
        services.give_up(actor=chief, upload=upload)
    cancel(actor=chief, operation=operation)
    services.give_up(actor=chief, upload=upload)
    services.give_up(actor=chief, upload=upload)
    assert not Upload.objects.exists() and files(uploads) == []
    assert AuditEntry.objects.filter(verb="image.upload_dropped").count() == 1


@pytest.mark.parametrize("role", list(Role))
def test_only_admins_of_every_project_hand_in_images(cast, chief, upload, role):
    person = getattr(cast, role)
    told = {"actor": person, "upload": upload}
    for act in (
        lambda: services.begin_upload(actor=person, wanted=WANTED),
        lambda: services.begin_import(actor=person, wanted=WANTED, address="https://a/", sha256="0" * 64),
        lambda: services.start_file(**told, name="a", size=5, head=b""),
        lambda: services.receive(**told, offset=0, stream=Piece(b"x"), length=1),
        lambda: services.retry(**told),
        lambda: services.give_up(**told),
    ):
        with pytest.raises(Denied, match="role in every project"):
            act()


def test_nobody_goes_on_with_the_upload_of_another(chief, upload):
    other = User.objects.create(username="second-chief")
    Membership.objects.create(user=other, role=Role.ADMIN)
    with pytest.raises(Denied, match="Only chief"):
        services.start_file(actor=other, upload=upload, name="a", size=5, head=b"")
    services.start_file(actor=chief, upload=upload, name="a", size=5, head=b"")
    with pytest.raises(Denied):
        services.receive(actor=other, upload=upload, offset=0, stream=Piece(b"x"), length=1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kind": "floppy"}, "kind"),
        ({"kind": "boot"}, "kind"),
        ({"name": "Upper"}, "name"),
        ({"name": "../x"}, "name"),
        ({"title": " "}, "title"),
        ({"version": "a b"}, "version"),
        ({"os": "../x"}, "os"),
        ({"min_memory": 5}, "min_memory"),
        ({"min_disk": 1 << 50}, "min_disk"),
        ({"secure_boot": True}, "secure_boot"),
        ({"device_models": ("xen",)}, "device_models"),
        ({"cloud_init": True, "login_user": ""}, "login_user"),
        ({"login_user": "a b"}, "login_user"),
        ({"every_project": False}, "projects"),
        ({"projects": (99999,)}, "projects"),
    ],
)
def test_what_is_said_of_it_is_checked(chief, uploads, changes, field):
    with pytest.raises(Denied) as refused:
        services.begin_upload(actor=chief, wanted=replace(WANTED, **changes))
    assert refused.value.field == field
    assert Wanted.of(WANTED.as_json()) == WANTED


def test_what_people_handed_in_proves_no_host(pool, chief, uploads, disk, upload):
    """Red when `Prove` takes the image with the least memory, whoever made it."""
    imported(send(chief, upload, disk))
    asked = []

    class Looking(enrolment.Prove):
        def call(self, context, verb, *args):
            asked.append(verb)
            return enrolment.Proof(True, "seen")

    context = StepContext({}, {"host": pool.host_id}, lambda: None)
    Looking().do(context)
    assert asked == ["prove"]
    # One of the builder's does, in a pool that runs.
    Upload.objects.all().delete()
    PoolAttachment.objects.update(observed_active=False)
    Looking().do(context)
    PoolAttachment.objects.update(observed_active=True)
    Looking().do(context)
    assert asked[1:] == ["prove", "prove", "prove_image"]


@pytest.mark.parametrize("health", [Health.UP, Health.STALE])
def test_a_pool_that_is_gone_does_not_keep_it_from_being_taken_back(
    chief, uploads, pool, disk, upload, health
):
    """Red when the undo of a copy waits for a pool that never had it."""
    operation = send(chief, upload, disk)
    pool.driver.remove_pool(pool.pool.name)
    pool.host.observed_health = health
    pool.host.save()
    assert imported(operation) == (State.FAILED, ["pool_not_found"])
    assert not Image.objects.exists()
