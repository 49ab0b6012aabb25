"""A host that hangs costs its own callers a bounded time, and nobody else anything."""

import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from portal.drivers.errors import CallTimeout, DomainNotFound, HostUnreachable
from portal.drivers.pool import HostPool

MISSING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def daemon(tmp_path_factory):
    """A libvirtd of its own, as an unprivileged user: stopping it disturbs nobody. Yields (pid, uri)."""
    folder = tmp_path_factory.mktemp("libvirtd", numbered=True)
    run = subprocess.run(["mktemp", "-d", "/tmp/gh.XXXXXX"], capture_output=True, text=True, check=True)
    home = run.stdout.strip()
    command = ["libvirtd"]
    if os.geteuid() == 0:
        os.chown(home, 65534, 65534)
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command]
    process = subprocess.Popen(
        command,
        env={**os.environ, "HOME": home, "XDG_RUNTIME_DIR": home, "XDG_CONFIG_HOME": f"{home}/c",
             "XDG_CACHE_HOME": f"{home}/k"},
        cwd="/",
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
    )
    path = f"{home}/libvirt/libvirt-sock"
    end = time.monotonic() + 20
    while not os.path.exists(path):
        assert time.monotonic() < end and process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    yield process.pid, f"qemu+unix:///session?socket={path}"
    process.kill()
    process.wait()
    subprocess.run(["rm", "-rf", home], check=True)


@pytest.fixture
def pool_of():
    pools = []

    def make(uri, **options):
        pools.append(HostPool(uri, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def test_a_driver_error_crosses_the_pipe_and_the_child_stays(pool_of):
    pool = pool_of("fake://one")
    for _ in range(2):
        with pytest.raises(DomainNotFound):
            pool.call("domain_info", MISSING, timeout=20)
    assert len(pool._idle) == 1


def test_a_verb_outside_the_contract_is_refused(pool_of):
    with pytest.raises(ValueError, match="no verb"):
        pool_of("fake://one").call("__init__", timeout=1)


def test_long_calls_leave_room_for_short_ones(pool_of, monkeypatch):
    """Red when a long call takes any slot that is free: as many copies would stop all else on a host."""
    pool, started, go = pool_of("fake://one", cap=3), threading.Semaphore(0), threading.Event()
    ask = pool._ask

    def copying(verb, args, end):
        if verb == "create_volume":
            started.release()
            return go.wait(60)
        return ask(verb, args, end)

    monkeypatch.setattr(pool, "_ask", copying)
    with ThreadPoolExecutor(4) as threads:
        copies = [threads.submit(pool.call, "create_volume", None, timeout=3600) for _ in range(4)]
        try:
            assert started.acquire(timeout=60)
            assert [pool.call("list_domains", timeout=20) for _ in range(2)] == [(), ()]
            assert not started.acquire(blocking=False)
        finally:
            go.set()
        assert all(copy.result(timeout=60) for copy in copies)


def test_a_machine_is_restored_while_others_are_copied(pool_of, monkeypatch):
    """Red when "start" is not one of MEMORY: what was suspended would wait for two copies of disks."""
    pool, go = pool_of("fake://one"), threading.Event()
    copying = threading.Semaphore(0)

    def ask(verb, args, end):
        copying.release()
        return verb == "start" or go.wait(60)

    monkeypatch.setattr(pool, "_ask", ask)
    with ThreadPoolExecutor(5) as threads:
        copies = [threads.submit(pool.call, "create_volume", None, timeout=3600) for _ in range(4)]
        try:
            assert all(copying.acquire(timeout=60) for _ in range(2))
            assert threads.submit(pool.call, "start", "uuid", timeout=3600).result(timeout=60)
        finally:
            go.set()
        assert all(copy.result(timeout=60) for copy in copies)


def test_a_long_call_has_its_whole_time_when_its_turn_comes(pool_of, monkeypatch):
    """Red when its time runs while others copy: behind those of terabytes it would never be done."""
    pool, day, now = pool_of("fake://one"), 86400.0, [0.0]

    @contextmanager
    def others_copy_for_a_day():
        now[0] += day
        yield

    monkeypatch.setattr(pool, "_ask", lambda verb, args, end: end)
    monkeypatch.setattr(pool, "_long", others_copy_for_a_day())
    monkeypatch.setattr("portal.drivers.pool.time.monotonic", lambda: now[0])
    assert pool.call("create_volume", None, timeout=3600) == day + 3600


@pytest.mark.live
def test_a_frozen_daemon_costs_a_bounded_time_and_heals(daemon, pool_of):
    """Never ends when _ask polls without a limit."""
    pid, uri = daemon
    pool, healthy = pool_of(uri, cap=2), pool_of("fake://other")
    assert pool.call("list_domains", timeout=20) == ()
    os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(6) as threads:
            stuck = [threads.submit(pool.call, "list_domains", timeout=2) for _ in range(6)]
            assert healthy.call("list_domains", timeout=20) == ()
            errors = [future.exception(timeout=20) for future in stuck]
        assert all(isinstance(error, CallTimeout) for error in errors)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert pool._idle == []
    assert pool.call("list_domains", timeout=20) == ()


@pytest.mark.live
def test_a_killed_daemon_is_unreachable_at_once(daemon, pool_of):
    """Red when a child whose connection broke goes back among the idle ones."""
    pid, uri = daemon
    pool = pool_of(uri)
    assert pool.call("list_domains", timeout=20) == ()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(HostUnreachable):
        pool.call("list_domains", timeout=20)
    assert pool._idle == []
