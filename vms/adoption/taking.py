"""What an adopted machine takes, and the rows of its disks and cards. Not for: deciding who adopts."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from networks.models import Network, Port
from portal.accounts.models import Project
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import VolumeInfo, names_of
from portal.hosts.limits import count_present
from portal.hosts.models import Host, ImageAttachment, PoolAttachment, StoragePool
from portal.operations import ledger
from portal.operations.models import Counter, Operation
from vms.adoption import found
from vms.changes.devices.nics import forget_address
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
    an image, nor another machine's disk. A device that the portal gave it stays its own while it has that.
    """
    pools = list(PoolAttachment.objects.filter(host=machine.host_id).select_related("pool"))
    places = list(found.own_places(persistent, machine.uuid, pools))
    there = {place[0]: {info.name: info for info in listed(place[0].pool.name)} for _drive, place in places}
    images = ImageAttachment.objects.filter(pool__in=there).select_related("image")
    kept = {*bases, *(path for copy in images for path in copy.paths)}
    others = Disk.objects.exclude(machine=machine).filter(pool__pool__in=[one.pool_id for one in there])
    taken = set(others.values_list("pool__pool", "volume_name"))
    files = [
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
    return files + list(_given_devices(machine, persistent))


def _given_devices(machine: VirtualMachine, persistent: found.Defined) -> Iterator[Volume]:
    """Yield the volumes that are no files and that the portal gave a machine, as far as it has them still."""
    drives = {str(drive.source.get("dev")): drive for drive in found.drives(persistent) if drive.own}
    for disk in machine.disks.exclude(device="").select_related("pool__pool"):
        drive = next((drives[name] for name in names_of(disk.device) if name in drives), None)
        if drive is not None:
            yield Volume(disk.pool, disk.volume_name, drive.target, disk.capacity, present=0)


def take_in(
    machine: VirtualMachine, seen: DefinitionSeen, volumes: Sequence[Volume], check: Callable[[], None]
) -> None:
    """Write what a machine being adopted is, and hold exactly what it takes, all or nothing. Idempotent.

    `check` is the step's: whoever lost the operation writes nothing. Raises Denied when a quota, the host or
    a pool is too small.
    """
    sizes = found.sizes_of(seen.persistent, seen.running) or found.Sizes(machine.vcpus, machine.memory)
    wanted = amounts(machine.owner, machine.project, machine.host, sizes, by_pool(volumes))
    with transaction.atomic():
        # It changes the operation's row, so that nobody else moves what it holds.
        check()
        # In the watcher's order: machines, then what their host has left.
        VirtualMachine.objects.select_for_update().get(pk=machine.pk)
        ledger.lock_ahead(machine.built_by, wanted)
        _count_present(machine, volumes)
        ledger.rehold(machine.built_by, wanted)
        _write(machine, seen.persistent or {}, sizes, volumes)


def take_anew(
    operation: Operation,
    machine: VirtualMachine,
    seen: DefinitionSeen,
    volumes: Sequence[Volume],
    check: Callable[[], None],
) -> None:
    """Write what an adopted machine has become, and count exactly that, all or nothing. Idempotent.

    What it takes more is held by `operation` and counts as the machine's at once, so that whatever becomes of
    the operation the rows and the counters agree. `check` and Denied are as in `take_in`.
    """
    sizes = found.sizes_of(seen.persistent, seen.running) or found.Sizes(machine.vcpus, machine.memory)
    with transaction.atomic():
        check()
        current = VirtualMachine.objects.select_for_update().get(pk=machine.pk)
        taken = taken_by(current)
        wanted = amounts(machine.owner, machine.project, machine.host, sizes, by_pool(volumes))
        ledger.lock_ahead(operation, {**taken, **wanted})
        _count_present(machine, volumes)
        ledger.rehold(operation, beyond(wanted, taken))
        ledger.use(operation)
        ledger.hand_over(operation, machine.built_by)
        ledger.reduce(machine.built_by, beyond(taken, wanted))
        _write(machine, seen.persistent or {}, sizes, volumes)


def by_pool(volumes: Iterable[Volume]) -> dict[StoragePool, int]:
    """Return what disks take of each pool, in bytes."""
    disks: dict[StoragePool, int] = {}
    for volume in volumes:
        disks[volume.pool.pool] = disks.get(volume.pool.pool, 0) + volume.capacity
    return disks


def taken_by(machine: VirtualMachine) -> ledger.Amounts:
    """Return what a machine takes of quotas, of its host and of pools, by its rows."""
    disks: dict[StoragePool, int] = {}
    for disk in machine.disks.select_related("pool__pool"):
        disks[disk.pool.pool] = disks.get(disk.pool.pool, 0) + disk.capacity
    sizes = found.Sizes(machine.vcpus, machine.memory)
    return amounts(machine.owner, machine.project, machine.host, sizes, disks)


def beyond(amounts: ledger.Amounts, others: ledger.Amounts) -> ledger.Amounts:
    """Return by how much `amounts` are larger than `others`."""
    more = {key: amount - others.get(key, 0) for key, amount in amounts.items()}
    return {key: amount for key, amount in more.items() if amount > 0}


def _count_present(machine: VirtualMachine, volumes: Iterable[Volume]) -> None:
    known = set(machine.disks.values_list("pool", "volume_name"))
    for volume in volumes:
        if (volume.pool.pk, volume.name) not in known:
            count_present(volume.pool.pool, volume.present)


def _write(
    machine: VirtualMachine, persistent: found.Defined, sizes: found.Sizes, volumes: Sequence[Volume]
) -> None:
    VirtualMachine.objects.filter(pk=machine.pk).update(
        domain_name=domain_name(persistent),
        vcpus=sizes.vcpus,
        memory=sizes.memory,
        balloon=found.balloon_of(persistent),
        accelerator=persistent["type"],
        devices=found.devices_of(persistent),
    )
    _write_disks(machine, volumes)
    _write_ports(machine, found.cards(persistent))


def domain_name(persistent: found.Defined) -> str:
    """Return what a domain is called, as far as a row holds it."""
    return str(persistent.get("name", ""))[:255]


def _write_disks(machine: VirtualMachine, volumes: Sequence[Volume]) -> None:
    there = {(disk.pool_id, disk.volume_name): disk for disk in machine.disks.all()}
    machine.disks.all().delete()
    made = []
    for volume in volumes:
        known = there.get((volume.pool.pk, volume.name), Disk())
        disk = Disk(machine=machine, pool=volume.pool, volume_name=volume.name, target=volume.target)
        disk.capacity, disk.serial, disk.device = volume.capacity, known.serial, known.device
        made.append(disk)
    Disk.objects.bulk_create(made)


def ports_of(
    machine: VirtualMachine, cards: Sequence[found.Card]
) -> tuple[list[Port], list[Port], list[Port]]:
    """Return the rows of a machine's cards that stay, those that go, and new ones that nobody saved.

    Cards on networks of the portal have one, but for addresses that another card has already.
    """
    stay: list[Port] = []
    go: list[Port] = []
    by_mac = {card.mac: card for card in cards}
    for port in Port.objects.filter(domain_uuid=machine.uuid).select_related("network").order_by("pk"):
        card = by_mac.get(port.mac)
        is_own = port.network.kind == Network.Kind.USER
        (stay if card and (is_own or _is_on(card, port.network)) else go).append(port)
    networks = list(Network.objects.exclude(kind=Network.Kind.USER).order_by("pk"))
    others = Port.objects.filter(mac__in=by_mac).exclude(pk__in=[port.pk for port in go])
    taken, new = set(others.values_list("mac", flat=True)), []
    for card in cards:
        network = next((one for one in networks if _is_on(card, one)), None)
        if network is not None and card.mac and card.mac not in taken:
            taken.add(card.mac)
            new.append(Port(network=network, host=machine.host, domain_uuid=machine.uuid, mac=card.mac))
    return stay, go, new


def _write_ports(machine: VirtualMachine, cards: Sequence[found.Card]) -> None:
    _stay, go, new = ports_of(machine, cards)
    Port.objects.filter(pk__in=[port.pk for port in go]).delete()
    for port in new:
        port.save()
    for port in go:
        forget_address(port)


def _is_on(card: found.Card, network: Network) -> bool:
    """Tell whether a card is on a network of the portal: by the network's name, or on its bridge."""
    if card.kind == "network":
        return card.network == network.spec.name
    return card.kind == "bridge" and bool(card.bridge) and card.bridge == network.bridge
