"""Hand out volumes as they are stored. Not for: machines as files, which are exported whole.

Piece by piece from the host to the browser: nothing is kept here, so a download that breaks leaves nothing.
"""

import logging
from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext as _

from portal.audit import services as audit
from portal.core.errors import Denied
from portal.drivers.errors import DriverError
from portal.drivers.types import LONGEST_READ, DomainState, VolumeInfo
from portal.hosts.calls import call
from portal.hosts.models import Volume
from portal.hosts.services import check_estate
from portal.hosts.storage import kinds
from portal.hosts.storage.services import has_plain_name, subject_of
from portal.operations.messages import sentence
from portal.operations.models import Operation
from portal.operations.states import UNFINISHED

#: Seconds that the host gets for a piece, and for what is asked before and after.
PATIENCE = 60.0
_OFF = frozenset({DomainState.SHUTOFF, DomainState.CRASHED})
_log = logging.getLogger(__name__)


class Torn(Exception):
    """What was sent may be half old and half new; the download is broken off, so that nobody takes it."""


def take(*, actor: Any, volume: Volume) -> tuple[VolumeInfo, Iterator[bytes]]:
    """Return what the host says of a volume, and its file in pieces, which are read as they are asked for.

    The trail says who took it. The pieces end with Torn when the volume was changed meanwhile, with
    DriverError when the host fails. Raises Denied.
    """
    check_estate(actor, "operate", _("download volumes"))
    if not has_plain_name(volume.name):
        raise Denied(_("Its name has characters that the portal passes on to no host; take it there."))
    try:
        if reason := _why_not(volume):
            raise Denied(reason)
        info: VolumeInfo = _call(volume, "volume_info", *_place(volume))
    except DriverError as error:
        raise Denied(sentence(kinds.meaning(error.code))) from error
    told = {"host": volume.pool.host.name, "file": info.path}
    audit.record(actor=actor, verb="volume.taken", target=volume, after=told)
    return info, _pieces(volume, info)


def _why_not(volume: Volume) -> str:
    """Return why what is read now could be half old and half new, '' when it is whole. Raises DriverError."""
    subject = subject_of(volume.pool, volume.name)
    work = Operation.objects.filter(subject=subject, state__in=UNFINISHED).first()
    if work is not None:
        return _("%(operation)s is not finished; wait for its end.") % {"operation": work}
    users = set(_call(volume, "volume_users", *_place(volume)))
    domains = _call(volume, "list_domains") if users else ()
    running = sorted(one.name for one in domains if one.name in users and one.state not in _OFF)
    if running:
        words = _("%(domains)s runs and may write to it. Switch it off first, then download it.")
        return words % {"domains": ", ".join(running)}
    return ""


def _pieces(volume: Volume, info: VolumeInfo) -> Iterator[bytes]:
    """Yield the file. The last piece goes out only once it is known that nobody wrote meanwhile."""
    at, held = 0, b""
    while piece := _call(volume, "read_volume", *_place(volume), at, LONGEST_READ):
        if held:
            yield held
        at, held = at + len(piece), piece
    if _why_not(volume) or _call(volume, "volume_info", *_place(volume)) != info:
        _log.warning("The download of %s was broken off: it was changed meanwhile", volume)
        raise Torn(str(volume))
    yield held


def _place(volume: Volume) -> tuple[str, str]:
    return volume.pool.pool.name, volume.name


def _call(volume: Volume, verb: str, *args: Any) -> Any:
    return call(volume.pool.host_id, verb, *args, timeout=PATIENCE)
