"""What of an image is deleted when it goes, or its import is taken back, and what must stay."""

import hashlib

import pytest
from django.urls import reverse

from portal.core.errors import Denied
from portal.drivers.errors import InvalidState
from portal.drivers.types import PoolSpec, VolumeSpec
from portal.hosts import services as hosts
from portal.hosts.images import importing, services
from portal.hosts.images.in_use import stood_on, uses_of
from portal.hosts.images.values import BEING_MADE
from portal.hosts.models import (
    BegunVolume,
    Image,
    ImageAttachment,
    PoolAttachment,
    StoragePool,
    Upload,
    Volume,
)
from portal.operations.registry import StepContext, StepFailed
from portal.operations.states import State
from tests.factories import GIB, make_host, make_image
from tests.hosts.conftest import carry_out
from tests.hosts.images.conftest import MIB, fail, files, imported, make_pool, send
from tests.vms.sharers import use_too

pytestmark = [pytest.mark.database, pytest.mark.django_db]


def volumes(place):
    return [volume.name for volume in place.driver.list_volumes(place.pool.name)]


def delete(chief, image):
    operation = services.delete_image(actor=chief, image=image, confirm_name=image.name)
    carry_out(operation)
    operation.refresh_from_db()
    return State(operation.state)


def test_the_volume_of_a_template_goes_by_the_name_that_it_has(chief, uploads, pool):
    """Red when delete_from takes image.volume_name, which is made of the SHA-256."""
    image = make_image(name="mine", source="")
    spec = VolumeSpec(pool.pool.name, "gatehouse-mine-0123456789ab.qcow2", 16 * MIB)
    path = pool.driver.create_volume(spec).path
    ImageAttachment.objects.create(image=image, pool=pool, path=path)
    assert delete(chief, image) == State.SUCCEEDED
    assert volumes(pool) == [] and not Image.objects.exists()


def test_nothing_is_made_from_an_image_before_its_import_ends(
    chief, uploads, pool, disk, upload, monkeypatch
):
    """Red when Register makes it usable: a machine would stand on what Copy.undo deletes."""
    copy, seen = importing._copy_to, []

    def copy_to(place, image):
        copy(place, image)
        seen.append(Image.objects.get().deprecated_reason)
        for change in (hosts.restore_image, lambda **who: hosts.deprecate_image(**who, reason="mine")):
            with pytest.raises(Denied, match="Example Linux is still being made"):
                change(actor=chief, image=image)

    monkeypatch.setattr(importing, "_copy_to", copy_to)
    assert imported(send(chief, upload, disk)) == (State.SUCCEEDED, [])
    image = Image.objects.get()
    assert seen == [BEING_MADE] and (image.deprecated_at, image.deprecated_reason) == (None, "")
    assert not BegunVolume.objects.exists()


def test_an_import_puts_nothing_into_a_pool_that_was_taken_over(chief, uploads, pool, disk, upload):
    """Red when Copy takes every pool of files for the portal's own."""
    theirs = StoragePool.objects.create(name="theirs")
    PoolAttachment.objects.create(host=pool.host, pool=theirs, path="/srv/theirs", taken_over=True)
    pool.driver.ensure_pool(PoolSpec("theirs", str(theirs.uuid), "/srv/theirs"))
    assert imported(send(chief, upload, disk)) == (State.SUCCEEDED, [])
    assert Image.objects.get().attachments.get().pool == pool and pool.driver.list_volumes("theirs") == ()


def test_an_import_is_not_taken_back_from_under_what_uses_it(chief, uploads, pool, disk, upload, monkeypatch):
    """Red when Copy.undo does not ask who uses the image."""
    operation = send(chief, upload, disk)
    assert imported(operation) == (State.SUCCEEDED, [])
    monkeypatch.setattr(importing, "uses_of", lambda image: ["Machines stand on it."])
    context = StepContext({}, operation.identifiers, lambda: None)
    with pytest.raises(StepFailed) as failed:
        importing.Copy().undo(context)
    assert (failed.value.code, failed.value.raw) == ("image_used", "Machines stand on it.")
    assert volumes(pool) == [Image.objects.get().volume_name] and uses_of(Image.objects.get()) == []


def test_what_a_proof_copied_meanwhile_is_taken_back_too(chief, uploads, disk, upload, monkeypatch):
    """Red when Register.undo leaves attachments: the row could never go."""
    drivers = {}
    make_pool(monkeypatch, drivers)
    late = make_pool(monkeypatch, drivers, "second-host")
    undo = importing.Copy.undo

    def undo_and_copy(self, context):
        undo(self, context)
        importing._copy_to(late, Upload.objects.get().image)

    monkeypatch.setattr(importing.Copy, "undo", undo_and_copy)
    monkeypatch.setattr(importing.Copy, "do", fail)
    assert imported(send(chief, upload, disk)) == (State.FAILED, ["internal"])
    assert not Image.objects.exists() and volumes(late) == []


def test_what_an_import_did_not_make_is_left(chief, uploads, pool, disk, upload):
    """Red when a volume is taken back for its name: this one is another content, and a domain's disk."""
    operation = send(chief, upload, disk)
    name = f"gatehouse-example-{hashlib.sha256(disk).hexdigest()[:12]}.qcow2"
    theirs = pool.driver.create_volume(VolumeSpec(pool.pool.name, name, 2 * GIB))
    assert imported(operation) == (State.FAILED, ["already_exists"])
    assert pool.driver.list_volumes(pool.pool.name) == (theirs,)
    assert not BegunVolume.objects.exists() and not Image.objects.exists()


def test_what_comes_in_the_last_instant_is_left(chief, uploads, pool, disk, upload):
    """Red when _copy_to keeps the mark of what somebody else made meanwhile."""
    copy = pool.driver.upload_image

    def quicker(where, name, source):
        pool.driver.create_volume(VolumeSpec(where, name, 2 * GIB))
        return copy(where, name, source)

    pool.driver.upload_image = quicker
    assert imported(send(chief, upload, disk)) == (State.FAILED, ["already_exists"])
    assert len(volumes(pool)) == 1 and not BegunVolume.objects.exists()


@pytest.mark.parametrize("before", [True, False])
def test_the_same_image_of_before_outlives_an_import(
    chief, uploads, pool, disk, upload, tmp_path, monkeypatch, before
):
    """Red when a copy that was there before is deleted, or one that was not is left."""
    operation = send(chief, upload, disk)
    source, name = tmp_path / "same.qcow2", f"gatehouse-example-{hashlib.sha256(disk).hexdigest()[:12]}.qcow2"
    source.write_bytes(disk)
    if before:
        pool.driver.upload_image(pool.pool.name, name, str(source))
    copy = importing.Copy.do

    def copy_and_fail(self, context):
        assert copy(self, context) is None and ImageAttachment.objects.exists()
        fail()

    monkeypatch.setattr(importing.Copy, "do", copy_and_fail)
    assert imported(operation) == (State.FAILED, ["internal"])
    assert volumes(pool) == ([name] if before else [])
    assert not Image.objects.exists() and not BegunVolume.objects.exists()


@pytest.mark.parametrize("how", ["domain", "volume"])
@pytest.mark.parametrize("step", [importing.Copy, importing.Register])
def test_what_somebody_made_of_it_meanwhile_keeps_the_volume(chief, uploads, pool, disk, upload, how, step):
    """Red when the host is not asked who uses it before the volume of an import is taken back."""
    operation = send(chief, upload, disk)
    context = StepContext({}, operation.identifiers, lambda: None)
    for each in (importing.Take(), importing.Check(), importing.Register(), importing.Copy()):
        each.do(context)
    image = Image.objects.get()
    use_too(pool.driver, image.attachments.get().path, how)
    for _again in range(2):
        step().undo(context)
    assert volumes(pool) == [image.volume_name]
    assert not ImageAttachment.objects.exists() and not BegunVolume.objects.exists()


def test_a_worker_that_died_before_the_row_leaves_nothing(chief, uploads, pool, disk, upload):
    """Red when the mark is written after the copy, or deleted before it."""
    operation = send(chief, upload, disk)
    context = StepContext({}, operation.identifiers, lambda: None)
    for each in (importing.Take(), importing.Check(), importing.Register()):
        each.do(context)
    copy = pool.driver.upload_image

    def dies(*args):
        copy(*args)
        raise RuntimeError

    pool.driver.upload_image = dies
    for _again in range(2):
        with pytest.raises(RuntimeError):
            importing.Copy().do(context)
    assert len(volumes(pool)) == 1 and not ImageAttachment.objects.exists()
    importing.Copy().undo(context)
    assert volumes(pool) == [] and not BegunVolume.objects.exists()


@pytest.mark.parametrize("when", ["before", "half done", "copied", "gone"])
def test_a_pool_that_does_not_run_does_not_keep_an_import_from_ending(
    chief, uploads, disk, upload, monkeypatch, when
):
    """Red when take_back waits for a pool that nobody may ever start; the next import takes what is there."""
    drivers = {}
    make_pool(monkeypatch, drivers)
    second = make_pool(monkeypatch, drivers, "second-host")
    stop, copy, name = second.driver.stop_pool, second.driver.upload_image, second.pool.name
    if when == "before":
        stop(name)
    if when == "half done":

        def copy_half(*args):
            copy(*args)
            stop(name)
            raise InvalidState("it broke off")

        second.driver.upload_image = copy_half
    do = importing.Copy.do

    def do_and_fail(self, context):
        do(self, context)
        (second.driver.remove_pool if when == "gone" else stop)(name)
        fail()

    with monkeypatch.context() as patched:
        patched.setattr(importing.Copy, "do", do_and_fail)
        assert imported(send(chief, upload, disk)) == (State.FAILED, ["internal"])
    upload.refresh_from_db()
    assert upload.state == Upload.State.FAILED and not Image.objects.exists()
    assert not BegunVolume.objects.exists()
    if when != "gone":
        second.driver.upload_image = copy
        second.driver.start_pool(name)
        again = services.retry(actor=chief, upload=upload)
        assert imported(again) == (State.SUCCEEDED, []) and Image.objects.get().attachments.count() == 2


def test_a_host_that_was_removed_while_it_was_copied_there(chief, uploads, disk, upload, monkeypatch):
    """Red when the pool is not looked for again: the row would point to nothing ("internal")."""
    drivers = {}
    make_pool(monkeypatch, drivers)
    gone = make_pool(monkeypatch, drivers, "second-host")
    copy = importing.call

    def call(host_id, verb, *args, timeout):
        told = copy(host_id, verb, *args, timeout=timeout)
        if host_id == gone.host_id:
            PoolAttachment.objects.filter(pk=gone.pk).delete()
        return told

    monkeypatch.setattr(importing, "call", call)
    assert imported(send(chief, upload, disk)) == (State.SUCCEEDED, [])
    assert ImageAttachment.objects.count() == 1


def test_an_image_is_not_deleted_while_its_import_runs(chief, uploads, pool, disk, upload, monkeypatch):
    """Red when delete_image does not look at the import."""
    operation = send(chief, upload, disk)

    def copy_to(place, image):
        # As it is with an import that began before images were hidden so long.
        Image.objects.update(deprecated_at=None, deprecated_reason="")
        image.refresh_from_db()
        with pytest.raises(Denied, match="still being made"):
            services.delete_image(actor=chief, image=image, confirm_name=image.name)

    monkeypatch.setattr(importing, "_copy_to", copy_to)
    assert imported(operation) == (State.SUCCEEDED, [])


def test_what_was_sent_goes_with_the_image(
    chief,
    uploads,
    pool,
    disk,
    upload,
    django_capture_on_commit_callbacks,
):
    """Red when Forget removes the image's file alone: a worker that died at the end left the others."""
    assert imported(send(chief, upload, disk)) == (State.SUCCEEDED, [])
    assert ".part" in files(uploads)
    with django_capture_on_commit_callbacks(execute=True):
        assert delete(chief, Image.objects.get()) == State.SUCCEEDED
    assert files(uploads) == []


def test_it_is_not_restored_while_it_is_deleted_and_is_after_a_failure(chief, uploads, pool, disk, upload):
    """Red when restore_image does not look for the deletion."""
    imported(send(chief, upload, disk))
    image = Image.objects.get()
    operation = services.delete_image(actor=chief, image=image, confirm_name=image.name)
    with pytest.raises(Denied, match="Example Linux is being deleted"):
        hosts.restore_image(actor=chief, image=image)
    pool.driver.delete_volume = refuse
    carry_out(operation)
    image.refresh_from_db()
    assert (image.deprecated_at, image.deprecated_reason) == (None, "")


def test_an_image_of_the_longest_names_is_deleted(chief, db):
    """Red on PostgreSQL when the operation's title has no room for the names in it."""
    image = make_image(title="t" * 100, version="v" * 64)
    operation = services.delete_image(actor=chief, image=image, confirm_name=image.name)
    assert operation.title.endswith("v" * 64)


def refuse(*_):
    raise InvalidState("not now")


def test_a_deletion_that_fails_leaves_what_somebody_deprecated(chief, uploads, pool, disk, upload):
    imported(send(chief, upload, disk))
    image = Image.objects.get()
    hosts.deprecate_image(actor=chief, image=image, reason="holes")
    pool.driver.delete_volume = refuse
    assert delete(chief, image) == State.FAILED
    image.refresh_from_db()
    assert image.deprecated_reason == "holes" and image.deprecated_at


@pytest.mark.parametrize("pools", [1, 2])
def test_an_image_stays_under_a_domain_that_is_off(chief, uploads, pool, disk, upload, pools):
    """Red when only domains are asked for, or one pool: what is off does not say what its disk stands on."""
    imported(send(chief, upload, disk))
    image, driver = Image.objects.get(), pool.driver
    base = driver.volume_info(pool.pool.name, image.volume_name)
    name = "overlay.qcow2"
    if pools == 2:
        use_too(driver, base.path, "volume")
        name = "my overlay.qcow2"
    else:
        spec = VolumeSpec(pool.pool.name, name, 2 * GIB, base.path)
        over = driver.create_volume(spec)
        use_too(driver, over.path, "domain")
    operation = services.delete_image(actor=chief, image=image, confirm_name=image.name)
    assert imported(operation) == (State.FAILED, ["image_used"])
    assert operation.steps.get(error_code="image_used").error_raw == f"{name} on example-host."
    assert image.volume_name in volumes(pool)


def test_what_stands_on_an_image_is_said_before(chief, uploads, pool, disk, upload, client):
    """Red when what the host told of its volumes is not looked at, or another host's file of that path."""
    imported(send(chief, upload, disk))
    image = Image.objects.get()
    path = image.attachments.get().path
    second = PoolAttachment.objects.create(
        host=make_host("other", "fake://other/"), pool=pool.pool, path=pool.path
    )
    ImageAttachment.objects.create(image=image, pool=second, path="/elsewhere")
    Volume.objects.create(pool=second, name="theirs.qcow2", observed_path="/x", observed_backing=path)
    assert stood_on(image) == []
    Volume.objects.create(pool=pool, name="overlay.qcow2", observed_path="/y", observed_backing=path)
    with pytest.raises(Denied, match="A volume stands on it: overlay.qcow2"):
        services.delete_image(actor=chief, image=image, confirm_name=image.name)
    client.force_login(chief)
    page = client.get(reverse("vms:image", args=[image.pk])).content.decode()
    assert "A volume stands on it: overlay.qcow2" in page


def test_what_is_used_between_two_hosts_stays_on_the_second(chief, uploads, disk, upload, monkeypatch):
    """Red when uses are asked once for all hosts."""
    drivers, asked = {}, []
    first = make_pool(monkeypatch, drivers)
    second = make_pool(monkeypatch, drivers, "second-host")
    imported(send(chief, upload, disk))
    monkeypatch.setattr(
        "portal.hosts.images.deleting.uses_of",
        lambda image: asked.append(1) or ["An item."] * (len(asked) - 1),
    )
    assert delete(chief, Image.objects.get()) == State.FAILED
    assert sorted(map(len, map(volumes, (first, second)))) == [0, 1]
