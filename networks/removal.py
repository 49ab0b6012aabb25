"""The operation that takes a network away from a host. Not for: the row, which is gone before."""

from portal.hosts.steps import HostStep
from portal.operations.registry import Kind, StepContext


class RemoveNetwork(HostStep):
    """A network that was never made there is no error."""

    name, title = "network", "Remove the network from the host"

    def do(self, context: StepContext) -> None:
        self.call(context, "remove_network", context.identifiers["network"])


REMOVE = Kind(name="networks.remove", title="Remove a network", steps=(RemoveNetwork(),))
