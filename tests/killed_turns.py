"""A further host whose libvirtd dies when it is told to, and turns in which it does so at each of its calls.

For tests of what is done there. Not for: what that is, nor whether both sides agree, which a `Scene` knows.
"""

import os
import socket
import threading
from collections import Counter as Lines
from contextlib import contextmanager, suppress
from itertools import zip_longest
from types import SimpleNamespace

import pytest

from portal.drivers.registry import driver_for
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from tests import killed_libvirt
from tests.dying import Workers

ROOT = "/var/lib/libvirt/images"
#: libvirt 9.0 writes `<mirror job=''>` while a disk changes over to its copy, and does not read that
#: again: when it starts it does not know the domain, whose emulator goes on. One test hits that moment.
LEFT_OUT = {("during", "blockJobAbort")}
#: libvirt writes that a network runs once its bridge is made, and that it does not before the bridge goes.
#: When it dies between the two the bridge is left, and nothing of libvirt's takes it away (`BridgeTaken`).
LEFT_OUT |= {("during", "network-create"), ("during", "network-destroy")}
#: Of a volume that is read, once at its beginning and once at its end.
LEFT_OUT |= {("during", "download"), ("after", "finish")}


# The host


@pytest.fixture(scope="module")
def kills(lab, tmp_path_factory):
    """A further host, and a folder where it is ordered when its libvirtd dies."""
    host, folder = lab.host(), tmp_path_factory.mktemp("kills")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "killer"))
    listener.listen()
    threading.Thread(target=_serve, args=(host, listener), daemon=True).start()
    os.environ[killed_libvirt.KILLS] = str(folder)
    yield SimpleNamespace(uri=host.local_uri, folder=folder, host=host)
    del os.environ[killed_libvirt.KILLS]
    listener.close()
    host.power_cut()


def _serve(host, listener):
    """Kill libvirtd and start it again for whoever connects, who reads the end once it answers."""
    with suppress(OSError):
        while True:
            asking, _address = listener.accept()
            with asking:
                host.kill_libvirtd()
                host.start_libvirtd()


@pytest.fixture(scope="module")
def worker(kills, django_db_setup):
    """Run a worker to its end; return its exit status."""
    workers = Workers(killed_libvirt.__name__)
    yield workers
    workers.close()


@contextmanager
def opened(uri):
    """A driver of the libvirtd that is there now."""
    driver = driver_for(uri)
    yield driver
    driver.close()


# What is done


class Peaceful:
    """An act during which libvirtd lives: it makes the same calls as what it takes back."""

    def __init__(self, act):
        self.act = act

    def __call__(self, there):
        return self.act(there)


class Scene:
    """What is on the host and what the portal knows of it, for one test.

    `see` lets the portal look, `state` is a mapping of all that is on both sides and not another each time,
    and `agree` fails unless they are of one mind.
    """

    def __init__(self, stage, worker):
        self.stage, self.worker = stage, worker

    def carry_out(self, act, when="before", number=0, *, reads=False):
        """Begin what `act` returns and carry it out, libvirtd dying then; return how it ended."""
        self.see()
        killed_libvirt.order(self.stage.folder, when, number, reads=reads)
        begun = act(self)
        if begun is None:
            return SimpleNamespace(state=State.SUCCEEDED)
        assert self.worker(begun.pk) == 0
        return Operation.objects.get(pk=begun.pk)


def deaths(calls, *, reads=False, only=()):
    """Return when libvirtd dies: before the first call, in the middle of each of those, and after each."""
    if reads:
        return [("before", place) for place, _name in enumerate(calls, 1)]
    found = [("before", 1)] if calls else []
    for place, name in enumerate(calls, 1):
        if not only or name in only:
            found += [(when, place) for when in ("during", "after") if (when, name) not in LEFT_OUT]
    return found


def go_through(there, acts, *, reads=False, only=()):
    """Do `acts` in turn, first in peace, then with libvirtd dying at each call, or of `only` those."""
    points, after = [], []
    for act in acts:
        ended = there.carry_out(act, reads=reads)
        assert ended.state == State.SUCCEEDED, problems(ended)
        calls = killed_libvirt.called(there.stage.folder)
        points.append([] if isinstance(act, Peaceful) else deaths(calls, reads=reads, only=only))
        after.append(there.state())
    for turn in zip_longest(*points):
        for step, (act, point) in enumerate(zip(acts, turn, strict=True)):
            before, at = there.state(), (step, point)
            ended = there.carry_out(act, *point or (), reads=reads)
            print(at, killed_libvirt.called(there.stage.folder), ended.state)
            assert not point or killed_libvirt.is_dead(there.stage.folder), at
            if ended.state != State.SUCCEEDED:
                assert ended.state == State.FAILED and point, (at, problems(ended))
                changed = differences(before, there.state())
                assert changed == [], (at, problems(ended), changed)
                again = there.carry_out(act)
                assert again.state == State.SUCCEEDED, (at, problems(ended), problems(again))
            if len(acts) > 1:
                changed = differences(after[step], there.state())
                assert changed == [], (at, changed)
            there.agree()


def problems(operation):
    found = StepRecord.objects.filter(operation=operation).values_list("name", "error_code", "error_raw")
    return operation.state, list(found)


def differences(before, after):
    """Return what went from each part of a state, and what came."""
    found = []
    for part, was in before.items():
        old, new = Lines(map(str, was)), Lines(map(str, after[part]))
        if old != new:
            found.append((part, list((old - new).elements()), list((new - old).elements())))
    return found
