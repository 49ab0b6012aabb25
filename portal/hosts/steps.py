"""Steps that speak to the host an operation was placed on. Not for: what they build."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from portal.drivers.errors import DriverError
from portal.drivers.types import VolumeSpec
from portal.hosts.calls import call
from portal.hosts.models import Health, Host
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.registry import Step, StepContext, StepFailed
from portal.operations.states import State

#: Seconds between two looks whether a copy that a worker left behind has ended.
LOOK_EVERY = 1.0
#: Seconds after which a copy that has not ended is left to the reaper, who comes back ever less often.
WAIT_MOST = 3600.0
#: Bytes a second that every disk and every road to a host is good for, after an hour of standing still.
SLOWEST = 10 << 20
STILL = 3600.0


def seconds_for(size: int, least: float) -> float:
    """Return how long a call may take that reads or writes `size` bytes of a volume, `least` for none."""
    return max(least, STILL + size / SLOWEST) if size else least


#: Seconds for which a host is tried again that cannot be reached for now, and between two tries.
AGAIN, PAUSE = 15.0, 0.5
Answer = TypeVar("Answer")


def failed(error: DriverError, host_id: int) -> StepFailed:
    """Return what a step fails with when a call to a host did.

    The watcher knows whether it is this call or the whole host that is away.
    """
    stale = Host.objects.filter(pk=host_id, observed_health=Health.STALE)
    away = error.retryable and stale.exists()
    return StepFailed(error.code, error.raw, retryable=error.retryable, away=away)


def once_reached(context: StepContext, act: Callable[[StepContext], Answer]) -> Answer:
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


class HostStep(Step):
    """A step on `identifiers["host"]`; driver errors become StepFailed with the driver's code."""

    #: Seconds a call may take before its child is killed.
    timeout = 30.0

    def call(self, context: StepContext, verb: str, *args: Any, size: int = 0) -> Any:
        """Call the driver's `verb`, which reads or writes `size` bytes of a volume. Raises StepFailed."""
        seconds = seconds_for(size, self.timeout)
        try:
            return call(context.identifiers["host"], verb, *args, timeout=seconds)
        except DriverError as error:
            raise failed(error, context.identifiers["host"]) from error

    def undo(self, context: StepContext) -> None:
        """Leave what was done: there is nothing of its own to take back."""


def ring(operation: Operation, state: State) -> None:
    """Tell the pages of the host that an operation on it is over."""
    publish(operation.subject)


def copy_volume(step: HostStep, context: StepContext, spec: VolumeSpec, *, size: int | None = None) -> None:
    """Copy a volume of `size` bytes, else as many as the copy has, in full, from the beginning.

    Raises StepFailed. A worker or libvirt may have died in the middle of an earlier copy, which looks like a
    whole one: only the end of this step says that it is.
    """
    size = spec.capacity_bytes if size is None else size
    delete_waiting(step, context, spec.pool, spec.name, size=size)
    step.call(context, "create_volume", spec, size=size)


def delete_waiting(step: HostStep, context: StepContext, pool: str, name: str, *, size: int = 0) -> None:
    """Delete a volume, once libvirt writes its `size` bytes no more for a worker that died. Idempotent.

    Raises StepFailed, also when it is written for longer than WAIT_MOST and the size allow.
    """
    end = time.monotonic() + seconds_for(size, WAIT_MOST)
    while True:
        try:
            step.call(context, "delete_volume", pool, name)
            return
        except StepFailed as failure:
            if failure.code != "invalid_state" or time.monotonic() > end:
                raise
        context.check()
        time.sleep(LOOK_EVERY)
