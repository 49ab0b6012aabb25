"""Ask for longer leases, and give them. Not for: what follows from a lease that ends (`vms.leases`)."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.accounts import notices
from portal.audit import services as audit
from portal.core.errors import Denied
from portal.live.publish import publish
from portal.operations import ledger, revisions
from portal.operations.models import Operation
from portal.operations.registry import Asking, Kind, Outlook, Step, StepContext, StepFailed, may_ask
from portal.operations.services import request_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED, State
from vms import checks, leases, power
from vms.building import on_offer, owned_by, page_of_machine
from vms.models import CatalogueItem, VirtualMachine
from vms.services import DAY

KIND = "vm.extend"
#: Days from now that the lease of a machine may run whose catalogue item is gone.
LONGEST = 365


# What may be asked for


def why_not(actor: Any, machine: VirtualMachine, *, besides: Operation | None = None) -> str:
    """Return why `actor` cannot ask for a longer lease of `machine` now, '' when they can.

    `besides` is the request that would be changed. The same sentence explains the page and refuses the call.
    """
    if reason := power.right_lacks(actor, machine):
        return reason
    if not may_ask(actor, KIND, machine.project):
        return _("You may not ask for anything in %(project)s.") % {"project": machine.project}
    if reason := power.not_in_use(machine):
        return reason
    if waiting(machine).exclude(pk=besides.pk if besides else 0).exists():
        return _("An extension of this machine waits for a decision already.")
    return ""


def waiting(machine: VirtualMachine) -> QuerySet[Operation]:
    """Return the request for a longer lease of `machine` that waits; there is one at most."""
    asked = Operation.objects.filter(kind=KIND, state=State.AWAITING_APPROVAL)
    return asked.filter(identifiers__uuid=str(machine.uuid))


def most_days(machine: VirtualMachine) -> int:
    """Return by how many days the lease can be extended now; its item says how far from now it may run."""
    item = CatalogueItem.objects.filter(name=machine.item_name).first()
    return _most(machine, item.longest_lease_days if item else LONGEST)


def _most(machine: VirtualMachine, longest: int) -> int:
    left = max(machine.lease_until - timezone.now(), timedelta())
    return max(0, longest - -(-left // timedelta(days=1)))


def _too_long(days: int, most: int) -> str:
    if most < 1:
        return _("The lease runs as long already as it may from now.")
    if 1 <= days <= most:
        return ""
    return _("The lease can be extended by 1 to %(most)d days now.") % {"most": most}


def _spec_of(machine: VirtualMachine, *, days: int, why: str) -> RequestSpec:
    """Freeze what is asked. Raises Denied with the field that stands in the way."""
    if refusal := _too_long(days, most_days(machine)):
        raise Denied(refusal, field="lease")
    if not why.strip():
        raise Denied(_("Say in a few words what the machine is still for."), field="why")
    if refusal := checks.unreadable(why):
        raise Denied(refusal, field="why")
    pinned = {
        "machine": str(machine.uuid),
        "name": machine.name,
        "item": machine.item_name,
        "why": why,
        "until": machine.lease_until.isoformat(),
    }
    return RequestSpec(kind=KIND, sizes={"lease": days * DAY}, pinned=pinned)


def request_extension(
    *, actor: Any, machine: VirtualMachine, days: int, why: str, token: uuid.UUID
) -> Operation:
    """Ask for `days` more of a machine's lease. Idempotent by `token`. Raises Denied."""
    with transaction.atomic():
        current = VirtualMachine.objects.select_for_update().filter(pk=machine.pk).first()
        if current is None:
            raise Denied(_("The machine is gone."))
        if known := _asked_before(current, actor=actor, days=days, why=why, token=token):
            return known
        if reason := why_not(actor, current):
            raise Denied(reason)
        return request_operation(
            actor=actor,
            project=current.project,
            spec=_spec_of(current, days=days, why=why),
            amounts={},
            token=token,
            identifiers={"host": current.host_id, "uuid": str(current.uuid)},
            title=f"Extend the lease of {current.name}",
        )


def _asked_before(
    machine: VirtualMachine, *, actor: Any, days: int, why: str, token: uuid.UUID
) -> Operation | None:
    """Return what the first click of a doubled one asked for; by now the lease may have another end."""
    mine = Operation.objects.filter(token=token, kind=KIND, requester=actor)
    known: Operation | None = mine.filter(identifiers__uuid=str(machine.uuid)).first()
    if known is None:
        return None
    asked = known.frozen
    return known if (asked["sizes"], asked["pinned"]["why"]) == ({"lease": days * DAY}, why) else None


def edit_extension(*, actor: Any, operation: Operation, days: int, why: str, spec_hash: str) -> Operation:
    """Ask for something else in place of one's own request that waits, as it was seen. Raises Denied.

    Whoever approved it must look again. Idempotent.
    """
    machine = machine_of(operation)
    if machine is None:
        raise Denied(_("The machine is gone."))
    if reason := why_not(actor, machine, besides=operation):
        raise Denied(reason)
    spec = _spec_of(machine, days=days, why=why)
    return revisions.edit(actor=actor, operation=operation, spec_hash=spec_hash, spec=spec)


def machine_of(operation: Operation) -> VirtualMachine | None:
    """Return the machine whose lease a request is about, None when it is gone."""
    return _machines([operation]).filter(project=operation.project_id).first()


def _machines(operations: Iterable[Operation]) -> QuerySet[VirtualMachine]:
    return VirtualMachine.objects.filter(uuid__in=[item.identifiers["uuid"] for item in operations])


# From the approval to the end


def place(operation: Operation) -> None:
    """Fix until when the machine may run, counted from now. Joins the transaction.

    Raises Denied when it is gone, in the bin, busy with other work, or would run too long.
    """
    found = _machines([operation]).filter(project=operation.project_id)
    machine = _extendable(found.select_for_update().first())
    lease = operation.frozen["sizes"]["lease"]
    if refusal := _too_long(-(-lease // DAY), most_days(machine)):
        raise Denied(refusal, field="lease")
    operation.subject = machine.topic
    operation.lane = machine.host.scope
    operation.identifiers = {
        "host": machine.host_id,
        "uuid": str(machine.uuid),
        "until": _end(machine, lease).isoformat(),
    }


def _end(machine: VirtualMachine, lease: int) -> datetime:
    """Return when the lease would end if it were extended by `lease` seconds now."""
    return max(machine.lease_until, timezone.now()) + timedelta(seconds=lease)


def _extendable(machine: VirtualMachine | None) -> VirtualMachine:
    """Return the machine if its lease can be extended now. Raises Denied."""
    reason = _obstacle(machine, busy=machine is not None and bool(_busy([machine])))
    if machine is None or reason:
        raise Denied(reason)
    return machine


def _obstacle(machine: VirtualMachine | None, *, busy: bool) -> str:
    """Return why nobody's approval can extend this lease now, '' when it can."""
    if machine is None:
        return _("The machine is gone.")
    if reason := power.not_in_use(machine):
        return reason
    return _("Another change to this machine is not finished yet; wait for it.") if busy else ""


def _busy(machines: Iterable[VirtualMachine]) -> set[str]:
    """Return the topics of those on which work is not finished."""
    topics = [machine.topic for machine in machines]
    work = Operation.objects.filter(subject__in=topics, state__in=UNFINISHED)
    return set(work.values_list("subject", flat=True))


class MoveEnd(Step):
    """The one thing to be done, and not on the host: the machine may run longer."""

    name, title = "lease", "Move the end of the lease"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        until = datetime.fromisoformat(names["until"])
        with transaction.atomic():
            machine = VirtualMachine.objects.select_for_update().filter(uuid=names["uuid"]).first()
            if machine is None:
                raise StepFailed("domain_not_found")
            if machine.lease_until == until:
                return
            before = machine.lease_until.isoformat()
            machine.lease_until = until
            machine.lease_warned = leases.nearest(until - timezone.now())
            machine.lease_bin_at = None
            machine.save(update_fields=["lease_until", "lease_warned", "lease_bin_at"])
            after = {"lease_until": names["until"]}
            audit.record(
                actor="worker",
                verb="machine.lease_extended",
                target=machine,
                before={"lease_until": before},
                after=after,
            )
            notices.take_back(kind=leases.LEASE, about=machine.topic)
            publish(machine.topic)

    def undo(self, context: StepContext) -> None:
        """Leave what was given: nothing comes after it that could fail."""


class AskingForLeases(Asking):
    """Requests for longer leases."""

    verbs = ("request", "operate")

    def amounts(self, operation: Operation, sizes: Mapping[str, int]) -> ledger.Amounts:
        # The machine holds its share already, for as long as it is there.
        return {}

    def check_lowered(self, spec: Mapping[str, Any]) -> None:
        if spec["sizes"]["lease"] % DAY:
            raise Denied(_("A lease is extended by whole days."), field="lease")

    def outlooks(self, operations: Sequence[Operation]) -> Mapping[int, Outlook]:
        machines = {str(machine.uuid): machine for machine in _machines(operations).select_related("host")}
        busy = _busy(machines.values())
        names = {machine.item_name for machine in machines.values()}
        items = CatalogueItem.objects.filter(name__in=names)
        longest = dict(items.values_list("name", "longest_lease_days"))
        found = {}
        for operation in operations:
            machine = machines.get(operation.identifiers["uuid"])
            lease = operation.frozen["sizes"]["lease"]
            warnings = [_obstacle(machine, busy=machine is not None and machine.topic in busy)]
            if machine is None:
                found[operation.pk] = Outlook(place=_("nowhere"), warnings=warnings)
                continue
            warnings.append(_too_long(lease // DAY, _most(machine, longest.get(machine.item_name, LONGEST))))
            until = timezone.localtime(_end(machine, lease))
            facts = [(_("Would run until"), date_format(until, "j M Y H:i"))]
            shown = [warning for warning in warnings if warning]
            found[operation.pk] = Outlook(place=machine.host.name, facts=facts, warnings=shown)
        return found

    def edit_url(self, operation: Operation) -> str:
        return reverse("vms:lease_edit", args=[operation.pk])

    def copy_url(self, operation: Operation) -> str:
        return reverse("vms:lease_copy", args=[operation.pk])


EXTEND = Kind(
    name=KIND,
    title="Extend a lease",
    steps=(MoveEnd(),),
    place=place,
    announce=gettext_lazy("The lease of %(name)s is extended."),
    page=page_of_machine,
    asking=AskingForLeases(),
    items=on_offer,
    owned=owned_by,
)
