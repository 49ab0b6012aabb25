"""Look into pools; make, grow, copy and delete volumes. Not for: the disks of machines."""

import hashlib
import re
import uuid
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.drivers.types import VolumeVerb
from portal.hosts.images.purposes import TO_VOLUME
from portal.hosts.models import PoolAttachment, Volume
from portal.hosts.services import check_estate
from portal.hosts.storage import downloading, kinds, move_kinds, pool_words
from portal.hosts.storage.further import lies_under
from portal.hosts.storage.using import uses_by_machines, uses_of
from portal.operations import ledger, words
from portal.operations.models import Operation
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED

#: What the drivers take for a volume's name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
#: What libvirt calls a LUN of a target.
_LUN = re.compile(r"unit(:[0-9]{1,9}){3}")
FORMATS = ("qcow2", "raw")
_SECTOR = 512


def look(*, actor: Any, pool: PoolAttachment) -> Operation:
    """Queue a look at what lies in a pool now. Raises Denied."""
    check_estate(actor, "operate", _("look into pools"))
    return _begin(actor, pool, kinds.REFRESH, f"Look into {pool}", pool.topic, {})


def create(*, actor: Any, pool: PoolAttachment, name: str, capacity: int, form: str) -> Operation:
    """Queue an empty volume of `capacity` bytes in the format `form`. Raises Denied."""
    check_estate(actor, "operate", _("make volumes"))
    check_can(pool, VolumeVerb.CREATE)
    check_new(pool, name)
    if form not in FORMATS:
        raise Denied(_("Choose one of the formats."), field="form")
    if form != "raw" and not pool.has_folder:
        raise Denied(_("Volumes of this pool are raw."), field="form")
    _check_capacity(pool, capacity)
    told = {"format": form, **_own(pool)}
    return _change(actor, pool, kinds.CREATE, f"Make {name}", name, capacity=capacity, **told)


def clone(*, actor: Any, volume: Volume, name: str) -> Operation:
    """Queue a full copy of a volume that nobody writes, in its pool. Raises Denied."""
    check_estate(actor, "operate", _("copy volumes"))
    check_can(volume.pool, VolumeVerb.CLONE)
    check_new(volume.pool, name)
    if volume.observed_format not in FORMATS or not _NAME.fullmatch(volume.name):
        raise Denied(_("Only volumes in the formats qcow2 and raw, with plain names, are copied."))
    if reason := why_without_base(volume):
        raise Denied(reason)
    for use in uses_by_machines([volume])[volume.pk]:
        raise Denied(_("It is in use: %(users)s.") % {"users": use.words})
    if volume.observed_allocation > volume.pool.observed_available:
        raise Denied(_("The pool is too full for a copy; make room first."))
    return begin_copy(actor, volume, volume.pool, kinds.CLONE, f"Copy {volume.name} to {name}", name)


def grow(*, actor: Any, volume: Volume, capacity: int) -> Operation:
    """Queue that a volume nobody uses gets `capacity` bytes; it never gets smaller. Raises Denied."""
    check_estate(actor, "operate", _("change volumes"))
    check_can(volume.pool, VolumeVerb.GROW)
    _check_free(volume, _("A machine's disk is made larger on the machine's own page."))
    if capacity <= volume.observed_capacity:
        raise Denied(
            _("A volume only becomes larger: to make it smaller would cut off data."), field="capacity"
        )
    _check_capacity(volume.pool, capacity)
    return _change(actor, volume.pool, kinds.GROW, f"Grow {volume.name}", volume.name, capacity=capacity)


def delete(*, actor: Any, volume: Volume, confirm_name: str) -> Operation:
    """Queue the end of a volume that nobody uses; the host is asked again before. Raises Denied."""
    check_estate(actor, "operate", _("delete volumes"))
    if confirm_name != volume.name:
        raise Denied(_("Type the volume's name exactly to delete it."))
    check_can(volume.pool, VolumeVerb.DELETE)
    _check_free(volume)
    return _change(actor, volume.pool, kinds.DELETE, f"Delete {volume.name}", volume.name)


def download(*, actor: Any, volume: Volume) -> Operation:
    """Queue that a volume's file is brought here, unless a running domain may write to it. Raises Denied."""
    check_estate(actor, "operate", _("download volumes"))
    check_can(volume.pool, VolumeVerb.READ)
    if not has_plain_name(volume.name) and not is_lun(volume.name):
        raise Denied(_("Its name has characters that the portal passes on to no host; take it there."))
    names = {"folder": str(uuid.uuid4())}
    return _change(actor, volume.pool, downloading.FETCH, f"Download {volume.name}", volume.name, **names)


def check_can(pool: PoolAttachment, verb: VolumeVerb) -> None:
    """Raise Denied when something is not done to volumes of a pool's kind."""
    if reason := pool_words.why_not(pool.observed_kind, verb):
        raise Denied(reason)


def why_not(volume: Volume) -> str:
    """Return why nobody can grow or delete a volume now, by whom it is used; '' when one can."""
    if not _NAME.fullmatch(volume.name):
        return _("Its name has characters that the portal passes on to no host; change it there.")
    users = ", ".join(use.words for use in uses_of([volume])[volume.pk])
    if users:
        return _("It is in use: %(users)s.") % {"users": users}
    return _("Another pool of the host lies on it.") if lies_under(volume) else ""


def _check_free(volume: Volume, more: str = "") -> None:
    if reason := why_not(volume):
        raise Denied(f"{reason} {more}".rstrip())


def why_without_base(volume: Volume) -> str:
    """Return what a volume stands on that is not to be read by it; '' for nothing.

    That is what lies in no pool of the host, such as its own files, and a machine's disk.
    Asks the database, a volume that stands by itself does not.
    """
    known = Volume.objects.filter(pool__host=volume.pool.host_id)
    backing, met = volume.observed_backing, set[str]()
    while backing and backing not in met:
        met.add(backing)
        below = known.filter(observed_path=backing).values_list("observed_backing", flat=True).first()
        if below is None:
            told = _("It stands on %(path)s, which lies in no pool that the portal looks into.")
            return told % {"path": backing}
        backing = below
    bases = known.filter(observed_path__in=met).select_related("pool__pool", "pool__host")
    for uses in uses_by_machines(list(bases)).values():
        for use in uses:
            return _("It stands on what another one has for a disk: %(use)s.") % {"use": use.words}
    return ""


def check_new(pool: PoolAttachment, name: str) -> None:
    """Raise Denied unless a volume of this name can be made in a pool, as far as the portal knows."""
    if not _NAME.fullmatch(name) or name.endswith(".iso"):
        raise Denied(
            _("Use letters, digits, dots, hyphens and underscores; a name that ends in .iso is a CD's."),
            field="name",
        )
    if pool.volumes.filter(name=name).exists():
        raise Denied(_("The pool has a volume of this name already."), field="name")


def _check_capacity(pool: PoolAttachment, capacity: int) -> None:
    if capacity <= 0 or capacity % _SECTOR:
        raise Denied(_("Give a size above zero."), field="capacity")
    if capacity > pool.observed_capacity:
        raise Denied(_("That is more than the whole pool has."), field="capacity")


def has_plain_name(name: str) -> bool:
    """Tell whether a volume has a name that drivers take."""
    return _NAME.fullmatch(name) is not None


def is_lun(name: str) -> bool:
    """Tell whether a volume has a name that libvirt gives to LUNs, and to nothing else."""
    return _LUN.fullmatch(name) is not None


def subject_of(pool: PoolAttachment, name: str) -> str:
    """Return the subject of operations on a volume, which may have no row yet.

    By the pool and not by the host's attachment to it: two hosts that share a pool work on one file.
    """
    return f"hosts.volume:pool:{pool.pool_id}:{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def works_on(pool: PoolAttachment, name: str) -> QuerySet[Operation]:
    """Return what is being done to a volume, or with it: also what copies it, and what makes it of a file."""
    subject = subject_of(pool, name)
    uploaded = Q(kind=TO_VOLUME, identifiers__attachment=pool.pk, identifiers__name=name)
    concerned = Q(subject=subject) | Q(identifiers__source_subject=subject) | uploaded
    return Operation.objects.filter(concerned, state__in=UNFINISHED).order_by("pk")


def why_worked_on(pool: PoolAttachment, name: str) -> str:
    """Return that somebody works on a volume, or with it, in a sentence; '' for nobody."""
    work = works_on(pool, name).first()
    return words.not_finished(work) if work else ""


def _reads(work: Operation, subject: str) -> bool:
    """Tell whether an operation only reads the volume that is its subject, or that it copies."""
    copies = work.kind in {kinds.CLONE, move_kinds.COPY} and work.subject != subject
    return copies or work.kind == downloading.FETCH


def _check_idle(pool: PoolAttachment, name: str, *, reading: bool) -> None:
    """Raise Denied while others work on a volume; who is only `reading` it minds no other reader."""
    for work in works_on(pool, name):
        if not (reading and _reads(work, subject_of(pool, name))):
            raise Denied(words.not_finished(work))


def _check_known(pool: PoolAttachment) -> None:
    """Raise Denied for a pool that was given back or removed meanwhile; the caller holds its lock."""
    if not PoolAttachment.objects.filter(pk=pool.pk).exists():
        raise Denied(_("The pool is gone."))


def _own(pool: PoolAttachment) -> dict[str, str]:
    """Draw what tells the volume that an operation makes from everybody else's, and say how far it does."""
    return {"mark": str(uuid.uuid4()), "pool_kind": pool.observed_kind}


def _change(actor: Any, pool: PoolAttachment, kind: str, title: str, name: str, **names: Any) -> Operation:
    subject = subject_of(pool, name)
    with transaction.atomic():
        # Of two who begin something with one volume at once, the second sees what the first began.
        ledger.lock([pool.pool.scope])
        _check_known(pool)
        # Who works on this very volume has its subject.
        if works_on(pool, name).exclude(subject=subject).exists():
            _check_idle(pool, name, reading=kind == downloading.FETCH)
        return _begin(actor, pool, kind, title, subject, {"name": name, **names})


def begin_copy(
    actor: Any, volume: Volume, pool: PoolAttachment, kind: str, title: str, name: str, **names: Any
) -> Operation:
    """Queue what makes a full copy of a volume, called `name`, in a pool of its host. Raises Denied."""
    told = {
        "source": volume.observed_path,
        "source_name": volume.name,
        "source_subject": subject_of(volume.pool, volume.name),
        "format": volume.observed_format,
        "capacity": volume.observed_capacity,
        **_own(pool),
        **names,
    }
    with transaction.atomic():
        ledger.lock([volume.pool.pool.scope, pool.pool.scope])
        _check_known(volume.pool)
        _check_idle(volume.pool, volume.name, reading=kind != move_kinds.MOVE)
        return _change(actor, pool, kind, title, name, **told)


def _begin(
    actor: Any, pool: PoolAttachment, kind: str, title: str, subject: str, names: dict[str, Any]
) -> Operation:
    told = {"host": pool.host.name, "pool": pool.pool.name, **names}
    with transaction.atomic():
        return begin_operation(
            actor=actor,
            project=None,
            spec=RequestSpec(kind=kind, sizes={}, pinned=told),
            subject=subject,
            title=title,
            identifiers={**told, "host": pool.host_id, "attachment": pool.pk},
            lane=pool.host.scope,
        )
