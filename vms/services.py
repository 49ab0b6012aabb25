"""Ask for machines. Not for: building them, and not for what is done to those that exist."""

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from networks.models import Network
from portal.accounts.models import Project
from portal.core.errors import Denied
from portal.core.templatetags.gatehouse import gib
from portal.operations import counters, ledger, scopes
from portal.operations.models import Counter, Operation
from portal.operations.services import request_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from vms import cloud, offers, placement, virtualization
from vms.models import CatalogueItem, Flavour, VirtualMachine

DAY = 24 * 3600
GIB = 1 << 30


@dataclass(frozen=True)
class Wish:
    """What a person asks for; every text is as typed and is checked here, whoever calls."""

    item: CatalogueItem
    flavour: Flavour
    network: Network
    name: str
    lease_days: int
    why: str
    user: str
    ssh_keys: str = ""
    packages: str = ""
    user_data: str = ""
    #: Bytes; None for the size's own.
    disk: int | None = None
    #: How it should run (`vms.virtualization`); empty for what the item does by itself.
    devices: str = ""
    accelerator: str = ""


def spec_of(wish: Wish) -> RequestSpec:
    """Freeze `wish`: everything by value, nothing by a catalogue id that may change. Raises Denied."""
    _check(wish)
    item, flavour = wish.item, wish.flavour
    try:
        keys = cloud.check_ssh_keys(wish.ssh_keys)
        packages = cloud.check_packages(wish.packages)
        cloud.check_user_data(wish.user_data)
    except cloud.Invalid as error:
        raise Denied(str(error)) from error
    pinned: dict[str, Any] = {
        "name": wish.name,
        "item": item.name,
        "item_id": item.pk,
        "flavour": flavour.name,
        "cost_month": str(cost_month(item, flavour, wish.disk)),
        "image": {"sha256": item.image.sha256, "title": item.image.title},
        "network": asdict(wish.network.spec),
        "clone": "linked" if item.linked_clone else "full",
        "virtualization": {
            "accelerator": wish.accelerator or item.default_accelerator,
            "devices": wish.devices or item.default_devices,
        },
        "why": wish.why,
        "cloud": {
            "user": wish.user,
            "hostname": wish.name,
            "ssh_keys": keys,
            "packages": packages,
            "user_data": wish.user_data,
        },
    }
    sizes = {
        "vcpu": flavour.vcpus,
        "memory": flavour.memory,
        "disk": wish.disk or flavour.disk,
        "lease": wish.lease_days * DAY,
    }
    return RequestSpec(kind="vm.create", sizes=sizes, pinned=pinned)


def cost_month(item: CatalogueItem, flavour: Flavour, disk: int | None = None) -> Decimal:
    """Return what a machine costs a month: its size, its item, and each GiB beyond the size's disk."""
    beyond = -(-max(0, (disk or flavour.disk) - flavour.disk) // GIB)
    return flavour.cost_month + item.cost_month + beyond * item.cost_month_gib


def _check(wish: Wish) -> None:
    item, flavour = wish.item, wish.flavour
    if not item.offered:
        raise Denied(f"{item.name} is not offered any more.")
    if not item.flavours.filter(pk=flavour.pk).exists():
        raise Denied(f"{item.name} does not come in the size {flavour.name}.")
    if not item.networks.filter(pk=wish.network.pk).exists():
        raise Denied(f"{item.name} is not offered on the network {wish.network}.")
    if not cloud.HOSTNAME.fullmatch(wish.name):
        raise Denied("A name has 1 to 63 small letters, digits and hyphens, and no hyphen at either end.")
    if not cloud.LOGIN.fullmatch(wish.user):
        raise Denied("A user's name has small letters, digits, _ and -, and starts with a letter.")
    if not 1 <= wish.lease_days <= item.longest_lease_days:
        raise Denied(f"The lease is 1 to {item.longest_lease_days} days.")
    _check_disk(wish)
    if refusal := offers.refusal(item, wish.devices, wish.accelerator):
        raise Denied(refusal)
    if flavour.memory < item.image.min_memory:
        raise Denied(f"{item.image} needs more memory than {flavour.name} has.")
    if not wish.why.strip():
        raise Denied("Say in a few words what the machine is for.")


def _check_disk(wish: Wish) -> None:
    item, disk = wish.item, wish.disk or wish.flavour.disk
    if disk < max(item.image.virtual_size, 1):
        raise Denied("The disk is smaller than the image.")
    if disk == wish.flavour.disk:
        return
    if item.disk_most is None:
        raise Denied(f"The disk of {item.name} is the size's own and cannot be chosen.")
    if not (item.disk_least or 0) <= disk <= item.disk_most:
        least, most = gib(max(item.disk_least or 0, item.image.virtual_size)), gib(item.disk_most)
        raise Denied(f"The disk of {item.name} is {least} to {most}.")
    if disk % 512:
        raise Denied("A disk is whole sectors of 512 bytes.")


def quota_amounts(actor: Any, project: Project, sizes: Mapping[str, int]) -> ledger.Amounts:
    """Return what a machine of `sizes` takes: of `project`, of `actor` in it, and of `actor` anywhere."""
    amounts = {}
    for scope in scopes.of_project(project), scopes.of_member(project, actor), scopes.of_person(actor):
        for resource in (Counter.Resource.VCPU, Counter.Resource.MEMORY, Counter.Resource.DISK):
            amounts[scope, resource.value] = sizes[resource.value]
        amounts[scope, Counter.Resource.MACHINES.value] = 1
    return amounts


def name_is_taken(name: str) -> bool:
    """Tell whether a machine or an unfinished request has this name."""
    if VirtualMachine.objects.filter(name=name).exists():
        return True
    waiting = Operation.objects.filter(
        kind="vm.create", state=State.AWAITING_APPROVAL, title=title_of(name)
    )
    return waiting.exists()


def title_of(name: str) -> str:
    """Return the title of the operation that builds the machine called `name`."""
    return f"Create {name}"


def request_machine(*, actor: Any, project: Project, wish: Wish, token: uuid.UUID) -> Operation:
    """Freeze `wish`, hold its quota and ask for approval. Idempotent by `token`. Raises Denied."""
    item = wish.item
    if not (item.every_project or item.projects.filter(pk=project.pk).exists()):
        raise Denied(f"{item.name} is not offered to {project}.")
    spec = spec_of(wish)
    # In this order: between the two looks the first click of a doubled one may take the name.
    if name_is_taken(wish.name) and not Operation.objects.filter(token=token).exists():
        raise Denied(f"The name {wish.name} is taken; choose another.")
    return request_operation(
        actor=actor,
        project=project,
        spec=spec,
        amounts=quota_amounts(actor, project, spec.sizes),
        token=token,
        title=title_of(wish.name),
    )


@dataclass(frozen=True)
class Outlook:
    """What a request would mean now: where it would land, what it takes, what stands in its way."""

    place: str
    #: How it would run there, in words.
    runs: str
    cost_month: str
    quotas: list[dict[str, str]]
    refusal: str


def outlook(
    actor: Any,
    project: Project,
    item: CatalogueItem,
    flavour: Flavour,
    *,
    disk: int | None = None,
    devices: str = "",
    accelerator: str = "",
    network: Network | None = None,
) -> Outlook:
    """Look at a request before it is made. Changes nothing; asking and approving decide."""
    sizes = {"vcpu": flavour.vcpus, "memory": flavour.memory, "disk": disk or flavour.disk}
    amounts = quota_amounts(actor, project, sizes)
    titles = scopes.titles({scope for scope, _resource in amounts})
    quotas, refusal = [], ""
    for counter in counters.look(amounts):
        if counter.limit is None:
            continue
        asked = amounts[counter.scope, counter.resource]
        left = counter.limit - counter.taken - asked
        if left < 0:
            refusal = refusal or ledger.shortage(counter, asked)
        quotas.append(
            {
                "title": titles[counter.scope],
                "resource": counter.get_resource_display(),
                "left": ledger.amount_text(counter.resource, max(0, left)),
                "limit": ledger.amount_text(counter.resource, counter.limit),
            }
        )
    wanted = accelerator or item.default_accelerator
    own = network is not None and network.kind == Network.Kind.USER
    first = placement.candidates(item.image.sha256, wanted, own_network=own).first()
    runs_by = virtualization.resolve(wanted, first.pool.host.accelerator) if first else wanted
    return Outlook(
        place=first.pool.host.name if first else "",
        runs=virtualization.words(runs_by, devices or item.default_devices),
        cost_month=str(cost_month(item, flavour, disk)),
        quotas=quotas,
        refusal=refusal,
    )
