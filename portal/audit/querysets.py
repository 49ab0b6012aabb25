"""Who may read the trail, and pages of it that stay fast at a million entries."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from django.contrib.auth import get_backends, get_user_model

from portal.core.querysets import RestrictedQuerySet

#: Counting stops here: nobody reads further, and counting a million rows for each page is slow.
COUNT_LIMIT = 10_000
BATCH = 500


@dataclass(frozen=True)
class Slice:
    """Some entries, newest first; `older` and `newer` are the keys to go on from, None at either end."""

    entries: list[Any]
    older: int | None
    newer: int | None


class AuditQuerySet(RestrictedQuerySet):
    """Entries of the trail. They belong to no project: all of them are granted, or none."""

    def allowed(self, user: Any, action: str) -> bool:
        """Tell whether `user` may do `action` with the trail. Two small queries, however long it is."""
        if not getattr(user, "is_active", False):
            return False
        offered = (backend for backend in get_backends() if hasattr(backend, "rows_for"))
        # The condition on a model of the estate speaks of nothing but the key, so the person's own row
        # answers it: also for an empty trail, and without a subquery over every entry.
        own = get_user_model()._default_manager.filter(pk=user.pk)
        conditions = (backend.rows_for(user, action, self.model) for backend in offered)
        return any(condition is not None and own.filter(condition).exists() for condition in conditions)

    def restrict(self, user: Any, action: str) -> Self:
        """Return every entry to those who hold `action` in every project, none to anybody else."""
        return self.all() if self.allowed(user, action) else self.none()

    def slice(self, *, before: int | None, after: int | None, size: int) -> Slice:
        """Return `size` entries next to a key: one query by the key's index, whatever the depth."""
        if after is not None:
            found = list(self.filter(pk__gt=after).order_by("pk")[: size + 1])
            more, entries = len(found) > size, found[:size][::-1]
            newer, older = more, bool(entries)
        else:
            rows = self if before is None else self.filter(pk__lt=before)
            found = list(rows.order_by("-pk")[: size + 1])
            older, entries = len(found) > size, found[:size]
            newer = before is not None and bool(entries)
        return Slice(
            entries,
            older=entries[-1].pk if older else None,
            newer=entries[0].pk if newer else None,
        )

    def capped_count(self) -> int:
        """Count, but no further than COUNT_LIMIT + 1."""
        return self.order_by()[: COUNT_LIMIT + 1].count()

    def batches(self) -> Iterator[list[Any]]:
        """Yield lists of entries, oldest first, a query each: memory stays flat and no transaction open."""
        last = 0
        while batch := list(self.filter(pk__gt=last).order_by("pk")[:BATCH]):
            yield batch
            last = batch[-1].pk
