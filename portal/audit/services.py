"""Write to the trail, seal it, verify it. Not for: reading it in pages."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice
from types import SimpleNamespace
from typing import Any

from django.db import connection, models, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.audit.models import AuditEntry, AuditSeal
from portal.core.canonical import digest
from portal.core.errors import Denied

GENESIS = "0" * 64
BATCH = 500
#: Seals that a page verifies while somebody waits; `manage.py audit verify` knows no limit.
VERIFY_LIMIT = 20_000
VERIFIED, EXPORTED = "audit.verified", "audit.exported"


class Rowless:
    """A target of entries that has no row of its own: of the type `label`, by the identity `pk`."""

    def __init__(self, label: str, name: str, *, pk: str = "all") -> None:
        self._meta = SimpleNamespace(label_lower=label)
        self.pk, self._name = pk, name

    def __str__(self) -> str:
        return self._name


TRAIL = Rowless("audit.trail", "Audit trail")


def record(*, actor: Any, verb: str, target: Any, before: Any = None, after: Any = None) -> AuditEntry:
    """Write one entry in the caller's transaction.

    `actor` is a user, or a string naming the process that acted by itself. `before` and `after` are
    JSON values. Raises RuntimeError outside a transaction: an entry that could stay when its change is
    rolled back would be a lie. Not idempotent.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("audit.record() must run inside the transaction that makes the change")
    system = isinstance(actor, str)
    return AuditEntry.objects.create(
        at=timezone.now(),
        actor_id="" if system else str(actor.pk),
        actor_name=actor if system else actor.get_username(),
        verb=verb,
        target_type=target._meta.label_lower,
        target_id=str(target.pk),
        target_name=str(target)[:255],
        before=before,
        after=after,
    )


def entry_content(entry: AuditEntry) -> dict[str, Any]:
    """Return every column of `entry` but its key as JSON values: what its hash is over."""
    return {
        field.attname: entry.at.isoformat() if field.attname == "at" else getattr(entry, field.attname)
        for field in AuditEntry._meta.concrete_fields
        if not field.primary_key
    }


def entry_hash(entry: AuditEntry) -> str:
    """Return the hash over every column of `entry` but its key, which the seal holds."""
    return digest(entry_content(entry))


def _seal(previous: str, entry_id: int, hashed: str) -> str:
    return digest({"previous": previous, "entry_id": entry_id, "entry_hash": hashed})


def _link(previous: str, entry: AuditEntry) -> AuditSeal:
    hashed = entry_hash(entry)
    return AuditSeal(
        entry_id=entry.pk,
        entry_hash=hashed,
        previous=previous,
        seal=_seal(previous, entry.pk, hashed),
    )


def seal_pending(limit: int = 1000, *, within: timedelta | None = None) -> int:
    """Append seals for up to `limit` committed entries without one; return how many. Idempotent.

    `within` looks only at entries that young: the whole trail is read otherwise, which is much to do each
    second once it is long. Where nothing waits, nothing is locked.

    Entries are sealed by absence of a seal, not by 'greater than the last': a transaction that took its
    id early and committed late must not slip past the chain. Racing sealers: the second one's insert
    violates the uniqueness of `previous` and raises IntegrityError; its entries are sealed next time.
    """
    sealed = AuditSeal.objects.filter(entry_id=models.OuterRef("pk"))
    pending = AuditEntry.objects.filter(~models.Exists(sealed)).order_by("pk")
    if within is not None:
        pending = pending.filter(at__gte=timezone.now() - within)
    if not pending.exists():
        return 0
    with transaction.atomic():
        head = chain_head().seal
        seals = []
        for entry in pending[:limit]:
            seals.append(_link(head, entry))
            head = seals[-1].seal
        AuditSeal.objects.bulk_create(seals)
    return len(seals)


@dataclass(frozen=True)
class Head:
    """The end of the chain at one moment: the number of its last seal (0 for none) and the seal itself."""

    number: int
    seal: str


def chain_head() -> Head:
    """Return the end of the chain now."""
    last = AuditSeal.objects.order_by("-pk").first()
    return Head(last.pk, last.seal) if last else Head(0, GENESIS)


def verify(newest: int | None = None) -> Iterator[str]:
    """Yield one sentence for each thing wrong with the chain; nothing when it holds.

    `newest` bounds the work to that many seals at the end of the chain. Two queries for every 500 seals.
    Unsealed entries are no fault: the sealer runs behind by design.
    """
    last, previous = _start(newest)
    while batch := list(AuditSeal.objects.filter(pk__gt=last).order_by("pk")[:BATCH]):
        entries = AuditEntry.objects.in_bulk([seal.entry_id for seal in batch])
        for seal in batch:
            yield from _faults(seal, entries.get(seal.entry_id), previous)
            previous = seal.seal
        last = batch[-1].pk


def _start(newest: int | None) -> tuple[int, str]:
    """Return the key and the seal that the first link to verify continues."""
    if newest is not None:
        before = AuditSeal.objects.order_by("-pk")[newest : newest + 1].first()
        if before is not None:
            return before.pk, before.seal
    return 0, GENESIS


def _faults(seal: AuditSeal, entry: AuditEntry | None, previous: str) -> Iterator[str]:
    if seal.previous != previous:
        yield f"Seal {seal.pk} does not continue the seal before it: a seal was removed or inserted."
    if entry is None:
        yield f"Entry {seal.entry_id} was removed."
    elif entry_hash(entry) != seal.entry_hash:
        yield f"Entry {seal.entry_id} was changed after it was sealed."
    if seal.seal != _seal(seal.previous, seal.entry_id, seal.entry_hash):
        yield f"Seal {seal.pk} was changed."


@dataclass(frozen=True)
class Verification:
    """What a look at the end of the chain found."""

    holds: bool
    faults: list[str]
    #: Seals looked at, all seals, and the seal at the end of the chain.
    verified: int
    seals: int
    head: str

    @property
    def whole(self) -> bool:
        return self.verified == self.seals


def verify_bounded() -> Verification:
    """Verify the newest VERIFY_LIMIT seals and name at most ten faults. Changes nothing."""
    head = chain_head().seal
    seals = AuditSeal.objects.count()
    faults = list(islice(verify(VERIFY_LIMIT), 10))
    return Verification(not faults, faults, min(seals, VERIFY_LIMIT), seals, head)


def verify_now(*, actor: Any) -> Verification:
    """Verify as `verify_bounded` and record the result in the trail.

    Raises Denied for whoever may not audit every project.
    """
    _may_audit(actor)
    with transaction.atomic():
        found = verify_bounded()
        record(actor=actor, verb=VERIFIED, target=TRAIL, after=asdict(found))
    return found


def record_export(*, actor: Any, form: str, filters: list[str], newest: int, head: str) -> None:
    """Record that `actor` takes a part of the trail away as a file. Raises Denied. Not idempotent."""
    _may_audit(actor)
    after = {"form": form, "filters": filters, "newest": newest, "head": head}
    with transaction.atomic():
        record(actor=actor, verb=EXPORTED, target=TRAIL, after=after)


def _may_audit(actor: Any) -> None:
    if not AuditEntry.objects.allowed(actor, "audit"):
        raise Denied(_("Only people who audit or administer every project may read the trail."))


def last_verification() -> AuditEntry | None:
    """Return the entry of the last verification somebody asked for on the page."""
    return AuditEntry.objects.filter(verb=VERIFIED).order_by("-pk").first()


def unsealed() -> int:
    """Count entries without a seal among the newest 10,000, where the sealer works."""
    newest = AuditEntry.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    sealed = AuditSeal.objects.filter(entry_id=models.OuterRef("pk"))
    return AuditEntry.objects.filter(~models.Exists(sealed), pk__gt=newest - 10_000).count()
