"""Change what a machine is set to. Not for: which settings there are, nor its size, which takes quota."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.drivers.editing import Edit
from portal.drivers.errors import InvalidSpec
from portal.drivers.inspection import agrees, outcome, reverse
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import DomainDefinition
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from vms import hotplug, noted, power, settings
from vms.building import page_of_machine
from vms.models import Definition, VirtualMachine
from vms.steps import DomainStep

#: What a call says of a definition that is not the one that was seen: a place may be none of its.
_NOT_AS_SEEN = ("invalid_spec", "definition_changed")


class Clash(Denied):
    """Somebody changed the machine's settings since they were seen."""


class Redefine(DomainStep):
    """Make a change of the definition that was seen, for the machine's next start."""

    name, title = "redefine", "Change the machine's definition"

    def do(self, context: StepContext) -> str | None:
        self._check_runs(context)
        try:
            self._redefine(context, _change(context), context.identifiers["digest"])
        except StepFailed as failure:
            if failure.code not in _NOT_AS_SEEN or not self._found_made(context):
                raise
        return None

    def _check_runs(self, context: StepContext) -> None:
        """Refuse what was to be as in what ran, when the machine was started anew since."""
        names = context.identifiers
        if "runs" not in names:
            return
        seen = DefinitionSeen.of(self.call(context, "definition", names["uuid"]))
        if seen.running is None or settings.values(seen.running) != names["runs"]:
            raise StepFailed("definition_changed", "what runs is not what was seen")

    def _found_made(self, context: StepContext) -> bool:
        """Tell, and note, whether the definition reads as it will: an earlier call may have made it so."""
        names, began = context.identifiers, timezone.now()
        if "after" not in names:
            return False
        now: DomainDefinition = self.call(context, "definition", names["uuid"])
        if made := agrees(DefinitionSeen.of(now).persistent, names["after"]):
            noted.note(names["host"], names["uuid"], now, began)
        return made

    def undo(self, context: StepContext) -> None:
        """Set it back if it was set: a call that took too long may have been heeded all the same."""
        names = context.identifiers
        try:
            now: DomainDefinition = self.call(context, "definition", names["uuid"])
        except StepFailed as failure:
            if failure.code != "domain_not_found":
                raise
            return
        # What somebody else made of it meanwhile is not this operation's to take back.
        if now.digest != names["digest"] and _is_so(now, _change(context)):
            self._redefine(context, names["back"], now.digest)

    def _redefine(self, context: StepContext, change: Mapping[str, Any], digest: str) -> None:
        names, began = context.identifiers, timezone.now()
        made = self.call(context, "redefine", names["uuid"], change, digest)
        # The page need not wait for the watcher's next look.
        noted.note(names["host"], names["uuid"], made, began)


def _change(context: StepContext) -> Mapping[str, Any]:
    """Return the change: of a request that can be lowered it is fixed when it is placed."""
    change: Mapping[str, Any] = context.identifiers.get("change") or context.spec["pinned"]["change"]
    return change


def _is_so(definition: DomainDefinition, change: Mapping[str, Any]) -> bool:
    """Tell whether a definition is as `change` would make it."""
    try:
        return bool(definition.persistent) and Edit(definition.persistent, change).is_done
    except InvalidSpec:
        return False


def edit_machine(
    *,
    actor: Any,
    machine: VirtualMachine,
    values: Mapping[str, str],
    digest: str,
    seen: Mapping[str, str] | None = None,
) -> Operation | None:
    """Queue a change of a machine's settings to `values`, which names those that may change.

    `digest` tells the definition that was seen, and `seen` all settings of that. Returns None when all of it
    is so already. Raises Clash when it is another by now, with other settings (at a start the hypervisor may
    write the same otherwise), and Denied, with the setting as its field, for a value that it cannot have.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "edit")
        found = noted.of(current)
        if found is None or found.observed_persistent is None:
            raise Denied(_("The host has not told this machine's settings yet; try again in a moment."))
        defined = found.observed_persistent
        change = settings.patch_of(settings.ground_of(defined, current.host.readiness), values)
        if not change:
            return None
        before = settings.values(defined)
        if found.observed_digest != digest and (seen is None or dict(seen) != before):
            raise Clash(_("Somebody changed this machine since you opened its settings; look again."))
        # Kept with the request, in no reader's language.
        with translation.override("en"):
            changed = settings.differences(before, {**before, **values})
        told = [(one.label, one.before, one.after) for one in changed]
        plugs = hotplug.plugs_of(found, outcome(defined, change))
        return begin(actor=actor, machine=current, found=found, change=change, told=told, plugs=plugs)


def begin(
    *,
    actor: Any,
    machine: VirtualMachine,
    found: Definition,
    change: Mapping[str, Any],
    told: Sequence[tuple[str, str, str]],
    plugs: Sequence[hotplug.Plug] = (),
    as_it_runs: bool = False,
) -> Operation:
    """Queue `change` of the definition `found`; the caller has checked the verb, in this transaction.

    `told` is what people read of it, in English: what is changed, before and after. `plugs` come to what runs
    at once and go. With `as_it_runs`, it is made only while the machine runs with the settings that `found`
    tells. Raises Denied.
    """
    runs = {"runs": settings.values(found.observed_running or {})} if as_it_runs else {}
    pinned = {
        "machine": str(machine.uuid),
        "name": machine.name,
        "change": dict(change),
        "settings": [list(one) for one in told],
    }
    return begin_operation(
        actor=actor,
        project=machine.project,
        spec=RequestSpec(kind=EDIT.name, sizes={}, pinned=pinned),
        subject=machine.topic,
        title=f"Change settings of {machine.name}",
        identifiers={
            "host": machine.host_id,
            "uuid": str(machine.uuid),
            "digest": found.observed_digest,
            "back": reverse(found.observed_persistent, change),
            "after": outcome(found.observed_persistent, change),
            "plugs": hotplug.noted(plugs),
            **runs,
        },
        lane=machine.host.scope,
    )


#: Nobody wants a change of last week made when its host comes back today.
EDIT = Kind(
    "vm.edit",
    "Change settings",
    (Redefine(), hotplug.PlugDevices()),
    page=page_of_machine,
    waits_for_host=False,
)
