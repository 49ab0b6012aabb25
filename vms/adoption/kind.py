"""How a domain becomes a machine: the look at its host, and what settles it. Not for: who may do it."""

from abc import abstractmethod
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
from portal.operations.states import UNFINISHED, State
from vms import noted, power
from vms.adoption import found, taking
from vms.building import page_of_machine
from vms.models import Disk, Status, VirtualMachine
from vms.steps import DomainStep


class LookAtIt(DomainStep):
    """Read what a domain is, and write what of it the portal counts."""

    name, title = "look", "Read what it is on its host"
    #: What is told of a definition that can be no machine, and of what there is no room for.
    unfit, no_room = "not_adoptable", "no_room_to_adopt"

    def do(self, context: StepContext) -> None:
        seen = self._seen(context)
        # Kept with the step, in no reader's language.
        with translation.override("en"):
            if reason := found.cannot_be(seen.persistent, seen.running):
                raise StepFailed(self.unfit, reason)
            self.check_seen(context, seen)
            machines = VirtualMachine.objects.select_related("host", "owner", "project", "built_by")
            machine = machines.get(uuid=context.identifiers["uuid"])
            volumes = taking.volumes_of(
                machine,
                seen.persistent or {},
                self._list(context),
                sharing.stacked(partial(self.call, context)),
            )
            try:
                self.write(context, machine, seen, volumes)
            except Denied as denied:
                raise StepFailed(self.no_room, denied.reason) from denied
            except IntegrityError as error:
                # Somebody took one of its volumes or addresses at this moment; the next look sees that.
                raise StepFailed("already_exists", str(error), retryable=True) from error

    def check_seen(self, context: StepContext, seen: DefinitionSeen) -> None:
        """Raise StepFailed unless the definition is one that may be taken in."""

    @abstractmethod
    def write(
        self,
        context: StepContext,
        machine: VirtualMachine,
        seen: DefinitionSeen,
        volumes: Sequence[taking.Volume],
    ) -> None:
        """Write what the machine is and count it. Idempotent. Raises Denied, StepFailed."""

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
        """Return what lists the volumes of a pool; none where the host has no such pool any more.

        One that has disks of the machine is needed: without it they would seem to be gone.
        """
        own = Disk.objects.filter(machine__uuid=context.identifiers["uuid"])
        needed = set(own.values_list("pool__pool__name", flat=True))

        def volumes(pool: str) -> Sequence[Any]:
            try:
                return list(self.call(context, "list_volumes", pool))
            except StepFailed as failure:
                if failure.code != "pool_not_found" or pool in needed:
                    raise
                return []

        return volumes


class TakeIn(LookAtIt):
    """The machine that is being adopted."""

    def write(
        self,
        context: StepContext,
        machine: VirtualMachine,
        seen: DefinitionSeen,
        volumes: Sequence[taking.Volume],
    ) -> None:
        taking.take_in(machine, seen, volumes, context.check)


class TakeAnew(LookAtIt):
    """A machine that was adopted, as somebody made it since: exactly as it was seen."""

    unfit, no_room = "not_taken_anew", "no_room_anew"

    def check_seen(self, context: StepContext, seen: DefinitionSeen) -> None:
        names = context.identifiers
        sizes = found.sizes_of(seen.persistent, seen.running)
        told = sizes.as_dict() if sizes else {}
        if seen.digest != names["digest"] or told != names["sizes"]:
            raise StepFailed("definition_changed", "it is not as it was seen")

    def write(
        self,
        context: StepContext,
        machine: VirtualMachine,
        seen: DefinitionSeen,
        volumes: Sequence[taking.Volume],
    ) -> None:
        # A machine has one that is not finished: this.
        operation = Operation.objects.get(subject=machine.topic, state__in=UNFINISHED)
        taking.take_anew(operation, machine, seen, volumes, context.check)


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
LOOK_AGAIN = Kind(
    "vm.look_again", "Look again at a machine", (TakeAnew(),), page=page_of_machine, waits_for_host=False
)
