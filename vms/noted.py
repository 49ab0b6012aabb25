"""What the watcher saw of definitions, written down and looked up. Not for: changing them."""

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime

from django.db import transaction

from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import DomainDefinition
from portal.live.publish import publish
from portal.operations.observers import DefinitionAt
from vms.models import Definition, VirtualMachine

#: Characters of a domain's name; a file system that holds its definition takes no longer one.
LONGEST_NAME = 255
_VALUES = (
    "observed_name",
    "observed_digest",
    "observed_persistent",
    "observed_running",
    "observed_kept",
    "observed_unread",
    "observed_autostart",
)


def write(host_id: int, definitions: Mapping[str, DefinitionAt]) -> None:
    """Write what was seen, and ring for machines of which it is news. Joins the caller's transaction.

    What was seen earlier never overwrites what was seen later. Idempotent.
    """
    known = {
        str(row.uuid): row
        for row in Definition.objects.select_for_update().filter(host=host_id, uuid__in=list(definitions))
    }
    made: list[Definition] = []
    changed: list[Definition] = []
    same: list[Definition] = []
    for name, told in definitions.items():
        row = known.get(name) or Definition(host_id=host_id, uuid=uuid.UUID(name))
        if row.observed_at is not None and row.observed_at >= told.began:
            continue
        before = [getattr(row, value) for value in _VALUES]
        seen = told.seen
        row.observed_name = str((seen.persistent or seen.running or {}).get("name", ""))[:LONGEST_NAME]
        row.observed_digest, row.observed_kept = seen.digest, seen.kept
        row.observed_persistent, row.observed_running = seen.persistent, seen.running
        row.observed_autostart, row.observed_unread = seen.autostart, seen.unread
        row.observed_at = told.began
        if row.pk is None:
            made.append(row)
        elif before != [getattr(row, value) for value in _VALUES]:
            changed.append(row)
        else:
            same.append(row)
    Definition.objects.bulk_create(made, ignore_conflicts=True)
    Definition.objects.bulk_update(changed, [*_VALUES, "observed_at"])
    Definition.objects.bulk_update(same, ["observed_at"])
    news = [row.uuid for row in (*made, *changed)]
    if news:
        publish(*(machine.topic for machine in VirtualMachine.objects.filter(uuid__in=news).only("pk")))


def note(host_id: int, name: str, definition: DomainDefinition, began: datetime) -> None:
    """Write a definition that was read or made by a call that `began` then. Idempotent."""
    told = DefinitionAt(DefinitionSeen.of(definition), began)
    with transaction.atomic():
        write(host_id, {name: told})


def forget_all_but(host_id: int, uuids: Collection[str], began: datetime) -> None:
    """Forget definitions of domains that a list, which `began` then, does not hold any more. Idempotent."""
    gone = Definition.objects.filter(host=host_id, observed_at__lt=began).values_list("pk", "uuid")
    old = [pk for pk, found in gone if str(found) not in uuids]
    if old:
        Definition.objects.filter(pk__in=old).delete()


def of(machine: VirtualMachine) -> Definition | None:
    """Return what was seen of a machine's definition, None before the watcher read it."""
    return Definition.objects.filter(host=machine.host_id, uuid=machine.uuid).first()


def format_of(found: Definition | None, target: str) -> str:
    """Return the format that a machine has a disk in; qcow2, as the portal makes them, where nothing says.

    `found` is what `of` returns.
    """
    disks = ((found.observed_persistent if found else None) or {}).get("devices", {}).get("disks", ())
    there = [disk for disk in disks if disk.get("target", {}).get("dev") == target]
    return str(there[0].get("driver", {}).get("type") or "qcow2") if there else "qcow2"
