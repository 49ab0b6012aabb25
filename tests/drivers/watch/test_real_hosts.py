"""A real host that hangs or dies is told and costs the others nothing; nothing that happens is missed."""

import os
import secrets
import signal
import statistics
import time
import uuid
from collections import defaultdict
from pathlib import Path

import libvirt
import pytest

from portal.drivers.observations import (
    Changes,
    DomainList,
    Heartbeat,
    HostLost,
    HostSilent,
    ObservationFailed,
    Snapshot,
)
from portal.drivers.registry import driver_for
from portal.drivers.types import Accelerator, DomainSpec, DomainState
from tests.drivers.watch.hearing import changes, collect, of

BURST = 200
TEST_DOMAIN = """<domain type='test'><name>gttest-w-{0}</name><memory>1024</memory>
<os><type>hvm</type></os></domain>"""


@pytest.mark.live
def test_a_real_start_and_stop_are_heard(watching, record_property):
    """Red when the lifecycle is not registered, or what is saved is heard as off.

    The latency is printed (run with -s), not judged.
    """
    uri, name = "qemu:///system", f"gttest-w-{secrets.token_hex(4)}"
    spec = DomainSpec(name, str(uuid.uuid4()), 1, 32 * 1024**2, accelerator=Accelerator.EMULATION)
    watch, driver, delays = watching(uri), driver_for(uri), []

    def hear(state):
        heard = collect(
            watch,
            lambda heard: (spec.uuid, state) in [(c.uuid, c.state) for c in changes(heard[uri])],
        )
        return heard, time.time()

    collect(watch, lambda heard: of(heard[uri], Snapshot))
    try:
        driver.define(spec)
        hear(DomainState.SHUTOFF)
        for _ in range(5):
            driver.start(spec.uuid)
            hear(DomainState.RUNNING)
            before = time.time()
            driver.suspend(spec.uuid)
            delays.append(hear(DomainState.PAUSED)[1] - before)
            driver.destroy(spec.uuid)
            hear(DomainState.SHUTOFF)
        driver.start(spec.uuid)
        hear(DomainState.RUNNING)
        driver.save(spec.uuid)
        hear(DomainState.SAVED)
        driver.undefine(spec.uuid)
        hear(None)
    finally:
        driver.destroy(spec.uuid) if _exists(driver, spec.uuid) else None
        driver.undefine(spec.uuid)
        driver.close()
    print(f"call to message: median {statistics.median(delays) * 1000:.1f} ms of {len(delays)}")


@pytest.mark.live
def test_a_frozen_emulator_does_not_silence_its_host(watching):
    """Red when a list asks the emulator (memoryStats in describe): the call never ends."""
    uri, name = "qemu:///system", f"gttest-w-{secrets.token_hex(4)}"
    spec = DomainSpec(name, str(uuid.uuid4()), 1, 32 * 1024**2, accelerator=Accelerator.EMULATION)
    driver = driver_for(uri)
    try:
        driver.define(spec)
        driver.start(spec.uuid)
        emulator = int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())
        os.kill(emulator, signal.SIGSTOP)
        heard = collect(
            watching(uri),
            lambda heard: (
                of(heard[uri], Snapshot)
                and len(of(heard[uri], DomainList)) >= 2
                and len(of(heard[uri], Heartbeat)) >= 3
            ),
        )[uri]
        os.kill(emulator, signal.SIGKILL)
    finally:
        driver.destroy(spec.uuid)
        driver.undefine(spec.uuid)
        driver.close()
    (seen,) = [info for info in of(heard, Snapshot)[0].domains if info.uuid == spec.uuid]
    assert seen.state is DomainState.RUNNING
    assert not of(heard, HostSilent | HostLost | ObservationFailed)


def _exists(driver, wanted):
    return any(info.uuid == wanted for info in driver.list_domains())


@pytest.mark.live
def test_a_frozen_host_is_silent_and_the_others_go_on(watching, daemon):
    """Red when silence is not looked for (deadline without the last sign of life)."""
    frozen, other = daemon.uri("qemu", "session"), "fake:///other"
    watch = watching(frozen, other)
    collect(watch, lambda heard: of(heard[frozen], Snapshot) and of(heard[other], Snapshot))
    daemon.signal(signal.SIGSTOP)
    heard = collect(watch, lambda heard: of(heard[frozen], HostSilent))
    assert len(of(heard[other], Heartbeat)) >= 3
    assert not of(heard[other], HostSilent | HostLost)
    # Another round of silence is no news.
    heard = collect(watch, lambda heard: len(of(heard[other], Heartbeat)) >= 8)
    assert not of(heard[frozen], HostSilent)
    daemon.signal(signal.SIGCONT)
    heard = collect(watch, lambda heard: of(heard[frozen], Snapshot) and of(heard[frozen], Heartbeat))
    assert not of(heard[other], HostSilent | HostLost)


@pytest.mark.live
def test_a_killed_host_is_lost_and_comes_back_with_its_events(watching, daemon):
    """Red when a child goes on with a broken connection."""
    uri = daemon.uri()
    watch = watching(uri)
    collect(watch, lambda heard: of(heard[uri], Snapshot))
    daemon.signal(signal.SIGKILL)
    heard = collect(watch, lambda heard: of(heard[uri], HostLost))
    assert not of(heard[uri], HostSilent)
    daemon.start()
    collect(watch, lambda heard: of(heard[uri], Snapshot) and of(heard[uri], Heartbeat))
    connection = libvirt.open(uri)
    connection.defineXML(TEST_DOMAIN.format("again"))
    collect(watch, lambda heard: changes(heard[uri]))
    connection.close()


@pytest.mark.live
def test_a_burst_arrives_whole_and_in_order(watching, daemon):
    """Red when a batch leaves some out, or each change is a message of its own."""
    uri = daemon.uri()
    watch = watching(uri)
    collect(watch, lambda heard: of(heard[uri], Snapshot))
    connection = libvirt.open(uri)
    for number in range(BURST):
        domain = connection.defineXML(TEST_DOMAIN.format(number))
        domain.create()
        domain.destroy()
        domain.undefine()
    heard = collect(watch, lambda heard: len(changes(heard[uri])) >= 4 * BURST)[uri]
    connection.close()
    states = defaultdict(list)
    for change in changes(heard):
        states[change.name].append(change.state)
    life = [DomainState.SHUTOFF, DomainState.RUNNING, DomainState.SHUTOFF, None]
    assert states == {f"gttest-w-{number}": life for number in range(BURST)}
    assert len(of(heard, Changes)) < 2 * BURST
    sequences = [change.sequence for change in changes(heard)]
    assert sequences == sorted(sequences)
    assert not of(heard, ObservationFailed)
