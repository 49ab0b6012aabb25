"""Driver calls in children that can be killed: one pool a host, with a cap a host.

A libvirt call that hangs ignores every soft limit, and opening a connection to a stopped daemon hangs for
ever. So the caller waits with a limit and kills the child. Not for: choosing a host or retrying.
"""

import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

from portal.drivers.base import HypervisorDriver
from portal.drivers.errors import CallTimeout, HostUnreachable

VERBS = HypervisorDriver.__abstractmethods__ - {"close"}
#: Seconds; a call that is given more, as a copy of a disk, is long.
LONG = 600.0
#: Connections of a host that long calls leave to the others.
KEPT_FOR_SHORT = 2
#: The long calls that write or read a machine's memory, and how many of them are made at a time: who starts
#: what was suspended does not wait behind copies of disks.
MEMORY, FOR_MEMORY = frozenset({"save", "start"}), 2


class _Child:
    def __init__(self, uri: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 (a list, our own interpreter, no shell)
                [sys.executable, "-m", "portal.drivers.child", str(theirs.fileno()), uri],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self.pipe = Connection(ours.detach())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()


class HostPool:
    """Up to `cap` children of one host, kept warm between calls. Safe for use by many threads.

    Long calls never have all of them, so that a machine can be switched on while others are copied, and
    switched off while others are suspended.
    """

    def __init__(self, uri: str, *, cap: int = 6) -> None:
        self.uri = uri
        self._slots = threading.BoundedSemaphore(cap)
        self._long = threading.BoundedSemaphore(max(1, cap - KEPT_FOR_SHORT - FOR_MEMORY))
        self._memory = threading.BoundedSemaphore(max(1, min(FOR_MEMORY, cap - KEPT_FOR_SHORT - 1)))
        self._idle: list[_Child] = []
        self._closed = False

    def call(self, verb: str, *args: Any, timeout: float) -> Any:
        """Call the driver's `verb` and return its answer within `timeout` seconds, a long one's at its turn.

        Raises what the driver raises; CallTimeout when the host is busy to its cap or the call took too
        long (it may still take effect: look before doing it again); HostUnreachable when the child died;
        ValueError for a verb outside the contract.
        """
        if verb not in VERBS:
            raise ValueError(f"{verb} is no verb of the driver contract")
        with ExitStack() as held:
            if timeout > LONG:
                # The long ones queue up among themselves, and none waits with a slot in its hands. Those
                # ahead may take longer than this one does, and each has an end of its own.
                held.enter_context(self._memory if verb in MEMORY else self._long)
            end = time.monotonic() + timeout
            if not self._slots.acquire(timeout=timeout):
                raise CallTimeout(f"every connection to the host was busy for {timeout:g} s")
            held.callback(self._slots.release)
            return self._ask(verb, args, end)

    def _ask(self, verb: str, args: tuple[Any, ...], end: float) -> Any:
        try:
            child = self._idle.pop()
        except IndexError:
            child = _Child(self.uri)
        healthy = False
        try:
            child.pipe.send((verb, args))
            if not child.pipe.poll(max(0.0, end - time.monotonic())):
                raise CallTimeout(f"{verb} did not end in time")
            done, answer = child.pipe.recv()
            # A broken libvirt connection never heals: its child goes with it.
            healthy = done or not isinstance(answer, HostUnreachable)
        except (EOFError, OSError) as error:
            raise HostUnreachable(f"the child of {verb} died") from error
        finally:
            if healthy and not self._closed:
                self._idle.append(child)
            else:
                child.kill()
        if not done:
            raise answer
        return answer

    def close(self) -> None:
        """End the idle children, and the others when their calls are over. Idempotent."""
        self._closed = True
        while self._idle:
            self._idle.pop().kill()
