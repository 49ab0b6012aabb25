"""Ask for a volume, or a copy of it, in another pool of its host. Not for: the disks of machines."""

import uuid
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.drivers.types import VolumeVerb, can
from portal.hosts.models import PoolAttachment, Volume
from portal.hosts.services import check_estate
from portal.hosts.storage import move_kinds, pool_kinds, pool_words
from portal.hosts.storage.further import lies_under
from portal.hosts.storage.services import (
    FORMATS,
    begin_copy,
    check_can,
    check_new,
    has_plain_name,
    is_lun,
    why_worked_on,
)
from portal.hosts.storage.using import uses_of
from portal.operations import ledger
from portal.operations.models import Counter, Operation
from portal.operations.states import UNFINISHED
from portal.operations.words import not_finished


def copy(*, actor: Any, volume: Volume, to: PoolAttachment, name: str) -> Operation:
    """Queue a copy of a volume that nobody uses, in another pool of its host. Raises Denied."""
    check_estate(actor, "operate", _("copy volumes"))
    return _begin(actor, volume, to, name, move_kinds.COPY, "Copy")


def move(*, actor: Any, volume: Volume, to: PoolAttachment, name: str) -> Operation:
    """Queue that a volume that nobody uses lies in another pool of its host. Raises Denied.

    It is deleted where it was once its copy is whole, and the host was asked again who uses it.
    """
    check_estate(actor, "operate", _("move volumes"))
    check_can(volume.pool, VolumeVerb.DELETE)
    return _begin(actor, volume, to, name, move_kinds.MOVE, "Move", leaving=True)


def why_not(volume: Volume) -> str:
    """Return why a volume is neither copied nor moved to another pool now; '' when it is. Asks the database.

    Whether it has snapshots, or is encrypted, only its host knows.
    """
    if reason := pool_words.why_not(volume.pool.observed_kind, VolumeVerb.COPY_FROM):
        return reason
    if volume.observed_format not in FORMATS or not (has_plain_name(volume.name) or is_lun(volume.name)):
        return _("Only volumes in the formats qcow2 and raw, with plain names, are copied.")
    if not volume.pool.observed_active:
        return _("The volume's pool does not run.")
    if users := ", ".join(use.words for use in uses_of([volume])[volume.pk]):
        return _("It is in use: %(users)s.") % {"users": users}
    if reason := why_worked_on(volume.pool, volume.name):
        return reason
    if volume.observed_backing:
        words = _(
            "It stands on %(path)s, and what lies here is only what differs from that. Copy it in its pool: "
            "that copy stands by itself, and can go to another pool."
        )
        return words % {"path": volume.observed_backing}
    if lies_under(volume):
        return _("Another pool of the host lies on it.")
    return ""


def targets(volume: Volume) -> list[PoolAttachment]:
    """Return the other pools of a volume's host that could take it, by name; there may be too little room."""
    others = PoolAttachment.objects.filter(host=volume.pool.host_id, observed_active=True)
    others = others.exclude(pool=volume.pool.pool_id).select_related("pool", "host")
    return [pool for pool in others.order_by("pool__name") if not why_not_into(pool, volume)]


def why_not_into(pool: PoolAttachment, volume: Volume) -> str:
    """Return why a pool that runs does not take a volume, however much room it has; '' when it does."""
    if not can(pool.observed_kind, VolumeVerb.CLONE):
        words = _("Into a pool of this kind (%(kind)s) no volume is copied.")
        return words % {"kind": pool_words.label_of(pool.observed_kind)}
    if not pool.has_folder and volume.observed_format != "raw":
        return _("Volumes of this pool are raw, and a copy keeps its format.")
    return ""


def needs(volume: Volume, pool: PoolAttachment) -> int:
    """Return how much of a pool a volume takes there at most, in bytes: of a file what is written in it.

    Of a device hosts tell what is reserved for it (nothing for a sparse one of ZFS), not what is written.
    """
    files = pool.has_folder and volume.pool.has_folder
    return max(1, volume.observed_allocation if files else volume.observed_capacity)


def _begin(
    actor: Any,
    volume: Volume,
    to: PoolAttachment,
    name: str,
    kind: str,
    doing: str,
    *,
    leaving: bool = False,
) -> Operation:
    names: dict[str, Any] = {"source_pool": volume.pool.pool.name, "source_attachment": volume.pool_id}
    if leaving:
        names["leaving"] = str(uuid.uuid4())
    with transaction.atomic():
        ledger.lock([volume.pool.pool.scope, to.pool.scope])
        there = _checked(volume, to)
        if reason := why_not(volume):
            raise Denied(reason)
        check_new(there, name)
        room = needs(volume, there)
        if room > there.observed_available:
            raise Denied(_("The pool is too full for the volume; make room first."), field="pool")
        title = f"{doing} {volume.name} to {there.pool.name}"
        begun = begin_copy(actor, volume, there, kind, title, name, **names)
        try:
            ledger.hold(begun, {(there.pool.scope, Counter.Resource.DISK.value): room})
        except Denied as denied:
            raise Denied(denied.reason, field="pool") from denied
    return begun


def _checked(volume: Volume, to: PoolAttachment) -> PoolAttachment:
    """Return the pool that a volume goes to, as it is now. Raises Denied unless it takes the volume."""
    here = PoolAttachment.objects.filter(host=volume.pool.host_id).select_related("pool", "host")
    there = here.filter(pk=to.pk).first()
    if there is None:
        raise Denied(_("The volume's host has this pool no more."), field="pool")
    if there.pool_id == volume.pool.pool_id:
        raise Denied(_("The volume is in this pool already."), field="pool")
    going = Operation.objects.filter(kind__in=[pool_kinds.STOP, pool_kinds.REMOVE], state__in=UNFINISHED)
    both = [str(pool.pool.uuid) for pool in (volume.pool, there)]
    if work := going.filter(identifiers__uuid__in=both).first():
        raise Denied(not_finished(work))
    if not there.observed_active:
        raise Denied(_("The pool does not run."), field="pool")
    if reason := why_not_into(there, volume):
        raise Denied(reason, field="pool")
    return there
