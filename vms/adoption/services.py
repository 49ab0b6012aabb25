"""Adopt domains that somebody made elsewhere, and release them again. Not for: finding them (`found`).

Nothing is ever changed on the host: adopting reads the definition there, and releasing asks nobody.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.accounts.backends import may
from portal.accounts.models import Project
from portal.audit import services as audit
from portal.core.errors import Denied
from portal.drivers.errors import InvalidSpec
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import DomainDefinition
from portal.hosts.limits import shift_foreign
from portal.hosts.models import Health, Host
from portal.hosts.services import check_estate, locked
from portal.live.publish import publish
from portal.operations import ledger
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED, State
from vms import cloud, noted, power
from vms.adoption import found, taking
from vms.adoption.found import Sizes
from vms.building import page_of_machine
from vms.models import Definition, Observed, Status, VirtualMachine
from vms.services import DAY, name_is_taken
from vms.steps import DomainStep

#: Days; what was made elsewhere had no lease at all, and so it may be long.
LONGEST_LEASE = 3650
_ON = (Observed.RUNNING, Observed.PAUSED, Observed.SHUTTING_DOWN)


class TakeIn(DomainStep):
    name, title = "look", "Read what it is on its host"

    def do(self, context: StepContext) -> None:
        seen = self._seen(context)
        # Kept with the step, in no reader's language.
        with translation.override("en"):
            if reason := found.cannot_be(seen.persistent, seen.running):
                raise StepFailed("not_adoptable", reason)
            machine = VirtualMachine.objects.select_related("host").get(uuid=context.identifiers["uuid"])
            volumes = taking.volumes_of(machine, seen.persistent or {}, self._list(context))
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


def adopt_machine(
    *, actor: Any, definition: Definition, project: Project, owner: Any, name: str, lease_days: int
) -> Operation:
    """Make the domain of `definition` a machine of `project`, called `name`, and queue the look at its host.

    It takes of the quotas of project, member and owner and of its host at once; what its disks take, which
    only the host can tell, is taken by the operation. Raises Denied, with the field that stands in the way.
    """
    check_estate(actor, "operate", _("adopt machines"))
    _check(project, owner, name, lease_days)
    try:
        with transaction.atomic():
            # First, as for whoever counts what is on a host: two who adopt there take turns.
            host = locked(definition.host)
            current = found.strangers(Definition.objects.all()).filter(pk=definition.pk).first()
            if current is None:
                raise Denied(_("The machine is gone from its host, or somebody else adopted it."))
            if reason := found.why_not(current) or _host_forbids(host):
                raise Denied(reason)
            return _begin(actor, host, current, project, owner, name, lease_days)
    except IntegrityError as error:
        raise Denied(_("Somebody took this name, or this machine, at this moment; look again.")) from error


def _host_forbids(host: Host) -> str:
    return "" if host.observed_health == Health.UP else _("The host does not answer.")


def _check(project: Project, owner: Any, name: str, lease_days: int) -> None:
    if not cloud.HOSTNAME.fullmatch(name):
        words = _("A name has 1 to 63 small letters, digits and hyphens, and no hyphen at either end.")
        raise Denied(words, field="name")
    if name_is_taken(name):
        raise Denied(_("The name %(name)s is taken; choose another.") % {"name": name}, field="name")
    if not 1 <= lease_days <= LONGEST_LEASE:
        most = {"most": LONGEST_LEASE}
        raise Denied(_("The lease is 1 to %(most)d days.") % most, field="lease_days")
    if not may(owner, "use", project):
        who = {"who": owner, "project": project}
        words = _("%(who)s could not use it: that needs a role in %(project)s, as requester, say.")
        raise Denied(words % who, field="owner")


def _begin(
    actor: Any, host: Host, current: Any, project: Project, owner: Any, name: str, lease_days: int
) -> Operation:
    persistent, running = current.observed_persistent, current.observed_running
    sizes = found.sizes_of(persistent, running) or Sizes(0, 0)
    operation = begin_operation(
        actor=actor,
        project=project,
        spec=RequestSpec(
            kind=ADOPT.name,
            sizes={**sizes.as_dict(), "lease": lease_days * DAY},
            pinned={
                "name": name,
                "machine": str(current.uuid),
                "domain": current.observed_name,
                "host": host.name,
                "owner": str(owner),
            },
        ),
        # Until there is a machine.
        subject=f"vms.domain:{current.uuid}",
        title=f"Adopt {name}",
        identifiers={"host": host.pk, "uuid": str(current.uuid), "domain": current.observed_name},
        lane=host.scope,
    )
    amounts = taking.amounts(owner, project, host, sizes, {})
    ledger.lock_ahead(operation, amounts)
    runs = found.running_sizes(running)
    shift_foreign(host, -runs.vcpus, -runs.memory)
    ledger.hold(operation, amounts)
    machine = VirtualMachine.objects.create(
        name=name,
        uuid=current.uuid,
        domain_name=current.observed_name,
        adopted=True,
        project=project,
        owner=owner,
        host=host,
        built_by=operation,
        vcpus=sizes.vcpus,
        memory=sizes.memory,
        accelerator=persistent["type"],
        devices=found.devices_of(persistent),
        lease_until=timezone.now() + timedelta(days=lease_days),
    )
    operation.subject = machine.topic
    operation.save(update_fields=["subject"])
    return operation


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


def why_not_released(machine: VirtualMachine) -> str:
    """Return why nobody can release `machine` now, '' when it can be. Asks the database."""
    if not machine.adopted:
        return _("The portal itself built this machine; it can be deleted, not released.")
    if Operation.objects.filter(subject=machine.topic, state__in=UNFINISHED).exists():
        return _("Another change to this machine is not finished yet; wait for it.")
    return ""


def release_machine(*, actor: Any, machine: VirtualMachine, confirm_name: str) -> None:
    """Forget an adopted machine and give back what it took; its host is not asked, and all there stays.

    It is found on its host again. Raises Denied.
    """
    check_estate(actor, "operate", _("release machines"))
    if confirm_name != machine.name:
        raise Denied(_("Type the machine's name exactly to release it."))
    with transaction.atomic():
        host = locked(machine.host)
        current = VirtualMachine.objects.select_for_update().filter(pk=machine.pk).first()
        if current is None:
            raise Denied(_("The machine is gone."))
        if reason := why_not_released(current):
            raise Denied(reason)
        audit.record(actor=actor, verb="machine.released", target=current, before=_told(current, host))
        power.forget(current)
        # A domain in the bin is off, and takes nothing of the host any more.
        if current.status == Status.ACTIVE and current.observed_state in _ON:
            shift_foreign(host, current.vcpus, current.memory)


def _told(machine: VirtualMachine, host: Host) -> dict[str, Any]:
    return {"host": host.name, "uuid": str(machine.uuid), "domain": machine.domain_name}


def lost_with(machine: VirtualMachine) -> str:
    """Return what goes and what stays when an adopted machine is deleted for good, in sentences."""
    disks = machine.disks.select_related("pool__pool").order_by("target")
    gone = ", ".join(f"{disk.pool.pool.name}/{disk.volume_name}" for disk in disks)
    kept = ", ".join(found.left_behind(machine))
    words = _("Its definition on the host is lost, and none of its disks.")
    if gone:
        words = _("Its definition on the host and these disks are lost: %(disks)s.") % {"disks": gone}
    if kept:
        words += " " + _("These stay on the host: %(files)s.") % {"files": kept}
    return words


ADOPT = Kind(
    "vm.adopt",
    "Adopt a machine",
    (TakeIn(),),
    settle=settle,
    waits_for_host=False,
    announce=gettext_lazy("%(name)s is adopted."),
    page=page_of_machine,
)
