"""What the children say: no half messages, moments in order, nothing told twice."""

import socket
import time

import libvirt
import pytest

from portal.drivers import frames
from portal.drivers.libvirt.events import Lifecycle
from portal.drivers.observations import DomainList, Heartbeat, HostLost
from portal.drivers.types import DomainInfo, DomainState
from portal.drivers.watch import HostWatch
from portal.drivers.watch_child import Clock
from tests.drivers.watch.hearing import collect, of


@pytest.mark.slow
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
