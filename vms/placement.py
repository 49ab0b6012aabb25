"""Choose a host for a request, hold its capacity, fix every name; tell what is placed. Not for: building."""

import logging
import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from networks import ports
from networks.models import Network, Port
from portal.accounts.models import Project
from portal.core.errors import Denied
from portal.drivers.types import FOLDER_KINDS, Accelerator
from portal.hosts.models import GIVEN_BY, Health, Host, Image, ImageAttachment
from portal.operations import ledger
from portal.operations.models import Counter, Operation
from vms import fitting, leases, profiles, virtualization
from vms.models import Disk, Status, VirtualMachine
from vms.specs import balloon, first_disk, further_disks
from vms.virtualization import Wanted

#: How often a MAC and an SSH port are drawn for one machine.
DRAWS = 10
_log = logging.getLogger(__name__)


def mac() -> str:
    """Return a random MAC under the prefix that QEMU and libvirt use for guests (52:54:00)."""
    tail = secrets.token_bytes(3)
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)


def domain_name(name: str, own: uuid.UUID) -> str:
    """Return what the domain of a new machine is called on its host."""
    return f"{name}-{str(own)[:8]}"


def candidates(
    image_sha256: str, wanted: str = Wanted.BEST, *, own_network: bool = False
) -> QuerySet[ImageAttachment]:
    """Return where the image lies on hosts that take machines now, the emptiest pool first.

    Only hosts that a booted guest proved to give the accelerator `wanted`, and that were seen to make a
    bridge unless the machine gets a network of its own.
    """
    found = places_of(image_sha256).filter(pool__host__accelerator__in=proofs_for(wanted))
    return found if own_network else found.filter(pool__host__bridges=True)


def places_of(*image_sha256: str) -> QuerySet[ImageAttachment]:
    """Return where the images lie on proven hosts that take machines now, the emptiest pool first.

    Only in pools of files: that is what a machine's disk is.
    """
    return (
        ImageAttachment.objects.filter(
            image__sha256__in=image_sha256,
            pool__observed_kind__in=FOLDER_KINDS,
            pool__host__maintenance=False,
            pool__host__observed_health=Health.UP,
            pool__host__accelerator__in=GIVEN_BY,
        )
        .select_related("pool__host", "pool__pool", "image")
        .order_by("-pool__observed_available", "pk")
    )


def machines_on(host: Host) -> str:
    """Return how many machines are on `host`, those in the bin too, in a sentence; '' for none."""
    states = list(VirtualMachine.objects.filter(host=host).values_list("status", flat=True))
    binned = states.count(Status.BINNED)
    if not states:
        return ""
    words = ngettext("%(count)d machine is on it", "%(count)d machines are on it", len(states))
    found = words % {"count": len(states)}
    if binned:
        return _("%(found)s, %(binned)d of them in the bin.") % {"found": found, "binned": binned}
    return f"{found}."


def proofs_for(wanted: str) -> list[Accelerator]:
    """Return what a host may be proven by that gives the accelerator `wanted`."""
    return list(GIVEN_BY) if wanted == Wanted.BEST else list(GIVEN_BY[Accelerator(wanted)])


def amounts(attachment: ImageAttachment, sizes: dict[str, int]) -> ledger.Amounts:
    """Return what a machine of `sizes` takes from the host's and the pool's counters."""
    host, pool = attachment.pool.host.scope, attachment.pool.pool.scope
    return {
        (host, Counter.Resource.VCPU): sizes["vcpu"],
        (host, Counter.Resource.MEMORY): sizes["memory"],
        (host, Counter.Resource.MACHINES): 1,
        (pool, Counter.Resource.DISK): sizes["disk"],
    }


def place(operation: Operation) -> None:
    """Choose a host with room, hold its capacity and make the machine's rows. Joins the transaction.

    Raises Denied when no host has room, when the image or network is gone, when the name is taken, or when
    others took each MAC or SSH port that was drawn.
    """
    spec = operation.frozen
    wanted, _devices = virtualization.pinned(spec)
    network = Network.objects.filter(uuid=spec["pinned"]["network"]["uuid"]).first()
    if network is None:
        raise Denied(_("The network of this request was removed."))
    own_network = network.kind == Network.Kind.USER
    check_image(spec, operation.project)
    places = candidates(spec["pinned"]["image"]["sha256"], wanted, own_network=own_network)
    chosen = _hold(operation, spec["sizes"], [place for place in places if _can_give(place, spec)])
    _make_rows_surely(operation, spec, chosen, network)


def _can_give(place: ImageAttachment, spec: dict[str, Any]) -> bool:
    return profiles.gives(place.pool.host, spec)


def check_image(spec: Mapping[str, Any], project: Project | None) -> None:
    """Raise Denied when what was frozen goes with its image no more; one that is gone lies on no host."""
    image = Image.objects.filter(sha256=spec["pinned"]["image"]["sha256"]).first()
    if image is not None and (reason := fitting.refusal(spec, image, project)):
        raise Denied(reason)


def _make_rows_surely(
    operation: Operation, spec: dict[str, Any], chosen: ImageAttachment, network: Network
) -> None:
    """Make the machine's rows, and again while another drew the same MAC or SSH port. Raises Denied."""
    for _turn in range(DRAWS):
        try:
            with transaction.atomic():
                return _make_rows(operation, spec, chosen, network)
        except IntegrityError as error:
            _log.info("the rows of %s were not made: %s", operation, error)
            if VirtualMachine.objects.filter(name=spec["pinned"]["name"]).exists():
                name = {"name": spec["pinned"]["name"]}
                raise Denied(_("The name %(name)s is taken by another machine.") % name) from error
    raise Denied(_("Too many machines were placed at this moment. Nothing was changed; try again."))


def _hold(
    operation: Operation, sizes: dict[str, int], places: Iterable[ImageAttachment]
) -> ImageAttachment:
    refused = None
    for place in places:
        try:
            _hold_at(operation, sizes, place)
            return place
        except Denied as denied:
            refused = denied
    if refused is not None:
        raise refused
    raise Denied(
        _(
            "No host can take this machine now: none that is up and not in maintenance has its image and was "
            "proven to run it as asked, with its board and CDs, and to give its network."
        )
    )


def _hold_at(operation: Operation, sizes: dict[str, int], place: ImageAttachment) -> None:
    """Hold capacity at `place`, all or nothing. Raises Denied when it has no room, or its host is gone.

    A host that is being removed has its counters locked, so that this looks after the removal or before it.
    """
    with transaction.atomic():
        ledger.hold(operation, amounts(place, sizes))
        if not ImageAttachment.objects.filter(pk=place.pk).exists():
            host = {"host": place.pool.host.name}
            raise Denied(_("The host %(host)s was removed meanwhile.") % host)


def _make_rows(operation: Operation, spec: dict[str, Any], chosen: ImageAttachment, network: Network) -> None:
    pinned, sizes, host = spec["pinned"], spec["sizes"], chosen.pool.host
    project, (wanted, devices) = operation.project, virtualization.pinned(spec)
    if project is None:
        raise ValueError(f"{operation} builds a machine for no project")
    own = uuid.uuid4()
    machine = VirtualMachine.objects.create(
        name=pinned["name"],
        uuid=own,
        domain_name=domain_name(pinned["name"], own),
        project=project,
        owner=operation.requester,
        host=host,
        built_by=operation,
        item_name=pinned["item"],
        image=chosen.image,
        vcpus=sizes["vcpu"],
        memory=sizes["memory"],
        balloon=balloon(spec),
        login_user=pinned["cloud"]["user"],
        accelerator=virtualization.resolve(wanted, host.accelerator),
        devices=devices,
        lease_until=timezone.now() + timedelta(seconds=sizes["lease"]),
        lease_warned=leases.nearest(timedelta(seconds=sizes["lease"])),
    )
    port = Port.objects.create(
        network=network,
        host=host,
        domain_uuid=machine.uuid,
        mac=mac(),
        ssh_port=ports.free_ssh_port(host) if network.kind == Network.Kind.USER else None,
    )
    target = virtualization.first_disk(devices)
    volume, seed = f"{machine.domain_name}-{target}.qcow2", f"{machine.domain_name}-seed.iso"
    Disk.objects.create(
        machine=machine, pool=chosen.pool, volume_name=volume, target=target, capacity=first_disk(spec)
    )
    further = list(_make_further(spec, machine, chosen, target))
    drivers = profiles.place_of_drivers(host, profiles.drivers_pinned(spec))
    operation.subject = machine.topic
    operation.lane = host.scope
    operation.identifiers = {
        "host": host.pk,
        "uuid": str(machine.uuid),
        "domain": machine.domain_name,
        "mac": port.mac,
        "ssh_port": port.ssh_port or 0,
        "pool": chosen.pool.pool.name,
        "volume": volume,
        "volume_path": f"{chosen.pool.path}/{volume}",
        "seed": seed,
        "seed_path": f"{chosen.pool.path}/{seed}",
        "image_path": chosen.path,
        **({"further": further} if further else {}),
        # Of an installer that is started from them alone, the kernel of one on a CD alone.
        "kernel": f"{machine.domain_name}.kernel",
        "kernel_path": f"{chosen.pool.path}/{machine.domain_name}.kernel",
        "initrd": f"{machine.domain_name}.initrd",
        "initrd_path": f"{chosen.pool.path}/{machine.domain_name}.initrd",
        "accelerator": machine.accelerator,
        "target": target,
        # Of an installation of Windows on virtio alone.
        "drivers_path": drivers.path if drivers else "",
    }


def _make_further(
    spec: Mapping[str, Any], machine: VirtualMachine, chosen: ImageAttachment, first: str
) -> Iterator[dict[str, Any]]:
    """Make the rows of the disks after the one at `first`; yield the names of each and its image's path."""
    for number, (capacity, source) in enumerate(zip(further_disks(spec), chosen.paths[1:], strict=True), 1):
        target = f"{first[:-1]}{chr(ord(first[-1]) + number)}"
        volume = f"{machine.domain_name}-{target}.qcow2"
        Disk.objects.create(
            machine=machine, pool=chosen.pool, volume_name=volume, target=target, capacity=capacity
        )
        yield {
            "volume": volume,
            "volume_path": f"{chosen.pool.path}/{volume}",
            "target": target,
            "capacity": capacity,
            "image_path": source,
        }
