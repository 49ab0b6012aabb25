"""What requests to change a machine share: asking, looking, placing. Not for: what each of them changes."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.operations import ledger
from portal.operations.models import Counter, Operation
from portal.operations.registry import Asking, Outlook
from portal.operations.services import begin_operation, request_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED, State
from vms import power
from vms.asking import Left, held_by
from vms.changes import costs
from vms.models import Disk, VirtualMachine
from vms.services import quota_amounts

#: Of what a machine has these count.
_COUNTED = (Counter.Resource.VCPU.value, Counter.Resource.MEMORY.value, Counter.Resource.DISK.value)


def pinned(machine: VirtualMachine, now: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return what every request to change a machine freezes beside its `sizes`, which are `now` others."""
    return {
        "machine": str(machine.uuid),
        "name": machine.name,
        "item": machine.item_name,
        "now": dict(now),
        # Below it a lowering would be another request.
        "least": {name: min(amount, sizes[name]) for name, amount in now.items()},
        **costs.after(machine, now, sizes),
    }


def growth(frozen: Mapping[str, Any]) -> dict[str, int]:
    """Return what a request takes more than the machine had when it was asked."""
    now, sizes = frozen["pinned"]["now"], frozen["sizes"]
    more = {name: sizes[name] - now.get(name, 0) for name in _COUNTED if name in sizes}
    return {name: amount for name, amount in more.items() if amount > 0}


def shrinkage(frozen: Mapping[str, Any]) -> dict[str, int]:
    """Return what the machine has less of afterwards."""
    now, sizes = frozen["pinned"]["now"], frozen["sizes"]
    less = {name: now.get(name, 0) - sizes[name] for name in _COUNTED if name in sizes}
    return {name: amount for name, amount in less.items() if amount > 0}


def quotas(machine: VirtualMachine, sizes: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Return what `sizes` are of the quotas that count the machine: its owner's, not those of who asks."""
    every = dict.fromkeys(_COUNTED, 0) | dict(sizes)
    counted = quota_amounts(machine.owner, machine.project, every)
    return {key: amount for key, amount in counted.items() if key[1] in sizes}


def capacity(machine: VirtualMachine, sizes: Mapping[str, int], pool: str = "") -> dict[tuple[str, str], int]:
    """Return what `sizes` are of the counters of the machine's host, and of the pool of scope `pool`."""
    places = {"vcpu": machine.host.scope, "memory": machine.host.scope, "disk": pool}
    return {(places[name], name): amount for name, amount in sizes.items() if places[name]}


def machine_of(frozen: Mapping[str, Any]) -> VirtualMachine | None:
    """Return the machine that a request is about, None when it is gone."""
    found = VirtualMachine.objects.filter(uuid=frozen["pinned"]["machine"])
    return found.select_related("owner", "project", "host").first()


def ask(
    *,
    actor: Any,
    machine: VirtualMachine,
    spec: RequestSpec,
    title: str,
    token: uuid.UUID,
    begin: Mapping[str, Any] | None = None,
) -> Operation:
    """Ask for a change that takes something; one that takes nothing begins at once, by the names of `begin`.

    The caller has checked the verb, in this transaction. Idempotent by `token`. Raises Denied.
    """
    if not growth(spec.as_dict()) and begin is not None:
        return begin_operation(
            actor=actor,
            project=machine.project,
            spec=spec,
            subject=machine.topic,
            title=title,
            identifiers=begin,
            lane=machine.host.scope,
        )
    waiting = waiting_for(machine).filter(kind=spec.kind).exclude(token=token)
    if any(_changed_by(one.frozen["pinned"]) == _changed_by(spec.pinned) for one in waiting):
        raise Denied(_("Such a change of it waits for approval already; withdraw or edit that one."))
    amounts = quotas(machine, growth(spec.as_dict()))
    return request_operation(
        actor=actor, project=machine.project, spec=spec, amounts=amounts, token=token, title=title
    )


def _changed_by(pinned: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what of its machine a request changes, by which two of one kind are told apart."""
    return tuple(pinned.get(key) for key in ("drive", "pool", "volume"))


def waiting_for(machine: VirtualMachine) -> Any:
    """Return the requests about a machine that nobody decided on yet: they are not its operations so far."""
    about = f'"machine":"{machine.uuid}"'
    return Operation.objects.filter(state=State.AWAITING_APPROVAL, spec__contains=about)


def claim(operation: Operation) -> VirtualMachine:
    """Make the machine the request's own until it ends, in the transaction of the final approval.

    Its row is locked. Raises Denied when it is gone, cannot be changed now, is being cloned, or is in the
    middle of another change.
    """
    machine = _claimable(operation, _locked(machine_of(operation.frozen)))
    try:
        with transaction.atomic():
            Operation.objects.filter(pk=operation.pk).update(subject=machine.topic)
    except IntegrityError as error:
        raise _busy() from error
    # From here on no other operation moves it: as it is now is how it stays.
    operation.subject, operation.lane = machine.topic, machine.host.scope
    return machine


def _locked(machine: VirtualMachine | None) -> VirtualMachine | None:
    """Return the machine as it is now, its row locked until the transaction ends; None when it is gone."""
    if machine is None:
        return None
    try:
        machine.refresh_from_db(from_queryset=VirtualMachine.objects.select_for_update())
    except VirtualMachine.DoesNotExist:
        return None
    return machine


def _claimable(operation: Operation, machine: VirtualMachine | None) -> VirtualMachine:
    """Return the machine if an approval can change it now. Raises Denied."""
    if machine is None:
        raise Denied(_("The machine is gone."))
    others = Operation.objects.filter(subject=machine.topic, state__in=UNFINISHED)
    if others.exclude(pk=operation.pk).exists():
        raise _busy()
    if reason := power.state_forbids(machine, "edit") or power.being_cloned(machine):
        raise Denied(reason)
    return machine


def _busy() -> Denied:
    return Denied(_("Another change to this machine is not finished yet; wait for it."))


class _Sight:
    """What one request would mean: what it takes of quotas, and what room it needs on its host."""

    def __init__(
        self,
        frozen: Mapping[str, Any],
        machine: VirtualMachine | None,
        pools: Mapping[str, str],
        kind: "AskingToChange",
    ) -> None:
        self.frozen, self.machine, self.misfit = frozen, machine, ""
        self.quotas: Mapping[tuple[str, str], int] = {}
        self.room: Mapping[tuple[str, str], int] = {}
        if machine is not None:
            more = growth(frozen)
            self.quotas = quotas(machine, more)
            self.room = kind.room(machine, frozen, pools.get(str(machine.uuid), ""))
            self.misfit = kind.misfit(machine, frozen)

    def outlook(self, left: Left, own: Mapping[tuple[str, str], int]) -> Outlook:
        """Return it in words, where `left` is what counters have and `own` what it holds already."""
        if self.machine is None:
            return Outlook(warnings=[_("The machine is gone.")])
        bars, shortages = left.after(self.quotas, own)
        warnings = [self.misfit, power.state_forbids(self.machine, "edit"), left.short_of(self.room)]
        return Outlook(
            place=self.machine.host.name,
            cost_month=self.frozen["pinned"].get("cost_month", ""),
            quotas=bars,
            warnings=[warning for warning in warnings if warning],
            shortages=shortages,
        )


class AskingToChange(Asking):
    """Requests to change a machine; `page` gives the address of the form for the machine and the request."""

    # Who looks after machines changes them too, by somebody's consent as everybody.
    verbs = ("request", "operate")

    def __init__(self, page: Callable[[VirtualMachine, Mapping[str, Any]], str]) -> None:
        self._page = page

    def amounts(self, operation: Operation, sizes: Mapping[str, int]) -> ledger.Amounts:
        machine = machine_of(operation.frozen)
        return quotas(machine, growth({**operation.frozen, "sizes": sizes})) if machine else {}

    def check_lowered(self, spec: Mapping[str, Any]) -> None:
        for name, least in spec["pinned"]["least"].items():
            if spec["sizes"][name] < least:
                raise Denied(_("Not less than the machine has now."), field=name)
        if not growth(spec):
            raise Denied(_("Nothing would be left of the request; reject it instead."))

    def room(
        self, machine: VirtualMachine, frozen: Mapping[str, Any], pool: str
    ) -> dict[tuple[str, str], int]:
        """Return what a request needs on the machine's host, its disks in the pool of scope `pool`."""
        return capacity(machine, growth(frozen), pool)

    def misfit(self, _machine: VirtualMachine, _frozen: Mapping[str, Any]) -> str:
        """Return why a request goes with its machine no more, though its state allows it; '' if it does."""
        return ""

    def outlooks(self, operations: Sequence[Operation]) -> Mapping[int, Outlook]:
        frozen = {operation.pk: operation.frozen for operation in operations}
        uuids = {one["pinned"]["machine"] for one in frozen.values()}
        found = VirtualMachine.objects.filter(uuid__in=uuids)
        found = found.select_related("owner", "project", "host", "image")
        machines = {str(machine.uuid): machine for machine in found}
        pools = {
            str(disk.machine.uuid): disk.pool.pool.scope
            for disk in Disk.objects.filter(machine__uuid__in=uuids)
            .select_related("machine", "pool__pool")
            .order_by("-target")
        }
        sights = {
            pk: _Sight(one, machines.get(one["pinned"]["machine"]), pools, self)
            for pk, one in frozen.items()
        }
        left = Left(key for sight in sights.values() for key in (*sight.quotas, *sight.room))
        own = held_by(list(frozen))
        return {pk: sight.outlook(left, own.get(pk, {})) for pk, sight in sights.items()}

    def edit_url(self, operation: Operation) -> str:
        return self._address(operation, "edit")

    def copy_url(self, operation: Operation) -> str:
        return self._address(operation, "like")

    def _address(self, operation: Operation, how: str) -> str:
        machine = machine_of(operation.frozen)
        if machine is None:
            return reverse("vms:list")
        return f"{self._page(machine, operation.frozen)}?{how}={operation.pk}"
