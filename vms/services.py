"""Ask for machines. Not for: building them, and not for what is done to those that exist."""

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from networks.models import Network
from portal.accounts.models import Project
from portal.core.errors import Denied
from portal.operations import counters, ledger, scopes
from portal.operations.models import Counter, Operation
from portal.operations.services import request_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from vms import cloud, placement
from vms.models import CatalogueItem, Flavour, VirtualMachine

DAY = 24 * 3600


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
    disk: int | None = field(default=None)


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
        "flavour": flavour.name,
        "cost_month": str(flavour.cost_month),
        "image": {"sha256": item.image.sha256, "title": item.image.title},
        "network": asdict(wish.network.spec),
        "clone": "linked" if item.linked_clone else "full",
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
    smallest = max(item.image.virtual_size, 1)
    if (wish.disk or flavour.disk) < smallest:
        raise Denied("The disk is smaller than the image.")
    if flavour.memory < item.image.min_memory:
        raise Denied(f"{item.image} needs more memory than {flavour.name} has.")
    if not wish.why.strip():
        raise Denied("Say in a few words what the machine is for.")


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
    spec = spec_of(wish)
    if not Operation.objects.filter(token=token).exists() and name_is_taken(wish.name):
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
    cost_month: str
    quotas: list[dict[str, str]]
    refusal: str


def outlook(actor: Any, project: Project, item: CatalogueItem, flavour: Flavour) -> Outlook:
    """Look at a request before it is made. Changes nothing; asking and approving decide."""
    sizes = {"vcpu": flavour.vcpus, "memory": flavour.memory, "disk": flavour.disk}
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
    first = placement.candidates(item.image.sha256).first()
    return Outlook(
        place=first.pool.host.name if first else "",
        cost_month=str(flavour.cost_month),
        quotas=quotas,
        refusal=refusal,
    )
