"""How long a proof waits for a guest that says nothing more."""

from types import SimpleNamespace

import pytest

from portal.drivers.libvirt import proof
from portal.drivers.libvirt.proof import QUIET_SECONDS, Prover
from portal.drivers.types import Accelerator

LIMIT = 100.0


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def time(self):
        return self.now


class Guest:
    """A guest that says each of `words` after so many seconds, to whoever listens to its serial line."""

    def __init__(self, clock, words):
        self.clock, self.words = clock, dict(words)

    def recv(self, _most):
        due = [at for at in self.words if at <= self.clock.now]
        return self.words.pop(min(due)) if due else -2

    def isActive(self):  # noqa: N802
        return True

    openConsole = abort = destroy = lambda *_: None  # noqa: N815


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(proof, "time", made)
    return made


def prove(clock, accelerator, words):
    guest = Guest(clock, words)
    volumes = SimpleNamespace(
        info=lambda *_: SimpleNamespace(capacity_bytes=1, path="/a"), list=lambda _pool: [],
        create=lambda spec: SimpleNamespace(path="/b"), delete=lambda *_: None,
    )
    connection = SimpleNamespace(createXML=lambda *_: guest, newStream=lambda _flags: guest)
    return Prover(connection, None, volumes).prove_image(accelerator, "pool", "image", LIMIT)


def test_a_kernel_that_hangs_is_given_up_once_it_was_silent_so_long(clock):
    """Red when `_listen` waits to its end, or counts from the start and not from the last word."""
    assert not prove(clock, Accelerator.KVM, {15: b"Booting", 30: b"Linux"}).works
    assert 30 + QUIET_SECONDS <= clock.now < 30 + QUIET_SECONDS + 1


def test_a_slow_kernel_that_speaks_is_heard_to_the_end(clock):
    words = {at: b"." for at in range(10, 90, 10)} | {90: b"a login: "}
    assert prove(clock, Accelerator.KVM, words).works


def test_what_is_emulated_may_be_silent(clock):
    """Red when the emulator gets the patience of a processor."""
    assert prove(clock, Accelerator.EMULATION, {90: b"login:"}).works
