"""How much room pools have, and how much was promised of it. Not for: what the ledger lets be promised."""

from dataclasses import dataclass

from django.db.models import QuerySet, Sum
from django.db.models.functions import Coalesce
from django.utils.translation import gettext as _

from portal.hosts.models import PoolAttachment


@dataclass(frozen=True)
class Room:
    """The sizes of a pool as its host told of them last; bytes.

    `promised` is what its volumes may grow to, were each written full: the sum of their virtual sizes.
    """

    pool: PoolAttachment
    capacity: int
    free: int
    promised: int

    @property
    def allocated(self) -> int:
        """What is taken, by volumes or by others on the same file system."""
        return self.capacity - self.free

    @property
    def percent(self) -> int:
        """The share that is taken."""
        return round(100 * self.allocated / self.capacity) if self.capacity else 0

    @property
    def ratio(self) -> float:
        """How many times the capacity is promised."""
        return self.promised / self.capacity if self.capacity else 0.0

    @property
    def promised_percent(self) -> int:
        """The share that is promised, as a bar shows it: at most 100."""
        return min(100, round(100 * self.ratio))

    @property
    def means(self) -> str:
        """What the ratio means, in a sentence."""
        if self.pool.observed_volumes_at is None:
            return _("Nobody looked into the pool yet, so what is promised is not known.")
        if self.ratio > 1:
            return _(
                "More is promised than the pool has: should the volumes fill up, it is full before they are, "
                "and machines with disks in it are paused."
            )
        return _("Every volume can fill up, unless others use the same file system.")


def with_promised(pools: QuerySet[PoolAttachment]) -> QuerySet[PoolAttachment]:
    """Return `pools` with what `room_of` needs, in the same query."""
    return pools.annotate(promised=Coalesce(Sum("volumes__observed_capacity"), 0))


def room_of(pool: PoolAttachment) -> Room:
    """Return the room of a pool that `with_promised` gave."""
    promised: int = pool.promised  # type: ignore[attr-defined]  # annotated
    return Room(pool, pool.observed_capacity, pool.observed_available, promised)
