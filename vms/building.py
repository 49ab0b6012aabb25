"""The steps from an approved request to a machine that runs. Not for: choosing where."""

import time
from typing import Any

from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy

from networks.models import Port
from portal.drivers.types import CloneMode, DomainInfo, DomainState
from portal.hosts.models import Host, Image
from portal.hosts.steps import HostStep, copy_volume
from portal.operations.models import Operation
from portal.operations.registry import Kind, StepContext, StepFailed
from portal.operations.states import State
from vms import placement, reach, specs
from vms.asking import AskingForMachines
from vms.models import CatalogueItem, Observed, Status, VirtualMachine
from vms.observer import usable_address
from vms.steps import DomainStep

#: Seconds a guest gets to ask for its address; a full Debian under emulation needs up to 100.
BOOT_LIMIT = 300.0
LOOK_EVERY = 0.5
#: Bytes of an image that is copied within the time of the step.
SMALL = 4 << 30
#: States in which no guest ever asks for an address, and the codes of what is said of each.
_STUCK = {
    DomainState.SHUTOFF: ("guest_stopped", "the guest powered off before it had an address"),
    DomainState.CRASHED: ("guest_crashed", "the guest crashed before it had an address"),
    DomainState.PAUSED: ("guest_paused", "the guest was paused before it had an address"),
}


class MakeNetwork(HostStep):
    """The network exists on the host; others may use it, so undoing leaves it."""

    name, title = "network", "Make the network ready"

    def do(self, context: StepContext) -> None:
        network = specs.network_spec(context)
        if not network.user:
            self.call(context, "ensure_network", network)


def _copied(context: StepContext) -> list[int]:
    """Return how many bytes a full copy of each disk reads, 0 for so few that it need not queue.

    The image is copied; the first disk grows to its size afterwards.
    """
    found = Image.objects.filter(sha256=context.spec["pinned"]["image"]["sha256"])
    first: int = found.values_list("virtual_size", flat=True).first() or 0
    return [size if size > SMALL else 0 for size in (first, *specs.further_disks(context.spec))]


class CloneVolume(HostStep):
    """Every disk of the machine, the first one first. An earlier attempt may have made some of them."""

    name, title = "volume", "Clone the disk"
    timeout = 600.0

    def do(self, context: StepContext) -> None:
        for volume, size in zip(specs.volume_specs(context), _copied(context), strict=True):
            if volume.clone is CloneMode.FULL:
                copy_volume(self, context, volume, size=size)
            else:
                self.call(context, "create_volume", volume)
            context.check()

    def undo(self, context: StepContext) -> None:
        for volume in specs.volume_specs(context):
            self.call(context, "delete_volume", volume.pool, volume.name)


class WriteSeed(HostStep):
    name, title = "seed", "Write the cloud-init seed"

    def do(self, context: StepContext) -> None:
        self.call(context, "write_seed", specs.seed_spec(context))

    def undo(self, context: StepContext) -> None:
        self.call(context, "delete_volume", context.identifiers["pool"], context.identifiers["seed"])


class DefineDomain(HostStep):
    name, title = "domain", "Define the machine"

    def do(self, context: StepContext) -> None:
        self.call(context, "define", specs.domain_spec(context))

    def undo(self, context: StepContext) -> None:
        self.call(context, "undefine", context.identifiers["uuid"])


class StartDomain(DomainStep):
    name, title = "start", "Start the machine"

    def do(self, context: StepContext) -> None:
        self.call(context, "start", context.identifiers["uuid"])

    def undo(self, context: StepContext) -> None:
        self.force_off(context)


class WaitForAddress(HostStep):
    name, title = "address", "Wait for the guest's address"

    def do(self, context: StepContext) -> None:
        end = time.monotonic() + BOOT_LIMIT
        uuid = context.identifiers["uuid"]
        answers = self._on_its_own if specs.network_spec(context).user else self._addressed
        before: DomainState | None = None
        while time.monotonic() < end:
            if answers(context):
                return
            info: DomainInfo = self.call(context, "domain_info", uuid)
            # A start, and whoever takes a snapshot, pause a guest for a moment: twice in a row it is stuck.
            if info.state in _STUCK and (info.state != DomainState.PAUSED or before == info.state):
                raise StepFailed(*_STUCK[info.state])
            before = info.state
            time.sleep(LOOK_EVERY)
            context.check()
        raise StepFailed("no_address", f"no address within {BOOT_LIMIT:g} s")

    def _addressed(self, context: StepContext) -> bool:
        """Note the address that the host leased, or that the guest's agent tells on a LAN."""
        mac, uuid = context.identifiers["mac"], context.identifiers["uuid"]
        address = usable_address(mac, self.call(context, "addresses", uuid))
        if address is None:
            return False
        Port.objects.filter(mac=mac).update(observed_address=address)
        VirtualMachine.objects.filter(uuid=uuid).update(observed_address=address)
        return True

    def _on_its_own(self, context: StepContext) -> bool:
        """Say whether the agent tells an address, the same for every guest, or SSH answers."""
        mac, uuid = context.identifiers["mac"], context.identifiers["uuid"]
        if usable_address(mac, self.call(context, "addresses", uuid)):
            return True
        host = Host.objects.get(pk=context.identifiers["host"])
        return host.is_local and reach.speaks_ssh(context.identifiers["ssh_port"])


def settle(operation: Operation, state: State) -> None:
    """Make the machine active, or forget its rows when nothing was built."""
    machine = VirtualMachine.objects.filter(built_by=operation).first()
    if machine is None:
        return
    if state == State.SUCCEEDED:
        machine.status = Status.ACTIVE
        machine.observed_state = Observed.RUNNING
        machine.observed_at = timezone.now()
        machine.save(update_fields=["status", "observed_state", "observed_at"])
        return
    Port.objects.filter(domain_uuid=machine.uuid).delete()
    machine.delete()


def page_of_machine(operation: Operation) -> str:
    """Return the address of the machine that `operation` is about, '' when it is not there."""
    topic, _colon, pk = operation.subject.rpartition(":")
    there = topic == "vms.machine" and VirtualMachine.objects.filter(pk=pk).exists()
    return reverse("vms:detail", args=[pk]) if there else ""


def on_offer() -> list[str]:
    """Return the names of what the catalogue holds, for the conditions of policies."""
    return list(CatalogueItem.objects.order_by("name").values_list("name", flat=True))


def owned_by(person: Any) -> int:
    """Count the machines of `person`, those being built too; not those in the bin."""
    return VirtualMachine.objects.filter(owner=person.pk).exclude(status=Status.BINNED).count()


CREATE = Kind(
    name="vm.create",
    title="Create a machine",
    steps=(
        MakeNetwork(),
        CloneVolume(),
        WriteSeed(),
        DefineDomain(),
        StartDomain(),
        WaitForAddress(),
    ),
    place=placement.place,
    announce=gettext_lazy("%(name)s is built and runs."),
    page=page_of_machine,
    settle=settle,
    asking=AskingForMachines(),
    cancellable=True,
    items=on_offer,
    owned=owned_by,
)
