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
from portal.hosts.models import Host, ImageAttachment, StoragePool
from portal.hosts.services import check_estate, locked
from portal.live.publish import publish
from portal.operations import ledger
from portal.operations.models import Operation
from portal.operations.states import UNFINISHED, State
from portal.operations.transitions import StaleAttempt, move

REMOVED = "host.removed"
#: What a room above has on a host, as a sentence with the number; '' when that is nothing.
Occupants = Callable[[Host], str]
_rooms: list[Occupants] = []


def register(occupants: Occupants) -> None:
    """Let a room say what of its own keeps a host from being removed."""
    _rooms.append(occupants)


def why_not_removed(host: Host) -> str:
    """Return what keeps `host` from being removed now, in sentences with numbers; '' when nothing does."""
    reasons = [occupants(host) for occupants in _rooms] + [_unfinished(host)]
    return " ".join(reason for reason in reasons if reason)


def _unfinished(host: Host) -> str:
    count = _on_it(host).exclude(_waits_for_it()).count()
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


def remove_host(*, actor: Any, host: Host, confirm_name: str) -> None:
    """Forget a host that nothing of the portal is on; what libvirt and its folder hold there stays.

    With it go its confirmed key, what it had of pools and images, and its counters in the ledger. Raises
    Denied with what is still on it.
    """
    check_estate(actor, "administer", "remove hosts")
    if confirm_name != host.name:
        raise Denied(_("Type the host's name exactly to remove it."))
    try:
        with transaction.atomic():
            current = locked(host)
            pools = [attachment.pool for attachment in current.pools.select_related("pool")]
            scopes = [current.scope, *(pool.scope for pool in pools)]
            # Whoever places a machine takes capacity first: behind this lock nobody comes onto the host.
            ledger.lock(scopes)
            if reason := why_not_removed(current):
                raise Denied(reason)
            _give_up_what_waits(actor, current)
            audit.record(actor=actor, verb=REMOVED, target=current, before=_told(current))
            publish(current.topic)
            _forget(current, pools)
    except ProtectedError as error:
        raise Denied(_("Something came onto the host meanwhile; look at it again.")) from error


def _told(host: Host) -> dict[str, Any]:
    folders = list(host.pools.order_by("pk").values_list("path", flat=True))
    return {"uri": host.uri, "fingerprint": host.fingerprint, "folders": folders}


def _give_up_what_waits(actor: Any, host: Host) -> None:
    """End the work on the host itself that waits for it to come back. Raises Denied when it came back."""
    for operation in _on_it(host).filter(_waits_for_it()):
        try:
            move(operation, State.CANCELLING, actor=actor, lost_from="")
            move(operation, State.CANCELLED, actor=actor)
        except StaleAttempt as back:
            raise Denied(_("The host came back, and work on it goes on; wait for its end.")) from back


def _forget(host: Host, pools: Sequence[StoragePool]) -> None:
    ImageAttachment.objects.filter(pool__host=host).delete()
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
