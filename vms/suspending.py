"""What keeps a machine that runs from being suspended to disk. Not for: whether its state allows it.

What is saved goes on with all that ran, while the portal looks after what the machine is defined as.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from django.utils.translation import gettext as _

from portal.drivers.types import DomainFeature
from vms import hypervisors, noted
from vms.hostdevice_keys import keys_of, told_of
from vms.models import Definition, VirtualMachine


def why_not(machine: VirtualMachine) -> str:
    """Return what keeps a machine from being suspended as it runs, '' for nothing. Asks the database."""
    return obstacle(machine, noted.of(machine))


def obstacles(machines: Iterable[VirtualMachine]) -> dict[int, str]:
    """Return, by its key, what keeps each of `machines` from being suspended; by one query."""
    places = {(vm.host_id, vm.uuid): vm for vm in machines}
    found: dict[int, str] = {}
    for seen in Definition.objects.filter(uuid__in=[uuid for _host, uuid in places]):
        machine = places.get((seen.host_id, seen.uuid))
        if machine is not None and (reason := obstacle(machine, seen)):
            found[machine.pk] = reason
    return found


def _boot_files(defined: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the files of the host from which a definition starts, None for one that it does not name."""
    system = defined.get("os") or {}
    return {name: system.get(name) for name in ("kernel", "initrd")}


def obstacle(machine: VirtualMachine, seen: Definition | None) -> str:
    """Return what keeps a machine of which this was `seen` from being suspended, '' for nothing."""
    if reason := hypervisors.why_not_seen(seen, DomainFeature.SAVE):
        return reason
    if seen is None or seen.observed_running is None or seen.observed_persistent is None:
        return ""
    started = {name: path for name, path in _boot_files(seen.observed_running).items() if path}
    # What others start with files of their host they look after themselves.
    if not machine.adopted and started.items() - _boot_files(seen.observed_persistent).items():
        return _(
            "It runs from files of its installer, which are not kept. Wait until the installer is done and "
            "start it from its disk; then it can be suspended."
        )
    told = told_of(machine.host)
    now, later = (Counter(keys_of(side, told)) for side in (seen.observed_running, seen.observed_persistent))
    if now - later:
        return _(
            "It runs with a device of its host that was taken away, and would want it back. Switch it off "
            "instead."
        )
    return ""
