"""Look again at machines that were adopted and changed by other means since. Not for: adopting them.

A machine is seen as the watcher saw its definition and its pools last; what its host says then counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import translation
from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.core.templatetags.gatehouse import gib
from portal.drivers.types import VolumeInfo
from portal.hosts.models import Health, Volume
from portal.hosts.services import check_estate
from portal.operations import ledger
from portal.operations.counters import look
from portal.operations.ledger import Amounts
from portal.operations.models import Operation
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED
from portal.operations.words import Difference
from vms import noted, power
from vms.adoption import found, taking
from vms.adoption.kind import LOOK_AGAIN
from vms.models import Definition, VirtualMachine
from vms.virtualization import words


@dataclass(frozen=True)
class Outlook:
    """What a machine's rows would become: `changes`, what that takes more, and why that is too much."""

    definition: Definition
    sizes: found.Sizes
    changes: list[Difference]
    more: Amounts
    short: str


def outlook(machine: VirtualMachine, definition: Definition) -> Outlook:
    """Return what looking again at a machine would come to, as far as the portal knows. Raises Denied."""
    persistent, running = definition.observed_persistent, definition.observed_running
    reason, sizes = found.cannot_be(persistent, running), found.sizes_of(persistent, running)
    if reason or persistent is None or sizes is None:
        raise Denied(reason)
    volumes, unseen = _volumes(machine, persistent)
    changes = [
        *_sizes(machine, persistent, sizes),
        *_disks(machine, volumes),
        *_unseen(unseen),
        *_cards(machine, persistent),
    ]
    wanted = taking.amounts(machine.owner, machine.project, machine.host, sizes, taking.by_pool(volumes))
    more = taking.beyond(wanted, taking.taken_by(machine))
    return Outlook(definition, sizes, changes, more, _short(more))


def _volumes(
    machine: VirtualMachine, persistent: found.Defined
) -> tuple[list[taking.Volume], list[tuple[str, str]]]:
    """Return the disks that would count, as pools were seen last, and (target, place) of those not seen."""
    seen: dict[str, dict[str, VolumeInfo]] = {}
    bases = set()
    for row in Volume.objects.filter(pool__host=machine.host_id).select_related("pool__pool"):
        pool = row.pool.pool.name
        told = row.observed_capacity, row.observed_allocation, row.observed_backing or None
        seen.setdefault(pool, {})[row.name] = VolumeInfo(pool, row.name, row.observed_path, *told)
        bases.add(row.observed_backing)
    # Nobody may have looked into a pool since a disk of it was counted.
    for disk in machine.disks.select_related("pool__pool"):
        info = VolumeInfo(disk.pool.pool.name, disk.volume_name, disk.path, disk.capacity, 0)
        seen.setdefault(info.pool, {}).setdefault(info.name, info)
    counted = taking.volumes_of(
        machine, persistent, lambda pool: list(seen.get(pool, {}).values()), bases - {""}
    )
    pools = list(machine.host.pools.select_related("pool"))
    unseen = [
        (drive.target, f"{place.pool.name}/{name}")
        for drive, (place, name) in found.own_places(persistent, machine.uuid, pools)
        if name not in seen.get(place.pool.name, {})
    ]
    return counted, unseen


def _sizes(machine: VirtualMachine, persistent: found.Defined, sizes: found.Sizes) -> list[Difference]:
    balloon = found.balloon_of(persistent)
    changes = []
    if machine.memory != sizes.memory:
        changes.append(Difference(_("Memory"), gib(machine.memory), gib(sizes.memory)))
    if machine.balloon != balloon:
        left = gib(sizes.memory if balloon is None else balloon)
        changes.append(Difference(_("Memory left to the guest"), gib(machine.memory_now), left))
    runs_by = words(str(persistent["type"]), found.devices_of(persistent))
    for label, was, becomes in (
        (_("vCPUs"), str(machine.vcpus), str(sizes.vcpus)),
        (_("Runs by"), machine.virtualization, runs_by),
        (_("Name on its host"), machine.domain_name, taking.domain_name(persistent)),
    ):
        if was != becomes:
            changes.append(Difference(label, was, becomes))
    return changes


_Told = tuple[str, str, int]


def _disks(machine: VirtualMachine, volumes: Sequence[taking.Volume]) -> list[Difference]:
    before: dict[tuple[int, str], _Told] = {}
    for disk in machine.disks.select_related("pool__pool").order_by("target"):
        place = f"{disk.pool.pool.name}/{disk.volume_name}"
        before[disk.pool.pk, disk.volume_name] = disk.target, place, disk.capacity
    after: dict[tuple[int, str], _Told] = {}
    for volume in volumes:
        place = f"{volume.pool.pool.name}/{volume.name}"
        after[volume.pool.pk, volume.name] = volume.target, place, volume.capacity
    changes = []
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if old != new:
            target = (new or old or ("",))[0]
            changes.append(Difference(_("Disk %(target)s") % {"target": target}, _disk(old), _disk(new)))
    return changes


def _disk(told: _Told | None) -> str:
    if told is None:
        return ""
    target, place, size = told
    return _("%(place)s as %(target)s, %(size)s") % {"place": place, "target": target, "size": gib(size)}


def _unseen(places: Sequence[tuple[str, str]]) -> list[Difference]:
    words = _("%(place)s, whose size its host tells")
    return [
        Difference(_("Disk %(target)s") % {"target": target}, "", words % {"place": place})
        for target, place in places
    ]


def _cards(machine: VirtualMachine, persistent: found.Defined) -> list[Difference]:
    _stay, go, new = taking.ports_of(machine, found.cards(persistent))
    label = _("Network card %(mac)s")
    gone = [Difference(label % {"mac": port.mac}, str(port.network), "") for port in go]
    return gone + [Difference(label % {"mac": port.mac}, "", str(port.network)) for port in new]


def _short(more: Amounts) -> str:
    """Return the first counter that `more` is too much for, in a sentence; '' for none.

    Pools are left out: what a volume fills of one already needs no room.
    """
    keys = [key for key in more if not key[0].startswith("pool:")]
    for key, counter in zip(keys, look(keys), strict=True):
        if counter.left is not None and more[key] > counter.left:
            return ledger.shortage(counter, more[key])
    return ""


def why_not(machine: VirtualMachine) -> str:
    """Return why nobody can look again at a machine now, '' when it can be done. Asks the database."""
    if not machine.adopted:
        return _("The portal itself built this machine, and changes what it is.")
    if reason := power.not_in_use(machine):
        return reason
    if machine.host.observed_health != Health.UP:
        return _("The host does not answer.")
    if Operation.objects.filter(subject=machine.topic, state__in=UNFINISHED).exists():
        return _("Another change to this machine is not finished yet; wait for it.")
    return power.being_cloned(machine)


def look_again(*, actor: Any, machine: VirtualMachine, digest: str) -> Operation:
    """Queue that a machine's rows become what its definition says, which was seen by its `digest`.

    What it takes more of quotas and its host is held at once; what disks take of pools by the operation,
    since its host tells their sizes. Raises Denied.
    """
    check_estate(actor, "operate", _("look again at adopted machines"))
    with transaction.atomic():
        current = VirtualMachine.objects.select_for_update().filter(pk=machine.pk).first()
        if current is None:
            raise Denied(_("The machine is gone."))
        if reason := why_not(current):
            raise Denied(reason)
        definition = noted.of(current)
        if definition is None:
            raise Denied(_("The host has not told this machine's definition yet; try again in a moment."))
        if definition.observed_digest != digest:
            raise Denied(_("Somebody changed this machine on its host since you looked; look again."))
        # Kept with the operation, in no reader's language.
        with translation.override("en"):
            seen = outlook(current, definition)
        return _begin(actor, current, seen)


def _begin(actor: Any, machine: VirtualMachine, seen: Outlook) -> Operation:
    told = [[one.label, one.before, one.after] for one in seen.changes]
    operation = begin_operation(
        actor=actor,
        project=machine.project,
        spec=RequestSpec(
            kind=LOOK_AGAIN.name,
            sizes=seen.sizes.as_dict(),
            pinned={"machine": str(machine.uuid), "name": machine.name, "settings": told},
        ),
        subject=machine.topic,
        title=f"Look again at {machine.name}",
        identifiers={
            "host": machine.host_id,
            "uuid": str(machine.uuid),
            "digest": seen.definition.observed_digest,
            "sizes": seen.sizes.as_dict(),
        },
        lane=machine.host.scope,
    )
    more = {key: amount for key, amount in seen.more.items() if not key[0].startswith("pool:")}
    ledger.lock_ahead(operation, more)
    ledger.hold(operation, more)
    return operation
