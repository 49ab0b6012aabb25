"""Make another machine like one that is off: its disks copied, its settings the same, its identity new.

Not for: many machines from one image, which the catalogue does.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import transaction
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.accounts.models import Project
from portal.core import public_keys
from portal.core.errors import Denied
from portal.drivers.types import CloneMode, TwinSpec, VolumeSpec
from portal.hosts.steps import HostStep, copy_volume
from portal.operations import ledger, revisions
from portal.operations.models import Operation
from portal.operations.registry import Asking, Kind, Outlook, StepContext
from portal.operations.services import request_operation
from portal.operations.spec import RequestSpec
from vms import checks, cloud, power
from vms.asking import Left, held_by
from vms.building import WriteSeed, page_of_machine
from vms.changes import costs, twins
from vms.models import CatalogueItem, VirtualMachine
from vms.services import DAY, name_is_taken, name_taken, quota_amounts
from vms.steps import DomainStep

KIND = "vm.clone"
#: Days a clone may be had where no catalogue item says.
LONGEST_LEASE = 365


class CopyDisks(HostStep):
    """Copy every disk in full. The other machine stays off meanwhile (`power.usable` sees to it)."""

    name, title = "disks", "Copy the disks"
    timeout = 300.0

    def do(self, context: StepContext) -> None:
        for disk in context.identifiers["disks"]:
            read = disk.get("format", "qcow2")
            volume = VolumeSpec(
                disk["pool"], disk["volume"], disk["capacity"], disk["source"], read, CloneMode.FULL
            )
            copy_volume(self, context, volume)
            context.check()

    def undo(self, context: StepContext) -> None:
        for disk in context.identifiers["disks"]:
            self.call(context, "delete_volume", disk["pool"], disk["volume"])


class WriteOwnSeed(WriteSeed):
    """Tell cloud-init that this is another instance: it makes host keys and a host name of its own."""

    def do(self, context: StepContext) -> None:
        if context.identifiers["seed"]:
            super().do(context)

    def undo(self, context: StepContext) -> None:
        if context.identifiers["seed"]:
            super().undo(context)


class DefineTwin(DomainStep):
    name, title = "domain", "Define the machine like the other"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        twin = TwinSpec(
            names["domain"],
            names["uuid"],
            context.spec["pinned"]["name"],
            names["paths"],
            names["macs"],
            names["ports"],
        )
        self.call(context, "define_like", names["source"], twin)

    def undo(self, context: StepContext) -> None:
        self.call(context, "undefine", context.identifiers["uuid"])


# Asking


def request_clone(
    *,
    actor: Any,
    machine: VirtualMachine,
    name: str,
    lease_days: int,
    why: str,
    token: uuid.UUID,
    keys: Iterable[str] = (),
) -> Operation:
    """Ask for a machine like `machine`, which is off; cloud-init lets in who has one of `keys` too.

    Idempotent by `token`. Raises Denied.
    """
    with transaction.atomic():
        source = power.usable(actor, machine, "clone")
        spec = spec_of(source, name, lease_days, why, keys)
        if name_is_taken(name) and not Operation.objects.filter(token=token).exists():
            raise name_taken(name)
        return request_operation(
            actor=actor,
            project=source.project,
            spec=spec,
            amounts=_amounts(actor, source.project, spec.sizes),
            token=token,
            title=_title(source.name, name),
        )


def edit_clone(
    *,
    actor: Any,
    operation: Operation,
    name: str,
    lease_days: int,
    why: str,
    spec_hash: str,
    keys: Iterable[str] = (),
) -> Operation:
    """Ask for another name, lease or keys in place of one's own request that waits, as it was seen."""
    source = _source(operation.frozen)
    if source is None:
        raise Denied(_("The machine is gone."))
    spec = spec_of(source, name, lease_days, why, keys)
    if name_is_taken(name, besides=operation):
        raise name_taken(name)
    return revisions.edit(
        actor=actor,
        operation=operation,
        spec=spec,
        spec_hash=spec_hash,
        title=_title(source.name, name),
    )


def _amounts(actor: Any, project: Project, sizes: Mapping[str, int]) -> ledger.Amounts:
    """Return what a clone takes of quotas; one of a machine without disks takes none of theirs."""
    amounts = quota_amounts(actor, project, {"disk": 0, **sizes})
    return {key: amount for key, amount in amounts.items() if amount}


def _title(source: str, name: str) -> str:
    return f"Clone {source} as {name}"


def spec_of(
    source: VirtualMachine, name: str, lease_days: int, why: str, keys: Iterable[str] = ()
) -> RequestSpec:
    """Freeze a clone. Raises Denied, with the field, for what cannot be."""
    if not cloud.HOSTNAME.fullmatch(name):
        sentence = _("A name has 1 to 63 small letters, digits and hyphens, and no hyphen at either end.")
        raise Denied(sentence, field="name")
    if not 1 <= lease_days <= longest_lease(source):
        raise Denied(_("The lease is 1 to %(most)d days.") % {"most": longest_lease(source)}, field="lease")
    if refusal := checks.no_purpose(why.strip()):
        raise Denied(refusal, field="why")
    twins.check_twin(source)
    size = twins.size_of(source)
    pinned = {
        "source": str(source.uuid),
        "original": source.name,
        "name": name,
        "item": source.item_name,
        "now": size,
        "why": why.strip(),
        "disks": [[disk.target, disk.capacity] for disk in source.disks.order_by("target")],
        **_cost(source, size),
        **_cloud(source, name, keys),
    }
    return RequestSpec(kind=KIND, sizes={**size, "lease": lease_days * DAY}, pinned=pinned)


def _cost(source: VirtualMachine, size: Mapping[str, int]) -> dict[str, str]:
    """Return what the clone costs: what its original was asked for with, unless that has another size now."""
    built = source.built_by.frozen
    if "cost_month" not in built.get("pinned", {}):
        return {}
    if all(built["sizes"].get(name) == amount for name, amount in size.items()):
        return {"cost_month": built["pinned"]["cost_month"]}
    cost = costs.cost_of(source, size)
    return {} if cost is None else {"cost_month": str(cost)}


def takes_keys(source: VirtualMachine) -> bool:
    """Tell whether the clone's own cloud-init can let further people in."""
    told = "cloud" in source.built_by.frozen.get("pinned", {})
    return told and source.image is not None and source.image.cloud_init


def _cloud(source: VirtualMachine, name: str, keys: Iterable[str]) -> dict[str, Any]:
    """Return what cloud-init is told: what the original's request froze, and further `keys`, each once."""
    frozen = source.built_by.frozen.get("pinned", {})
    if "cloud" not in frozen:
        return {}
    lines = [*frozen["cloud"].get("ssh_keys", ()), *(keys if takes_keys(source) else ())]
    return {"cloud": {**frozen["cloud"], "hostname": name, "ssh_keys": public_keys.each_once(lines)}}


def longest_lease(source: VirtualMachine) -> int:
    """Return the most days that a clone of `source` may be had."""
    item = CatalogueItem.objects.filter(name=source.item_name).first()
    return item.longest_lease_days if item else LONGEST_LEASE


def _source(frozen: Mapping[str, Any]) -> VirtualMachine | None:
    found = VirtualMachine.objects.filter(uuid=frozen["pinned"]["source"])
    return found.select_related("owner", "project", "host").first()


class AskingForClones(Asking):
    """Requests for clones."""

    verbs = ("request", "operate")

    def amounts(self, operation: Operation, sizes: Mapping[str, int]) -> ledger.Amounts:
        if operation.project is None:
            raise ValueError(f"{operation} asks for a machine of no project")
        return _amounts(operation.requester, operation.project, sizes)

    def check_lowered(self, spec: Mapping[str, Any]) -> None:
        for name, size in spec["pinned"]["now"].items():
            if spec["sizes"][name] != size:
                raise Denied(_("A clone has the size of its original."), field=name)

    def outlooks(self, operations: Sequence[Operation]) -> Mapping[int, Outlook]:
        frozen = {operation.pk: operation.frozen for operation in operations}
        uuids = {one["pinned"]["source"] for one in frozen.values()}
        found = VirtualMachine.objects.filter(uuid__in=uuids).select_related("host", "project")
        sources = {str(source.uuid): source for source in found.prefetch_related(twins.COPIED)}
        taken = {operation.pk: self.amounts(operation, operation.frozen["sizes"]) for operation in operations}
        rooms = {uuid: twins.room_for(source) for uuid, source in sources.items()}
        left = Left(key for amounts in (*taken.values(), *rooms.values()) for key in amounts)
        own = held_by(list(frozen))
        shown = {}
        for pk, one in frozen.items():
            source = sources.get(one["pinned"]["source"])
            bars, shortages = left.after(taken[pk], own.get(pk, {}))
            room = rooms.get(one["pinned"]["source"], {})
            warnings = [twins.obstacle(source, one), left.short_of(room)]
            shown[pk] = Outlook(
                place=source.host.name if source else "",
                cost_month=one["pinned"].get("cost_month", ""),
                quotas=bars,
                warnings=[warning for warning in warnings if warning],
                shortages=shortages,
            )
        return shown

    def edit_url(self, operation: Operation) -> str:
        return self._address(operation, "edit")

    def copy_url(self, operation: Operation) -> str:
        return self._address(operation, "like")

    def _address(self, operation: Operation, how: str) -> str:
        source = _source(operation.frozen)
        if source is None:
            return reverse("vms:list")
        return f"{reverse('vms:clone', args=[source.pk])}?{how}={operation.pk}"


CLONE = Kind(
    KIND,
    "Clone a machine",
    (CopyDisks(), WriteOwnSeed(), DefineTwin()),
    place=twins.place,
    settle=twins.settle,
    asking=AskingForClones(),
    cancellable=True,
    slow=True,
    announce=gettext_lazy("%(name)s is cloned, and off."),
    page=page_of_machine,
)
