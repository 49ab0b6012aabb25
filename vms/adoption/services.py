"""Adopt domains that somebody made elsewhere, and release them again. Not for: finding them (`found`).

Nothing is ever changed on the host: adopting reads the definition there, and releasing asks nobody.
"""

from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.accounts.models import Project
from portal.audit import services as audit
from portal.core.errors import Denied
from portal.hosts.limits import shift_foreign
from portal.hosts.models import Health, Host
from portal.hosts.services import check_estate, locked
from portal.operations import ledger
from portal.operations.models import Operation
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from portal.operations.states import UNFINISHED
from vms import cloud, leases, power
from vms.adoption import found, taking
from vms.adoption.found import Sizes
from vms.adoption.kind import ADOPT
from vms.models import Definition, Observed, Status, VirtualMachine
from vms.services import DAY, name_is_taken

#: Days; what was made elsewhere had no lease at all, and so it may be long.
LONGEST_LEASE = 3650
_ON = (Observed.RUNNING, Observed.PAUSED, Observed.SHUTTING_DOWN)


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
        lease_warned=leases.nearest(timedelta(days=lease_days)),
    )
    operation.subject = machine.topic
    operation.save(update_fields=["subject"])
    return operation


def why_not_released(machine: VirtualMachine) -> str:
    """Return why nobody can release `machine` now, '' when it can be. Asks the database."""
    if not machine.adopted:
        return _("The portal itself built this machine; it can be deleted, not released.")
    if Operation.objects.filter(subject=machine.topic, state__in=UNFINISHED).exists():
        return _("Another change to this machine is not finished yet; wait for it.")
    return power.being_cloned(machine)


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


