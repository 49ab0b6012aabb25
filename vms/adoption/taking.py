"""What an adopted machine takes, and the rows of its disks and cards. Not for: deciding who adopts."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from networks.models import Network, Port
from portal.accounts.models import Project
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import VolumeInfo
from portal.hosts.limits import count_present
from portal.hosts.models import Host, ImageAttachment, PoolAttachment, StoragePool
from portal.operations import ledger
from portal.operations.models import Counter
from vms.adoption import found
from vms.models import Disk, VirtualMachine
from vms.services import quota_amounts

#: The volumes of a pool, as its host lists them now.
Lister = Callable[[str], Sequence[VolumeInfo]]


@dataclass(frozen=True)
class Volume:
    """A disk that becomes a row: the volume of a pool that the portal has; bytes."""

    pool: PoolAttachment
    name: str
    target: str
    capacity: int
    #: What of it is written already, at most its capacity.
    present: int


def amounts(
    owner: Any, project: Project, host: Host, sizes: found.Sizes, disks: Mapping[StoragePool, int]
) -> ledger.Amounts:
    """Return what a machine takes of quotas, of its host and of pools (`disks`, in bytes)."""
    every = quota_amounts(owner, project, {**sizes.as_dict(), "disk": sum(disks.values())})
    host_takes = {
        (host.scope, Counter.Resource.VCPU.value): sizes.vcpus,
        (host.scope, Counter.Resource.MEMORY.value): sizes.memory,
        (host.scope, Counter.Resource.MACHINES.value): 1,
    }
    pools = {(pool.scope, Counter.Resource.DISK.value): size for pool, size in disks.items()}
    return {key: amount for key, amount in {**every, **host_takes, **pools}.items() if amount}


def volumes_of(
    machine: VirtualMachine, persistent: found.Defined, listed: Lister, bases: Collection[str]
) -> list[Volume]:
    """Return the disks of a machine that the portal counts, and deletes with it: whatever is its own alone.

    Not what another domain starts from, what another volume stands on (`bases`, of every pool of the host),
    an image, nor another machine's disk.
    """
    pools = list(PoolAttachment.objects.filter(host=machine.host_id).select_related("pool"))
    places = list(found.own_places(persistent, machine.uuid, pools))
    there = {place[0]: {info.name: info for info in listed(place[0].pool.name)} for _drive, place in places}
    kept = {*bases, *ImageAttachment.objects.filter(pool__in=there).values_list("path", flat=True)}
    others = Disk.objects.exclude(machine=machine).filter(pool__pool__in=[one.pool_id for one in there])
    taken = set(others.values_list("pool__pool", "volume_name"))
    return [
        Volume(
            pool=pool,
            name=name,
            target=drive.target,
            capacity=info.capacity_bytes,
            present=min(info.allocation_bytes, info.capacity_bytes),
        )
        for drive, (pool, name) in places
        if (info := there[pool].get(name)) is not None
        and info.path not in kept
        and (pool.pool_id, name) not in taken
    ]


def take_in(
    machine: VirtualMachine, seen: DefinitionSeen, volumes: Sequence[Volume], check: Callable[[], None]
) -> None:
    """Write what a machine being adopted is, and hold exactly what it takes, all or nothing. Idempotent.

    `check` is the step's: whoever lost the operation writes nothing. Raises Denied when a quota, the host or
    a pool is too small.
    """
    persistent = seen.persistent or {}
    sizes = found.sizes_of(seen.persistent, seen.running) or found.Sizes(machine.vcpus, machine.memory)
    disks: dict[StoragePool, int] = {}
    for volume in volumes:
        disks[volume.pool.pool] = disks.get(volume.pool.pool, 0) + volume.capacity
    wanted = amounts(machine.owner, machine.project, machine.host, sizes, disks)
    with transaction.atomic():
        # It changes the operation's row, so that nobody else moves what it holds.
        check()
        # In the watcher's order: machines, then what their host has left.
        VirtualMachine.objects.select_for_update().get(pk=machine.pk)
        ledger.lock_ahead(machine.built_by, wanted)
        known = set(machine.disks.values_list("pool", "volume_name"))
        for volume in volumes:
            if (volume.pool.pk, volume.name) not in known:
                count_present(volume.pool.pool, volume.present)
        ledger.rehold(machine.built_by, wanted)
        VirtualMachine.objects.filter(pk=machine.pk).update(
            domain_name=str(persistent.get("name", ""))[:255],
            vcpus=sizes.vcpus,
            memory=sizes.memory,
            balloon=found.balloon_of(persistent),
            accelerator=persistent["type"],
            devices=found.devices_of(persistent),
        )
        _write_disks(machine, volumes)
        _write_ports(machine, found.cards(persistent))


def _write_disks(machine: VirtualMachine, volumes: Sequence[Volume]) -> None:
    machine.disks.all().delete()
    Disk.objects.bulk_create(
        Disk(
            machine=machine,
            pool=volume.pool,
            volume_name=volume.name,
            target=volume.target,
            capacity=volume.capacity,
        )
        for volume in volumes
    )


def _write_ports(machine: VirtualMachine, cards: Sequence[found.Card]) -> None:
    """Write the cards on networks of the portal, but for addresses that another card has already."""
    Port.objects.filter(domain_uuid=machine.uuid).delete()
    networks = list(Network.objects.exclude(kind=Network.Kind.USER).order_by("pk"))
    taken = set(Port.objects.filter(mac__in=[card.mac for card in cards]).values_list("mac", flat=True))
    for card in cards:
        network = next((one for one in networks if _is_on(card, one)), None)
        if network is not None and card.mac and card.mac not in taken:
            taken.add(card.mac)
            Port.objects.create(network=network, host=machine.host, domain_uuid=machine.uuid, mac=card.mac)


def _is_on(card: found.Card, network: Network) -> bool:
    """Tell whether a card is on a network of the portal: by the network's name, or on its bridge."""
    if card.kind == "network":
        return card.network == network.spec.name
    return card.kind == "bridge" and bool(card.bridge) and card.bridge == network.bridge
