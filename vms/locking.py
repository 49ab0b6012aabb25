"""Lock the machines that somebody is about to change. Not for: whether they may be, which verbs ask."""

from portal.hosts.models import Host
from portal.operations.models import Operation
from vms.models import VirtualMachine

_SUBJECT = "vms.machine:"


def lock_machine(operation: Operation) -> list[int]:
    """Lock the machine that `operation` works on, or that a request would change or copy.

    Returns the key of the operation that built it: what the machine takes counts there. Empty for no machine.
    """
    machines = VirtualMachine.objects.select_for_update()
    if operation.subject.startswith(_SUBJECT):
        machines = machines.filter(pk=operation.subject.removeprefix(_SUBJECT))
    else:
        pinned = operation.frozen.get("pinned", {}) if operation.kind.startswith("vm.") else {}
        named = pinned.get("machine") or pinned.get("source")
        machines = machines.filter(uuid=named) if named else machines.none()
    return list(machines.values_list("built_by", flat=True))


def lock_machines_on(host: Host) -> list[int]:
    """Lock all machines of a host; return the keys of the operations that built them."""
    machines = VirtualMachine.objects.select_for_update().filter(host=host).order_by("pk")
    return list(machines.values_list("built_by", flat=True))
