"""Steps that speak to the host an operation was placed on. Not for: what they build."""

from typing import Any

from portal.drivers.errors import DriverError
from portal.hosts.calls import call
from portal.hosts.models import Health, Host
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.registry import Step, StepContext, StepFailed
from portal.operations.states import State


class HostStep(Step):
    """A step on `identifiers["host"]`; driver errors become StepFailed with the driver's code."""

    #: Seconds a call may take before its child is killed.
    timeout = 30.0

    def call(self, context: StepContext, verb: str, *args: Any) -> Any:
        """Call the driver's `verb`. Raises StepFailed."""
        try:
            return call(context.identifiers["host"], verb, *args, timeout=self.timeout)
        except DriverError as error:
            # The watcher knows whether it is this call or the whole host.
            away = error.retryable and Host.objects.filter(
                pk=context.identifiers["host"], observed_health=Health.STALE
            ).exists()
            raise StepFailed(error.code, error.raw, retryable=error.retryable, away=away) from error

    def undo(self, context: StepContext) -> None:
        """Leave what was done: there is nothing of its own to take back."""


def ring(operation: Operation, state: State) -> None:
    """Tell the pages of the host that an operation on it is over."""
    publish(operation.subject)
