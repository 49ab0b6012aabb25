"""The steps that delete an image: on the hosts, then here. Not for: taking an import back (`importing`)."""

from pathlib import PurePosixPath

from django.db import transaction
from django.db.models import ProtectedError

from portal.audit import services as audit
from portal.hosts import sharing
from portal.hosts.images import store
from portal.hosts.images.copies import asking, delete_from
from portal.hosts.images.in_use import uses_of
from portal.hosts.images.services import DELETE
from portal.hosts.images.values import BEING_DELETED
from portal.hosts.models import Image, ImageAttachment
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.registry import Kind, Step, StepContext, StepFailed
from portal.operations.states import State


class DeleteVolumes(Step):
    """It goes from the hosts first: what the portal knows no more it could not delete there."""

    name, title = "volumes", "Delete it on the hosts"

    def do(self, context: StepContext) -> None:
        image = Image.objects.filter(pk=context.identifiers["image"]).first()
        if image is None:
            return
        for attachment in image.attachments.select_related("image", "pool__pool", "pool__host"):
            # Each time anew: the one before may have taken a minute.
            _check_unused(image)
            _ask_host(attachment)
            delete_from(attachment.pool, image)
            context.check()

    def undo(self, context: StepContext) -> None:
        """Leave it deleted: proving a host copies the image there again."""


def _check_unused(image: Image) -> None:
    if uses := uses_of(image):
        raise StepFailed("image_used", " ".join(uses))


def _ask_host(attachment: ImageAttachment) -> None:
    """Raise StepFailed when a domain or a volume needs the image by what its host says, a stranger's too."""
    place = attachment.pool
    for path in attachment.paths:
        if users := sharing.users_of(asking(place), place.pool.name, PurePosixPath(path).name):
            raise StepFailed("image_used", f"{', '.join(users)} on {place.host.name}.")


class Forget(Step):
    name, title = "forget", "Delete it in the portal"

    def do(self, context: StepContext) -> None:
        image = Image.objects.filter(pk=context.identifiers["image"]).first()
        if image is None:
            return
        with transaction.atomic():
            _check_unused(image)
            uploads = list(image.uploads.all())
            image.uploads.all().delete()
            audit.record(actor="deletion of images", verb="image.deleted", target=image)
            try:
                image.delete()
            except ProtectedError as error:
                raise StepFailed("image_used", "") from error
            # A file of the image builder stays: it belongs to whoever built it.
            transaction.on_commit(lambda: store.clear(*uploads))

    def undo(self, context: StepContext) -> None:
        """There is nothing after it that could fail."""


def _settle_deletion(operation: Operation, state: State) -> None:
    """Let machines be made again from an image that is still there, unless it was deprecated before."""
    if state != State.SUCCEEDED:
        left = Image.objects.filter(pk=operation.identifiers["image"], deprecated_reason=BEING_DELETED)
        left.update(deprecated_at=None, deprecated_reason="")
    publish(operation.subject)


DELETE_IMAGE = Kind(
    name=DELETE,
    title="Delete an image",
    steps=(DeleteVolumes(), Forget()),
    settle=_settle_deletion,
    waits_for_host=False,
)
