"""Live pieces of the machines' pages."""

from collections.abc import Sequence
from typing import Any

from django.template.loader import render_to_string

from portal.live.panels import Panel, register, row_keys
from vms import noted, pending, power, reach, suspending
from vms.changes import memory
from vms.models import Definition, VirtualMachine

#: Buttons that stand there in every state.
_ALWAYS = frozenset({"start", "shutdown", "destroy"})


def visible(user: Any) -> Any:
    """Return the machines that `user` may see, with what their rows show."""
    return VirtualMachine.objects.restrict(user, "view").select_related("host", "owner", "project")


def actions_for(machine: VirtualMachine, stranger: str, seen: Definition | None) -> list[dict[str, str]]:
    """Return the power buttons of `machine`: those that fit its state, with why one is disabled.

    `stranger` is what `power.right_lacks` says, `seen` what `noted.of` returns.
    """
    shown = []
    for name, verb in power.VERBS.items():
        if name == "save" and not power.can_save(machine.host):
            continue
        if machine.observed_state in verb.states or name in _ALWAYS:
            denied = stranger or power.state_forbids(machine, name)
            if name == "save" and not denied:
                denied = suspending.obstacle(machine, seen)
            shown.append({"name": name, "label": verb.label, "icon": verb.icon, "denied": denied})
    return shown


def _rows(user: Any, ids: Sequence[str]) -> dict[str, str]:
    found = visible(user).filter(pk__in=row_keys(ids))
    return {str(vm.pk): render_to_string("vms/row.html", {"vm": vm}) for vm in found}


def _states(user: Any, ids: Sequence[str]) -> dict[str, str]:
    found = visible(user).filter(pk__in=row_keys(ids))
    return {str(vm.pk): render_to_string("vms/state.html", {"vm": vm}) for vm in found}


def _heads(user: Any, ids: Sequence[str]) -> dict[str, str]:
    shown: dict[str, str] = {}
    found = list(visible(user).filter(pk__in=row_keys(ids)))
    ports, memories = reach.ports_of(found), memory.sights(found)
    for vm in found:
        seen = noted.of(vm)
        buttons = actions_for(vm, power.right_lacks(user, vm), seen)
        context = {
            "vm": vm,
            "power_buttons": buttons,
            "ways": reach.ways(vm, ports[vm.uuid]),
            "memory": memories[vm.pk],
            "pending": pending.look(vm, seen),
            "live": True,
        }
        shown[str(vm.pk)] = render_to_string("vms/status.html", context)
    return shown


def _exports(user: Any, ids: Sequence[str]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for vm in visible(user).filter(pk__in=row_keys(ids)):
        context = {"vm": vm, "no_export": power.why_not(user, vm, "export")}
        shown[str(vm.pk)] = render_to_string("vms/export_button.html", context)
    return shown


def _topics(identity: str) -> list[str]:
    return [f"vms.machine:{identity}"]


def register_panels() -> None:
    """Make the panels known to the live socket."""
    register(Panel("vms.row", _rows, _topics))
    register(Panel("vms.state", _states, _topics))
    register(Panel("vms.status", _heads, _topics))
    register(Panel("vms.export", _exports, _topics))
