"""What a handed-in file becomes, an image or a volume of a pool: who may, and the operation that makes it.

Not for: how the file comes here, which is the same for both (`services`).
"""

import uuid
from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext as _

from portal.hosts.models import Upload
from portal.hosts.services import check_estate
from portal.operations.models import Operation
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec

IMPORT, TO_VOLUME = "hosts.import_image", "storage.upload"
#: Operations on images, of which some at a time are carried out.
LANE = "images"
#: The address of an upload's page, in the room that has one for what becomes an image.
Page = Callable[[Upload], str]
_pages: list[Page] = []


def register_page(page: Page) -> None:
    """Let a room say where people see an upload that becomes an image."""
    _pages.append(page)


def page(operation: Operation) -> str:
    """Return the page of the upload that an operation imports, '' when it was thrown away."""
    upload = Upload.objects.filter(pk=operation.identifiers["upload"]).first()
    return _pages[-1](upload) if upload is not None and _pages else ""


def check_right(actor: Any, upload: Upload | None) -> None:
    """Raise Denied unless `actor` may hand a file in for what `upload` becomes; None: for an image."""
    if upload is not None and upload.pool_id is not None:
        check_estate(actor, "operate", _("make volumes"))
    else:
        check_estate(actor, "administer", _("add images"))


def verb(upload: Upload, what: str) -> str:
    """Return how the trail calls what is done to an upload."""
    return f"image.{what}" if upload.pool_id is None else f"volume.{what}"


def begin(actor: Any, upload: Upload) -> Operation:
    """Queue what makes of the file what it becomes; joins the caller's transaction. Raises Denied."""
    pinned = {"address": upload.shown_address, "sha256": upload.expected_sha256}
    if upload.pool is None:
        kind, title, lane = IMPORT, f"Import the image {upload}", LANE
        names: dict[str, Any] = {}
        pinned["image"] = upload.wanted
    else:
        kind, title, lane = TO_VOLUME, f"Make {upload} of an uploaded file", upload.pool.host.scope
        names = {"pool": upload.pool.pool.name, "name": upload.wanted["name"]}
        pinned |= {"host": upload.pool.host.name, **names} | ({"format": "raw"} if upload.is_raw else {})
        names |= {"host": upload.pool.host_id, "attachment": upload.pool_id, "mark": str(uuid.uuid4())}
    return begin_operation(
        actor=actor,
        project=None,
        spec=RequestSpec(kind=kind, sizes={}, pinned=pinned),
        subject=upload.topic,
        title=title,
        identifiers={"upload": upload.pk, **names},
        lane=lane,
    )
