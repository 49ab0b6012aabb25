"""What the watcher saw of machines. Not for: the life-cycle, which services and tasks write."""

import ipaddress
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from django.db.models import Count, Q

from networks.models import Port
from portal.drivers.types import AddressInfo
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.observers import DefinitionAt, DomainSeen, Observer
from portal.operations.states import FINAL
from vms import noted
from vms.models import Observed, Status, VirtualMachine

BATCH = 500
#: States in which a machine has no address.
OFF = (Observed.SHUTOFF, Observed.SAVED, Observed.CRASHED, Observed.MISSING)


class MachineObserver(Observer):
    """Writes `observed_*` of machines, and nobody else does."""

    def domains(
        self, host_id: int, seen: Sequence[DomainSeen], complete: bool, began: datetime
    ) -> None:
        by_uuid = {domain.uuid: domain for domain in seen}
        # Locked, so that what is compared here is what is overwritten (SQLite locks at BEGIN).
        rows = VirtualMachine.objects.select_for_update().filter(host=host_id).order_by("pk")
        if not complete:
            rows = rows.filter(uuid__in=by_uuid)
        changed, same, gone = [], [], []
        for machine in rows:
            domain = by_uuid.get(str(machine.uuid))
            when = domain.began if domain else began
            if not _is_older(machine, when):
                continue
            if domain is None or domain.state is None:
                gone.append((machine, when))
            elif machine.observed_state == domain.state.value:
                same.append(machine.pk)
            else:
                machine.observed_state, machine.observed_at = domain.state.value, when
                changed.append(machine)
        changed += _missing(gone)
        _forget_addresses(changed)
        if complete:
            noted.forget_all_but(host_id, by_uuid, began)
        columns = ["observed_state", "observed_at", "observed_address"]
        VirtualMachine.objects.bulk_update(changed, columns, batch_size=BATCH)
        # Seen as it was: only the moment moves. Of changes each began before the last did.
        if complete:
            VirtualMachine.objects.filter(pk__in=same).update(observed_at=began)
        _ring(changed)

    def addresses(self, host_id: int, addresses: Mapping[str, tuple[AddressInfo, ...]]) -> None:
        # A lease outlives the machine that had it: one that is off is told no address.
        # Locked before their cards, as by whoever takes a machine out of the portal.
        told = VirtualMachine.objects.select_for_update().filter(host=host_id, uuid__in=list(addresses))
        told = told.order_by("pk")
        on = {machine.uuid: machine for machine in told.exclude(observed_state__in=OFF)}
        # The first card's address is the machine's.
        ports = Port.objects.filter(host=host_id, domain_uuid__in=list(on)).order_by("pk")
        fresh: list[Port] = []
        by_domain: dict[uuid.UUID, str] = {}
        for port in ports:
            address = usable_address(port.mac, addresses.get(str(port.domain_uuid), ()))
            if address is None:
                continue
            by_domain.setdefault(port.domain_uuid, address)
            if port.observed_address != address:
                port.observed_address = address
                fresh.append(port)
        Port.objects.bulk_update(fresh, ["observed_address"], batch_size=BATCH)
        changed = []
        for found, address in by_domain.items():
            if on[found].observed_address != address:
                on[found].observed_address = address
                changed.append(on[found])
        VirtualMachine.objects.bulk_update(changed, ["observed_address"], batch_size=BATCH)
        _ring(changed)

    def definitions(self, host_id: int, definitions: Mapping[str, DefinitionAt]) -> None:
        noted.write(host_id, definitions)

    def host_stale(self, host_id: int, began: datetime) -> None:
        older = Q(observed_at=None) | Q(observed_at__lt=began)
        rows = VirtualMachine.objects.select_for_update().filter(older, host=host_id).order_by("pk")
        known = list(rows.exclude(observed_state=Observed.UNKNOWN))
        VirtualMachine.objects.filter(pk__in=[machine.pk for machine in known]).update(
            observed_state=Observed.UNKNOWN, observed_at=began
        )
        _ring(known)

    def managed(self, host_id: int) -> set[str]:
        found = VirtualMachine.objects.filter(host=host_id).values_list("uuid", flat=True)
        return {str(uuid) for uuid in found}

    def machines(self, host_ids: Sequence[int]) -> Mapping[int, int]:
        counted = VirtualMachine.objects.filter(host__in=host_ids).exclude(status=Status.BINNED)
        return dict(counted.order_by().values_list("host").annotate(count=Count("pk")))


def _forget_addresses(machines: Sequence[VirtualMachine]) -> None:
    """Take the address from those that are off: whoever is at it now is somebody else."""
    off = [machine for machine in machines if machine.observed_state in OFF]
    for machine in off:
        machine.observed_address = None
    Port.objects.filter(domain_uuid__in=[machine.uuid for machine in off]).update(observed_address=None)


def _is_older(machine: VirtualMachine, began: datetime) -> bool:
    return machine.observed_at is None or machine.observed_at < began


def _missing(gone: Sequence[tuple[VirtualMachine, datetime]]) -> list[VirtualMachine]:
    """Return the active machines of `gone` as missing, but for those that an operation moves just now.

    One that ended after the observation began may have made or moved what the list could not hold yet.
    """
    active = [(machine, when) for machine, when in gone if machine.status == Status.ACTIVE]
    if not active:
        return []
    # One query for all: each operation that touches one of them, with the moment it ended.
    topics = [machine.topic for machine, _when in active]
    ends: dict[str, list[tuple[str, datetime | None]]] = {}
    touching = Operation.objects.filter(subject__in=topics).filter(
        ~Q(state__in=FINAL) | Q(finished_at__gte=min(when for _machine, when in active))
    )
    for subject, state, finished in touching.values_list("subject", "state", "finished_at"):
        ends.setdefault(subject, []).append((state, finished))
    found = []
    for machine, when in active:
        touched = any(
            state not in FINAL or (finished is not None and finished >= when)
            for state, finished in ends.get(machine.topic, ())
        )
        if not touched and machine.observed_state != Observed.MISSING:
            machine.observed_state, machine.observed_at = Observed.MISSING, when
            found.append(machine)
    return found


def usable_address(mac: str, told: Iterable[AddressInfo]) -> str | None:
    """Return the address of one network card, IPv4 first; what a guest tells may be anything."""
    usable = []
    for info in told:
        try:
            address = ipaddress.ip_address(info.address)
        except ValueError:
            continue
        if info.mac == mac and not (address.is_loopback or address.is_link_local or address.is_multicast):
            usable.append((address.version, str(address)))
    return min(usable)[1] if usable else None


def _ring(machines: Sequence[VirtualMachine]) -> None:
    if machines:
        publish(*(machine.topic for machine in machines))
