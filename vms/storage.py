"""Which volumes machines and other domains use. Not for: what lies in pools, which `portal.hosts` knows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _

from portal.drivers.types import names_of
from portal.hosts.models import Volume
from portal.hosts.storage.using import Use
from portal.operations.models import Operation
from portal.operations.states import UNFINISHED
from vms.adoption.found import drives, in_pools
from vms.models import Definition, Disk, VirtualMachine


def users(volumes: Sequence[Volume]) -> Iterable[tuple[int, Use]]:
    """Yield who uses `volumes`: machines by their disks and seeds, and domains by their definitions."""
    keys: dict[tuple[int, str], list[int]] = {}
    for volume in volumes:
        keys.setdefault((volume.pool.pool_id, volume.name), []).append(volume.pk)
    shared = {volume.pool.pool_id for volume in volumes}
    disks = Disk.objects.filter(pool__pool__in=shared).select_related("machine", "pool")
    for disk in disks:
        # A seed stays where it was written when the disk moves.
        own = [(disk.pool.pool_id, disk.volume_name)]
        if not disk.machine.adopted:
            own += [(pool, f"{disk.machine.domain_name}-seed.iso") for pool in shared]
        for key in own:
            for pk in keys.get(key, ()):
                url = reverse("vms:detail", args=[disk.machine_id])
                yield pk, Use(_("Machine %(machine)s") % {"machine": disk.machine.name}, url)
    yield from _work(volumes)
    yield from _domains(volumes, keys)


def _work(volumes: Sequence[Volume]) -> Iterable[tuple[int, Use]]:
    """Yield the operations under way that name a volume: a copy that is being made has no row yet."""
    under_way = Operation.objects.filter(state__in=UNFINISHED, kind__startswith="vm.")
    for operation in under_way:
        named = set(_words_in(operation.identifiers))
        for volume in volumes:
            if volume.name in named:
                url = reverse("operations:detail", args=[operation.pk])
                yield volume.pk, Use(str(operation), url)


def _words_in(value: Any) -> Iterator[str]:
    """Yield every text in what an operation is about, but for what its parts are called."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _words_in(part)
    elif isinstance(value, Sequence):
        for part in value:
            yield from _words_in(part)


def _domains(
    volumes: Sequence[Volume], keys: dict[tuple[int, str], list[int]]
) -> Iterable[tuple[int, Use]]:
    pools = {volume.pool_id: volume.pool for volume in volumes}
    places = {host: [one for one in pools.values() if one.host_id == host] for host in _hosts(volumes)}
    known = VirtualMachine.objects.filter(host__in=places)
    machines = {own: (pk, name) for own, pk, name in known.values_list("uuid", "pk", "name")}
    devices = _devices(volumes)
    rows = Definition.objects.filter(host__in=places)
    told = rows.values_list("host", "uuid", "observed_name", "observed_persistent", "observed_running")
    for host, own, name, *sides in told:
        if own in machines:
            use = Use(
                _("Machine %(machine)s") % {"machine": machines[own][1]},
                reverse("vms:detail", args=[machines[own][0]]),
            )
        else:
            use = Use(_("Domain %(domain)s, which is no machine here") % {"domain": name})
        for drive in (drive for side in sides for drive in drives(side)):
            # Such a disk has no row, be it a machine's.
            for key in ("dev", "file", "name"):
                for pk in devices.get((host, str(drive.source.get(key))), ()):
                    yield pk, use
            # Also of a machine here, whose rows know nothing of what virsh attached or made a snapshot of.
            if place := in_pools(drive, places[host]):
                for pk in keys.get((place[0].pool_id, place[1]), ()):
                    yield pk, use


def _devices(volumes: Sequence[Volume]) -> dict[tuple[int, str], list[int]]:
    """Return the volumes that are no files by host and each of their devices' names, or Ceph's."""
    found: dict[tuple[int, str], list[int]] = {}
    for volume in volumes:
        for name in names_of(volume.observed_path) if not volume.pool.has_folder else ():
            found.setdefault((volume.pool.host_id, name), []).append(volume.pk)
    return found


def _hosts(volumes: Sequence[Volume]) -> set[int]:
    return {volume.pool.host_id for volume in volumes}
