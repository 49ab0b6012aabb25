"""Ask for machines. Not for: building them, and not for what is done to those that exist."""

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Q
from django.utils.translation import gettext as _

from networks.models import Network
from portal.accounts import public_keys
from portal.accounts.models import Project, SshPublicKey
from portal.core.errors import Denied
from portal.operations import ledger, revisions, scopes
from portal.operations.models import Counter, Operation
from portal.operations.services import request_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from vms import checks, cloud, direct_boot, profiles, unattended, virtualization
from vms.models import CatalogueItem, Flavour, InstallTemplate, VirtualMachine

DAY = 24 * 3600
#: The kind of operation that builds a machine (`vms.building`).
KIND = "vm.create"
#: The kind that makes an empty machine and starts an installer in it (`vms.installing`).
INSTALL = "vm.install"
#: Both, which are asked for by the same form.
BUILDS = (KIND, INSTALL)
#: The kind that divides a request for several machines (`vms.deploying`).
DEPLOY = "vm.deploy"
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
    #: How an installer is answered; None where a person does it, and for images that need no installer.
    template: InstallTemplate | None = None
    #: How it should run (`vms.virtualization`); empty for what the item does by itself.
    devices: str = ""
    accelerator: str = ""
    #: The board (`vms.profiles`); empty for what the system in the image needs.
    profile: str = ""
    #: Of several, the name is what theirs begin with.
    count: int | None = 1

    @property
    def several(self) -> bool:
        return (self.count or 1) > 1


def names_of(stem: str, count: int) -> list[str]:
    """Return what several machines are called: web-1 to web-5."""
    return [f"{stem}-{number}" for number in range(1, count + 1)]


def share_of(sizes: Mapping[str, int]) -> dict[str, int]:
    """Return what each machine of a request has; `sizes` are those of all of them together."""
    count = sizes.get("machines", 1)
    shared = {name: value // count for name, value in sizes.items() if name not in {"lease", "machines"}}
    return shared | {"lease": sizes["lease"]} if "lease" in sizes else shared


def spec_of(wish: Wish) -> RequestSpec:
    """Freeze `wish`: everything by value, nothing by a catalogue id that may change.

    Raises Denied with the first refusal and the field of `Wish` that it is about.
    """
    item, flavour = wish.item, wish.flavour
    values = vars(wish) | {"disk": flavour.disk if wish.disk is None else wish.disk}
    _refuse(item, values)
    pinned: dict[str, Any] = {
        "name": wish.name,
        "item": item.name,
        "item_id": item.pk,
        "flavour": flavour.name,
        "cost_month": str(cost_new(item, flavour, wish.disk)),
        "image": {"sha256": item.image.sha256, "title": item.image.title},
        "network": asdict(wish.network.spec),
        "clone": "linked" if item.linked_clone else "full",
        "virtualization": {
            "accelerator": wish.accelerator or item.default_accelerator,
            "devices": wish.devices or item.default_devices,
        },
        "why": wish.why,
        **_board(wish),
        **({"further": [disk["capacity"] for disk in item.image.further]} if item.image.further else {}),
        "cloud": {
            "user": wish.user,
            "hostname": wish.name,
            "ssh_keys": cloud.check_ssh_keys(wish.ssh_keys),
            "packages": cloud.check_packages(wish.packages),
            "user_data": wish.user_data,
        },
    }
    sizes = {
        "vcpu": flavour.vcpus,
        "memory": flavour.memory_counted,
        "disk": values["disk"] + item.image.further_size,
        "lease": wish.lease_days * DAY,
    }
    # Emulated devices have no balloon: such a machine has all of it from its start.
    devices = pinned["virtualization"]["devices"]
    if flavour.ceiling is not None and devices == virtualization.Devices.PARAVIRTUAL:
        pinned["memory_now"] = flavour.memory
    if wish.several:
        return _spec_of_several(wish, sizes, pinned)
    if item.image.needs_installer:
        answers = _answers(wish, pinned)
        pinned["install"] = {"kind": item.image.kind, "answers": answers}
        if answers and (files := direct_boot.files(item.image, answers["format"])):
            pinned["install"]["boot"] = files
        if drivers := profiles.drivers_for(item, wish.devices):
            pinned["install"]["drivers"] = {"sha256": drivers.sha256, "title": drivers.title}
    return RequestSpec(kind=kind_for(item), sizes=sizes, pinned=pinned)


def _board(wish: Wish) -> dict[str, str]:
    """Return the board by value, nothing for the one that machines had before there was a choice."""
    profile = wish.profile or profiles.profiles_of(wish.item.image)[0]
    return {} if profile == profiles.Profile.STANDARD else {"profile": str(profile)}


def kind_for(item: CatalogueItem) -> str:
    """Return the kind of operation that makes a machine of `item`."""
    return INSTALL if item.image.needs_installer else KIND


def _answers(wish: Wish, pinned: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the chosen template filled in, by value; None where a person answers the installer."""
    if wish.template is None:
        return None
    devices = pinned["virtualization"]["devices"]
    text = unattended.render(
        wish.template.format,
        wish.template.text,
        hostname=wish.name,
        user=wish.user,
        keys=pinned["cloud"]["ssh_keys"],
        disk=virtualization.first_disk(devices),
    )
    return {"template": wish.template.name, "format": wish.template.format, "text": text}


def _spec_of_several(wish: Wish, sizes: dict[str, int], pinned: dict[str, Any]) -> RequestSpec:
    """Return one request for all: the sizes are sums, for quotas, policies and who approves."""
    if wish.item.image.needs_installer:
        raise Denied(_("What is installed from a CD or the network is asked for one by one."), field="count")
    count = wish.count or 1
    names = names_of(wish.name, count)
    together = {name: size if name == "lease" else size * count for name, size in sizes.items()}
    of_all = {
        "name": f"{names[0]} – {names[-1]}",
        "names": names,
        "stem": wish.name,
        "cost_each": pinned["cost_month"],
        "cost_month": str(Decimal(pinned["cost_month"]) * count),
    }
    return RequestSpec(kind=DEPLOY, sizes={**together, "machines": count}, pinned={**pinned, **of_all})


def cost_month(item: CatalogueItem, flavour: Flavour, disk: int | None = None) -> Decimal:
    """Return what a machine costs a month: its size, its item, and each GiB beyond the size's disk.

    `disk` is what all its disks have together, in bytes.
    """
    beyond = -(-max(0, (disk or flavour.disk) - flavour.disk) // GIB)
    return flavour.cost_month + item.cost_month + beyond * item.cost_month_gib


def cost_new(item: CatalogueItem, flavour: Flavour, first_disk: int | None = None) -> Decimal:
    """Return what a new machine costs a month, with the further disks of its image."""
    return cost_month(item, flavour, (first_disk or flavour.disk) + item.image.further_size)


def _refuse(item: CatalogueItem, values: Mapping[str, Any]) -> None:
    for field, refusal in checks.refusals(item, values).items():
        raise Denied(refusal, field=field)


def quota_amounts(actor: Any, project: Project, sizes: Mapping[str, int]) -> ledger.Amounts:
    """Return what a machine of `sizes` takes: of `project`, of `actor` in it, and of `actor` anywhere."""
    amounts = {}
    for scope in scopes.of_project(project), scopes.of_member(project, actor), scopes.of_person(actor):
        for resource in (Counter.Resource.VCPU, Counter.Resource.MEMORY, Counter.Resource.DISK):
            amounts[scope, resource.value] = sizes[resource.value]
        amounts[scope, Counter.Resource.MACHINES.value] = sizes.get("machines", 1)
    return amounts


def name_is_taken(name: str, *, besides: Operation | None = None) -> bool:
    """Tell whether a machine or a waiting request has this name, other than the request `besides`."""
    if VirtualMachine.objects.filter(name=name).exists():
        return True
    asked = Q(kind__in=BUILDS, title=title_of(name)) | Q(kind="vm.clone", title__endswith=f" as {name}")
    waiting = Operation.objects.filter(state=State.AWAITING_APPROVAL).exclude(pk=besides.pk if besides else 0)
    if waiting.filter(asked).exists():
        return True
    several = waiting.filter(kind=DEPLOY, spec__contains=f'"{name}"').values_list("spec", flat=True)
    return any(name in json.loads(spec)["pinned"]["names"] for spec in several)


def _taken(wish: Wish, *, besides: Operation | None = None) -> Denied | None:
    """Return the refusal of the first name that is taken of those that `wish` asks for."""
    names = names_of(wish.name, wish.count or 1) if wish.several else [wish.name]
    return next((name_taken(name) for name in names if name_is_taken(name, besides=besides)), None)


def _title(wish: Wish) -> str:
    return f"Create {wish.name}-1 to {wish.count}" if wish.several else title_of(wish.name)


def name_taken(name: str) -> Denied:
    """Return the refusal of a name that a machine or a waiting request has."""
    return Denied(_("The name %(name)s is taken; choose another.") % {"name": name}, field="name")


def title_of(name: str) -> str:
    """Return the title of the operation that builds the machine called `name`."""
    return f"Create {name}"


def request_machine(
    *,
    actor: Any,
    project: Project,
    wish: Wish,
    token: uuid.UUID,
    chosen_keys: Iterable[SshPublicKey] | None = None,
) -> Operation:
    """Freeze `wish`, hold its quota and ask for approval. Idempotent by `token`. Raises Denied.

    `chosen_keys` are those of the actor's own that the next form begins with; None leaves that as it is.
    """
    _refuse(wish.item, {"project": project})
    spec = spec_of(wish)
    # In this order: between the two looks the first click of a doubled one may take the name.
    if (taken := _taken(wish)) and not Operation.objects.filter(token=token).exists():
        raise taken
    operation = request_operation(
        actor=actor,
        project=project,
        spec=spec,
        amounts=quota_amounts(actor, project, spec.sizes),
        token=token,
        title=_title(wish),
    )
    if chosen_keys is not None:
        public_keys.remember(actor, chosen_keys)
    return operation


def edit_machine_request(*, actor: Any, operation: Operation, wish: Wish, spec_hash: str) -> Operation:
    """Ask for something else in place of one's own request that waits, as it was seen. Raises Denied.

    Its quota is held anew, and whoever approved it must look again. Idempotent.
    """
    _refuse(wish.item, {"project": operation.project})
    spec = spec_of(wish)
    if taken := _taken(wish, besides=operation):
        raise taken
    return revisions.edit(
        actor=actor,
        operation=operation,
        spec_hash=spec_hash,
        spec=spec,
        title=_title(wish),
    )
