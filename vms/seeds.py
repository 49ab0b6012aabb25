"""Where a machine's cloud-init seed lies: where it was written, wherever its disks moved since."""

from portal.hosts.models import PoolAttachment
from vms.models import VirtualMachine


def place_of(machine: VirtualMachine) -> tuple[PoolAttachment, str] | None:
    """Return the pool and the name of the machine's seed, None for a machine without one."""
    if machine.adopted:
        return None
    written = machine.built_by.identifiers
    pools = PoolAttachment.objects.filter(host=machine.host_id).select_related("pool")
    pool = pools.filter(pool__name=written["pool"]).first() if written.get("pool") else None
    if pool is None:
        first = machine.disks.select_related("pool__pool").order_by("target").first()
        pool = first.pool if first else None
    return (pool, f"{machine.domain_name}-seed.iso") if pool else None


def path_of(machine: VirtualMachine) -> str:
    """Return the file of the machine's seed, '' for a machine without one."""
    place = place_of(machine)
    return f"{place[0].path}/{place[1]}" if place else ""
