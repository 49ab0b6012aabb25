"""What is done to machines that exist: power, the bin, and the end. Not for: building them."""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import CharField, Exists, OuterRef, Q, Value
from django.db.models.functions import Cast, Concat
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from networks.models import Port
from portal.accounts.notices import notify
from portal.audit import services as audit
from portal.core.errors import Denied
from portal.hosts.models import Health, Host
from portal.live.publish import publish
from portal.operations import ledger
from portal.operations.models import Counter, Operation, StepRecord
from portal.operations.notifying import ENDED
from portal.operations.registry import Kind
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED, State
from vms import seeds, suspending
from vms.building import page_of_machine
from vms.models import Definition, Observed, Status, VirtualMachine
from vms.power_steps import Autostart, CallVerb, DeleteVolumes, ForceOff, Save, Start, StayOff, Undefine

#: How long a deleted machine can be had back.
BIN_DAYS = 7
#: After a deletion for good that failed, before the scheduler tries it again.
PURGE_AGAIN = timedelta(days=1)

_ON = (Observed.RUNNING, Observed.PAUSED)

#: What reads the disks of a machine that is off.
COPYING = frozenset({"clone", "template", "export"})
#: What makes something that further machines are built from, or one of them.
_MAKING = frozenset({"clone", "template"})
#: What would not be so in a machine that goes on from what was saved of it; its title is no such thing.
_CHANGING = COPYING | {"edit"}
#: What changes nothing on the host.
_PORTALS_OWN = frozenset({"name"})

#: What makes a machine run, now or with its host, and so needs a lease that has not ended.
LEASED = frozenset({"start", "reboot", "resume", "autostart"})


@dataclass(frozen=True)
class Verb:
    """A power action: what people call it, libvirt's verb, and the observed states it makes sense in."""

    label: str
    call: str
    states: tuple[str, ...]
    icon: str


VERBS: Mapping[str, Verb] = {
    "start": Verb("Start", "start", (Observed.SHUTOFF, Observed.CRASHED, Observed.SAVED), "player-play"),
    "shutdown": Verb("Shut down", "shutdown", (Observed.RUNNING,), "power"),
    "reboot": Verb("Reboot", "reboot", (Observed.RUNNING,), "refresh"),
    "suspend": Verb("Pause", "suspend", (Observed.RUNNING,), "player-pause"),
    "resume": Verb("Resume", "resume", (Observed.PAUSED,), "player-play"),
    "save": Verb("Suspend to disk", "save", _ON, "device-floppy"),
    "destroy": Verb("Force off", "destroy", (*_ON, Observed.SHUTTING_DOWN, Observed.CRASHED), "bolt"),
}


#: Lets a host start what was taken out of the bin, as it did before.
RESTORE = "vm.restore"
#: Steps of vm.purge after which there is nothing whole to restore.
_LOSING = (Undefine().name, DeleteVolumes.name)


def why_not(actor: Any, machine: VirtualMachine, verb: str) -> str:
    """Return why `actor` cannot do `verb` to `machine` now, '' when it can be done.

    The same sentence explains the disabled button and refuses the call.
    """
    reason = right_lacks(actor, machine) or state_forbids(machine, verb)
    return reason or (suspending.why_not(machine) if verb == "save" else "")


def right_lacks(actor: Any, machine: VirtualMachine) -> str:
    """Return why `actor` may do nothing to `machine`, '' when they may. Asks the database."""
    if VirtualMachine.objects.restrict(actor, "use").filter(pk=machine.pk).exists():
        return ""
    return _("Only the owner, an operator or an admin may do this.")


def state_forbids(machine: VirtualMachine, verb: str) -> str:
    """Return why nobody can do `verb` to `machine` as it is now, '' when it can be done."""
    if reason := not_in_use(machine):
        return reason
    if verb in LEASED and machine.lease_ended:
        return _("The lease of this machine ended; ask for an extension first.")
    if verb in _PORTALS_OWN:
        return ""
    if machine.host.observed_health != Health.UP:
        return _("The host does not answer.")
    if verb in _MAKING and machine.host.is_xen:
        return _("Its host is one of Xen, and the portal builds no machines there.")
    if verb in _CHANGING and machine.observed_state == Observed.SAVED:
        return _("Its memory is saved, with its devices as they were. Start it, or discard what was saved.")
    if verb in COPYING and machine.observed_state != Observed.SHUTOFF:
        return _("Switch it off first: a disk that is being written cannot be copied.")
    if verb == "save" and not can_save(machine.host):
        return _("The hypervisor of its host cannot suspend machines to disk.")
    if verb == "discard" and machine.observed_state != Observed.SAVED:
        return _("Nothing is saved of this machine.")
    if verb in VERBS and machine.observed_state not in VERBS[verb].states:
        seen = machine.get_observed_state_display().lower()
        return _("The machine is %(state)s.") % {"state": seen}
    return ""


def can_save(host: Host) -> bool:
    """Say whether a host can suspend machines to disk; yes for one that was enrolled before it was asked."""
    return bool(host.readiness.get("saves", True))


def not_in_use(machine: VirtualMachine) -> str:
    """Return that a machine is being built or in the bin, '' for one that is in use."""
    if machine.status == Status.BUILDING:
        return _("The machine is still being built.")
    if machine.status == Status.BINNED:
        return _("The machine is in the bin; restore it first.")
    return ""


def _begin(
    actor: Any,
    machine: VirtualMachine,
    kind: str,
    title: str,
    *,
    begun_by: str = "",
    batch: uuid.UUID | None = None,
) -> Operation:
    return begin_operation(
        begun_by=begun_by,
        batch=batch,
        actor=actor,
        project=machine.project,
        spec=RequestSpec(kind=kind, sizes={}, pinned={"machine": str(machine.uuid), "name": machine.name}),
        subject=machine.topic,
        title=f"{title} {machine.name}",
        identifiers={
            "host": machine.host_id,
            "uuid": str(machine.uuid),
            "volumes": volumes_of(machine),
            "saved": machine.observed_state == Observed.SAVED,
            "on": kind == RESTORE,
        },
        lane=machine.host.scope,
    )


def volumes_of(machine: VirtualMachine) -> list[list[str]]:
    """Return [pool, volume] of every disk and, of a machine that the portal built, of the seed."""
    disks = list(machine.disks.select_related("pool__pool").order_by("target"))
    found = [[disk.pool.pool.name, disk.volume_name] for disk in disks]
    if disks and (seed := seeds.place_of(machine)):
        found.append([seed[0].pool.name, seed[1]])
    return found


def act(
    *, actor: Any, machine: VirtualMachine, verb: str, batch: uuid.UUID | None = None
) -> Operation:
    """Queue a power action. Raises Denied with the reason, and KeyError for a verb nobody defined."""
    chosen = VERBS[verb]
    return _begin_unless_forbidden(actor, machine, verb, chosen.label, batch)


def discard_saved(*, actor: Any, machine: VirtualMachine, confirm_name: str) -> Operation:
    """Delete what was saved of a machine, which is then as if it had lost its power. Raises Denied."""
    if confirm_name != machine.name:
        raise Denied(_("Type the machine's name exactly to discard what was saved."), field="confirm_name")
    return _begin_unless_forbidden(actor, machine, "discard", "Discard the saved memory of", None)


def bin_machine(
    *, actor: Any, machine: VirtualMachine, confirm_name: str, batch: uuid.UUID | None = None
) -> Operation:
    """Switch a machine off and put it into the bin for BIN_DAYS days. Raises Denied."""
    if confirm_name != machine.name:
        raise Denied(_("Type the machine's name exactly to delete it."))
    return _begin_unless_forbidden(actor, machine, "bin", "Delete", batch)


def begin_by_itself(machine: VirtualMachine, verb: str) -> Operation:
    """Queue `verb` on a machine, whose row the caller holds, as the scheduler. Raises Denied."""
    if reason := state_forbids(machine, verb) or being_cloned(machine):
        raise Denied(reason)
    title = VERBS[verb].label if verb in VERBS else "Delete"
    return _begin(machine.owner, machine, f"vm.{verb}", title, begun_by="scheduler")


def _begin_unless_forbidden(
    actor: Any, machine: VirtualMachine, verb: str, title: str, batch: uuid.UUID | None
) -> Operation:
    """Queue `vm.VERB` if it can be done to the machine as it is, not as a page read it. Raises Denied."""
    with transaction.atomic():
        return _begin(actor, usable(actor, machine, verb), f"vm.{verb}", title, batch=batch)


def usable(actor: Any, machine: VirtualMachine, verb: str) -> VirtualMachine:
    """Return the machine as it is now, locked, if `actor` can do `verb` to it. Raises Denied."""
    current = VirtualMachine.objects.select_for_update().filter(pk=machine.pk).first()
    if current is None:
        raise Denied(_("The machine is gone."))
    if reason := why_not(actor, current, verb):
        raise Denied(reason)
    if reason := being_cloned(current):
        raise Denied(reason)
    return current


def being_cloned(machine: VirtualMachine) -> str:
    """Return that a machine's disks are being copied, '' when they are not. Asks the database.

    A copy of a disk that is written meanwhile would be none. Who goes by it holds the machine's row.
    """
    working = Operation.objects.filter(lane=machine.host.scope, state__in=UNFINISHED)
    if working.filter(kind="vm.clone", identifiers__source=str(machine.uuid)).exists():
        return _("The machine is being cloned; wait until that is done.")
    return ""


def restore_machine(*, actor: Any, machine: VirtualMachine) -> Operation | None:
    """Take a machine out of the bin, off as it is; its share of the host and quota is taken again.

    Returns the operation that lets its host start it by itself as before, None where it did not. Raises
    Denied when there is no room any more.
    """
    if reason := right_lacks(actor, machine):
        raise Denied(reason)
    with transaction.atomic():
        current = _in_the_bin(machine, _("This machine is not in the bin."))
        if reason := why_not_restored(current):
            raise Denied(reason)
        current.status, current.bin_until = Status.ACTIVE, None
        # One whose lease is over gets its days of grace anew, or the scheduler would bin it at once.
        current.lease_bin_at = None
        started, current.binned_autostart = current.binned_autostart, False
        current.save(update_fields=["status", "bin_until", "lease_bin_at", "binned_autostart"])
        ledger.take_again(machine.built_by)
        audit.record(actor=actor, verb="machine.restored", target=machine)
        publish(machine.topic)
        return _begin(actor, current, RESTORE, "Start with its host again:") if started else None


def purge_machine(*, actor: Any, machine: VirtualMachine, confirm_name: str) -> Operation:
    """Delete a machine in the bin for good, now. Raises Denied."""
    if confirm_name != machine.name:
        raise Denied(_("Type the machine's name exactly to delete it for good."))
    if reason := right_lacks(actor, machine):
        raise Denied(reason)
    with transaction.atomic():
        current = _in_the_bin(machine, _("Only a machine in the bin can be deleted for good."))
        if reason := being_cloned(current):
            raise Denied(reason)
        return _begin(actor, current, "vm.purge", "Delete for good")


def _in_the_bin(machine: VirtualMachine, otherwise: str, **wanted: Any) -> VirtualMachine:
    """Return the machine as it is now, locked: who restores it and who deletes it take turns.

    Raises Denied, saying `otherwise`, when it is not in the bin or not as `wanted`.
    """
    binned = VirtualMachine.objects.select_for_update().filter(status=Status.BINNED)
    found = binned.filter(pk=machine.pk, **wanted).first()
    if found is None:
        raise Denied(otherwise)
    return found


def being_purged(machine: VirtualMachine) -> str:
    """Return that a machine in the bin is on its way out, '' when it is not. Asks the database."""
    if Operation.objects.filter(subject=machine.topic, kind="vm.purge", state__in=UNFINISHED).exists():
        return _("The machine is being deleted for good; it cannot be restored any more.")
    return ""


def why_not_purged(machine: VirtualMachine) -> str:
    """Return why a machine in the bin cannot be deleted for good now, '' when it can. Asks the database."""
    return being_purged(machine) or being_cloned(machine)


def why_not_restored(machine: VirtualMachine) -> str:
    """Return why a machine in the bin cannot be had back any more, '' while it can. Asks the database."""
    if reason := being_purged(machine):
        return reason
    lost = StepRecord.objects.filter(
        operation__subject=machine.topic, operation__kind="vm.purge", name__in=_LOSING
    )
    if lost.exists():
        return _("Part of the machine is deleted for good already; it cannot be restored, only deleted.")
    return ""


def settle_bin(operation: Operation, state: State) -> None:
    """Put the machine into the bin: it keeps its disk and gives everything else back."""
    machine = VirtualMachine.objects.filter(uuid=operation.identifiers["uuid"]).first()
    if machine is None or state != State.SUCCEEDED:
        return
    machine.status = Status.BINNED
    machine.bin_until = timezone.now() + timedelta(days=BIN_DAYS)
    machine.save(update_fields=["status", "bin_until"])
    ledger.give_back(machine.built_by, keep={Counter.Resource.DISK})
    publish(machine.topic)


def settle_purge(operation: Operation, state: State) -> None:
    """Forget the machine and give its disk back."""
    machine = VirtualMachine.objects.filter(uuid=operation.identifiers["uuid"]).first()
    if machine is not None and state == State.SUCCEEDED:
        # Until the watcher's next list it would be a domain that nobody manages.
        Definition.objects.filter(host=machine.host_id, uuid=machine.uuid).delete()
        forget(machine)


def forget(machine: VirtualMachine) -> None:
    """Take a machine and its cards out of the portal, and give back what it took. Joins the transaction."""
    ledger.give_back(machine.built_by)
    Port.objects.filter(domain_uuid=machine.uuid).delete()
    publish(machine.topic)
    machine.delete()


def give_up_machines(actor: Any, host: Host) -> None:
    """Forget every machine of a host that is lost, those in the bin too, and tell the owners.

    Joins the caller's transaction. The host is not asked, and nothing works on its machines.
    """
    lost = VirtualMachine.objects.select_for_update(of=("self",)).filter(host=host)
    for machine in lost.select_related("owner", "built_by").order_by("pk"):
        audit.record(actor=actor, verb="machine.given_up", target=machine, before={"host": host.name})
        text = _("%(machine)s is lost with its host %(host)s.") % {"machine": machine.name, "host": host.name}
        link = reverse("operations:detail", args=[machine.built_by_id])
        notify(people=[machine.owner], kind=ENDED, text=text, link=link, by=actor)
        forget(machine)


def purge_what_is_due() -> int:
    """Queue the end of every machine whose time in the bin is over; return how many. Idempotent.

    One that failed is tried again after a day, and those that wait for a host keep nobody else.
    """
    now = timezone.now()
    over = {"bin_until__lt": now}
    tried = Operation.objects.filter(
        Q(state__in=UNFINISHED) | Q(finished_at__gt=now - PURGE_AGAIN),
        kind="vm.purge",
        subject=Concat(Value("vms.machine:"), Cast(OuterRef("pk"), CharField())),
    )
    due = VirtualMachine.objects.filter(~Exists(tried), status=Status.BINNED, **over)
    begun = 0
    for machine in due.select_related("owner").order_by("bin_until")[:100]:
        # Somebody may restore or delete it in this moment: the others are due all the same.
        with suppress(Denied), transaction.atomic():
            current = _in_the_bin(machine, _("It was restored, or binned anew."), **over)
            if not why_not_purged(current):
                _begin(machine.owner, current, "vm.purge", "Delete for good", begun_by="scheduler")
                begun += 1
    return begun


#: Of the verbs that are more than one quick call.
_STEPS = {"start": Start(), "save": Save()}

KINDS = (
    *(
        # Nobody wants a machine forced off by a click of yesterday, when its host comes back today.
        Kind(
            f"vm.{name}",
            verb.label,
            (_STEPS.get(name) or CallVerb(name, verb.label, verb.call),),
            page=page_of_machine,
            waits_for_host=False,
            slow=name == "save",
        )
        for name, verb in VERBS.items()
    ),
    Kind(
        "vm.discard",
        "Discard saved memory",
        (CallVerb("discard", "Delete what was saved", "discard_saved"),),
        page=page_of_machine,
        waits_for_host=False,
    ),
    Kind("vm.bin", "Delete a machine", (StayOff(), ForceOff()), settle=settle_bin, waits_for_host=False),
    # One whose host does not answer comes back all the same: its host is told once it is there.
    Kind(RESTORE, "Start with its host as before", (Autostart(),), page=page_of_machine),
    Kind("vm.purge", "Delete for good", (ForceOff(), Undefine(), DeleteVolumes()), settle=settle_purge),
)
