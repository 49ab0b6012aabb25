"""Volumes as files that people take away, as they are stored. Not for: machines, which are exported whole.

A worker brings the file here, since the web process reaches no host; the browser gets it from here. It lies
in a folder that was named before anything was made, and goes with it.
"""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.audit import services as audit
from portal.core.errors import Denied
from portal.core.web.streaming import pieces_of
from portal.drivers.types import DomainState, VolumeInfo
from portal.hosts.bringing import bring, need_room
from portal.hosts.models import Volume
from portal.hosts.services import check_estate
from portal.hosts.storage.kinds import StorageStep
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.states import UNFINISHED, State

FETCH = "storage.download"
#: Below the folder of what workers write and the web process hands out.
FOLDER: Path = settings.STATE_DIR / "exports" / "volumes"
#: How long a file is kept.
KEPT = timedelta(days=1)
_OFF = frozenset({DomainState.SHUTOFF, DomainState.CRASHED})


class Fetch(StorageStep):
    """Bring the file here, unless a domain that runs may write to it; anew after an earlier attempt."""

    name, title = "fetch", "Bring the volume to the portal"
    timeout = 300.0

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        before = self._still(context)
        folder = _folder(names)
        folder.mkdir(parents=True, exist_ok=True)
        size = max(before.length_bytes, before.capacity_bytes)
        # A raw one comes in full, its holes too.
        need_room(folder, size if before.format == "raw" else before.allocation_bytes)
        bring(self, context, names["pool"], names["name"], folder / names["name"], size=size)
        if self._still(context) != before:
            raise StepFailed("volume_changed", names["name"])

    def _still(self, context: StepContext) -> VolumeInfo:
        """Return what the host says of the volume now. Raises StepFailed when somebody may write to it."""
        place = context.identifiers["pool"], context.identifiers["name"]
        users = set(self.call(context, "volume_users", *place))
        domains = self.call(context, "list_domains") if users else ()
        states = {one.name: one.state for one in domains if one.name in users and one.state not in _OFF}
        saved = sorted(name for name, state in states.items() if state is DomainState.SAVED)
        if running := sorted(states.keys() - saved):
            raise StepFailed("volume_written", ", ".join(running))
        if saved:
            raise StepFailed("volume_saved", ", ".join(saved))
        info: VolumeInfo = self.call(context, "volume_info", *place)
        return info

    def undo(self, context: StepContext) -> None:
        shutil.rmtree(_folder(context.identifiers), ignore_errors=True)


def _folder(names: Any) -> Path:
    return FOLDER / str(names["folder"])


def _page(operation: Operation) -> str:
    names = operation.identifiers
    volume = Volume.objects.filter(pool=names["attachment"], name=names["name"]).first()
    return reverse("hosts:volume", args=[volume.pk]) if volume else ""


KIND = Kind(
    FETCH,
    "Download a volume",
    (Fetch(),),
    page=_page,
    waits_for_host=False,
    cancellable=True,
    slow=True,
    announce=gettext_lazy("%(name)s is ready; the file is on the volume's page."),
)


def ready(volume: Volume, subject: str) -> tuple[Path, datetime] | None:
    """Return the newest file of a volume that is here, and until when; None for none."""
    found = Operation.objects.filter(kind=FETCH, subject=subject, state=State.SUCCEEDED)
    last = found.order_by("-pk").first()
    if last is None:
        return None
    path = _folder(last.identifiers) / volume.name
    try:
        until = datetime.fromtimestamp(path.stat().st_mtime, tz=timezone.get_current_timezone()) + KEPT
    except OSError:
        return None
    return (path, until) if until > timezone.now() else None


def take(*, actor: Any, volume: Volume, subject: str) -> tuple[int, Iterator[bytes]]:
    """Return the length of a volume's file that is here, and the file in pieces; the trail says who took it.

    Raises Denied.
    """
    check_estate(actor, "operate", _("download volumes"))
    found = ready(volume, subject)
    try:
        file = found[0].open("rb") if found else None
    except OSError:
        file = None
    if file is None:
        raise Denied(_("The file is not here any more; prepare the download again."))
    with transaction.atomic():
        audit.record(actor=actor, verb="volume.taken", target=volume, after={"host": volume.pool.host.name})
    return found[0].stat().st_size if found else 0, pieces_of(file)


def sweep() -> int:
    """Delete the files whose time is over; return how many. Idempotent."""
    if not FOLDER.is_dir():
        return 0
    limit, gone = (timezone.now() - KEPT).timestamp(), 0
    for folder in FOLDER.iterdir():
        if any(one.stat().st_mtime > limit for one in (*folder.iterdir(), folder)):
            continue
        # A volume may take longer to come than a file is kept.
        if not Operation.objects.filter(state__in=UNFINISHED, identifiers__folder=folder.name).exists():
            shutil.rmtree(folder, ignore_errors=True)
            gone += 1
    return gone
