"""What steps on a machine's domain share. Not for: the steps themselves."""

import time

from portal.drivers.types import VolumeSpec
from portal.hosts.steps import HostStep
from portal.operations.registry import StepContext, StepFailed

#: Seconds between two looks whether a copy that a worker left behind has ended.
LOOK_EVERY = 1.0


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


def copy_volume(step: HostStep, context: StepContext, spec: VolumeSpec) -> None:
    """Copy a volume in full, from the beginning. Raises StepFailed.

    A worker or libvirt may have died in the middle of an earlier copy, which looks like a whole one: only
    the end of this step says that it is. What libvirt still writes for that worker is waited for.
    """
    while True:
        try:
            step.call(context, "delete_volume", spec.pool, spec.name)
            break
        except StepFailed as failure:
            if failure.code != "invalid_state":
                raise
        context.check()
        time.sleep(LOOK_EVERY)
    step.call(context, "create_volume", spec)
