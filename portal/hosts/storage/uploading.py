"""Files of people that become volumes. Not for: how one comes here and is judged (`portal.hosts.images`)."""

from typing import Any

from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.audit import services as audit
from portal.core.errors import Denied
from portal.hosts.images import purposes, store
from portal.hosts.images.checking import Check
from portal.hosts.images.importing import Take
from portal.hosts.images.values import check_sha256
from portal.hosts.models import PoolAttachment, Upload
from portal.hosts.steps import delete_waiting
from portal.hosts.storage import pool_words
from portal.hosts.storage.kinds import Claim, Look, Make, is_mark, page
from portal.hosts.storage.looking import forget_begun
from portal.hosts.storage.pool_kinds import REMOVE
from portal.hosts.storage.services import check_new, why_worked_on
from portal.live.publish import publish
from portal.operations import ledger
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.states import UNFINISHED, State


def begin(
    *, actor: Any, pool: PoolAttachment, name: str, sha256: str = "", raw: bool = False
) -> Upload:
    """Keep what a volume will be called; its file follows by `images.services`. Raises Denied.

    A file that is said to be `raw` is a disk byte for byte, whatever stands in it.
    """
    wanted = {"kind": "volume", "title": name, "name": name} | ({"raw": True} if raw else {})
    upload = Upload(person=actor, pool=pool, wanted=wanted)
    purposes.check_right(actor, upload)
    if reason := pool_words.why_no_upload(pool.observed_kind):
        raise Denied(reason)
    check_new(pool, name)
    upload.expected_sha256 = check_sha256(sha256, needed=False)
    with transaction.atomic():
        # Whoever forgets the pool holds this lock, and looks for uploads behind it.
        ledger.lock([pool.pool.scope])
        going = Operation.objects.filter(kind=REMOVE, identifiers__uuid=str(pool.pool.uuid))
        gone = not PoolAttachment.objects.filter(pk=pool.pk).exists()
        if gone or going.filter(state__in=UNFINISHED).exists():
            raise Denied(_("The pool is being removed."))
        coming = Upload.objects.filter(pool=pool, wanted__name=name).exclude(state=Upload.State.DONE).first()
        if coming is not None:
            words = _("%(person)s began to upload a volume of this name; go on with that, or throw it away.")
            raise Denied(words % {"person": coming.person}, field="name")
        if reason := why_worked_on(pool, name):
            raise Denied(reason, field="name")
        upload.save()
        after = {"pool": str(pool), "name": name, "sha256": upload.expected_sha256, "raw": raw}
        audit.record(actor=actor, verb=purposes.verb(upload, "upload_begun"), target=upload, after=after)
    return upload


class Put(Make):
    """The file as a volume in place of the mark. What a worker left that died is written anew."""

    name, title = "put", "Copy it into the pool"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        upload = Upload.objects.filter(pk=names["upload"]).first()
        if upload is None:
            raise StepFailed("upload_gone")
        there = self.take(context)
        if there is not None and is_mark(context, there):
            delete_waiting(self, context, names["pool"], names["name"], size=upload.file_size)
        image = store.image_of(upload)
        told = names["pool"], names["name"], str(image)
        self.make_by(context, "upload_image", *told, size=store.length(image))


def _settle(operation: Operation, state: State) -> None:
    """Say at the upload how it ended; after a good end nothing of the file is kept here."""
    names, done = operation.identifiers, state == State.SUCCEEDED
    forget_begun(names["mark"])
    found = Upload.objects.filter(pk=names["upload"])
    # Whoever tries again has as long as after the last part.
    found.update(state=Upload.State.DONE if done else Upload.State.FAILED, touched_at=timezone.now())
    upload = found.first()
    if done and upload is not None:
        transaction.on_commit(lambda: store.clear(upload), robust=True)
    publish(operation.subject)


def _page(operation: Operation) -> str:
    """Return the page of the upload while there is something to do with it, that of its pool then."""
    upload = Upload.objects.filter(pk=operation.identifiers["upload"], state=Upload.State.FAILED).first()
    return reverse("hosts:upload", args=[upload.pk]) if upload is not None else page(operation)


KIND = Kind(
    purposes.TO_VOLUME,
    "Make a volume of an uploaded file",
    (Take(), Check(), Claim(), Put(), Look()),
    page=_page,
    settle=_settle,
    waits_for_host=False,
    cancellable=True,
    slow=True,
    announce=gettext_lazy("%(name)s is in its pool."),
)
