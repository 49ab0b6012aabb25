"""Watch many hosts from one process that waits for none of them.

Each host has a child of its own (`watch_child`): a call that hangs is ended by killing the child. Not for:
the database, or what an observation means.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait

from portal.drivers import frames
from portal.drivers.observations import (
    DomainList,
    Heartbeat,
    HostLost,
    HostSilent,
    Observation,
    Snapshot,
    Started,
)

SILENCE_SECONDS = 6.0
START_SECONDS = 30.0  # for the child's own start, when many start at once on a small machine
BACKOFF_SECONDS = (0.1, 5.0)


class _Child:
    def __init__(self, uri: str) -> None:
        self.sock, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 (a list, our own interpreter, no shell)
                [sys.executable, "-m", "portal.drivers.watch_child", str(theirs.fileno()), uri],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self.reader = frames.Reader(self.sock)

    def kill(self) -> None:
        """Kill without waiting: a process that the kernel holds must not hold us."""
        self.process.kill()
        self.sock.close()


class HostWatch:
    """Watch one host. Not safe for two threads; `close` it in the end.

    Wait for `fileno()` to become readable, at most until `deadline`, then call `receive()`. The number
    changes when the child is replaced; there is none (-1) between two children.
    """

    def __init__(self, uri: str, *, silence: float = SILENCE_SECONDS) -> None:
        self.uri = uri
        self._silence = silence
        self._child: _Child | None = None
        self._dying: list[subprocess.Popen[bytes]] = []
        self._said: type[Observation] | None = None
        self._pause = BACKOFF_SECONDS[0]
        self._start_at = time.monotonic()
        self._start()

    def fileno(self) -> int:
        """Return the descriptor to wait for, -1 while there is no child."""
        return -1 if self._child is None else self._child.sock.fileno()

    @property
    def deadline(self) -> float:
        """Return the monotonic time at which `receive()` has something to do anyway."""
        return self._start_at if self._child is None else self._heard_at + self._patience

    @property
    def pid(self) -> int | None:
        """Return the child's process id."""
        return None if self._child is None else self._child.process.pid

    def receive(self) -> list[Observation]:
        """Return what arrived, without waiting; mend what broke."""
        self._dying = [process for process in self._dying if process.poll() is None]
        if self._child is None:
            if time.monotonic() >= self._start_at:
                self._start()
            return []
        messages = self._child.reader.read()
        if messages:
            self._heard_at, self._patience = time.monotonic(), self._silence
        found = [message for message in messages if self._is_news(message)]
        if self._child.reader.ended:
            end: HostLost | HostSilent = HostLost(*_now(), "the process that watched the host ended")
        elif time.monotonic() >= self.deadline:
            end = HostSilent(*_now(), self._patience)
        else:
            return found
        # A child that ended has told the reason itself, if it could.
        if self._said is None or isinstance(end, HostSilent):
            found += [end] if self._is_news(end) else []
        self._end()
        return found

    def _is_news(self, message: Observation) -> bool:
        """Say whether the consumer must hear this; the same trouble is told once until it is over."""
        if isinstance(message, Started):
            return False
        if isinstance(message, Heartbeat | DomainList | Snapshot):
            # Whatever makes the consumer take the host for up: a list may come before the first heartbeat.
            self._said, self._pause = None, BACKOFF_SECONDS[0]
        if isinstance(message, HostLost | HostSilent):
            if self._said is type(message):
                return False
            self._said = type(message)
        return True

    def _start(self) -> None:
        self._child = _Child(self.uri)
        self._heard_at, self._patience = time.monotonic(), START_SECONDS

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._dying.append(self._child.process)
            self._child = None
        self._start_at = time.monotonic() + self._pause
        self._pause = min(BACKOFF_SECONDS[1], self._pause * 2)

    def close(self) -> None:
        """End the child. Idempotent."""
        self._end()
        self._start_at = float("inf")
        for process in self._dying:
            process.poll()


def _now() -> tuple[float, int]:
    return time.time(), time.monotonic_ns()


class Watch:
    """Watch many hosts; hosts may come and go. Not safe for two threads."""

    def __init__(self, uris: Iterable[str] = (), *, silence: float = SILENCE_SECONDS) -> None:
        self._silence = silence
        self._hosts: dict[str, HostWatch] = {}
        for uri in uris:
            self.add(uri)

    @property
    def uris(self) -> frozenset[str]:
        """Return the hosts that are watched."""
        return frozenset(self._hosts)

    def add(self, uri: str) -> None:
        """Begin to watch a host. Idempotent."""
        if uri not in self._hosts:
            self._hosts[uri] = HostWatch(uri, silence=self._silence)

    def remove(self, uri: str) -> None:
        """Watch a host no longer; nothing of it is reported any more. Idempotent."""
        host = self._hosts.pop(uri, None)
        if host is not None:
            host.close()

    def events(self, timeout: float) -> Iterator[tuple[str, Observation]]:
        """Wait at most `timeout` seconds for something, and yield what is there, by host."""
        now = time.monotonic()
        hosts = list(self._hosts.values())
        until = min([now + timeout, *(host.deadline for host in hosts)])
        ready = wait([host.fileno() for host in hosts if host.fileno() >= 0], max(0.0, until - now))
        now = time.monotonic()
        for host in hosts:
            if host.fileno() in ready or host.deadline <= now:
                for message in host.receive():
                    if self._hosts.get(host.uri) is not host:
                        break  # removed by the consumer meanwhile
                    yield host.uri, message

    def close(self) -> None:
        """End every child. Idempotent."""
        for uri in list(self._hosts):
            self.remove(uri)
