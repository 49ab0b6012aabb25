"""Hand in images, delete them. Not for: the import itself, which a worker does."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.audit import services as audit
from portal.core import queue
from portal.core.canonical import digest
from portal.core.errors import Denied
from portal.core.templatetags.gatehouse import gib
from portal.hosts.images import fetching, passing, purposes, room, store
from portal.hosts.images.describing import locked
from portal.hosts.images.in_use import stood_on, uses_of
from portal.hosts.images.values import (
    BEING_DELETED,
    BEING_MADE,
    Wanted,
    check_disk,
    check_sha256,
    check_version,
    check_wanted,
    file_name_of,
    go_together,
)
from portal.hosts.models import Image, Upload
from portal.hosts.services import check_estate
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED

DELETE, SWEEP = "hosts.delete_image", "hosts.sweep_uploads"
MOST_CHUNK = passing.MOST_CHUNK
State = Upload.State


def begin_upload(*, actor: Any, wanted: Wanted, sha256: str = "", disk: int | None = None) -> Upload:
    """Keep what an image will be; its file follows by `start_file` and `receive`. Raises Denied.

    `disk` is which one is taken when the file is an OVA, from 1; None for the only one.
    """
    purposes.check_right(actor, None)
    _check_new(wanted, disk)
    expected = check_sha256(sha256, needed=False)
    with transaction.atomic():
        upload = Upload.objects.create(
            person=actor, wanted=wanted.as_json(), expected_sha256=expected, disk=disk
        )
        audit.record(actor=actor, verb="image.upload_begun", target=upload, after=upload.wanted)
    return upload


def begin_import(
    *, actor: Any, wanted: Wanted, address: str, sha256: str, disk: int | None = None
) -> Operation:
    """Queue that an image is fetched from `address` and imported; `disk` as for an upload. Raises Denied.

    What the address leads to is looked at when it is fetched, not here: it may lead elsewhere by then.
    """
    purposes.check_right(actor, None)
    _check_new(wanted, disk)
    expected = check_sha256(sha256, needed=True)
    try:
        fetching.check_url(address)
    except fetching.FetchFailed as failed:
        refusal = _("This is no address that begins with https:// or http://.")
        raise Denied(refusal, field="address") from failed
    if len(address) > 2000:
        raise Denied(_("The address is too long."), field="address")
    _check_known(expected)
    with transaction.atomic():
        upload = Upload.objects.create(
            person=actor,
            wanted=wanted.as_json(),
            address=address,
            file_name=file_name_of(address),
            expected_sha256=expected,
            disk=disk,
            state=State.HANDED,
        )
        after = upload.wanted | {"address": upload.shown_address, "sha256": expected}
        audit.record(actor=actor, verb="image.fetch_begun", target=upload, after=after)
        return purposes.begin(actor, upload)


def _check_new(wanted: Wanted, disk: int | None) -> None:
    check_wanted(wanted)
    if wanted.kind == Image.Kind.NETBOOT:
        words = _("A network installer is no single file: add it by manage.py add_installer.")
        raise Denied(words, field="kind")
    check_version(wanted.kind, wanted.name, wanted.version)
    check_disk(wanted.kind, disk)


def _check_known(sha256: str) -> None:
    known = Image.objects.filter(sha256=sha256).first() if sha256 else None
    if known is not None:
        raise Denied(_("This is %(image)s, which is there already.") % {"image": known.label}, field="sha256")


def start_file(
    *, actor: Any, upload: Upload, name: str, size: int, head: bytes, samples: str = "", modified: str = ""
) -> int:
    """Say which file follows, or goes on; return how many bytes of it are there. Idempotent.

    `head` is how the file begins, `samples` are pieces from elsewhere in it and `modified` is when it was
    changed last: with name and size they tell it from another file. Raises Denied.
    """
    purposes.check_right(actor, upload)
    mark = digest([head.hex(), samples, modified])
    told = {"file_name": name[:255], "file_size": size, "file_head": mark}
    with transaction.atomic():
        _lock_all()
        current = _own(actor, upload, State.OPEN)
        if current.file_size:
            if any(getattr(current, field) != value for field, value in told.items()):
                raise Denied(
                    _(
                        "This is another file, or it was changed since. %(name)s was begun, with %(size)d "
                        "bytes; choose that one, or throw this upload away and begin again."
                    )
                    % {"name": current.file_name, "size": current.file_size}
                )
            return store.length(store.part_of(current))
        _check_size(size)
        _check_room(current, room.files_of(current, head) * size)
        for field, value in told.items():
            setattr(current, field, value)
        current.touched_at = timezone.now()
        current.save(update_fields=[*told, "touched_at"])
        after = {"name": current.file_name, "size": size}
        audit.record(actor=actor, verb=purposes.verb(current, "upload_file"), target=current, after=after)
    return 0


def _check_size(size: int) -> None:
    if size < 1:
        raise Denied(_("The file is empty."))
    if size > settings.UPLOAD_MOST_BYTES:
        raise Denied(
            _("The file has %(size)s; the portal takes at most %(most)s.")
            % {"size": gib(size), "most": gib(settings.UPLOAD_MOST_BYTES)}
        )


def _lock_all() -> None:
    # Of two that are begun together, the second counts the first.
    list(Upload.objects.select_for_update().filter(state__in=[State.OPEN, State.HANDED]).order_by("pk"))


def _check_room(upload: Upload, needed: int) -> None:
    """Raise Denied unless the portal's disk has that many bytes for an upload."""
    if needed <= (free := room.free_bytes(upload)):
        return
    told = {"free": gib(free), "needed": gib(needed)}
    if room.promised_bytes(upload):
        refusal = _(
            "The portal's disk has room for %(free)s beside the other uploads, and this file needs "
            "%(needed)s with the copies made of it. Wait for the others, or make room."
        )
    else:
        refusal = _(
            "The portal's disk has room for %(free)s, and this file needs %(needed)s with the copies made of "
            "it. Make room first."
        )
    raise Denied(refusal % told)


def _own(actor: Any, upload: Upload, *states: str) -> Upload:
    """Return the upload as it is now, locked. Raises Denied for one of others, or not in `states`."""
    current = Upload.objects.select_for_update().filter(pk=upload.pk).first()
    if current is None:
        raise Denied(_("The upload was thrown away meanwhile."))
    if current.person_id != actor.pk:
        raise Denied(_("Only %(person)s goes on with this upload.") % {"person": current.person})
    if current.state not in states:
        raise Denied(_("The file is here already, and is being imported."))
    return current


def receive(*, actor: Any, upload: Upload, offset: int, stream: store.Stream, length: int) -> int:
    """Take a chunk of `length` bytes that begins at `offset`; return how many bytes are there then.

    With the last one the import is queued. A chunk that came before is refused by WrongOffset, which tells
    where to go on. Raises Denied, WrongOffset, StoreFull.
    """
    purposes.check_right(actor, upload)
    if length > MOST_CHUNK:
        raise Denied(_("A chunk has at most %(most)d bytes.") % {"most": MOST_CHUNK})
    current = Upload.objects.filter(pk=upload.pk).first()
    if current is None or current.person_id != actor.pk or not current.file_size:
        raise Denied(_("Say first which file it is."))
    if current.state != State.OPEN:
        # The answer to the last chunk did not arrive.
        return current.file_size
    if offset + length > current.file_size:
        raise Denied(_("This is more than the file has. It changed while it was sent; begin again."))
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        # Of the pool's few connections none waits for a slow browser.
        connection.close()
    try:
        there = store.append(current, offset, stream)
    except store.WrongOffset as wrong:
        if wrong.offset != current.file_size:
            raise
        # Whoever took the last chunk died before it queued the import.
        there = wrong.offset
    Upload.objects.filter(pk=current.pk).update(touched_at=timezone.now())
    if there == current.file_size:
        _hand_over(actor, current)
    return there


def _hand_over(actor: Any, upload: Upload) -> None:
    with transaction.atomic():
        if not Upload.objects.filter(pk=upload.pk, state=State.OPEN).update(state=State.HANDED):
            return
        purposes.begin(actor, upload)


def retry(*, actor: Any, upload: Upload, raw: bool = False) -> Operation:
    """Import a file again that is here still: after a failure that was not its own. Raises Denied.

    With `raw` it is a raw disk from now on, whatever stands in it; only what becomes a volume can be that.
    """
    purposes.check_right(actor, upload)
    with transaction.atomic():
        _lock_all()
        current = Upload.objects.select_for_update().filter(pk=upload.pk).first()
        if current is None or current.state != State.FAILED:
            raise Denied(_("There is nothing to try again."))
        if not can_retry(current):
            raise Denied(_("The file was thrown away. Add it again."))
        if must_choose(current):
            raise Denied(_("Choose first which disk of the OVA is taken."))
        if raw:
            _say_raw(actor, current)
        # What an address gives may be another length by now; its fetch looks itself.
        if not current.address or store.is_fetched(current):
            _check_room(current, room.needed_bytes(current))
        current.state = State.HANDED
        current.save(update_fields=["state"])
        return purposes.begin(actor, current)


def _say_raw(actor: Any, upload: Upload) -> None:
    if upload.pool_id is None:
        raise Denied(_("Only a file that becomes a volume can be taken as a raw disk of data."))
    upload.wanted = upload.wanted | {"raw": True}
    upload.save(update_fields=["wanted"])
    told = purposes.verb(upload, "said_raw")
    audit.record(actor=actor, verb=told, target=upload, after=upload.wanted)


def can_retry(upload: Upload) -> bool:
    """Tell whether what failed can be tried again: the file is here, or can be fetched."""
    if upload.state != State.FAILED:
        return False
    return bool(upload.address) or store.length(store.part_of(upload)) == upload.file_size


def must_choose(upload: Upload) -> bool:
    """Tell whether its import ended for want of a number, or by one that the file has no disk of."""
    if upload.disks is None:
        return False
    if upload.disk is None:
        return len(upload.disks) > 1 and not takes_all(upload)
    return not 1 <= upload.disk <= len(upload.disks)


def takes_all(upload: Upload) -> bool:
    """Tell whether all disks that were found in its appliance become one image, when no number is said."""
    return upload.pool_id is None and go_together(len(upload.disks or ()))


def choose_disk(*, actor: Any, upload: Upload, number: int | None) -> Operation:
    """Import a file again that is here still, with the disk of that number.

    None is for a file as it is, and for all disks of an appliance together.

    Raises Denied, with the field `disk` for a number that the file has no disk of.
    """
    purposes.check_right(actor, upload)
    with transaction.atomic():
        _lock_all()
        current = Upload.objects.select_for_update().filter(pk=upload.pk).first()
        if current is None or not can_retry(current):
            raise Denied(_("There is nothing to try again."))
        if current.disks is None:
            raise Denied(_("Nobody looked into the file yet: import it first."))
        most = len(current.disks)
        if number is None and most > 1 and not takes_all(current):
            raise Denied(_("Choose which disk of the OVA is taken."), field="disk")
        if number is not None and not 1 <= number <= most:
            told = {"number": number, "disks": most}
            if not most:
                raise Denied(_("The file is no OVA: leave the number of a disk out."), field="disk")
            raise Denied(
                _("There is no disk %(number)d: the OVA has those from 1 to %(disks)d.") % told, field="disk"
            )
        before, current.disk = {"disk": current.disk}, number
        current.save(update_fields=["disk"])
        audit.record(
            actor=actor,
            verb=purposes.verb(current, "disk_chosen"),
            target=current,
            before=before,
            after={"disk": number},
        )
        return retry(actor=actor, upload=current)


def give_up(*, actor: Any, upload: Upload) -> None:
    """Throw an upload away with what came of its file. Raises Denied while it is imported."""
    purposes.check_right(actor, upload)
    with transaction.atomic():
        current = Upload.objects.select_for_update().filter(pk=upload.pk).first()
        if current is not None:
            _throw_away(actor, current)


def _throw_away(actor: Any, upload: Upload) -> None:
    if Operation.objects.filter(subject=upload.topic, state__in=UNFINISHED).exists():
        raise Denied(_("It is being imported. Cancel that first, on the page of the operation."))
    if upload.state == State.DONE:
        if upload.pool_id is not None:
            raise Denied(_("It is a volume by now. Delete the volume instead."))
        raise Denied(_("It is an image by now. Delete the image instead."))
    before = {"name": upload.file_name, "size": upload.file_size, "state": upload.state}
    audit.record(actor=actor, verb=purposes.verb(upload, "upload_dropped"), target=upload, before=before)
    store.clear(upload)
    upload.delete()
    # The web process can delete only what it wrote itself.
    transaction.on_commit(lambda: queue.send(SWEEP), robust=True)


def sweep_uploads() -> int:
    """Throw away uploads that nobody went on with for days; return how many. Idempotent.

    Of those that are images or volumes by now goes what a worker left that died after a good end; and files
    go that no row tells of, which a chunk leaves that arrives while its upload is thrown away.
    """
    _sweep_files()
    for done in Upload.objects.filter(state=State.DONE):
        store.keep(done) if done.pool_id is None else store.clear(done)
    limit = timezone.now() - timedelta(days=settings.UPLOAD_DAYS)
    waiting = Upload.objects.filter(state__in=[State.OPEN, State.FAILED], touched_at__lt=limit)
    swept = 0
    for found in waiting.values_list("pk", flat=True):
        with transaction.atomic():
            upload = Upload.objects.select_for_update().filter(pk=found, touched_at__lt=limit).first()
            if upload is not None and upload.state in {State.OPEN, State.FAILED}:
                _throw_away("the sweep of uploads", upload)
                swept += 1
    return swept


def _sweep_files() -> None:
    # Looked for before the rows are: a file is never there before its row.
    there = store.found()
    known = set(Upload.objects.filter(token__in=there.values()).values_list("token", flat=True))
    kept = {source for image in Image.objects.exclude(source="") for source in image.sources}
    store.remove(*(path for path, token in there.items() if token not in known and str(path) not in kept))


def _check_whole(image: Image) -> None:
    """Raise Denied while it is being made: of what an import still copies nothing can be deleted."""
    topics = [upload.topic for upload in image.uploads.all()]
    importing = Operation.objects.filter(subject__in=topics, state__in=UNFINISHED).exists()
    if importing or image.deprecated_reason == BEING_MADE:
        raise Denied(_("%(image)s is still being made. Wait for that, or cancel it.") % {"image": image})


def delete_image(*, actor: Any, image: Image, confirm_name: str) -> Operation:
    """Queue that an image goes from every host and from the portal. Nothing new is made from it meanwhile.

    Raises Denied when something uses it, and says what.
    """
    check_estate(actor, "administer", _("delete images"))
    with transaction.atomic():
        current = locked(image)
        if confirm_name != current.name:
            raise Denied(_("This is not the name. Nothing was done."))
        _check_whole(current)
        if uses := uses_of(current) or stood_on(current):
            raise Denied(" ".join(uses))
        if current.deprecated_at is None:
            current.deprecated_at, current.deprecated_reason = timezone.now(), BEING_DELETED
            current.save(update_fields=["deprecated_at", "deprecated_reason"])
        before = {"name": current.name, "version": current.version, "sha256": current.sha256}
        audit.record(actor=actor, verb="image.deletion_begun", target=current, before=before)
        publish(current.topic)
        return begin_operation(
            actor=actor,
            project=None,
            spec=RequestSpec(kind=DELETE, sizes={}, pinned=before),
            subject=current.topic,
            title=f"Delete the image {current.label}",
            identifiers={"image": current.pk},
            lane=purposes.LANE,
        )
