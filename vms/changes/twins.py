"""Where a clone comes to lie, what it takes there, and its names. Not for: asking for one, nor the steps."""

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from networks import ports
from networks.models import Port
from portal.core.errors import Denied
from portal.live.publish import publish
from portal.operations import ledger
from portal.operations.models import Counter, Operation
from portal.operations.states import UNFINISHED, State
from vms import leases, noted, placement, power, seeds
from vms.models import Disk, Observed, Status, VirtualMachine
from vms.services import name_taken

#: What `obstacle` and `room_for` read of a machine, by name for `prefetch_related`.
COPIED = "disks__pool__pool"
#: Network cards that are devices of the host, by libvirt's types, and the TPM that is none.
_HOST_CARDS, _EMULATED = frozenset({"hostdev", "vdpa"}), "emulator"


def size_of(machine: VirtualMachine) -> dict[str, int]:
    """Return what a machine takes, its disks together; bytes. Without disks, `disk` is not among it."""
    disk = sum(disk.capacity for disk in machine.disks.all())
    return {"vcpu": machine.vcpus, "memory": machine.memory, **({"disk": disk} if disk else {})}


def check_copied(source: VirtualMachine) -> None:
    """Raise Denied when the machine has something that cannot be copied."""
    if reason := why_not_copied(source):
        raise Denied(reason)


def check_twin(source: VirtualMachine) -> None:
    """Raise Denied when the machine has something that cannot be copied, or that another cannot have too."""
    if reason := why_no_twin(source):
        raise Denied(reason)


def why_not_copied(source: VirtualMachine) -> str:
    """Return what of a machine cannot be copied, '' when all of it can."""
    return _why_not_copied(source, _defined(source))


def _why_not_copied(source: VirtualMachine, defined: Mapping[str, Any] | None) -> str:
    if defined is None:
        return _("The host has not told this machine's settings yet; try again in a moment.")
    devices = defined.get("devices", {})
    if devices.get("host_devices"):
        return _("It has a device of its host, which two machines cannot have.")
    if any(memory.get("path") for memory in devices.get("memories", ())):
        return _("It has memory that is a file or device of its host (NVDIMM), which is not copied.")
    own = list(source.disks.select_related("pool"))
    if any(disk.device for disk in own):
        return _("One of its disks is a device of its host, and only files are copied.")
    known = {disk.path for disk in own}
    for disk in devices.get("disks", ()):
        where = disk.get("source", {})
        writes = "readonly" not in disk and "shareable" not in disk and disk.get("device") != "cdrom"
        if where and writes and where.get("file") not in known:
            target = disk.get("target", {}).get("dev", "")
            sentence = _("Its disk %(target)s lies in no pool of the portal and cannot be copied.")
            return sentence % {"target": target}
    return ""


def why_no_twin(source: VirtualMachine) -> str:
    """Return what of a machine cannot be copied, or another cannot have too, '' for nothing."""
    defined = _defined(source)
    if reason := _why_not_copied(source, defined):
        return reason
    defined = defined or {}
    devices, system = defined.get("devices", {}), defined.get("os", {})
    if system.get("loader") and system.get("loader_type") == "pflash" and not system.get("loader_readonly"):
        return _("Its firmware is a file that its guest writes, which two machines cannot share.")
    for card in devices.get("interfaces", ()):
        if card.get("type") in _HOST_CARDS or card.get("source", {}).get("mode") == "passthrough":
            return _("It has a network card of its host, which two machines cannot have.")
    if any(tpm.get("backend", _EMULATED) != _EMULATED for tpm in devices.get("tpms", ())):
        return _("It has the TPM of its host, which two machines cannot have.")
    return ""


def _defined(source: VirtualMachine) -> Mapping[str, Any] | None:
    """Return what a machine was seen to be defined as, None before it was seen."""
    found = noted.of(source)
    return found.observed_persistent if found else None


def obstacle(source: VirtualMachine | None, frozen: Mapping[str, Any]) -> str:
    """Return why the clone could not be made now, '' when it could."""
    if source is None:
        return _("The machine is gone.")
    if reason := power.state_forbids(source, "clone"):
        return reason
    if source.host.maintenance:
        return _("Its host is in maintenance, and takes no other machine until that is over.")
    disks = sorted([disk.target, disk.capacity] for disk in source.disks.all())
    if size_of(source) != frozen["pinned"]["now"] or disks != sorted(frozen["pinned"]["disks"]):
        return _("The original has another size by now; it must be asked for anew.")
    return ""


def room_for(source: VirtualMachine) -> dict[tuple[str, str], int]:
    """Return what a clone takes of the host and of the pools that its disks come to lie in."""
    host = source.host.scope
    room = {
        (host, Counter.Resource.VCPU.value): source.vcpus,
        (host, Counter.Resource.MEMORY.value): source.memory,
        (host, Counter.Resource.MACHINES.value): 1,
    }
    return room | room_for_disks(source)


def room_for_disks(source: VirtualMachine) -> dict[tuple[str, str], int]:
    """Return what copies of a machine's disks take of the pools that these lie in; bytes.

    Whoever asks for several fetches them with COPIED.
    """
    room: dict[tuple[str, str], int] = {}
    for disk in source.disks.all():
        key = disk.pool.pool.scope, Counter.Resource.DISK.value
        room[key] = room.get(key, 0) + disk.capacity
    return room


def place(operation: Operation) -> None:
    """Hold what the clone takes of its host, and fix its names. Raises Denied."""
    frozen = operation.frozen
    source = VirtualMachine.objects.select_for_update().filter(uuid=frozen["pinned"]["source"]).first()
    if reason := obstacle(source, frozen):
        raise Denied(reason)
    if source is None or Operation.objects.filter(subject=source.topic, state__in=UNFINISHED).exists():
        raise Denied(_("Another change to this machine is not finished yet; wait for it."))
    check_twin(source)
    ledger.hold(operation, room_for(source))
    for _turn in range(placement.DRAWS):
        try:
            with transaction.atomic():
                return _make_rows(operation, frozen, source)
        except IntegrityError as error:
            if VirtualMachine.objects.filter(name=frozen["pinned"]["name"]).exists():
                raise name_taken(frozen["pinned"]["name"]) from error
    raise Denied(_("Too many machines were placed at this moment. Nothing was changed; try again."))


def _make_rows(operation: Operation, frozen: Mapping[str, Any], source: VirtualMachine) -> None:
    lease = timedelta(seconds=frozen["sizes"]["lease"])
    name, own = frozen["pinned"]["name"], uuid.uuid4()
    machine = VirtualMachine.objects.create(
        name=name,
        uuid=own,
        domain_name=placement.domain_name(name, own),
        project=source.project,
        owner=operation.requester,
        host=source.host,
        built_by=operation,
        item_name=source.item_name,
        image=source.image,
        vcpus=source.vcpus,
        memory=source.memory,
        balloon=source.balloon,
        login_user=source.login_user,
        accelerator=source.accelerator,
        devices=source.devices,
        lease_until=timezone.now() + lease,
        lease_warned=leases.nearest(lease),
    )
    disks = _copy_disks(source, machine)
    macs, numbers = _copy_ports(source, machine)
    seed = _seed(source, machine) if "cloud" in frozen["pinned"] else {}
    operation.subject, operation.lane = machine.topic, source.host.scope
    operation.identifiers = {
        "host": source.host_id,
        "uuid": str(machine.uuid),
        "domain": machine.domain_name,
        "source": str(source.uuid),
        "disks": disks,
        "paths": {disk["source"]: disk["path"] for disk in disks} | seed.get("paths", {}),
        "macs": macs,
        "ports": numbers,
        "mac": next(iter(macs.values()), ""),
        "pool": seed.get("pool", ""),
        "seed": seed.get("name", ""),
    }


def _copy_disks(source: VirtualMachine, machine: VirtualMachine) -> list[dict[str, Any]]:
    """Make the rows of the clone's disks; return the names of each and of what it is copied from."""
    disks, seen = [], noted.of(source)
    for disk in source.disks.select_related("pool__pool").order_by("target"):
        volume = f"{machine.domain_name}-{disk.target}.qcow2"
        Disk.objects.create(
            machine=machine,
            pool=disk.pool,
            target=disk.target,
            volume_name=volume,
            capacity=disk.capacity,
            serial=disk.serial,
        )
        disks.append(
            {
                "pool": disk.pool.pool.name,
                "volume": volume,
                "path": f"{disk.pool.path}/{volume}",
                "capacity": disk.capacity,
                "source": disk.path,
                "format": noted.format_of(seen, disk.target),
            }
        )
    return disks


def _copy_ports(source: VirtualMachine, machine: VirtualMachine) -> tuple[dict[str, str], dict[str, str]]:
    """Give each card of the original another MAC, and where it has one another port of the host."""
    found = noted.of(source)
    cards = (found.observed_persistent or {}).get("devices", {}).get("interfaces", ()) if found else ()
    macs = {card["mac"].lower(): placement.mac() for card in cards if card.get("mac")}
    numbers: dict[str, str] = {}
    for port in Port.objects.filter(domain_uuid=source.uuid):
        mac = macs.setdefault(port.mac, placement.mac())
        number = ports.free_ssh_port(source.host) if port.ssh_port else None
        if number:
            numbers[str(port.ssh_port)] = str(number)
        Port.objects.create(
            network=port.network, host=source.host, domain_uuid=machine.uuid, mac=mac, ssh_port=number
        )
    return macs, numbers


def _seed(source: VirtualMachine, machine: VirtualMachine) -> dict[str, Any]:
    """Return the names of the clone's seed, which comes to lie beside its first disk."""
    first = source.disks.select_related("pool__pool").order_by("target").first()
    if first is None:
        return {}
    name = f"{machine.domain_name}-seed.iso"
    there = seeds.path_of(source)
    return {
        "name": name,
        "pool": first.pool.pool.name,
        "paths": {there: f"{first.pool.path}/{name}"},
    }


def settle(operation: Operation, state: State) -> None:
    """Make the clone active, off as it is, or forget its rows when there is none."""
    machine = VirtualMachine.objects.filter(built_by=operation).first()
    if machine is None:
        return
    if state == State.SUCCEEDED:
        machine.status, machine.observed_state = Status.ACTIVE, Observed.SHUTOFF
        machine.observed_at = timezone.now()
        machine.save(update_fields=["status", "observed_state", "observed_at"])
        publish(machine.topic)
        return
    Port.objects.filter(domain_uuid=machine.uuid).delete()
    machine.delete()
