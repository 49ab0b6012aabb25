"""One thing done to many machines: what each says to it, and an operation each. Not for: carrying out."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.operations.models import Operation
from vms import power, suspending
from vms.models import VirtualMachine

#: What can be done to many, with what people call it. Pausing many for good is nobody's wish.
VERBS: Mapping[str, str] = {
    **{name: power.VERBS[name].label for name in ("start", "shutdown", "reboot", "save", "destroy")},
    "delete": "Delete",
}
#: What loses something: the number of machines is typed first.
LOSING = frozenset({"destroy", "delete"})
MOST = 200


@dataclass(frozen=True)
class Refusal:
    """A machine that is left alone, and why."""

    machine: VirtualMachine
    reason: str


@dataclass(frozen=True)
class Begun:
    """What was begun together, and what was left alone."""

    batch: uuid.UUID
    count: int
    refused: Sequence[Refusal]


def sort_out(
    actor: Any, machines: Sequence[VirtualMachine], verb: str
) -> tuple[list[VirtualMachine], list[Refusal]]:
    """Return those machines to which `actor` can do `verb` now, and the others with the reason."""
    state = "bin" if verb == "delete" else verb
    may = set(VirtualMachine.objects.restrict(actor, "use").filter(pk__in=[vm.pk for vm in machines]))
    unlike = suspending.obstacles(machines) if verb == "save" else {}
    able, refused = [], []
    for machine in machines:
        reason = power.state_forbids(machine, state) if machine in may else power.right_lacks(actor, machine)
        reason = reason or unlike.get(machine.pk, "")
        if reason:
            refused.append(Refusal(machine, reason))
        else:
            able.append(machine)
    return able, refused


def begin(
    *, actor: Any, machines: Sequence[VirtualMachine], verb: str, token: uuid.UUID, confirm_count: str = ""
) -> Begun:
    """Begin `verb` on each of `machines` to which `actor` can do it; each is asked for itself.

    Idempotent by `token`, which becomes the batch: a repeat, as after a web process that died, begins what
    the first did not come to or was refused. Raises Denied for a count that does not confirm what loses
    something, and when nothing could be begun; KeyError for a verb nobody defined.
    """
    VERBS[verb]
    earlier = Operation.objects.filter(batch=token)
    if earlier.exclude(requester=actor.pk).exists():
        raise Denied(_("This form was already used for something else; open it again."))
    if len(machines) > MOST:
        raise Denied(_("Choose at most %(most)d machines at once.") % {"most": MOST})
    if verb in LOSING and confirm_count.strip() != str(len(machines)):
        words = _("Type the number of machines, %(count)d, exactly. Nothing was done.")
        raise Denied(words % {"count": len(machines)}, field="confirm_count")
    begun, refused = set(earlier.values_list("subject", flat=True)), []
    for machine in machines:
        if machine.topic in begun:
            continue
        try:
            _begin(actor, machine, verb, token)
        except Denied as denied:
            # The other half of a doubled click may have begun it a moment ago.
            if not earlier.filter(subject=machine.topic).exists():
                refused.append(Refusal(machine, denied.reason))
                continue
        begun.add(machine.topic)
    if not begun:
        raise Denied(_("Nothing could be done.") + " " + (refused[0].reason if refused else ""))
    return Begun(token, len(begun), refused)


def _begin(actor: Any, machine: VirtualMachine, verb: str, batch: uuid.UUID) -> Operation:
    if verb == "delete":
        return power.bin_machine(actor=actor, machine=machine, confirm_name=machine.name, batch=batch)
    return power.act(actor=actor, machine=machine, verb=verb, batch=batch)
