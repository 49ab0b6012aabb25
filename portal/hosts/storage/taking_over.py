"""Take over pools that somebody else made, and give them back. Not for: finding them (`storage.found`).

Nothing of the pool is ever changed on its host: neither its definition nor what lies in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from portal.audit import services as audit
from portal.core.canonical import digest
from portal.core.errors import Denied
from portal.drivers.types import FOLDER_KINDS, PoolKind
from portal.hosts.models import FoundPool, Host, PoolAttachment, StoragePool
from portal.hosts.services import check_estate, locked
from portal.hosts.storage import pool_kinds, pool_sources, pools
from portal.hosts.storage.looking import keep_made
from portal.hosts.storage.pool_words import label_of
from portal.hosts.storage.services import has_plain_name
from portal.hosts.storage.using import uses_of
from portal.live.publish import publish
from portal.operations import ledger
from portal.operations.models import Operation
from portal.operations.registry import StepFailed
from portal.operations.states import UNFINISHED
from portal.operations.words import not_finished

#: Pools of a host that its page shows.
SHOWN = 30
_OWN = (pool_kinds.ADD, pool_kinds.REMOVE)


def identifiers_of(found: FoundPool) -> dict[str, Any]:
    """Return what tells a pool from others, and where it lies: what an operation on it freezes."""
    folder = found.observed_kind in FOLDER_KINDS
    return {
        "pool": found.observed_name,
        "uuid": str(found.uuid),
        "kind": found.observed_kind,
        "path": found.observed_path if folder else "",
        "source": found.observed_source,
        "server": found.observed_server,
    }


def seen_as(found: FoundPool) -> str:
    """Return what tells a pool, as a person sees it, from any other."""
    return digest(identifiers_of(found))


def why_not(found: FoundPool) -> str:
    """Return why a pool cannot be taken over, in a sentence; '' when it can. Asks the database."""
    try:
        _check(found)
    except Denied as denied:
        return denied.reason
    return ""


def _check(found: FoundPool) -> None:
    names = identifiers_of(found)
    if not found.observed_persistent:
        raise Denied(_("It is only while it runs: nothing says how to start it again."))
    if names["kind"] not in set(PoolKind):
        told = {"kind": names["kind"], "known": ", ".join(PoolKind)}
        raise Denied(_("It is of the kind %(kind)s, and the portal does these: %(known)s.") % told)
    if not has_plain_name(names["pool"]) or len(names["pool"]) > 64:
        raise Denied(
            _("Its name is not one of at most 64 letters, digits, dots, hyphens and underscores.")
        )
    if found.host.pools.filter(pool__name=names["pool"]).exists():
        raise Denied(_("The portal has another pool of this name on the host."))
    _check_uuid(names["uuid"])
    _check_place(found.host, names)
    # A host's first pool is the one that it was added with, and an enrolment may be making just this one.
    if not found.host.pools.filter(taken_over=False).exists():
        raise Denied(_("The host has no pool of the portal's own yet; wait for the end of its enrolment."))


def _check_uuid(uuid: str) -> None:
    known = StoragePool.objects.filter(uuid=uuid).first()
    if known is not None:
        words = _("The portal has its UUID as that of the pool %(pool)s.")
        raise Denied(words % {"pool": known})
    # A pool that is being added, or is on its way out, is on its host and has no row.
    work = Operation.objects.filter(state__in=UNFINISHED, identifiers__uuid=uuid).first()
    if work is not None:
        raise Denied(not_finished(work))


def _check_place(host: Host, names: Mapping[str, str]) -> None:
    kind = names["kind"]
    if kind in FOLDER_KINDS:
        pool_sources.check_path(names["path"], "path")
        if pools.is_of_system(names["path"]):
            raise Denied(_("Its folder, %(path)s, is the system's.") % {"path": names["path"]})
        pools.check_no_overlap(names["path"], pools.folders_of(host))
    if kind != PoolKind.DIR:
        pool_sources.check(kind, names["source"], names["server"])
        pools.check_alone(host, kind, names["source"], names["server"])


def take_over(*, actor: Any, found: FoundPool, seen: str) -> Operation:
    """Queue that a pool becomes known, as it is; its host is asked again whether it is so.

    `seen` is what `seen_as` gave of it. Raises Denied.
    """
    check_estate(actor, "administer", _("take over pools"))
    with transaction.atomic():
        # All of them, as for who adds one: of two that lie on the same the second is refused.
        list(Host.objects.select_for_update(no_key=True).order_by("pk"))
        host = locked(found.host)
        current = FoundPool.objects.filter(pk=found.pk).select_related("host").first()
        if current is None:
            raise Denied(_("The pool is gone from its host, or somebody took it over at this moment."))
        if seen_as(current) != seen:
            raise Denied(_("The pool is not any more as you saw it; look again."))
        _check(current)
        title = f"Take over the pool {current.observed_name}"
        return pools.begin(actor, host, pool_kinds.TAKE_OVER, title, identifiers_of(current))


def give_back(*, actor: Any, pool: PoolAttachment, confirm_name: str) -> None:
    """Forget a pool that was taken over; its host is not asked, and all there stays as it is.

    It is found on its host again. Raises Denied with who of the portal's uses it.
    """
    check_estate(actor, "administer", _("give pools back"))
    if confirm_name != pool.pool.name:
        raise Denied(_("Type the pool's name exactly to give it back."))
    with transaction.atomic():
        host = locked(pool.host)
        ledger.lock([pool.pool.scope])
        current = PoolAttachment.objects.filter(pk=pool.pk).select_related("pool", "host").first()
        if current is None:
            raise Denied(_("The pool is gone."))
        if reason := why_not_given_back(current):
            raise Denied(reason)
        names = {"name": current.pool.name, "uuid": str(current.pool.uuid), "place": current.place}
        audit.record(actor=actor, verb="pool.given_back", target=host, before=names)
        _find_again(current)
        keep_made(current)
        try:
            pool_kinds.forget(str(current.pool.uuid))
        except StepFailed as failure:
            raise Denied(_("Something came into the pool meanwhile; look at it again.")) from failure
        publish(host.topic)


def _find_again(pool: PoolAttachment) -> None:
    """Write that a pool is one that the portal does not know; its host says the rest when it is seen next."""
    known = Operation.objects.filter(kind=pool_kinds.TAKE_OVER, identifiers__uuid=str(pool.pool.uuid))
    names = known.order_by("-pk").values_list("identifiers", flat=True).first() or {}
    told = {
        "observed_name": pool.pool.name,
        "observed_kind": pool.observed_kind,
        "observed_path": pool.path,
        "observed_source": names.get("source", ""),
        "observed_server": names.get("server", ""),
        "observed_active": pool.observed_active,
        "observed_autostart": pool.observed_autostart,
        "observed_capacity": pool.observed_capacity,
        "observed_available": pool.observed_available,
    }
    FoundPool.objects.update_or_create(host=pool.host, uuid=pool.pool.uuid, defaults=told)


def why_not_given_back(pool: PoolAttachment) -> str:
    """Return why a pool cannot be given back now, by what of the portal's is in it; '' when it can."""
    if not pool.taken_over:
        return _("The portal itself made this pool; it can be removed, not given back.")
    if reason := pools.why_uploading(pool):
        return reason
    for copy in pool.images.select_related("image"):
        if copy.image.attachments.count() == 1:
            words = _("The image %(image)s lies nowhere else; delete the image first.")
            return words % {"image": copy.image.label}
    # Who has no page here goes on as before: nothing is changed for them.
    uses = uses_of(list(pool.volumes.select_related("pool__pool"))).items()
    return pools.why_busy(pool, {pk: [use for use in found if use.url] for pk, found in uses})


@dataclass(frozen=True)
class Row:
    """A pool as a list shows it; `denied` says why it cannot be taken over."""

    found: FoundPool
    kind: str
    denied: str


def left_out(host: Host) -> int:
    """Return how many pools that the portal does not know a host's page leaves out."""
    return max(0, host.found_pools.count() - SHOWN)


def rows(host: Host) -> list[Row]:
    """Return the first pools, by name, that a host has and the portal does not know."""
    # One that is being added, or is on its way out, is not somebody else's.
    work = Operation.objects.filter(kind__in=_OWN, lane=host.scope, state__in=UNFINISHED)
    own = [names["uuid"] for names in work.values_list("identifiers", flat=True)]
    found = host.found_pools.exclude(uuid__in=own).order_by("observed_name", "pk")[:SHOWN]
    for one in found:
        one.host = host
    return [Row(one, label_of(one.observed_kind), why_not(one)) for one in found]
