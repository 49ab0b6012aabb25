"""Write to the trail, seal it, verify it. Not for: reading it in pages."""

from collections.abc import Iterator
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from portal.audit.models import AuditEntry, AuditSeal
from portal.core.canonical import digest

GENESIS = "0" * 64


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


def entry_hash(entry: AuditEntry) -> str:
    """Return the hash over every column of `entry` but its key, which the seal holds."""
    return digest(
        {
            field.attname: entry.at.isoformat() if field.attname == "at" else getattr(entry, field.attname)
            for field in AuditEntry._meta.concrete_fields
            if not field.primary_key
        }
    )


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


def seal_pending(limit: int = 1000) -> int:
    """Append seals for up to `limit` committed entries without one; return how many. Idempotent.

    Entries are sealed by absence of a seal, not by 'greater than the last': a transaction that took its
    id early and committed late must not slip past the chain. Racing sealers: the second one's insert
    violates the uniqueness of `previous` and raises IntegrityError; its entries are sealed next time.
    """
    with transaction.atomic():
        head = AuditSeal.objects.order_by("-pk").values_list("seal", flat=True).first() or GENESIS
        sealed = AuditSeal.objects.values("entry_id")
        seals = []
        for entry in AuditEntry.objects.exclude(pk__in=sealed).order_by("pk")[:limit]:
            seals.append(_link(head, entry))
            head = seals[-1].seal
        AuditSeal.objects.bulk_create(seals)
    return len(seals)


def verify() -> Iterator[str]:
    """Yield one sentence for each thing wrong with the chain; nothing when it holds.

    Unsealed entries are no fault: the sealer runs behind by design.
    """
    previous = GENESIS
    for seal in AuditSeal.objects.order_by("pk").iterator():
        if seal.previous != previous:
            yield f"Seal {seal.pk} does not continue the seal before it: a seal was removed or inserted."
        entry = AuditEntry.objects.filter(pk=seal.entry_id).first()
        if entry is None:
            yield f"Entry {seal.entry_id} was removed."
        elif entry_hash(entry) != seal.entry_hash:
            yield f"Entry {seal.entry_id} was changed after it was sealed."
        if seal.seal != _seal(seal.previous, seal.entry_id, seal.entry_hash):
            yield f"Seal {seal.pk} was changed."
        previous = seal.seal
