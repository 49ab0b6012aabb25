"""Consoles in the browser: tickets, the broker on a real Unix socket, the browser's socket, the pages."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from channels.routing import URLRouter
from django.conf import settings
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from portal.accounts.models import Membership, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers import errors, ssh
from portal.hosts import connections
from portal.hosts.keys import ensure_key
from portal.hosts.models import Health, Host
from portal.operations.models import Operation
from tests.dying import database_url
from tests.factories import HOST_KEY, make_host, make_image, make_ssh_host
from tests.racing import race
from vms.console import services, wire
from vms.console.broker import Broker, _address
from vms.console.models import ConsoleSession, ConsoleTicket, Kind
from vms.console.urls import websocket_urlpatterns
from vms.models import Observed, Status, VirtualMachine

pytestmark = pytest.mark.database
LIMIT = 30  # seconds; what is awaited takes far less, and a hang must not last


@pytest.fixture
def machine(cast):
    """The requester's running machine on a host whose consoles echo."""
    operation = Operation.objects.create(
        kind="test.files",
        project=cast.project,
        requester=cast.requester,
        token=uuid.uuid4(),
        state="succeeded",
    )
    return VirtualMachine.objects.create(
        name="example-vm",
        uuid=uuid.uuid4(),
        project=cast.project,
        owner=cast.requester,
        host=make_host(uri="fake://host/?console="),
        built_by=operation,
        item_name="Tiny",
        image=make_image(),
        vcpus=1,
        memory=1 << 27,
        login_user="root",
        status=Status.ACTIVE,
        lease_until=timezone.now() + timedelta(days=1),
        observed_state=Observed.RUNNING,
    )


def issue(user, machine, kind="serial"):
    return services.issue_ticket(actor=user, machine=machine, kind=kind)


def entries(verb):
    return list(AuditEntry.objects.filter(verb=verb).order_by("pk"))


# Hosts


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


# Tickets


def test_only_the_hash_of_a_ticket_is_kept(cast, machine):
    secret = issue(cast.requester, machine)
    kept = ConsoleTicket.objects.values().get()
    assert secret not in str(kept) and kept["secret_hash"] == services.hash_of(secret)


def test_a_ticket_is_good_once_for_one_person_machine_and_kind(cast, machine):
    """Red when `user_id`, `machine_id` or `kind` leaves the conditions of redeem_ticket."""
    secret, who, what = issue(cast.requester, machine), cast.requester.pk, machine.pk
    assert not services.redeem_ticket(secret, cast.operator.pk, what, "serial")
    assert not services.redeem_ticket(secret, who, what + 1, "serial")
    assert not services.redeem_ticket(secret, who, what, "vnc")
    assert not services.redeem_ticket(secret + "x", who, what, "serial")
    assert services.redeem_ticket(secret, who, what, "serial")
    assert not services.redeem_ticket(secret, who, what, "serial")


def test_an_old_ticket_is_no_good_and_is_forgotten(cast, machine):
    """Red when `expires_at__gt` leaves the conditions of redeem_ticket."""
    secret = issue(cast.requester, machine)
    ConsoleTicket.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert not services.redeem_ticket(secret, cast.requester.pk, machine.pk, "serial")
    issue(cast.requester, machine)
    assert ConsoleTicket.objects.count() == 1


def test_of_racing_readers_of_one_ticket_one_wins(trail_that_can_be_flushed, cast, machine):
    """Red when redeem_ticket reads the row and saves it instead of one UPDATE."""
    secret, ready = issue(cast.requester, machine), threading.Barrier(4)

    def last_moment(execute, sql, *rest):
        # Nobody writes before everybody who reads first has read.
        if sql.startswith("UPDATE"):
            ready.wait(LIMIT)
        return execute(sql, *rest)

    def redeem():
        with connection.execute_wrapper(last_moment):
            return services.redeem_ticket(secret, cast.requester.pk, machine.pk, "serial")

    assert sorted(race([redeem] * 4)) == [False] * 3 + [True]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"observed_state": Observed.SHUTOFF}, "switched off"),
        ({"observed_state": Observed.CRASHED}, "switched off"),
        ({"observed_state": Observed.PAUSED}, "paused"),
        ({"observed_state": Observed.UNKNOWN}, "not known"),
        ({"status": Status.BINNED}, "deleted"),
    ],
)
def test_a_machine_without_a_console_is_refused_with_words(cast, machine, changes, words):
    for name, value in changes.items():
        setattr(machine, name, value)
    with pytest.raises(Denied, match=words):
        issue(cast.requester, machine)


def test_who_may_not_use_the_machine_gets_no_ticket(cast, machine):
    """Red when issue_ticket asks for `view` in place of `use`."""
    issue(cast.operator, machine)
    for other in (cast.auditor, cast.approver):
        with pytest.raises(Denied, match="may not use"):
            issue(other, machine)


def test_every_end_of_the_driver_has_a_sentence():
    from portal.drivers.console import EndReason

    assert {str(reason) for reason in EndReason} <= set(services.SENTENCES)


# Pages


@pytest.mark.parametrize("kind", Kind.values)
def test_a_page_is_for_who_may_use_the_machine(client, cast, machine, kind):
    url = reverse(f"console:{kind}", args=[machine.pk])
    for user, status in ((cast.requester, 200), (cast.operator, 200), (cast.auditor, 404)):
        client.force_login(user)
        assert client.get(url).status_code == status


def test_the_serial_page_allows_xterm_its_styles(client, cast, machine):
    client.force_login(cast.requester)
    response = client.get(reverse("console:serial", args=[machine.pk]))
    assert "'nonce-" in response.headers["Content-Security-Policy"]


def test_a_ticket_comes_by_post_alone_and_off_is_said(client, cast, machine):
    url = reverse("console:ticket", args=[machine.pk])
    client.force_login(cast.requester)
    assert client.get(url).status_code == 405
    answer = client.post(url, {"kind": "vnc"})
    assert answer.json()["url"] == reverse("console:vnc", args=[machine.pk])
    assert answer.json()["ticket"] not in answer.json()["url"]
    assert client.post(url, {"kind": "root"}).status_code == 409
    VirtualMachine.objects.update(observed_state=Observed.SHUTOFF)
    refused = client.post(url, {"kind": "vnc"})
    assert (refused.status_code, "switched off" in refused.json()["reason"]) == (409, True)
    client.force_login(cast.auditor)
    assert client.post(url, {"kind": "vnc"}).status_code == 404


# Broker and browser's socket


@pytest.fixture
def path(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="gttest-f-") as folder:  # a socket's path must be short
        path = Path(folder) / "run" / "consoles.sock"
        monkeypatch.setattr(wire, "socket_path", lambda: path)
        yield path


@asynccontextmanager
async def serving(path):
    broker = Broker(path)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


class Browser(ApplicationCommunicator):
    """The browser's end of a console's socket, as the ASGI server hands it on."""

    def __init__(self, user, machine, kind="serial"):
        path = f"/machines/{machine.pk}/console/{kind}/"
        scope = {"type": "websocket", "path": path, "headers": [], "subprotocols": [], "user": user}
        super().__init__(URLRouter(websocket_urlpatterns), scope)

    async def connect(self):
        await self.send_input({"type": "websocket.connect"})
        assert (await self.receive_output(LIMIT))["type"] == "websocket.accept"

    async def type(self, **message):
        await self.send_input({"type": "websocket.receive", **message})

    async def disconnect(self):
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(LIMIT)


@asynccontextmanager
async def opened(user, machine, kind="serial", secret=None):
    secret = secret or await database_sync_to_async(issue)(user, machine, kind)
    socket = Browser(user, machine, kind)
    await socket.connect()
    await socket.type(text=secret)
    try:
        yield socket
    finally:
        await socket.disconnect()


async def told(socket):
    """Return the next text, skipping what the guest says."""
    while True:
        message = await socket.receive_output(LIMIT)
        assert message["type"] == "websocket.send", message
        if message.get("text"):
            return json.loads(message["text"])


async def ended(socket):
    fields = await told(socket)
    assert fields["type"] == "ended" and fields["text"] == services.sentence(fields["code"])
    assert (await socket.receive_output(LIMIT))["type"] == "websocket.close"
    return fields["code"]


async def hear(socket, size):
    heard = b""
    while len(heard) < size:
        message = await socket.receive_output(LIMIT)
        assert message.get("bytes"), message
        heard += message["bytes"]
    return heard


@pytest.fixture
def road(trail_that_can_be_flushed, cast, machine, path):
    """Rows that other threads see, and where the broker will listen."""
    return path


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
def test_a_right_taken_away_ends_the_console_and_opens_no_other(road, cast, machine, change, code):
    """Red when Carrier.carry leaves out _watch_right, or Broker._open does not call standing."""

    async def scenario():
        second = await database_sync_to_async(issue)(cast.requester, machine)
        async with serving(road):
            async with opened(cast.requester, machine) as socket:
                assert await told(socket) == {"type": "open"}
                await database_sync_to_async(change)(cast.requester, machine)
                wire.ask_recheck(road)
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
