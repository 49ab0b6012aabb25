"""Let a machine start with its host, or not. Not for: starting it now, which is a verb of power."""

from typing import Any

from django.db import transaction
from django.utils import timezone

from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED
from vms import noted, power
from vms.building import page_of_machine
from vms.models import VirtualMachine
from vms.steps import DomainStep

NAME = "vm.autostart"


class Autostart(DomainStep):
    """Tell the host, and note what it says then; the watcher would see it some rounds later."""

    name, title = "autostart", "Tell the host whether it starts the machine"

    def do(self, context: StepContext) -> None:
        names = context.identifiers
        self.call(context, "autostart_domain", names["uuid"], names["on"])
        began = timezone.now()
        noted.note(names["host"], names["uuid"], self.call(context, "definition", names["uuid"]), began)


def set_autostart(*, actor: Any, machine: VirtualMachine, on: bool) -> Operation | None:
    """Queue that a machine starts with its host, or does so no more. Raises Denied.

    Returns None when it was seen to be so already.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "autostart" if on else "no_autostart")
        found = noted.of(current)
        # What is on its way may say otherwise: to begin is refused then.
        coming = Operation.objects.filter(subject=current.topic, kind=NAME, state__in=UNFINISHED)
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
