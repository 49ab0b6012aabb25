"""Look into pools by turns, so that what others made there appears. Not for: deleting anything, ever."""

from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from portal.drivers.errors import DriverError
from portal.hosts.calls import call
from portal.hosts.models import Health, PoolAttachment
from portal.hosts.storage.looking import note_volumes

#: A pool is looked into again after this.
OLD = timedelta(minutes=10)
#: Pools of a round, and seconds that a host gets for each: a round costs so much at most.
MOST, PATIENCE = 2, 10.0


def look_by_turns() -> int:
    """Look into some of the pools that nobody looked into for long; return how many told. Idempotent.

    Only of hosts that answer. One that does not answer here is left for another round.
    """
    due = Q(observed_volumes_at=None) | Q(observed_volumes_at__lt=timezone.now() - OLD)
    running = PoolAttachment.objects.filter(observed_active=True, host__observed_health=Health.UP)
    found = running.filter(due).select_related("pool")
    # By chance: one that is broken, and so the oldest, would keep the turn for ever.
    return sum(_look(place) for place in found.order_by("?")[:MOST])


def _look(place: PoolAttachment) -> bool:
    began = timezone.now()
    try:
        # Which reads the folder as well, unless the host is making a volume there.
        volumes = call(place.host_id, "list_volumes", place.pool.name, timeout=PATIENCE)
    except DriverError:
        return False
    note_volumes(place.pk, volumes, began)
    return True
