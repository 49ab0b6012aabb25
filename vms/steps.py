"""What steps on a machine's domain share. Not for: the steps themselves."""

from portal.hosts.steps import HostStep
from portal.operations.registry import StepContext, StepFailed


class DomainStep(HostStep):
    """A step on the domain `identifiers["uuid"]`, which QEMU may take a while to start or end."""

    timeout = 60.0

    def force_off(self, context: StepContext) -> None:
        """Force the domain off; one that is off or gone already is no error. Raises StepFailed."""
        try:
            self.call(context, "destroy", context.identifiers["uuid"])
        except StepFailed as failure:
            if failure.code != "domain_not_found":
                raise
