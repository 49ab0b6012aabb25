"""A host that hangs or dies is told and costs the others nothing; nothing that happens is missed."""

import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from pathlib import Path

import libvirt
import pytest

from portal.drivers import frames
from portal.drivers.libvirt.events import Lifecycle
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
from portal.drivers.types import Accelerator, DomainInfo, DomainSpec, DomainState
from portal.drivers.watch import HostWatch, Watch
from portal.drivers.watch_child import Clock

PATIENCE = 60  # seconds until a test gives up; nothing here is a measurement
BURST = 200
TEST_DOMAIN = """<domain type='test'><name>gttest-w-{0}</name><memory>1024</memory>
<os><type>hvm</type></os></domain>"""


class Daemon:
    """A libvirtd of its own, as an unprivileged user where we are root: stopping it disturbs nobody."""

    def __init__(self):
        run = subprocess.run(["mktemp", "-d", "/tmp/gh.XXXXXX"], capture_output=True, text=True, check=True)
        self.home = run.stdout.strip()
        if os.geteuid() == 0:
            os.chown(self.home, 65534, 65534)
        self.socket = f"{self.home}/libvirt/libvirt-sock"
        self.process = None

    def uri(self, scheme="test", path="default"):
        return f"{scheme}+unix:///{path}?socket={self.socket}"

    def start(self):
        command = ["libvirtd"]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command]
        home = {"HOME": self.home, "XDG_RUNTIME_DIR": self.home}
        home |= {"XDG_CONFIG_HOME": f"{self.home}/c", "XDG_CACHE_HOME": f"{self.home}/k"}
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        with open(f"{self.home}/log", "a") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **home}, cwd="/", stdout=log, stderr=log
            )
        end = time.monotonic() + 20
        while not os.path.exists(self.socket):
            assert time.monotonic() < end and self.process.poll() is None, Path(self.home, "log").read_text()
            time.sleep(0.05)

    def signal(self, number):
        os.kill(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()

    def remove(self):
        self.process.kill()
        self.process.wait()
        subprocess.run(["rm", "-rf", self.home], check=True)


@pytest.fixture
def daemon():
    made = Daemon()
    made.start()
    yield made
    made.remove()


@pytest.fixture
def watching():
    watches = []

    def make(*uris, **options):
        watches.append(Watch(uris, **options))
        return watches[-1]

    yield make
    for watch in watches:
        watch.close()


def collect(watch, until, heard=None):
    """Collect messages by URI until the condition on them holds."""
    heard = defaultdict(list) if heard is None else heard
    end = time.monotonic() + PATIENCE
    while not until(heard):
        assert time.monotonic() < end, {uri: [type(m).__name__ for m in ms] for uri, ms in heard.items()}
        for uri, message in watch.events(0.5):
            heard[uri].append(message)
    return heard


def of(messages, kind):
    return [message for message in messages if isinstance(message, kind)]


def changes(messages):
    return [change for message in of(messages, Changes) for change in message.changes]


def test_a_fake_host_beats_and_is_seen_whole(watching):
    uri = "fake:///one"
    heard = collect(watching(uri), lambda heard: len(of(heard[uri], Heartbeat)) >= 2)[uri]
    (snapshot,) = of(heard, Snapshot)
    assert (snapshot.domains, snapshot.pools, snapshot.networks) == ((), (), ())
    assert snapshot.host.hostname == "fake"
    beats = of(heard, Heartbeat)
    assert beats[0].observed_at < beats[1].observed_at
    assert beats[0].sequence < beats[1].sequence


def test_hosts_come_and_go(watching):
    """Red when remove does not forget the host."""
    watch = watching("fake:///one")
    watch.add("fake:///two")
    watch.add("fake:///two")
    collect(watch, lambda heard: heard["fake:///one"] and heard["fake:///two"])
    watch.remove("fake:///one")
    watch.remove("fake:///one")
    assert watch.uris == {"fake:///two"}
    heard = collect(watch, lambda heard: len(of(heard["fake:///two"], Heartbeat)) >= 2)
    assert not heard["fake:///one"]


def test_a_killed_child_is_told_and_replaced():
    """Red when the end of a child is not noticed before its silence."""
    watch = HostWatch("fake:///one", silence=1000)
    first, heard = watch.pid, []
    try:
        end = time.monotonic() + PATIENCE
        while not of(heard, Snapshot):
            heard += watch.receive()
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(first, signal.SIGKILL)
        heard = []
        while not of(heard, Snapshot):
            heard += watch.receive()
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        watch.close()
    assert isinstance([m for m in heard if not isinstance(m, Heartbeat | DomainList)][0], HostLost)
    assert watch.pid is None and watch.fileno() == -1


def test_a_stopped_child_is_replaced_and_blocks_nobody(watching):
    """Red when the reader waits for the rest of a message."""
    watch = watching("fake:///one", "fake:///two", silence=2)
    collect(watch, lambda heard: heard["fake:///one"] and heard["fake:///two"])
    stopped = watch._hosts["fake:///one"].pid
    os.kill(stopped, signal.SIGSTOP)
    heard = collect(
        watch,
        lambda heard: of(heard["fake:///one"], HostSilent) and of(heard["fake:///one"], Snapshot),
    )
    assert not of(heard["fake:///two"], HostSilent | HostLost)
    assert len(of(heard["fake:///one"], HostSilent)) == 1


def test_an_absent_host_is_told_once(watching):
    """Red when _is_news lets the same trouble through again."""
    gone, there = "qemu+unix:///system?socket=/nonexistent", "fake:///one"
    watch = watching(gone, there)
    heard = collect(watch, lambda heard: heard[gone] and len(of(heard[there], Heartbeat)) >= 4)
    (lost,) = heard[gone]
    assert "nonexistent" in lost.reason


def test_trouble_is_told_again_after_a_list_that_came_before_a_heartbeat():
    """Red when only a heartbeat ends a trouble: the consumer takes the host for up by its list already."""
    watch = HostWatch("fake:///one")
    lost = HostLost(1.0, 1, "gone")
    told = [watch._is_news(message) for message in (lost, lost, DomainList(2.0, 2, ()), lost, lost)]
    watch.close()
    assert told == [True, False, True, True, False]


PARENT = """
import sys, time
from portal.drivers.watch import START_SECONDS, HostWatch
watch = HostWatch(sys.argv[1])
while watch._patience == START_SECONDS:
    watch.receive()
    time.sleep(0.01)
print(watch.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.live
def test_a_child_goes_with_its_parent_from_a_hanging_call(tmp_path):
    """Red when the child does not wait for the end of its socket."""
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        uri = f"qemu+unix:///system?socket={tmp_path}/mute"
        command = [sys.executable, "-c", PARENT, uri]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
        parent.wait()
        end = time.monotonic() + PATIENCE
        while is_alive(child):
            assert time.monotonic() < end
            time.sleep(0.02)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_half_a_message_makes_nobody_wait():
    """Red when the length is not compared with what has arrived."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = frames.Reader(ours)
        frames.send(theirs, {"a": 1})
        frames.send(theirs, "x" * 50)
        whole = ours.recv(1 << 16)
        for end in (3, 20, len(whole) - 1):
            theirs.sendall(whole[:end])
            first = reader.read()
            theirs.sendall(whole[end:])
            assert [*first, *reader.read()] == [{"a": 1}, "x" * 50]
        assert not reader.ended
        theirs.close()
        assert reader.read() == [] and reader.ended


def test_moments_only_grow(monkeypatch):
    """Red when the wall clock is used as it is."""
    clock, walls = Clock(), iter([100.0, 50.0, 50.0, 200.0])
    monkeypatch.setattr(time, "time", lambda: next(walls))
    moments = [clock.now() for _ in range(4)]
    assert moments == sorted(moments)
    assert len({at for at, _ in moments}) == len({sequence for _, sequence in moments}) == 4


class _Connection:
    def registerCloseCallback(self, *_args):
        pass

    def domainEventRegisterAny(self, _domain, _kind, callback, context):
        self.tell = lambda domain, event: callback(self, domain, event, 0, context)


class _Domain:
    def UUIDString(self):
        return "u"

    def name(self):
        return "n"


@pytest.mark.parametrize("listed_late", [False, True])
def test_an_undefined_domain_goes_on_until_it_is_off(listed_late):
    """Red when undefining always means gone, or an old list overrides a newer event."""
    seen, connection, domain = [], _Connection(), _Domain()
    lifecycle = Lifecycle(connection, lambda *change: seen.append(change[2:]), lambda: None)
    running = (DomainInfo("n", "u", DomainState.RUNNING, 1, 1),)
    lifecycle.learn(running, time.monotonic())
    connection.tell(domain, libvirt.VIR_DOMAIN_EVENT_UNDEFINED)
    began = time.monotonic()
    connection.tell(domain, libvirt.VIR_DOMAIN_EVENT_STOPPED)
    if listed_late:
        lifecycle.learn(running, began)
    connection.tell(domain, libvirt.VIR_DOMAIN_EVENT_UNDEFINED)
    assert seen == [(DomainState.RUNNING, True), (DomainState.SHUTOFF, True), (None, True)]


@pytest.mark.live
def test_a_real_start_and_stop_are_heard(watching, record_property):
    """Red when the lifecycle is not registered. The latency is printed (run with -s), not judged."""
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
