"""The children that watch come and go; a dead or stopped one costs the others nothing."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from portal.drivers.observations import DomainList, Heartbeat, HostLost, HostSilent, Snapshot
from portal.drivers.watch import HostWatch
from tests.drivers.watch.hearing import PATIENCE, collect, of


@pytest.mark.slow
def test_a_fake_host_beats_and_is_seen_whole(watching):
    uri = "fake:///one"
    heard = collect(watching(uri), lambda heard: len(of(heard[uri], Heartbeat)) >= 2)[uri]
    (snapshot,) = of(heard, Snapshot)
    assert (snapshot.domains, snapshot.pools, snapshot.networks) == ((), (), ())
    assert snapshot.host.hostname == "fake"
    beats = of(heard, Heartbeat)
    assert beats[0].observed_at < beats[1].observed_at
    assert beats[0].sequence < beats[1].sequence


@pytest.mark.slow
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


@pytest.mark.slow
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
