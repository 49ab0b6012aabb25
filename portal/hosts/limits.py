"""What the ledger may give of a host and of a pool. Not for: seeing what they have."""

from django.db.models import BigIntegerField, F, Value
from django.db.models.functions import Least

from portal.drivers.types import PoolInfo
from portal.hosts.models import Host, PoolAttachment, StoragePool
from portal.live.publish import publish
from portal.operations.models import Counter


def set_limits(host: Host) -> None:
    """Let the ledger know what the host can give: vCPUs with overcommit, memory without its own share.

    What foreign domains take is not there to give.
    """
    vcpus = host.observed_cpus * host.cpu_overcommit - host.observed_foreign_vcpus
    memory = host.observed_memory - host.memory_reserve - host.observed_foreign_memory
    limits = {Counter.Resource.VCPU: max(0, vcpus), Counter.Resource.MEMORY: max(0, memory)}
    for resource, limit in limits.items():
        Counter.objects.update_or_create(
            scope=host.scope, resource=resource, defaults={"limit": limit, "title": f"host {host.name}"}
        )


def note_pool(attachment: PoolAttachment, info: PoolInfo) -> bool:
    """Write what was seen of a pool, and let the ledger know what it can give; tell whether sizes changed.

    That is what is free now and what it promised already, at most its capacity: images, and what others keep
    on the same file system, are not there to give. Disks are thin: what a machine was promised and has not
    written yet counts as free, so that others can fill it up; the readiness report warns before. Idempotent;
    the ledger is told each time, since what is promised changes while the sizes do not.
    """
    sizes = {"observed_capacity": info.capacity_bytes, "observed_available": info.available_bytes}
    changed = any(getattr(attachment, name) != size for name, size in sizes.items())
    if changed:
        for name, size in sizes.items():
            setattr(attachment, name, size)
        attachment.save(update_fields=list(sizes))
    counter, _made = Counter.objects.get_or_create(
        scope=attachment.pool.scope, resource=Counter.Resource.DISK, defaults={"limit": 0}
    )
    promised = Value(info.available_bytes, BigIntegerField()) + F("used") + F("held")
    limit = Least(Value(info.capacity_bytes, BigIntegerField()), promised)
    Counter.objects.filter(pk=counter.pk).update(limit=limit, title=f"pool {attachment.pool.name}")
    return changed


def note_stopped(attachment: PoolAttachment) -> None:
    """Let a pool that does not run give nothing more, unless another host has it and it runs there.

    Its sizes stay what they were when it ran. Idempotent; the ledger is told each time, as in `note_pool`.
    """
    others = attachment.pool.attachments.exclude(pk=attachment.pk)
    if not others.filter(observed_active=True).exists():
        counters = Counter.objects.filter(scope=attachment.pool.scope, resource=Counter.Resource.DISK)
        counters.update(limit=F("used") + F("held"))


def shift_foreign(host: Host, vcpus: int, memory: int) -> None:
    """Count so much more, or less, as taken by domains that nobody manages, until the watcher lists them.

    For who takes such a domain into the ledger, or out of it: what it takes is counted once at every moment,
    and a host that is full of it has room for it. The caller holds the host's `locked` row.
    """
    if not vcpus and not memory:
        return
    host.observed_foreign_vcpus = max(0, host.observed_foreign_vcpus + vcpus)
    host.observed_foreign_memory = max(0, host.observed_foreign_memory + memory)
    host.save(update_fields=["observed_foreign_vcpus", "observed_foreign_memory"])
    set_limits(host)
    publish(host.topic)


def count_present(pool: StoragePool, size: int) -> None:
    """Let a pool promise `size` bytes more, which lie in it already, until its sizes are noted anew.

    For who takes a volume that is there into the ledger: what it fills does not have to be free.
    """
    Counter.objects.filter(scope=pool.scope, resource=Counter.Resource.DISK).exclude(limit=None).update(
        limit=F("limit") + size
    )
