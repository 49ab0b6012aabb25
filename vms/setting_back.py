"""Set a machine's settings back to what it runs with. Not for: telling what waits, which `pending` does."""

from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.utils import translation
from django.utils.translation import gettext as _

from portal.core.errors import Denied
from portal.operations.models import Operation
from vms import editing, pending, power, settings
from vms.changes.devices.shared import known
from vms.models import VirtualMachine


def set_back(
    *, actor: Any, machine: VirtualMachine, digest: str, seen: Sequence[Sequence[str]]
) -> Operation:
    """Queue that the settings which wait for the next start are what runs: nothing of them waits then.

    `digest` tells the definition that was seen, and `seen` what it was to be set back to (`Pending.back`).
    Raises Clash when it is another by now or something else runs, and Denied.
    """
    with transaction.atomic():
        current = power.usable(actor, machine, "edit")
        found = known(current)
        # Kept with the request, in no reader's language.
        with translation.override("en"):
            waits = pending.look(current, found)
        if not waits.settable or found.observed_running is None:
            raise Denied(_("None of its settings waits for its next start any more."))
        if found.observed_digest != digest or waits.back != [list(one) for one in seen]:
            raise editing.Clash(
                _("Somebody changed this machine since you opened its settings; look again.")
            )
        ground = settings.ground_of(found.observed_persistent or {}, current.host.readiness)
        return editing.begin(
            actor=actor,
            machine=current,
            found=found,
            change=pending.patch_back(found.observed_running, ground),
            told=[(row.label, row.after, row.before) for row in waits.settable],
            as_it_runs=True,
        )
