"""Steps that speak to the host an operation was placed on. Not for: what they build."""

from typing import Any

from portal.drivers.errors import DriverError
from portal.hosts.calls import call
from portal.operations.registry import Step, StepContext, StepFailed


class HostStep(Step):
    """A step on `identifiers["host"]`; driver errors become StepFailed with the driver's code."""

    #: Seconds a call may take before its child is killed.
    timeout = 30.0

    def call(self, context: StepContext, verb: str, *args: Any) -> Any:
        """Call the driver's `verb`. Raises StepFailed."""
        try:
            return call(context.identifiers["host"], verb, *args, timeout=self.timeout)
        except DriverError as error:
            raise StepFailed(error.code, error.raw, retryable=error.retryable) from error

    def undo(self, context: StepContext) -> None:
        """Leave what was done: there is nothing of its own to take back."""
