"""What steps on a machine's domain share. Not for: the steps themselves."""

import time
from collections.abc import Callable

from portal.hosts.steps import HostStep
from portal.operations.registry import StepContext, StepFailed

#: Seconds for which a host is tried again that cannot be reached for now, and between two tries.
AGAIN, PAUSE = 15.0, 0.5


def once_reached(context: StepContext, act: Callable[[StepContext], str | None]) -> str | None:
    """Return what `act` returns, which is done again while its host cannot be reached. Raises StepFailed.

    For a step that makes a remark of a failure: nobody else would try that again.
    """
    end = time.monotonic() + AGAIN
    while True:
        try:
            return act(context)
        except StepFailed as failure:
            if failure.away or failure.code != "host_unreachable" or time.monotonic() > end:
                raise
        time.sleep(PAUSE)
        context.check()


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
