"""A machine's name and labels, which are the portal's own. Not for: what its guest or domain is called."""

import re
from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from portal.audit import services as audit
from portal.core.errors import Denied
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.states import UNFINISHED
from portal.operations.words import Difference, compared
from vms import cloud, editing, noted, power
from vms.models import VirtualMachine
from vms.services import name_is_taken, name_taken

#: Of one machine; who needs more wants another system.
MOST_LABELS = 20
LONGEST_VALUE = 100
_KEY = re.compile(r"[\w](?:[\w./-]{0,61}[\w])?")


def labels_of(text: str) -> list[str]:
    """Return the labels that somebody typed, a line or a comma each, by their names; `name=value` or `name`.

    Raises Denied, with the field `labels`.
    """
    found: dict[str, str] = {}
    for typed in filter(None, (part.strip() for part in re.split(r"[\n,]", text))):
        key, equals, value = (part.strip() for part in typed.partition("="))
        if not _KEY.fullmatch(key) or len(value) > LONGEST_VALUE or not value.isprintable():
            words = _("“%(label)s” is no label: write a word, or a word, “=” and a value.")
            raise Denied(words % {"label": typed[:80]}, field="labels")
        if key in found:
            raise Denied(_("The label %(label)s is there twice.") % {"label": key}, field="labels")
        found[key] = f"{key}={value}" if equals else key
    if len(found) > MOST_LABELS:
        raise Denied(_("At most %(most)d labels.") % {"most": MOST_LABELS}, field="labels")
    return [found[key] for key in sorted(found)]


def named(machine: VirtualMachine) -> dict[str, str]:
    """Return what a machine is called, as forms have it."""
    return {"name": machine.name, "labels": machine.labels}


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[Difference]:
    """Return in words what differs between two answers of `named`."""
    labels = {"name": _("Name"), "labels": _("Labels")}
    found = []
    for key, label in labels.items():
        texts = before.get(key, ""), after.get(key, "")
        if texts[0] != texts[1]:
            found.append(Difference(label, *texts, lines=compared(*texts) if key == "labels" else ()))
    return found


def rename_machine(
    *, actor: Any, machine: VirtualMachine, name: str, labels: str, seen: Mapping[str, str]
) -> Operation | None:
    """Give a machine another name or other labels at once, and its domain the name as its title.

    `seen` is what `named` returned to the person. Returns the operation that writes the title, None when
    there is nothing to write. Raises Clash when it is called otherwise by now, and Denied.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "name")
        before, after = named(current), {"name": name.strip(), "labels": "\n".join(labels_of(labels))}
        if before == after:
            return None
        if before != dict(seen):
            raise editing.Clash(_("Somebody changed this since you opened the page; look again."))
        current.labels = after["labels"]
        if after["name"] != before["name"]:
            _rename(current, after["name"])
        current.save(update_fields=["name", "labels"])
        audit.record(actor=actor, verb="machine.named", target=current, before=before, after=after)
        publish(current.topic)
        return _title(actor, current) if after["name"] != before["name"] else None


def _rename(machine: VirtualMachine, name: str) -> None:
    """Give a machine a name, in the caller's transaction. Raises Denied for one that is none or is taken."""
    if not cloud.HOSTNAME.fullmatch(name):
        reason = _("A name has 1 to 63 small letters, digits and hyphens, and no hyphen at either end.")
        raise Denied(reason, field="name")
    if name_is_taken(name):
        raise name_taken(name)
    try:
        with transaction.atomic():
            VirtualMachine.objects.filter(pk=machine.pk).update(name=name)
    except IntegrityError as error:
        taken = _("The name %(name)s is taken by another machine.") % {"name": name}
        raise Denied(taken, field="name") from error
    machine.name = name


def _is_edited(machine: VirtualMachine) -> bool:
    return Operation.objects.filter(
        subject=machine.topic, kind=editing.EDIT.name, state__in=UNFINISHED
    ).exists()


def _title(actor: Any, machine: VirtualMachine) -> Operation | None:
    """Queue that the host shows the name too; a definition that nobody saw yet keeps its title."""
    found = noted.of(machine)
    title = (found.observed_persistent or {}).get("title", "") if found else machine.name
    if found is None or found.observed_persistent is None:
        return None
    # While an earlier title is on its way what is seen says nothing; to begin is refused then.
    if title == machine.name and not _is_edited(machine):
        return None
    if reason := power.state_forbids(machine, "title"):
        raise Denied(reason, field="name")
    told = [("Name", title, machine.name)]
    return editing.begin(actor=actor, machine=machine, found=found, change={"title": machine.name}, told=told)
