"""Domains that nobody manages, as the watcher saw them: what they are, and why one cannot be adopted.

Not for: adopting them. Definitions are those of `portal.drivers.inspection`.
"""

import posixpath
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext as _

from portal.drivers.types import PROBE_PREFIX, XEN_HOST, Accelerator
from portal.hosts.models import PoolAttachment
from vms.models import Definition, VirtualMachine
from vms.virtualization import Devices

Defined = Mapping[str, Any]
#: Of a disk's name in the guest; a longer one is no machine's disk of the portal.
LONGEST_TARGET = 16
#: Of a volume's name, as a row holds it.
LONGEST_VOLUME = 127
#: The bus of Xen's disks and the model of its cards.
_XENS_OWN = frozenset({"xen", "netfront"})
_MOST_VCPUS, _MOST_MEMORY = (1 << 15) - 1, (1 << 63) - 1


def strangers(definitions: QuerySet[Definition]) -> QuerySet[Definition]:
    """Keep those of domains that are no machine of the portal, nor its host itself, nor a proof's guest."""
    machines = VirtualMachine.objects.filter(uuid=OuterRef("uuid"))
    here = machines.filter(host=OuterRef("host"))
    left = definitions.filter(~Exists(here)).exclude(uuid=XEN_HOST)
    left = left.exclude(observed_name__startswith=PROBE_PREFIX)
    elsewhere = machines.exclude(host=OuterRef("host"))
    return left.annotate(known_elsewhere=Exists(elsewhere)).select_related("host")


@dataclass(frozen=True)
class Sizes:
    """What a domain takes at most, as it is defined or as it runs; memory in bytes."""

    vcpus: int
    memory: int

    def as_dict(self) -> dict[str, int]:
        """Return them under the ledger's names."""
        return {"vcpu": self.vcpus, "memory": self.memory}


def _sizes(defined: Defined | None) -> Sizes | None:
    """Return the sizes that one definition says, None for none that can be counted."""
    told = defined or {}
    vcpus, memory = told.get("current_vcpus", told.get("vcpus")), told.get("memory_bytes")
    if not isinstance(vcpus, int) or not isinstance(memory, int):
        return None
    return Sizes(vcpus, memory) if 0 < vcpus <= _MOST_VCPUS and 0 < memory <= _MOST_MEMORY else None


def sizes_of(persistent: Defined | None, running: Defined | None) -> Sizes | None:
    """Return what a domain takes: the larger of what runs and of what its next start makes of it."""
    defined, runs = _sizes(persistent), running_sizes(running)
    if defined is None:
        return None
    return Sizes(max(defined.vcpus, runs.vcpus), max(defined.memory, runs.memory))


def balloon_of(persistent: Defined) -> int | None:
    """Return what a domain's next start leaves its guest of its memory, None for all of it."""
    now, ceiling = persistent.get("current_memory_bytes"), persistent.get("memory_bytes")
    if not isinstance(now, int) or not isinstance(ceiling, int):
        return None
    return now if 0 < now < ceiling else None


def running_sizes(running: Defined | None) -> Sizes:
    """Return what a domain takes now, nothing when it is off."""
    return _sizes(running) or Sizes(0, 0)


def cannot_be(persistent: Defined | None, running: Defined | None) -> str:
    """Return why a domain that is defined so can be no machine, '' when it can."""
    if persistent is None:
        return _("It is only while it runs: nothing says what to start again.")
    kind = persistent.get("type", "")
    if kind not in set(Accelerator):
        words = _("It is of the type %(type)s, and the portal runs machines of the types %(known)s.")
        return words % {"type": kind or _("unknown"), "known": ", ".join(Accelerator)}
    if sizes_of(persistent, running) is None:
        return _("Its memory or its vCPUs cannot be read.")
    return ""


def why_not(found: Any) -> str:
    """Return why a definition of `strangers` cannot be adopted, '' when it can."""
    if reason := cannot_be(found.observed_persistent, found.observed_running):
        return reason
    if found.known_elsewhere:
        return _("A machine of the portal on another host has its UUID.")
    return ""


@dataclass(frozen=True)
class Drive:
    """A disk of a definition: its name in the guest, what it is, and where its bytes are."""

    target: str
    device: str
    source: Defined
    #: Whether it may be the machine's own: not read-only, and not made to be shared.
    own: bool

    @property
    def where(self) -> str:
        """Where its bytes are, in one line; '' for an empty one."""
        told = self.source
        if "pool" in told:
            return f"{told['pool']}/{told.get('volume', '')}"
        if "protocol" in told:
            return f"{told['protocol']}:{told.get('name', '')}"
        return str(told.get("file") or told.get("dev") or told.get("dir") or "")


def drives(defined: Defined | None) -> list[Drive]:
    """Return the disks of a definition, in its order."""
    found = []
    for disk in _devices(defined, "disks"):
        device = disk.get("device", "disk")
        found.append(
            Drive(
                target=disk.get("target", {}).get("dev", ""),
                device=device,
                source=disk.get("source", {}),
                own=device == "disk" and not disk.get("readonly") and not disk.get("shareable"),
            )
        )
    return found


@dataclass(frozen=True)
class Card:
    """A network card of a definition, and what it is on."""

    mac: str
    kind: str
    network: str
    bridge: str

    @property
    def where(self) -> str:
        """What it is on, in one line."""
        return f"{self.kind} {self.network or self.bridge}".strip()


def cards(defined: Defined | None) -> list[Card]:
    """Return the network cards of a definition, in its order."""
    found = []
    for card in _devices(defined, "interfaces"):
        source = card.get("source", {})
        kind = card.get("type", "")
        network, bridge = source.get("network", ""), source.get("bridge", "")
        found.append(Card(str(card.get("mac", "")).lower(), kind, network, bridge))
    return found


def _devices(defined: Defined | None, kind: str) -> list[Any]:
    return list((defined or {}).get("devices", {}).get(kind, ()))


def devices_of(defined: Defined) -> str:
    """Return the device model of a definition: paravirtual when a disk or a card is virtio's or Xen's own."""
    buses = [disk.get("target", {}).get("bus", "") for disk in _devices(defined, "disks")]
    models = [card.get("model", "") for card in _devices(defined, "interfaces")]
    own = any(word.startswith("virtio") or word in _XENS_OWN for word in (*buses, *models))
    return Devices.PARAVIRTUAL if own else Devices.EMULATED


@dataclass(frozen=True)
class Row:
    """A domain as a list shows it; `denied` says why it cannot be adopted."""

    definition: Definition
    sizes: Sizes | None
    drives: list[Drive]
    cards: list[Card]
    denied: str

    @property
    def runs(self) -> bool:
        """Tell whether it runs."""
        return self.definition.observed_running is not None


def row(found: Any) -> Row:
    """Return a definition of `strangers` as people read it. No query."""
    persistent, running = found.observed_persistent, found.observed_running
    told = persistent if persistent is not None else running
    sizes = sizes_of(told, running)
    return Row(found, sizes, drives(told), cards(told), why_not(found))


Place = tuple[PoolAttachment, str]


def in_pools(drive: Drive, pools: Sequence[PoolAttachment]) -> Place | None:
    """Return the pool of the portal that a disk lies in and the volume's name, None for none."""
    told = drive.source
    for attachment in pools:
        if told.get("pool") == attachment.pool.name and told.get("volume"):
            return attachment, told["volume"]
        folder, name = posixpath.split(posixpath.normpath(str(told.get("file") or told.get("dev") or "")))
        if name and folder == posixpath.normpath(attachment.path):
            return attachment, name
    return None


def used_by_others(own: uuid.UUID, pools: Sequence[PoolAttachment]) -> set[tuple[int, str]]:
    """Return (pool, volume) of what other domains have for a disk, on any host that has one of `pools`.

    A machine's disk is deleted with it: what somebody else starts from must not be one.
    """
    wanted = {attachment.pool_id for attachment in pools}
    places: dict[int, list[PoolAttachment]] = {}
    for attachment in PoolAttachment.objects.filter(pool__in=wanted).select_related("pool"):
        places.setdefault(attachment.host_id, []).append(attachment)
    others = Definition.objects.filter(host__in=places).exclude(uuid=own)
    rows = others.values_list("host", "observed_persistent", "observed_running")
    return {
        (place[0].pool_id, place[1])
        for host, *sides in rows
        for side in sides
        for drive in drives(side)
        if (place := in_pools(drive, places[host])) is not None
    }


def own_places(
    persistent: Defined, own: uuid.UUID, pools: Sequence[PoolAttachment]
) -> Iterator[tuple[Drive, Place]]:
    """Yield the disks that lie in pools of the portal and are the domain's alone, by what definitions say."""
    shared = used_by_others(own, pools) if pools else set()
    for drive in drives(persistent):
        place = in_pools(drive, pools) if drive.own else None
        if place is None or not 0 < len(drive.target) <= LONGEST_TARGET or len(place[1]) > LONGEST_VOLUME:
            continue
        # Nothing is counted, and with the machine deleted, but files.
        if not place[0].has_folder:
            continue
        if (place[0].pool_id, place[1]) not in shared:
            yield drive, place


def disks_with_places(definition: Definition) -> list[tuple[Drive, str]]:
    """Return a domain's disks, each with the pool of the portal that it would be counted in, '' for none."""
    pools = list(PoolAttachment.objects.filter(host=definition.host_id).select_related("pool"))
    told = definition.observed_persistent or {}
    counted = {drive.target: place[0].pool.name for drive, place in own_places(told, definition.uuid, pools)}
    return [
        (drive, counted.get(drive.target, ""))
        for drive in drives(definition.observed_persistent or definition.observed_running)
    ]


def left_behind(machine: VirtualMachine) -> list[str]:
    """Return where the bytes of an adopted machine's disks are that stay when it is deleted for good."""
    found = Definition.objects.filter(host=machine.host_id, uuid=machine.uuid).first()
    counted = set(machine.disks.values_list("target", flat=True))
    there = drives(found.observed_persistent if found else None)
    return [drive.where for drive in there if drive.where and drive.target not in counted]
