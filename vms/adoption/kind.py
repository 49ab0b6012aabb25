"""How a domain becomes a machine: the look at its host, and what settles it. Not for: who may do it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from django.db import IntegrityError
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy

from portal.core.errors import Denied
from portal.drivers.errors import InvalidSpec
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import DomainDefinition
from portal.hosts import sharing
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.states import State
from vms import noted, power
from vms.adoption import found, taking
from vms.building import page_of_machine
from vms.models import Status, VirtualMachine
from vms.steps import DomainStep


class TakeIn(DomainStep):
    name, title = "look", "Read what it is on its host"

    def do(self, context: StepContext) -> None:
        seen = self._seen(context)
        # Kept with the step, in no reader's language.
        with translation.override("en"):
            if reason := found.cannot_be(seen.persistent, seen.running):
                raise StepFailed("not_adoptable", reason)
            machine = VirtualMachine.objects.select_related("host").get(uuid=context.identifiers["uuid"])
            volumes = taking.volumes_of(
                machine,
                seen.persistent or {},
                self._list(context),
                sharing.stacked(partial(self.call, context)),
            )
            try:
                taking.take_in(machine, seen, volumes, context.check)
            except Denied as denied:
                raise StepFailed("no_room_to_adopt", denied.reason) from denied
            except IntegrityError as error:
                # Somebody took one of its volumes or addresses at this moment; the next look sees that.
                raise StepFailed("already_exists", str(error), retryable=True) from error

    def _seen(self, context: StepContext) -> DefinitionSeen:
        """Read the definition, and note it for the pages. Raises StepFailed."""
        names, began = context.identifiers, timezone.now()
        definition: DomainDefinition = self.call(context, "definition", names["uuid"])
        try:
            seen = DefinitionSeen.of(definition)
        except InvalidSpec as error:
            raise StepFailed(error.code, error.raw) from error
        noted.note(names["host"], names["uuid"], definition, began)
        return seen

    def _list(self, context: StepContext) -> taking.Lister:
        """Return what lists the volumes of a pool; none where the host has no such pool any more."""

        def volumes(pool: str) -> Sequence[Any]:
            try:
                return list(self.call(context, "list_volumes", pool))
            except StepFailed as failure:
                if failure.code != "pool_not_found":
                    raise
                return []

        return volumes


def settle(operation: Operation, state: State) -> None:
    """Make the machine active, or forget it: then it is found on its host as before."""
    machine = VirtualMachine.objects.filter(built_by=operation).first()
    if machine is None:
        return
    if state == State.SUCCEEDED:
        machine.status = Status.ACTIVE
        machine.save(update_fields=["status"])
        publish(machine.topic)
        return
    power.forget(machine)


ADOPT = Kind(
    "vm.adopt",
    "Adopt a machine",
    (TakeIn(),),
    settle=settle,
    waits_for_host=False,
    announce=gettext_lazy("%(name)s is adopted."),
    page=page_of_machine,
)
