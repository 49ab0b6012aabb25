"""Export machines, and let people have the files. Not for: making them (`kind`)."""

import shutil
import uuid
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.audit import services as audit
from portal.core.errors import Denied
from portal.live.publish import publish
from portal.operations import ledger
from portal.operations.models import Operation
from portal.operations.services import begin_operation
from portal.operations.spec import RequestSpec
from vms import noted, power, reach
from vms.changes import twins
from vms.exports.kind import EXPORT, FOLDER
from vms.models import Export, VirtualMachine


def export_machine(*, actor: Any, machine: VirtualMachine) -> Operation:
    """Queue the export of a machine that is off; it stays off meanwhile. Raises Denied.

    While it lasts, copies of its disks take room in their pools.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "export")
        twins.check_copied(current)
        own = uuid.uuid4()
        disks = _disks(current, own)
        if not disks:
            raise Denied(_("It has no disk in a pool of the portal; there is nothing to export."))
        pinned = {"machine": str(current.uuid), "name": current.name, "networks": _networks(current)}
        operation = begin_operation(
            actor=actor,
            project=current.project,
            spec=RequestSpec(kind=EXPORT.name, sizes={}, pinned=pinned),
            subject=current.topic,
            title=f"Export {current.name}",
            identifiers={
                "host": current.host_id,
                "uuid": str(current.uuid),
                "folder": str(own),
                "file": f"{current.name}.ova",
                "disks": disks,
            },
            lane=current.host.scope,
        )
        ledger.hold(operation, twins.room_for_disks(current))
        return operation


def _disks(machine: VirtualMachine, own: uuid.UUID) -> list[dict[str, Any]]:
    seen = noted.of(machine)
    return [
        {
            "pool": disk.pool.pool.name,
            "volume": f"gatehouse-export-{str(own)[:8]}-{disk.target}.qcow2",
            "capacity": disk.capacity,
            "source": disk.path,
            "format": noted.format_of(seen, disk.target),
            "file": f"{machine.name}-{disk.target}.qcow2",
        }
        for disk in machine.disks.select_related("pool__pool").order_by("target")
    ]


def _networks(machine: VirtualMachine) -> list[str]:
    return [port.network.name for port in reach.ports_of([machine])[machine.uuid]]


def exports_for(person: Any) -> QuerySet[Export]:
    """Return the files that `person` may have, also of machines that are gone."""
    found = Export.objects.restrict(person, "use").filter(expires_at__gt=timezone.now())
    return found.filter(operation__state="succeeded")


def exports_of(machine: VirtualMachine, person: Any) -> QuerySet[Export]:
    """Return the files of a machine that `person` may have."""
    return exports_for(person).filter(operation__subject=machine.topic)


def open_export(*, actor: Any, export: Export) -> Any:
    """Return the open file of an export for whoever may have it; the trail says who took it.

    Raises Denied.
    """
    if not Export.objects.restrict(actor, "use").filter(pk=export.pk).exists():
        raise Denied(_("Only who exported it, an operator or an admin may have this file."))
    if export.expires_at <= timezone.now():
        raise Denied(_("This file is deleted; export the machine again."))
    try:
        file = (FOLDER / export.path).open("rb")
    except OSError as error:
        raise Denied(_("The file is not there any more; export the machine again.")) from error
    with transaction.atomic():
        audit.record(actor=actor, verb="export.taken", target=export, after={"sha256": export.sha256})
    return file


def delete_export(*, actor: Any, export: Export) -> None:
    """Let nobody have the file any more; the scheduler deletes it within minutes. Idempotent.

    Raises Denied.
    """
    with transaction.atomic():
        if not Export.objects.restrict(actor, "use").filter(pk=export.pk).exists():
            raise Denied(_("Only who exported it, an operator or an admin may delete this file."))
        Export.objects.filter(pk=export.pk).update(expires_at=timezone.now())
        audit.record(actor=actor, verb="export.deleted", target=export)
        publish(export.operation.subject)


def sweep() -> int:
    """Delete the files whose time is over, their rows after them; return how many. Idempotent.

    So go rows without a file, as after a restore: no backup holds exports.
    """
    now, gone = timezone.now(), 0
    for export in Export.objects.all():
        if export.expires_at > now and (FOLDER / export.path).exists():
            continue
        shutil.rmtree(FOLDER / export.path.partition("/")[0], ignore_errors=True)
        export.delete()
        gone += 1
    return gone
