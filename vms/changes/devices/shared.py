"""What changes of a machine's devices share: beginning, doing, knowing. Not for: what each changes."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.operations.models import Operation
from portal.operations.registry import StepContext, StepFailed
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from vms import noted
from vms.models import Definition, VirtualMachine
from vms.steps import DomainStep

#: What tells that there is nothing to take back.
_GONE = ("domain_not_found", "device_not_found")


class DeviceStep(DomainStep):
    """A step that changes a device of the machine."""

    def look(self, context: StepContext) -> None:
        """Note what the machine is defined as now: its pages need not wait for the watcher's next look."""
        names, began = context.identifiers, timezone.now()
        try:
            made = self.call(context, "definition", names["uuid"])
        except StepFailed:  # what was done is done, and the watcher looks anyway
            return
        noted.note(names["host"], names["uuid"], made, began)

    def call_if_there(self, context: StepContext, verb: str, *args: Any) -> None:
        """Call the driver's `verb`; of what is gone there is nothing to change. Raises StepFailed."""
        try:
            self.call(context, verb, context.identifiers["uuid"], *args)
        except StepFailed as failure:
            if failure.code not in _GONE:
                raise


def begin(
    actor: Any,
    machine: VirtualMachine,
    kind: str,
    title: str,
    *,
    told: Sequence[tuple[str, str, str]],
    names: Mapping[str, Any],
    **pinned: Any,
) -> Operation:
    """Queue a change of a machine; the caller has checked the verb, in this transaction. Raises Denied.

    `told` is what people read of it, in English: what is changed, before and after. `names` are what its
    steps need beside the machine's own.
    """
    frozen = {"machine": str(machine.uuid), "name": machine.name, "settings": [list(one) for one in told]}
    return begin_operation(
        actor=actor,
        project=machine.project,
        spec=RequestSpec(kind=kind, sizes={}, pinned={**frozen, **pinned}),
        subject=machine.topic,
        title=title,
        identifiers={"host": machine.host_id, "uuid": str(machine.uuid), **names},
        lane=machine.host.scope,
    )


def devices(defined: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """Return the devices of a definition that are called `name` there, in its order."""
    return list((defined or {}).get("devices", {}).get(name, ()))


def known(machine: VirtualMachine) -> Definition:
    """Return what the watcher saw of a machine's definition. Raises Denied before it saw any."""
    found = noted.of(machine)
    if found is None or found.observed_persistent is None:
        raise Denied(_("The host has not told this machine's settings yet; try again in a moment."))
    return found
