"""The steps that make an image of what somebody handed in. Not for: deleting one (`deleting`).

What the browser sent is sealed before the worker looks at it (`keeper`), or copied where the web process
can still write to it. A file that is wrong in itself is thrown away at once. After any other failure what the
browser sent is kept, to be imported again; so is what was fetched, once its checksum was right.
"""

import hashlib
import os
import time
from contextlib import suppress
from functools import partial
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from portal.audit import services as audit
from portal.drivers.errors import AlreadyExists, DriverError, HostRemoved
from portal.drivers.types import FOLDER_KINDS, Accelerator, VolumeInfo
from portal.hosts.calls import call
from portal.hosts.images import allowing, appliances, boot_files, copies, fetching, passing, room, store
from portal.hosts.images.checking import Check, look, of_disk, upload_of
from portal.hosts.images.in_use import uses_of
from portal.hosts.images.purposes import IMPORT, page
from portal.hosts.images.values import BEING_MADE, GIB, LEAST_MEMORY, Wanted
from portal.hosts.models import Health, Image, ImageAttachment, PoolAttachment, Upload
from portal.hosts.steps import failed, once_reached, seconds_for
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.registry import Kind, Step, StepContext, StepFailed
from portal.operations.states import State

COPY_SECONDS = 3600.0
CHECK_EVERY = 1.0  # seconds


class Take(Step):
    """The file as nobody else can change it, whole and with the right SHA-256."""

    name, title = "take", "Take the file and compute its checksum"

    def do(self, context: StepContext) -> None:
        upload = upload_of(context)
        target = store.taken_of(upload)
        try:
            store.make_folder(target.parent.name)
        except OSError as error:
            raise of_disk(error, "store_failed") from error
        found = self._fetch(context, upload) if upload.address else self._take(context, upload)
        if upload.expected_sha256 and found != upload.expected_sha256:
            store.forget(upload)
            raise StepFailed("image_checksum", found)
        whole = store.part_of(upload) if upload.address else target
        # Before it gets its second name: from here on it need not be fetched again.
        Upload.objects.filter(pk=upload.pk).update(sha256=found, file_size=store.length(whole))
        if upload.address:
            store.name_fetched(upload)

    def _fetch(self, context: StepContext, upload: Upload) -> str:
        if not store.is_fetched(upload):
            self._fetch_from(upload, context)
        with store.open_part(upload) as file:
            return self._digest(context, file, None)

    def _fetch_from(self, upload: Upload, context: StepContext) -> None:
        target = store.part_of(upload)
        room_bytes = room.free_bytes(upload) + store.length(target)
        most = min(settings.UPLOAD_MOST_BYTES, room_bytes)
        networks = allowing.installed()
        limits = fetching.Limits(
            most, settings.IMPORT_SECONDS, networks, settings.IMPORT_CA, opened=allowing.opened
        )
        try:
            fetching.fetch(upload.address, target, limits=limits, check=lambda have: look(context))
        except fetching.FetchFailed as failed:
            if failed.code == "image_long" and most == room_bytes:
                raise StepFailed("store_full", failed.raw) from failed
            raise StepFailed(failed.code, failed.raw, retryable=failed.retryable) from failed

    def _take(self, context: StepContext, upload: Upload) -> str:
        if store.length(store.part_of(upload)) != upload.file_size:
            raise StepFailed("upload_gone")
        if store.is_kept(upload):
            # Where the file system gives no second name, it is copied.
            with suppress(OSError):
                return self._seal(context, upload)
        return self._copy(context, upload)

    def _seal(self, context: StepContext, upload: Upload) -> str:
        store.seal(upload, lambda: look(context))
        with store.taken_of(upload).open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            return passing.digest(upload.token, length) or self._digest(context, file, None)

    def _copy(self, context: StepContext, upload: Upload) -> str:
        # It may be a second name of what the browser sent, which must not be written to.
        store.remove(store.taken_of(upload))
        if upload.file_size > store.free_bytes():
            raise StepFailed("store_full")
        try:
            with store.open_part(upload) as file, store.taken_of(upload).open("wb") as copy:
                found = self._digest(context, file, copy)
        except OSError as error:
            raise of_disk(error, "upload_gone") from error
        return found

    def _digest(self, context: StepContext, file: Any, copy: Any) -> str:
        """Read a file to its end, into `copy` where there is one; return its SHA-256."""
        digest, checked = hashlib.sha256(), time.monotonic()
        while piece := file.read(4 * store.PIECE):
            digest.update(piece)
            if copy is not None:
                copy.write(piece)
            if time.monotonic() - checked > CHECK_EVERY:
                look(context)
                checked = time.monotonic()
        context.check()
        return digest.hexdigest()

    def undo(self, context: StepContext) -> None:
        upload = Upload.objects.filter(pk=context.identifiers["upload"]).first()
        if upload is not None:
            store.remove(store.taken_of(upload))
            # What was not fetched whole goes on from nowhere; else whoever tries again has it.
            if not store.is_fetched(upload):
                store.remove(store.fetched_of(upload))


class Register(Step):
    """The row: from here on the portal knows the image. `settle` lets machines be made from it."""

    name, title = "register", "Make the image known"

    def do(self, context: StepContext) -> None:
        upload = upload_of(context)
        if upload.image_id is not None:
            return
        wanted = Wanted.of(upload.wanted)
        known = Image.objects.filter(sha256=_digest_of(upload)).first()
        if known is not None:
            raise StepFailed("image_known", known.label)
        try:
            with transaction.atomic():
                image = _make(upload, wanted)
                Upload.objects.filter(pk=upload.pk).update(image=image)
                audit.record(
                    actor=upload.person, verb="image.imported", target=image, after={"sha256": image.sha256}
                )
        except IntegrityError as error:
            raise StepFailed("image_known", _digest_of(upload)[:12]) from error

    def undo(self, context: StepContext) -> None:
        """Delete the row. Raises StepFailed when something was made from it meanwhile."""
        upload = Upload.objects.filter(pk=context.identifiers["upload"]).select_related("image").first()
        if upload is None or upload.image is None:
            return
        try:
            with transaction.atomic():
                # A proof of a host that began before may have copied it there since Copy was undone.
                for late in upload.image.attachments.select_related("pool__pool"):
                    copies.take_back(late.pool, upload.image)
                audit.record(actor="import of images", verb="image.taken_back", target=upload.image)
                upload.image.delete()
        except ProtectedError as error:
            raise StepFailed("image_used", upload.image.label) from error


def _digest_of(upload: Upload) -> str:
    """Return the image's SHA-256: the file's, or that of the one disk that was chosen of several in it."""
    return str(upload.told.get("sha256") or upload.sha256)


def _make(upload: Upload, wanted: Wanted) -> Image:
    path, told = store.image_of(upload), dict(upload.told)
    further = told.pop("further", [])
    uefi = wanted.uefi or told.get("uefi", False)
    image = Image.objects.create(
        kind=wanted.kind,
        name=wanted.name,
        title=wanted.title.strip(),
        version=wanted.version,
        sha256=_digest_of(upload),
        format=upload.format,
        size=path.stat().st_size,
        virtual_size=upload.capacity,
        login_user=wanted.login_user,
        min_disk=wanted.min_disk,
        min_memory=wanted.min_memory or max(told.get("memory") or GIB, LEAST_MEMORY),
        cloud_init=wanted.cloud_init,
        description=wanted.description.strip(),
        device_models=list(wanted.device_models) or appliances.device_models(told),
        source=str(path),
        further=further,
        os=wanted.os or told.get("os", ""),
        told=told,
        boot_files=boot_files.found(str(path)) if wanted.kind == Image.Kind.ISO else [],
        uefi=uefi,
        secure_boot=uefi and (wanted.secure_boot or told.get("secure_boot", False)),
        tpm=wanted.tpm or told.get("tpm", False),
        every_project=wanted.every_project,
        deprecated_at=timezone.now(),
        deprecated_reason=BEING_MADE,
    )
    image.projects.set([] if wanted.every_project else wanted.projects)
    return image


class Copy(Step):
    """The image as a volume in the pool of each host; one that is away gets it when it is proven again."""

    name, title = "copy", "Copy it to the hosts"

    def do(self, context: StepContext) -> str | None:
        image = upload_of(context).image
        if image is None:
            raise StepFailed("upload_gone")
        missed: list[StepFailed] = []
        pools = PoolAttachment.objects.filter(observed_kind__in=FOLDER_KINDS, taken_over=False)
        # Nothing is built on Xen.
        pools = pools.exclude(host__accelerator=Accelerator.XEN).exclude(images__image=image)
        for place in pools.select_related("pool").order_by("pk"):
            try:
                once_reached(context, partial(_copy_once, place=place, image=image))
            except StepFailed as failure:
                missed.append(failure)
            context.check()
        if not missed:
            return None
        if not image.attachments.exists():
            raise StepFailed(missed[0].code, missed[0].raw, retryable=missed[0].retryable)
        return "image_not_everywhere"

    def undo(self, context: StepContext) -> None:
        upload = Upload.objects.filter(pk=context.identifiers["upload"]).select_related("image").first()
        if upload is None or upload.image is None:
            return
        # Before the volumes: a disk that stands on one of them would lose what it holds.
        if uses := uses_of(upload.image):
            raise StepFailed("image_used", " ".join(uses))
        # Also where no row tells of it: a worker that died in between may have left a volume there.
        for place in PoolAttachment.objects.select_related("pool", "host"):
            there = place.images.filter(image=upload.image).exists()
            # A host that is gone, and never had it for certain, would keep this from ever ending.
            if there or place.host.observed_health != Health.STALE:
                copies.take_back(place, upload.image)


def _copy_once(_context: StepContext, *, place: PoolAttachment, image: Image) -> None:
    """Copy the image to a pool, whose host's errors become StepFailed."""
    try:
        _copy_to(place, image)
    except DriverError as error:
        raise failed(error, place.host_id) from error


def _copy_to(place: PoolAttachment, image: Image) -> None:
    """Copy the image to a pool, the first of its disks last, and keep where it lies. Idempotent.

    Raises DriverError.
    """
    copies.claim(place, image)
    sizes = [image.size, *(disk["size"] for disk in image.further)]
    for name, source, size in reversed(list(zip(image.volume_names, image.sources, sizes, strict=True))):
        try:
            volume: VolumeInfo = call(
                place.host_id,
                "upload_image",
                place.pool.name,
                name,
                source,
                timeout=seconds_for(size, COPY_SECONDS),
            )
        except AlreadyExists:
            # Somebody was quicker: what is there is theirs.
            copies.disclaim(place, image, name)
            raise
    with transaction.atomic():
        # Its host may have been removed while it was copied there.
        if not PoolAttachment.objects.select_for_update().filter(pk=place.pk).exists():
            raise HostRemoved(f"the pool {place.pool.name} is no longer there")
        ImageAttachment.objects.update_or_create(image=image, pool=place, defaults={"path": volume.path})


def _settle_import(operation: Operation, state: State) -> None:
    """Say at the upload how its import ended; let machines be made from the image after a good end.

    What the browser sent is not needed then. The volumes in the pools are on disk by then; the portal's own
    copy follows: nobody waits for that.
    """
    done = state == State.SUCCEEDED
    found = Upload.objects.filter(pk=operation.identifiers["upload"])
    # Whoever tries again has as long as after the last part.
    found.update(state=Upload.State.DONE if done else Upload.State.FAILED, touched_at=timezone.now())
    upload = found.first()
    if done and upload is not None:
        # A signed address stays with what failed alone, which is tried again by it.
        found.update(address=upload.shown_address)
        if upload.image is not None:
            copies.disclaim_everywhere(upload.image)
        made = Image.objects.filter(uploads=upload, deprecated_reason=BEING_MADE)
        made.update(deprecated_at=None, deprecated_reason="")
        transaction.on_commit(lambda: store.keep(upload), robust=True)
    publish(operation.subject)


IMPORT_IMAGE = Kind(
    name=IMPORT,
    title="Import an image",
    steps=(Take(), Check(), Register(), Copy()),
    page=page,
    settle=_settle_import,
    waits_for_host=False,
    cancellable=True,
)
