"""A file of a person becomes a volume: in chunks, looked at, whole or not at all; and who may do that."""

# Fixtures of other files are arguments here.
# ruff: noqa: F811

import hashlib
import secrets
import subprocess
from contextlib import suppress
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from portal.accounts.models import Membership, Role, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.ova import archive
from portal.drivers.ova.appliance import Appliance, PackedDisk
from portal.drivers.types import VolumeSpec
from portal.hosts.images import services as images
from portal.hosts.images import store
from portal.hosts.images.checking import Check
from portal.hosts.images.importing import Take
from portal.hosts.models import BegunVolume, Image, PoolAttachment, StoragePool, Upload
from portal.hosts.storage import pools, uploading
from portal.hosts.storage.kinds import is_mark
from portal.operations.models import Operation
from portal.operations.registry import StepContext
from portal.operations.states import State
from tests.factories import MIB
from tests.hosts.images.conftest import files, send, uploads  # noqa: F401 (a fixture)
from tests.hosts.images.test_appliances import disk, packed
from tests.hosts.test_storage import (  # noqa: F401 (fixtures)
    Died,
    code,
    done,
    fake,
    look,
    names,
    pool,
    put,
    row,
)

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("uploads", "fake")]
NAME = "mine.qcow2"


@pytest.fixture
def operator(db):
    """Somebody who operates everything and administers nothing."""
    person = User.objects.create(username="olga")
    Membership.objects.create(user=person, role=Role.OPERATOR)
    return person


def qcow2(tmp_path):
    """Return a qcow2 with 3 MiB of noise in it."""
    raw, path = tmp_path / "noise.raw", tmp_path / "noise.qcow2"
    raw.write_bytes(secrets.token_bytes(3 * MIB).ljust(16 * MIB, b"\0"))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    return path.read_bytes()


def begin(person, pool, name=NAME, **told):
    return uploading.begin(actor=person, pool=pool, name=name, **told)


def put_in(person, upload, content):
    """Send the file and let it become a volume; return the operation as it ended."""
    return done(send(person, upload, content))


def test_an_operators_file_becomes_a_volume(
    operator,
    pool,
    fake,
    uploads,
    tmp_path,
    django_capture_on_commit_callbacks,
):
    """Red when an operator needs an admin's right, another file is put there, or the portal keeps a copy."""
    disk = qcow2(tmp_path)
    upload = begin(operator, pool, sha256=hashlib.sha256(disk).hexdigest())
    with django_capture_on_commit_callbacks(execute=True):
        assert put_in(operator, upload, disk).state == State.SUCCEEDED
    made = row(NAME)
    assert (made.made, made.observed_capacity, made.observed_format) == (True, 16 * MIB, "qcow2")
    assert fake._bytes_of(fake.volume_info(pool.pool.name, NAME)) == disk
    upload.refresh_from_db()
    assert (
        upload.state == Upload.State.DONE
        and files(uploads) == []
        and not Image.objects.filter(uploads=upload)
    )
    verbs = set(AuditEntry.objects.values_list("verb", flat=True))
    assert {"volume.upload_begun", "volume.upload_file", "operation.succeeded"} <= verbs
    assert not any(verb.startswith("image.") for verb in verbs) and not BegunVolume.objects.exists()


def test_a_raw_disk_becomes_a_qcow2(operator, pool, fake):
    raw = (bytes(510) + b"\x55\xaa" + secrets.token_bytes(4096)).ljust(MIB, b"\0")
    assert put_in(operator, begin(operator, pool), raw).state == State.SUCCEEDED
    assert (row(NAME).observed_format, row(NAME).observed_capacity) == ("qcow2", MIB)


DATA = b"a disk of data alone".ljust(MIB, b"\0")


def content_of(fake, pool, target):
    """Return what a guest finds in the volume, read as the qcow2 that it is for libvirt."""
    volume = fake.volume_info(pool.pool.name, NAME)
    assert volume.format == "qcow2"
    target.write_bytes(fake._bytes_of(volume))
    back = target.with_suffix(".back")
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", target, back], check=True)
    return back.read_bytes()


def test_a_raw_disk_of_data_is_taken_when_somebody_says_so(operator, pool, fake, uploads, tmp_path):
    """Red when Check does not tell `judge`, or the remark comes for every raw disk."""
    operation = put_in(operator, begin(operator, pool, raw=True), DATA)
    assert operation.state == State.SUCCEEDED and operation.steps.get(name="check").remark == ""
    assert content_of(fake, pool, tmp_path / "a") == DATA and operation.frozen["pinned"]["format"] == "raw"


def test_a_raw_disk_is_never_taken_for_what_a_guest_wrote_into_it(operator, pool, fake, uploads, tmp_path):
    """Red when what is said to be raw is looked at: the guest would choose what the host reads."""
    path = tmp_path / "bad.qcow2"
    backed = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", path, "16M"]
    subprocess.run(backed, check=True)
    content = path.read_bytes()
    operation = put_in(operator, begin(operator, pool, raw=True), content)
    assert operation.state == State.SUCCEEDED
    assert operation.steps.get(name="check").remark == "raw_looks_otherwise"
    assert content_of(fake, pool, tmp_path / "a")[: len(content)] == content
    assert row(NAME).observed_capacity == -(-len(content) // 512) * 512


def test_a_worker_that_died_behind_the_conversion_makes_no_disk_of_a_disk(
    operator, pool, fake, uploads, tmp_path, monkeypatch
):
    """Red when what an earlier attempt made of a raw disk is taken for a raw disk again."""
    operation = send(operator, begin(operator, pool, raw=True), DATA)
    context = StepContext(operation.frozen, operation.identifiers, lambda: None)
    Take().do(context)
    Check().do(context)
    Check().do(context)
    assert done(operation).state == State.SUCCEEDED
    assert content_of(fake, pool, tmp_path / "a") == DATA


def test_what_nobody_knows_is_kept_until_somebody_says_that_it_is_raw(
    client, operator, chief, pool, fake, uploads, tmp_path
):
    """Red when it is thrown away, the page does not ask, or an image can be such a disk."""
    upload = begin(operator, pool)
    failed = put_in(operator, upload, DATA)
    assert code(failed) == "volume_unknown" and files(uploads) == [".part"]
    client.force_login(operator)
    page = reverse("hosts:upload", args=[upload.pk])
    shown = client.get(page).content.decode()
    assert "It is a raw disk" in shown and "Import it again" not in shown
    client.post(reverse("hosts:upload-retry", args=[upload.pk]), {"raw": "1"})
    assert done(Operation.objects.latest("pk")).state == State.SUCCEEDED
    assert content_of(fake, pool, tmp_path / "a") == DATA
    assert AuditEntry.objects.get(verb="volume.said_raw").after["raw"] is True
    image = Upload.objects.create(
        person=chief, wanted={"kind": "disk", "title": "T"}, state="failed", address="https://example.org/a"
    )
    with pytest.raises(Denied, match="becomes a volume"):
        images.retry(actor=chief, upload=image, raw=True)
    image.refresh_from_db()
    assert (image.state, image.is_raw) == ("failed", False)


def test_the_disk_of_an_appliance_becomes_a_volume(operator, pool, fake, tmp_path):
    """Red when the archive is put into the pool, or refused, which the page says is taken."""
    content = packed(tmp_path, disk(tmp_path / "raw", "vmdk"), name="disk.vmdk")
    assert put_in(operator, begin(operator, pool), content).state == State.SUCCEEDED
    assert (row(NAME).observed_format, row(NAME).observed_capacity) == ("qcow2", 2 * MIB)


def test_of_an_appliance_with_several_disks_the_chosen_one_becomes_the_volume(
    client, operator, pool, fake, tmp_path
):
    """Red when the page of a volume's upload cannot choose."""
    disks = {"a.qcow2": disk(tmp_path / "1.raw"), "b.vmdk": disk(tmp_path / "2.raw", "vmdk", bytes(3 * MIB))}
    paths = {name: tmp_path / name for name in disks}
    for name, content in disks.items():
        paths[name].write_bytes(content)
    machine = Appliance("m", 1, MIB, tuple(PackedDisk(name, MIB) for name in disks))
    archive.pack(tmp_path / "x.ova", machine, paths, {})
    upload = begin(operator, pool)
    operation = put_in(operator, upload, (tmp_path / "x.ova").read_bytes())
    assert code(operation) == "appliance_disks"
    client.force_login(operator)
    upload_page = reverse("hosts:upload", args=[upload.pk])
    assert upload_page in client.get(reverse("operations:detail", args=[operation.pk])).content.decode()
    assert "b.vmdk" in client.get(reverse("hosts:upload", args=[upload.pk])).content.decode()
    choose = reverse("hosts:upload-choose", args=[upload.pk])
    assert client.post(choose, {"disk": "3"}).status_code == 422
    assert client.post(choose, {"disk": "2"}).status_code == 302
    assert done(Operation.objects.latest("pk")).state == State.SUCCEEDED
    assert (row(NAME).observed_format, row(NAME).observed_capacity) == ("qcow2", 3 * MIB)


@pytest.mark.parametrize("length", [MIB, MIB - 512])
def test_any_disk_of_an_appliance_may_be_one_of_data_as_a_volume(operator, pool, fake, tmp_path, length):
    """Red when the first disk must say that it can be booted: nobody starts a machine from a volume."""
    content = packed(tmp_path, DATA[:length], disks=(PackedDisk("disk.qcow2", MIB),))
    operation = put_in(operator, begin(operator, pool), content)
    if length != MIB:
        assert code(operation) == "appliance_no_data"
        return
    assert operation.state == State.SUCCEEDED
    assert operation.steps.get(name="check").remark == "appliance_data"
    assert content_of(fake, pool, tmp_path / "a") == DATA


def test_who_may_not_gets_nothing(operator, chief, cast, pool, tmp_path):
    """Red when a step of the road does not ask for the right, or lets another person go on."""
    with pytest.raises(Denied, match="may not make volumes"):
        begin(cast.requester, pool)
    upload = begin(operator, pool)
    told = {"name": "a", "size": 5, "head": b""}
    with pytest.raises(Denied, match="Only olga"):
        images.start_file(actor=chief, upload=upload, **told)
    Membership.objects.filter(user=operator).delete()
    operator = User.objects.get(pk=operator.pk)
    with pytest.raises(Denied, match="may not make volumes"):
        images.start_file(actor=operator, upload=upload, **told)
    with pytest.raises(Denied, match="may not make volumes"):
        images.give_up(actor=operator, upload=upload)


def test_an_operator_hands_in_no_image_by_it(operator, chief):
    """Red when the right for volumes is enough for images."""
    upload = Upload.objects.create(person=operator, wanted={"kind": "disk", "title": "T"})
    with pytest.raises(Denied, match="may not add images"):
        images.start_file(actor=operator, upload=upload, name="a", size=5, head=b"")


def test_what_would_show_the_hosts_files_is_thrown_away(operator, pool, fake, uploads, tmp_path):
    """Red when the file is put into the pool before it is judged, or a failure keeps it."""
    path = tmp_path / "bad.qcow2"
    backed = ["qemu-img", "create", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", path, "16M"]
    subprocess.run(backed, check=True)
    upload = begin(operator, pool)
    failed = put_in(operator, upload, path.read_bytes())
    assert (failed.state, code(failed)) == (State.FAILED, "image_backed")
    assert names(fake, pool) == [] and files(uploads) == []
    with pytest.raises(Denied, match="was thrown away"):
        images.retry(actor=operator, upload=upload)


@pytest.mark.parametrize("content", [b"hello " * 1000, b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_disk_is_not_taken(operator, pool, fake, content):
    assert put_in(operator, begin(operator, pool), content).state == State.FAILED
    assert names(fake, pool) == []


def test_another_file_than_was_told_is_not_taken(operator, pool, fake, tmp_path):
    """Red when the checksum is not compared."""
    failed = put_in(operator, begin(operator, pool, sha256="0" * 64), qcow2(tmp_path))
    assert (failed.state, code(failed)) == (State.FAILED, "image_checksum")
    assert names(fake, pool) == []


def test_a_name_that_is_taken_is_refused_and_what_has_it_is_left(operator, pool, fake, tmp_path):
    """Red when the name is not claimed: the file would be written over what came there meanwhile."""
    upload = begin(operator, pool)
    with pytest.raises(Denied, match="olga began to upload"):
        begin(operator, pool)
    with pytest.raises(Denied, match="Use letters"):
        begin(operator, pool, "../x")
    theirs = put(fake, pool, NAME)
    sent = send(operator, upload, qcow2(tmp_path))
    Upload.objects.update(touched_at=timezone.now() - timedelta(days=4))
    failed = done(sent)
    assert (failed.state, code(failed)) == (State.FAILED, "name_taken")
    assert fake.volume_info(pool.pool.name, NAME) == theirs
    # What was sent is kept: when the name is free again, it goes on without being sent again.
    assert images.sweep_uploads() == 0
    fake.delete_volume(pool.pool.name, NAME)
    upload.refresh_from_db()
    assert done(images.retry(actor=operator, upload=upload)).state == State.SUCCEEDED


def test_what_comes_in_the_last_instant_is_left(operator, pool, fake, tmp_path, monkeypatch):
    """Red when a refused volume counts as begun, which the undo deletes."""
    delete = fake.delete_volume

    def taken(where, name):
        delete(where, name)
        monkeypatch.setattr(fake, "delete_volume", delete)
        fake.create_volume(VolumeSpec(where, name, 2 * MIB))

    monkeypatch.setattr(fake, "delete_volume", taken)
    failed = put_in(operator, begin(operator, pool), qcow2(tmp_path))
    assert (failed.state, code(failed)) == (State.FAILED, "name_taken")
    assert fake.volume_info(pool.pool.name, NAME).capacity_bytes == 2 * MIB


def test_a_full_pool_is_told_and_nothing_is_left(operator, pool, fake, tmp_path):
    fake.pool_bytes = MIB
    failed = put_in(operator, begin(operator, pool), qcow2(tmp_path))
    assert (failed.state, code(failed)) == (State.FAILED, "volume_pool_full")
    assert names(fake, pool) == [] and not BegunVolume.objects.exists()


def test_a_volume_is_there_whenever_a_worker_died(operator, pool, fake, tmp_path, monkeypatch):
    """Red when Put does not know its own mark, or what it made: after each call the worker dies once."""
    disk = qcow2(tmp_path)
    operation = send(operator, begin(operator, pool), disk)
    context = StepContext(operation.frozen, operation.identifiers, lambda: None)
    calls = {verb: getattr(fake, verb) for verb in ("create_volume", "delete_volume", "upload_image")}
    deaths = set()

    def dying(verb):
        def act(*args):
            calls[verb](*args)
            if verb not in deaths:
                deaths.add(verb)
                raise Died

        return act

    steps = uploading.KIND.steps
    with monkeypatch.context() as patched:
        for verb in calls:
            patched.setattr(fake, verb, dying(verb))
        for step in steps:
            while True:
                with suppress(Died):
                    step.do(context)
                    step.do(context)
                    break
    assert deaths == set(calls)
    info = fake.volume_info(pool.pool.name, NAME)
    assert fake._bytes_of(info) == disk and not is_mark(context, info)
    for step in reversed(steps):
        step.undo(context)
        step.undo(context)
    assert names(fake, pool) == [] and not BegunVolume.objects.exists()


def test_a_pool_that_somebody_uploads_into_is_not_removed(operator, pool):
    """Red when the upload would go with its pool, in the midst of it."""
    other = PoolAttachment.objects.create(
        host=pool.host, pool=StoragePool.objects.create(name="spare"), path="/srv/spare"
    )
    assert pools.why_not_removed(other) == ""
    upload = begin(operator, other)
    assert pools.why_not_removed(other).startswith("olga uploads mine.qcow2 into it")
    images.give_up(actor=operator, upload=upload)
    assert pools.why_not_removed(other) == ""


def test_a_pool_that_goes_takes_no_upload_with_it(operator, chief, pool, fake, tmp_path):
    """Red when the pool goes with an upload that came after its removal was asked for, or takes one."""
    spare = {"name": "spare", "kind": "dir", "path": "/srv/spare", "source": "", "server": ""}
    assert done(pools.add(actor=chief, host=pool.host, **spare)).state == State.SUCCEEDED
    other = PoolAttachment.objects.get(pool__name="spare")
    assert put_in(operator, begin(operator, other), qcow2(tmp_path)).state == State.SUCCEEDED
    going = pools.remove(actor=chief, pool=other, confirm_name="spare")
    with pytest.raises(Denied, match="being removed"):
        begin(operator, other, "late.qcow2")
    late = Upload.objects.create(person=operator, pool=other, wanted={"kind": "volume", "title": "late"})
    failed = done(going)
    assert (failed.state, code(failed)) == (State.FAILED, "pool_in_use")
    assert Upload.objects.filter(pk=late.pk).exists()
    images.give_up(actor=operator, upload=late)
    assert done(pools.remove(actor=chief, pool=other, confirm_name="spare")).state == State.SUCCEEDED
    assert not Upload.objects.exists()
    with pytest.raises(Denied, match="being removed"):
        begin(operator, other)


def test_the_sweep_clears_what_is_a_volume_by_now(operator, pool, uploads, tmp_path):
    """Red when the file is kept as an image's is: a worker may die between the good end and the clearing."""
    upload = begin(operator, pool)
    put_in(operator, upload, qcow2(tmp_path))
    assert ".qcow2" in files(uploads)
    images.sweep_uploads()
    assert files(uploads) == []
    old = begin(operator, pool, "old.qcow2")
    Upload.objects.filter(pk=old.pk).update(touched_at=timezone.now() - timedelta(days=4))
    assert images.sweep_uploads() == 1 and not Upload.objects.filter(pk=old.pk).exists()


def test_the_pages_lead_from_the_pool_to_the_volume(operator, pool, client, tmp_path):
    """Red when a page shows uploads of images, sends to another address, or answers without the offset."""
    client.force_login(operator)
    place = reverse("hosts:pool", args=[pool.pk])
    wrong = client.post(reverse("hosts:upload-begin", args=[pool.pk]), {"upload-name": "a b"})
    assert wrong.status_code == 422 and b"Use letters" in wrong.content
    answer = client.post(
        reverse("hosts:upload-begin", args=[pool.pk]), {"upload-name": NAME, "upload-raw": "on"}
    )
    upload = Upload.objects.get()
    assert upload.is_raw
    Upload.objects.update(wanted={name: value for name, value in upload.wanted.items() if name != "raw"})
    page = reverse("hosts:upload", args=[upload.pk])
    assert answer.headers["Location"] == page and page in client.get(place).content.decode()
    start = reverse("hosts:upload-start", args=[upload.pk])
    shown = client.get(page).content.decode()
    assert f'data-start="{start}"' in shown and "not chosen yet" in shown
    disk = qcow2(tmp_path)
    told = {"name": "a<b.qcow2", "size": len(disk), "head": ""}
    assert client.post(start, told).json() == {"offset": 0}

    def chunk(offset, length):
        url = reverse("hosts:upload-chunk", args=[upload.pk, offset])
        piece = disk[offset : offset + length]
        return client.post(url, piece, content_type="application/octet-stream")

    assert chunk(0, MIB).json() == {"offset": MIB}
    wrong = chunk(0, MIB)
    assert (wrong.status_code, wrong.json()) == (409, {"offset": MIB})
    # The connection broke; the same file goes on.
    assert client.post(start, told).json() == {"offset": MIB}
    assert "a&lt;b.qcow2" in client.get(page).content.decode()
    assert chunk(MIB, len(disk)).json() == {"offset": len(disk)}
    assert done(Operation.objects.get()).state == State.SUCCEEDED
    shown = client.get(page).content.decode()
    assert reverse("hosts:volume", args=[row(NAME).pk]) in shown and 'type="file"' not in shown
    assert page not in client.get(place).content.decode()


def test_images_and_volumes_do_not_mix_on_the_pages(chief, pool, client):
    """Red when one of the two roads shows or takes an upload of the other."""
    client.force_login(chief)
    volume = begin(chief, pool)
    image = Upload.objects.create(person=chief, wanted={"kind": "disk", "title": "T"})
    assert client.get(reverse("vms:upload", args=[volume.pk])).status_code == 404
    assert client.get(reverse("hosts:upload", args=[image.pk])).status_code == 404
    assert client.post(reverse("hosts:upload-drop", args=[image.pk])).status_code == 404
    assert NAME not in client.get(reverse("vms:images")).content.decode()
    assert client.post(reverse("hosts:upload-drop", args=[volume.pk])).status_code == 302
    assert list(Upload.objects.all()) == [image] and store.length(store.part_of(volume)) == 0
