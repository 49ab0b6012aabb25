"""The volumes that an image is on hosts: who needs one, how it goes. Not for: making them (`importing`)."""

from pathlib import PurePosixPath
from typing import Any

from portal.drivers.errors import DriverError
from portal.hosts.calls import call
from portal.hosts.models import Image, ImageAttachment, PoolAttachment
from portal.hosts.sharing import Ask
from portal.operations.registry import StepFailed

#: Seconds that a host gets for one answer. A pool is read from its disk.
SECONDS = 60.0


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
    name = PurePosixPath(path).name if path else image.volume_name
    asking(place)("delete_volume", place.pool.name, name)
    rows.delete()
