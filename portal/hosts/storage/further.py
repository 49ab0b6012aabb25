"""What the pools of hosts lie on, as far as the portal knows. Not for: what lies in them."""

from collections.abc import Iterator

from portal.drivers.types import names_of
from portal.hosts.models import FoundPool, StoragePool, Volume
from portal.hosts.storage import pool_kinds
from portal.operations.models import Operation
from portal.operations.states import UNFINISHED

#: What makes a pool known, with all that it lies on among its identifiers.
COMING = (pool_kinds.ADD, pool_kinds.TAKE_OVER)


def added() -> Iterator[Operation]:
    """Yield what made each further pool known that is there, is coming, or is going and may come back.

    Of one that was taken over several times the last of these, for it may have lain elsewhere before.
    """
    there = {str(uuid) for uuid in StoragePool.objects.values_list("uuid", flat=True)}
    changes = Operation.objects.filter(kind__in=[*COMING, pool_kinds.REMOVE])
    there |= {change.identifiers["uuid"] for change in changes.filter(state__in=UNFINISHED)}
    found = {change.identifiers["uuid"]: change for change in changes.filter(kind__in=COMING).order_by("pk")}
    return (change for uuid, change in found.items() if uuid in there)


def lies_under(volume: Volume) -> bool:
    """Tell whether a pool of its host lies on a volume that is a device, as a file system does.

    Also a pool that the portal does not know, and one that is stopped.
    """
    if volume.pool.has_folder:
        return False
    names = names_of(volume.observed_path)
    theirs = FoundPool.objects.filter(host=volume.pool.host_id, observed_source__in=names)
    others = (change.identifiers for change in added())
    known = any(other["host"] == volume.pool.host_id and other.get("source") in names for other in others)
    return known or theirs.exists()
