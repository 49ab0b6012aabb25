"""Remove a host from the portal. Not for: what lies on the host, which is not touched."""

from collections.abc import Callable, Sequence
from typing import Any

from django.db import transaction
from django.db.models import ProtectedError, Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.audit import services as audit
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.hosts.models import Health, Host, ImageAttachment, StoragePool, Upload
from portal.hosts.services import check_estate, locked
from portal.live.publish import publish
from portal.operations import ledger
from portal.operations.models import Operation
from portal.operations.states import UNFINISHED, State
from portal.operations.transitions import StaleAttempt, move

REMOVED = "host.removed"
#: What a room above has on a host, as a sentence with the number; '' when that is nothing.
Occupants = Callable[[Host], str]
#: How a room forgets what it has on a host that is lost, in the caller's transaction: (actor, host).
GiveUp = Callable[[Any, Host], None]
#: How a room locks what it would forget of a lost host; returns the keys of the operations that count it.
LockAll = Callable[[Host], Sequence[int]]
_rooms: list[tuple[Occupants, GiveUp | None, LockAll | None]] = []


def register(occupants: Occupants, give_up: GiveUp | None = None, lock: LockAll | None = None) -> None:
    """Let a room say what of its own keeps a host from being removed, and how that goes with a lost host."""
    _rooms.append((occupants, give_up, lock))


def why_not_removed(host: Host) -> str:
    """Return what keeps `host` from being removed now, in sentences with numbers; '' when nothing does."""
    reasons = [occupants(host) for occupants, _give_up, _lock in _rooms]
    reasons.append(_coming(host))
    reasons.append(_unfinished(_on_it(host).exclude(_waits_for_it())))
    return " ".join(reason for reason in reasons if reason)


def why_not_given_up(host: Host) -> str:
    """Return why what is on `host` cannot be given up with it now; '' when it can."""
    if host.observed_health == Health.UP:
        return _("The host answers: what is on it can be deleted.")
    return _unfinished(_on_it(host).exclude(state=State.LOST))


def _coming(host: Host) -> str:
    count = _uploads(host).count()
    if not count:
        return ""
    words = ngettext(
        "%(count)d file is uploaded into its pools; wait for that, or throw it away.",
        "%(count)d files are uploaded into its pools; wait for them, or throw them away.",
        count,
    )
    return words % {"count": count}


def _uploads(host: Host) -> QuerySet[Upload]:
    return Upload.objects.filter(pool__host=host).exclude(state=Upload.State.DONE)


def _unfinished(found: QuerySet[Operation]) -> str:
    count = found.count()
    if not count:
        return ""
    words = ngettext(
        "%(count)d operation on it is not finished.", "%(count)d operations on it are not finished.", count
    )
    return words % {"count": count}


def _on_it(host: Host) -> QuerySet[Operation]:
    mine = Q(lane=host.scope) | Q(subject=host.topic)
    return Operation.objects.filter(mine, state__in=UNFINISHED)


def _waits_for_it() -> Q:
    """Return the condition on work on the host itself that waits for it to come back: it goes with the host.

    A machine's work has a project, and the machine is counted as well.
    """
    return Q(state=State.LOST, project=None)


def remove_host(*, actor: Any, host: Host, confirm_name: str, give_up: bool = False) -> None:
    """Forget a host that nothing of the portal is on; what libvirt and its folder hold there stays.

    With it go its confirmed key, what it had of pools and images, and its counters in the ledger. `give_up`,
    for a host that does not answer and never will: its machines and the work that waits for it go as well,
    and their owners are told. Raises Denied with what is still on it.
    """
    check_estate(actor, "administer", _("remove hosts"))
    if confirm_name != host.name:
        raise Denied(_("Type the host's name exactly to remove it."))
    try:
        with transaction.atomic():
            current = locked(host)
            pools = [attachment.pool for attachment in current.pools.select_related("pool")]
            scopes = [current.scope, *(pool.scope for pool in pools)]
            gone_with_it = _lock_what_is_on_it(current) if give_up else []
            # Whoever places a machine takes capacity first: behind this lock nobody comes onto the host.
            ledger.lock(scopes, taken_by=gone_with_it)
            if reason := why_not_given_up(current) if give_up else why_not_removed(current):
                raise Denied(reason)
            _cancel_what_waits(actor, current)
            if give_up:
                _give_up(actor, current)
            audit.record(actor=actor, verb=REMOVED, target=current, before=_told(current))
            publish(current.topic)
            _forget(current, pools)
    except ProtectedError as error:
        raise Denied(_("Something came onto the host meanwhile; look at it again.")) from error


def _lock_what_is_on_it(host: Host) -> list[int]:
    """Lock the work that waits for a host, its uploads and what rooms have on it.

    Returns the keys of the operations that count what goes with the host.
    """
    waiting = _on_it(host).filter(state=State.LOST).select_for_update().order_by("pk")
    keys = list(waiting.values_list("pk", flat=True))
    list(_uploads(host).select_for_update(of=("self",)).order_by("pk"))
    return keys + [key for _occupants, _give_up, lock in _rooms if lock is not None for key in lock(host)]


def _told(host: Host) -> dict[str, Any]:
    folders = list(host.pools.exclude(path="").order_by("pk").values_list("path", flat=True))
    return {"uri": host.uri, "fingerprint": host.fingerprint, "folders": folders}


def _give_up(actor: Any, host: Host) -> None:
    """Let each room forget what it has on the lost host. Raises Denied for what no room gives up."""
    # Their files the sweep of uploads takes.
    _uploads(host).delete()
    for _occupants, give_up, _lock in _rooms:
        if give_up is not None:
            give_up(actor, host)
    if reason := why_not_removed(host):
        raise Denied(reason)


def _cancel_what_waits(actor: Any, host: Host) -> None:
    """End the work that waits for the host to come back. Raises Denied when it came back."""
    for operation in _on_it(host).filter(state=State.LOST):
        try:
            move(operation, State.CANCELLING, actor=actor, lost_from="")
            move(operation, State.CANCELLED, actor=actor)
        except StaleAttempt as back:
            raise Denied(_("The host came back, and work on it goes on; wait for its end.")) from back


def _forget(host: Host, pools: Sequence[StoragePool]) -> None:
    ImageAttachment.objects.filter(pool__host=host).delete()
    Upload.objects.filter(pool__host=host, state=Upload.State.DONE).delete()
    host.pools.all().delete()
    # A pool that another host shares stays with what is promised of it.
    gone = StoragePool.objects.filter(pk__in=[pool.pk for pool in pools], attachments=None)
    scopes = [pool.scope for pool in gone]
    gone.delete()
    ledger.forget([host.scope, *scopes])
    host.delete()


def was_removed(uri: str) -> bool:
    """Tell whether somebody removed a host of this address; for who would enrol it by themselves."""
    return AuditEntry.objects.filter(verb=REMOVED, before__uri=uri).exists()
