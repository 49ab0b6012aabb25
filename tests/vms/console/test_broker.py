"""The broker on a real Unix socket, its hosts, and what ends a console."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from uuid import uuid4

import pytest
from channels.db import database_sync_to_async
from django.conf import settings

from portal.accounts.models import Membership, User
from portal.drivers import errors, ssh
from portal.hosts import connections
from portal.hosts.images import passing, store
from portal.hosts.keys import ensure_key
from portal.hosts.models import Health, Host
from tests.dying import database_url
from tests.factories import HOST_KEY, make_ssh_host
from tests.vms.console.browser import Browser, ended, entries, hear, issue, opened, serving, told
from vms.console import broker, services
from vms.console.broker import Broker, _address
from vms.console.models import ConsoleSession

pytestmark = pytest.mark.database


# Hosts and words


def test_a_further_host_is_reached_by_the_portals_ssh(machine, monkeypatch, settings, tmp_path):
    """Red when the broker takes the address that people gave."""
    settings.ENCRYPTION_KEYS = tmp_path / "keys"
    monkeypatch.setattr(connections, "STATE_DIR", tmp_path)
    ensure_key("example")
    machine.host = make_ssh_host(host_key=HOST_KEY)
    machine.save()
    uri, uuid = _address(machine.pk)
    assert uuid == str(machine.uuid) and ssh.command(uri)[1][-1] == "example-ssh.invalid"
    Host.objects.update(host_key="")
    with pytest.raises(errors.HostKeyUnconfirmed):
        _address(machine.pk)


def test_each_way_in_which_a_host_is_away_has_a_sentence():
    """Red when a kind of HostUnreachable is told as a console that broke off."""
    kinds = [errors.HostUnreachable, *errors.HostUnreachable.__subclasses__(), errors.NoIdentity]
    sentences = {services.sentence(kind.code) for kind in kinds}
    assert len(sentences) == len(kinds) and services.sentence("failed") not in sentences


def test_every_end_of_the_driver_has_a_sentence():
    from portal.drivers.console import EndReason

    assert {str(reason) for reason in EndReason} <= set(services.SENTENCES)


# Broker and browser's socket


def test_a_million_bytes_come_back_and_all_is_on_record(road, cast, machine):
    """Red when the consumer sends only `body[:1000]`, or the broker does not call end_session."""
    block = bytes(range(0x80, 0x100)) * 512  # without Ctrl-D, which powers the fake guest off

    async def scenario():
        async with serving(road), opened(cast.requester, machine) as socket:
            assert await told(socket) == {"type": "open"}
            assert oct(road.stat().st_mode & 0o777) == "0o660"
            hearing = asyncio.create_task(hear(socket, 16 * len(block)))
            for _ in range(16):
                await socket.type(bytes=block)
            assert await hearing == block * 16

    asyncio.run(scenario())
    (start,), (end,) = entries("console.opened"), entries("console.closed")
    assert start.actor_name == end.actor_name == "requester" and end.target_name == "example-vm"
    assert (end.after["kind"], end.after["reason"]) == ("serial", "left")
    assert (end.after["bytes_typed"], end.after["bytes_shown"]) == (1 << 20, 1 << 20)
    assert ConsoleSession.objects.filter(closed_at=None).count() == 0


def test_a_used_ticket_and_one_of_somebody_else_open_nothing(road, cast, machine):
    """Red when the broker does not call redeem_ticket, or the consumer sends the ticket's user along."""

    async def scenario():
        secret = await database_sync_to_async(issue)(cast.requester, machine)
        async with serving(road):
            async with opened(cast.operator, machine, secret=secret) as socket:
                assert await ended(socket) == "ticket"
            async with opened(cast.requester, machine, secret=secret) as socket:
                assert await told(socket) == {"type": "open"}
            async with opened(cast.requester, machine, secret=secret) as socket:
                assert await ended(socket) == "ticket"

    asyncio.run(scenario())
    assert len(entries("console.opened")) == 1


def take_role(user, machine):
    Membership.objects.filter(user=user).delete()


def switch_off_account(user, machine):
    User.objects.filter(pk=user.pk).update(is_active=False)


def lose_host(user, machine):
    Host.objects.update(observed_health=Health.STALE)


@pytest.mark.parametrize(
    ("change", "code"),
    [(take_role, "right_gone"), (switch_off_account, "right_gone"), (lose_host, "host_stale")],
)
def test_a_right_taken_away_ends_the_console_and_opens_no_other(
    road, cast, machine, monkeypatch, change, code
):
    """Red when _watch_right is left out or looks once, or Broker._open does not call standing."""
    monkeypatch.setattr(broker, "RECHECK", 0.05)

    async def scenario():
        second = await database_sync_to_async(issue)(cast.requester, machine)
        async with serving(road):
            async with opened(cast.requester, machine) as socket:
                assert await told(socket) == {"type": "open"}
                await database_sync_to_async(change)(cast.requester, machine)
                assert await ended(socket) == code
            async with opened(cast.requester, machine, secret=second) as socket:
                assert await ended(socket) == code

    asyncio.run(scenario())
    assert [entry.after["reason"] for entry in entries("console.closed")] == [code]


@pytest.mark.parametrize(
    ("wish", "code"),
    [("off", "invalid_state"), ("missing", "domain_not_found"), ("unreachable", "host_unreachable")],
)
def test_what_keeps_a_console_shut_is_said_in_words(road, cast, machine, wish, code):
    Host.objects.update(uri=f"fake://host/?console={wish}")

    async def scenario():
        async with serving(road), opened(cast.requester, machine) as socket:
            assert await ended(socket) == code

    asyncio.run(scenario())
    assert entries("console.opened") == []


def test_a_machine_that_powers_off_says_so_and_a_stopping_broker_too(road, cast, machine):
    async def scenario():
        async with serving(road), opened(cast.requester, machine) as socket:
            await told(socket)
            await socket.type(bytes=b"\x04")
            assert await ended(socket) == "off"
        async with serving(road) as broker, opened(cast.requester, machine) as socket:
            await told(socket)
            await broker.stop()
            assert await ended(socket) == "stopping"
            await broker.start()

    asyncio.run(scenario())


def test_without_a_broker_and_without_a_session_the_page_is_told(road, cast, machine):
    from django.contrib.auth.models import AnonymousUser

    async def scenario():
        async with opened(cast.requester, machine) as socket:
            assert await ended(socket) == "broker_away"
        socket = Browser(AnonymousUser(), machine)
        await socket.connect()
        assert await ended(socket) == "signed_out"
        await socket.disconnect()

    asyncio.run(scenario())


def broker_process(folder):
    """Start a broker of its own process on the test database."""
    return subprocess.Popen(
        [sys.executable, "manage.py", "consoles"],
        env={**os.environ, "GATEHOUSE_STATE": str(folder), "DATABASE_URL": database_url()},
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_what_browsers_sent_outlives_a_kill(road, settings):
    """The process is killed in the midst of a chunk; the next one goes on after what came of it.

    Red when `consoles` starts no keeper, or the digest of a new one is of what came to it alone.
    """
    folder, token, content = road.parent.parent, uuid4(), os.urandom(3 << 20)
    settings.UPLOADS, settings.UPLOADS_SOCKET = folder / "uploads", folder / "run" / "uploads.sock"
    first, path = broker_process(folder), store.kept_of(token)

    def pieces():
        yield content[: 2 << 20]
        while store.length(path) < 1 << 20:
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        yield content[2 << 20 :]

    assert "served" in first.stdout.readline()
    with pytest.raises(passing.Away):
        passing.append(token, 0, pieces())
    second = broker_process(folder)
    try:
        assert "served" in second.stdout.readline()
        there = store.length(path)
        assert passing.append(token, there, iter([content[there:]])) == {"there": len(content)}
        path.chmod(store.SEALED)
        assert passing.digest(token, len(content)) == hashlib.sha256(content).hexdigest()
    finally:
        second.terminate()
        assert second.wait(10) == 0
    assert path.read_bytes() == content and not settings.UPLOADS_SOCKET.exists()


@pytest.mark.slow
def test_a_killed_broker_is_said_and_the_next_one_settles_the_record(road, cast, machine):
    """Red when the consumer does not catch wire.Broken, or start() does not call settle_sessions."""
    process = broker_process(road.parent.parent)

    async def scenario():
        async with opened(cast.requester, machine) as socket:
            assert await told(socket) == {"type": "open"}
            os.kill(process.pid, signal.SIGKILL)
            assert await ended(socket) == "broker_lost"

    async def again():
        async with serving(road):
            assert await database_sync_to_async(ConsoleSession.objects.get)()

    try:
        assert "served" in process.stdout.readline()
        asyncio.run(scenario())
    finally:
        process.kill()
        process.communicate()
    assert entries("console.closed") == []
    asyncio.run(again())
    assert [entry.after["reason"] for entry in entries("console.closed")] == ["broker_lost"]


def test_a_second_broker_at_one_socket_is_refused(road, cast):
    async def scenario():
        async with serving(road):
            with pytest.raises(BlockingIOError):
                await Broker(road).start()
            assert road.exists()

    asyncio.run(scenario())
