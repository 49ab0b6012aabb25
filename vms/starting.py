"""Let a machine start with its host, or not. Not for: starting it now, which is a verb of power."""

from typing import Any

from django.db import transaction

from portal.operations.models import Operation
from portal.operations.registry import Kind
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED
from vms import noted, power
from vms.building import page_of_machine
from vms.models import VirtualMachine
from vms.power_steps import Autostart

NAME = "vm.autostart"
#: The kinds that tell a host whether it starts a machine that is in use.
_SAYING = (NAME, power.RESTORE)


def set_autostart(*, actor: Any, machine: VirtualMachine, on: bool) -> Operation | None:
    """Queue that a machine starts with its host, or does so no more. Raises Denied.

    Returns None when it was seen to be so already.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "autostart" if on else "no_autostart")
        found = noted.of(current)
        # What is on its way may say otherwise: to begin is refused then.
        coming = Operation.objects.filter(subject=current.topic, kind__in=_SAYING, state__in=UNFINISHED)
        if found is not None and found.observed_autostart == on and not coming.exists():
            return None
        title = f"Start {current.name} with its host" if on else f"Do not start {current.name} with its host"
        pinned = {"machine": str(current.uuid), "name": current.name, "on": on}
        return begin_operation(
            actor=actor,
            project=current.project,
            spec=RequestSpec(kind=NAME, sizes={}, pinned=pinned),
            subject=current.topic,
            title=title,
            identifiers={"host": current.host_id, "uuid": str(current.uuid), "on": on},
            lane=current.host.scope,
        )


#: Nobody wants what was said last week when the host comes back today.
AUTOSTART = Kind(
    NAME, "Start with its host or not", (Autostart(),), page=page_of_machine, waits_for_host=False
)
