"""The volumes that an image is on hosts: whose one is, who needs it, how it goes. Not for: making them.

An import takes back what it made itself: what was there before it came is somebody else's, though it be the
same image.
"""

import logging
import uuid
from pathlib import PurePosixPath
from typing import Any

from portal.drivers.errors import DriverError
from portal.hosts.calls import call
from portal.hosts.models import Image, ImageAttachment, PoolAttachment
from portal.hosts.sharing import Ask, users_of
from portal.hosts.storage.looking import forget_begun, is_begun, note_begun
from portal.operations.registry import StepFailed

#: Seconds that a host gets for one answer. A pool is read from its disk.
SECONDS = 60.0
_MARKS = uuid.UUID("0c2d4a36-5f0b-4a51-9d9c-3c2f2f1f6a57")
_NO_POOL = frozenset({"pool_not_found", "pool_inactive"})
_log = logging.getLogger(__name__)


def asking(place: PoolAttachment) -> Ask:
    """Return what calls the driver of a pool's host; it raises StepFailed with the driver's code."""

    def ask(verb: str, *args: Any) -> Any:
        try:
            return call(place.host_id, verb, *args, timeout=SECONDS)
        except DriverError as error:
            raise StepFailed(error.code, error.raw, retryable=error.retryable) from error

    return ask


def delete_from(place: PoolAttachment, image: Image) -> None:
    """Delete the image's volume in a pool, and the row that tells of it. Idempotent. Raises StepFailed.

    Asks nobody who uses it.
    """
    rows = ImageAttachment.objects.filter(image=image, pool=place)
    path = rows.values_list("path", flat=True).first()
    # A template's volume is called by when it was made; what no row tells of can only be an import's.
    first = PurePosixPath(path).name if path else image.volume_name
    for name in (*image.further_names(first), first):
        asking(place)("delete_volume", place.pool.name, name)
    rows.delete()


def _mark(place: PoolAttachment, image: Image, name: str) -> str:
    """Return what stands for the copy of an image's disk in a pool; no other image ever gets its key."""
    number = image.volume_names.index(name)
    return str(uuid.uuid5(_MARKS, f"{image.pk}/{place.pk}" + (f"/{number}" if number else "")))


def claim(place: PoolAttachment, image: Image) -> None:
    """Write which volumes of the image in a pool are this import's own: those that are not there. Idempotent.

    Raises DriverError.
    """
    names = [name for name in image.volume_names if not is_begun(_mark(place, image, name))]
    if not names:
        return
    volumes = call(place.host_id, "list_volumes", place.pool.name, timeout=SECONDS)
    there = {volume.name for volume in volumes}
    for name in names:
        if name not in there:
            note_begun(_mark(place, image, name))


def disclaim(place: PoolAttachment, image: Image, name: str = "") -> None:
    """Write that a volume, or none, is this import's. Idempotent."""
    for one in [name] if name else image.volume_names:
        forget_begun(_mark(place, image, one))


def disclaim_everywhere(image: Image) -> None:
    """Write that the import is over: nothing of it is taken back any more. Idempotent."""
    for place in PoolAttachment.objects.all():
        disclaim(place, image)


def take_back(place: PoolAttachment, image: Image) -> None:
    """Forget that the image is in a pool; delete its volumes that this import made and nobody uses.

    Idempotent. Raises StepFailed. A pool that does not run, or is gone, is left as it is. What is left shows
    up as an orphan of its pool.
    """
    own = [name for name in image.volume_names if is_begun(_mark(place, image, name))]
    for name in own:
        try:
            _delete_unused(place, name)
        except StepFailed as failure:
            if failure.code not in _NO_POOL:
                raise
            # Nobody may ever start it; an import of the same file takes what lies there.
            _log.warning("%s is left in %s: %s", name, place, failure.code)
    ImageAttachment.objects.filter(image=image, pool=place).delete()
    disclaim(place, image)


def _delete_unused(place: PoolAttachment, name: str) -> None:
    if users := users_of(asking(place), place.pool.name, name):
        _log.warning("%s is left in %s: %s", name, place, ", ".join(users))
    else:
        asking(place)("delete_volume", place.pool.name, name)
