"""A further host by SSH, for real: enrolled, a machine built there, seen, opened, and every fault."""

import asyncio
import json
import os
import time
import uuid
from pathlib import Path

import pytest

from portal.core.errors import Denied
from portal.drivers.console import ConsoleKind, open_console
from portal.drivers.errors import DriverError
from portal.drivers.registry import driver_for
from portal.hosts import services
from portal.hosts.calls import call
from portal.hosts.connections import connection_uri
from portal.hosts.keys import authorized_line, current_key
from portal.hosts.models import Health, Host
from portal.hosts.watcher import Watcher
from portal.operations import services as operations
from portal.operations.models import Counter
from portal.operations.states import State
from tests import factories
from tests.calling import shown
from tests.hosts.conftest import carry_out
from vms.models import Observed, VirtualMachine
from vms.services import request_machine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed", "own_state"),
]
IMAGES = Path(os.environ.get("GATEHOUSE_IMAGES", Path(__file__).resolve().parents[2] / "var/images"))
POOL = "/var/lib/libvirt/images/gatehouse"
LIMIT = 60.0


def failure(operation):
    """Carry out what must fail, and return its code."""
    assert carry_out(operation).state == State.FAILED
    return operation.steps.exclude(error_code="").get().error_code


def joined(chief, host, user="gate"):
    """The row of `host` after its key was fetched and confirmed, and its enrolment not yet carried out."""
    greeting = services.enrol_host(actor=chief, name="second", uri=host.uri(user), pool_path=POOL)
    assert carry_out(greeting).state == State.SUCCEEDED
    row = Host.objects.get(name="second")
    assert row.offered_fingerprint == host.fingerprint
    host.authorize(authorized_line(current_key()), user)
    enrolment = services.confirm_host_key(actor=chief, host=row, fingerprint=host.fingerprint)
    row.refresh_from_db()
    return row, enrolment


def tiny():
    """The row of the image that was built."""
    entry = next(item for item in json.loads((IMAGES / "images.json").read_text()) if item["name"] == "tiny")
    return factories.make_image(
        sha256=entry["sha256"],
        virtual_size=entry["virtual_size_bytes"],
        source=str(IMAGES / entry["file"]),
    )


def watch_until(what, watcher=None):
    """Let a watcher turn until `what()`; return how long it took in seconds."""
    watcher, own, began = watcher or Watcher(), watcher is None, time.monotonic()
    try:
        while not what():
            assert time.monotonic() - began < LIMIT, "the watcher did not see it"
            watcher.turn(0.2)
    finally:
        if own:
            watcher.close()
    return time.monotonic() - began


def refusals(row):
    """What two calls fail with: a connection that was open breaks first, and a new one says why."""
    codes = []
    for _ in range(2):
        with pytest.raises(DriverError) as refused:
            call(row.pk, "ping")
        codes.append(refused.value.code)
    return codes


def health(row):
    row.refresh_from_db()
    return row.observed_health, row.observed_code


def build(cast, row, **wish):
    """A tiny machine on the host, built by the road that people take."""
    Counter.objects.filter(scope=row.scope).update(limit=factories.GIB)
    catalogue = factories.make_catalogue(tiny_of(row), factories.make_network(79))
    wish = factories.make_wish(catalogue, name="gttest-second", **wish)
    asked = request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())
    approved = operations.decide(
        actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True
    )
    done = carry_out(approved)
    assert done.state == State.SUCCEEDED, list(done.steps.values_list("error_code", "error_raw"))
    return VirtualMachine.objects.get()


def tiny_of(row):
    return row.pools.get().images.get().image


async def say(uri, machine):
    """Wake the serial line and return what the guest says."""
    stream = await open_console(uri, str(machine.uuid), ConsoleKind.SERIAL, timeout=LIMIT)
    async with stream, asyncio.timeout(LIMIT):
        said = b""
        while b"login:" not in said:
            await stream.write(b"\n")
            said += await stream.read()
            await asyncio.sleep(0.1)
        return said


async def look(uri, machine):
    """Open the screen and return the first that comes."""
    stream = await open_console(uri, str(machine.uuid), ConsoleKind.VNC, timeout=LIMIT)
    async with stream:
        return await stream.read()


def test_a_further_host_is_enrolled_and_builds_machines(chief, cast, second_host, caller, client):
    """Red when the connection's URI lacks the portal's ssh, or images go by a path of this machine alone.

    Red also when `reach._by_host` leaves the jump out of the first command: nothing here leads to the guest.
    """
    tiny()
    row, enrolment = joined(chief, second_host)
    done = carry_out(enrolment)
    assert done.state == State.SUCCEEDED, list(done.steps.values_list("error_code", "error_raw"))
    row.refresh_from_db()
    assert row.accelerator and row.readiness["host"]["hostname"] == second_host.name
    uploaded = driver_for(second_host.local_uri).list_volumes(row.pools.get().pool.name)
    assert [volume.name for volume in uploaded] == [tiny_of(row).volume_name]
    machine = build(cast, row, ssh_keys=caller.public_key)
    watch_until(lambda: VirtualMachine.objects.filter(observed_state=Observed.RUNNING).exists())
    assert health(row) == (Health.UP, "")
    assert b"login:" in asyncio.run(say(connection_uri(row), machine))
    second_host.add_to_group("gate", "libvirt-qemu")
    assert asyncio.run(look(connection_uri(row), machine)).startswith(b"RFB")
    client.force_login(cast.requester)
    command, _near = shown(client.get(f"/machines/{machine.pk}/").content.decode())
    second_host.authorize(caller.public_key)
    caller.knows(second_host.address, row.host_key)
    caller.reach(command)
    assert caller.call(command, "hostname").stdout.strip() == machine.name


def test_what_keeps_a_host_away_is_told_apart(chief, cast, second_host):
    """Red when two of them come out as the same code."""
    row, enrolment = joined(chief, second_host)
    second_host.forbid("gate")
    assert failure(enrolment) == "key_refused"
    line = authorized_line(current_key())
    second_host.authorize(line, "gate")
    second_host.authorize(line, "stranger")
    Host.objects.filter(pk=row.pk).update(uri=second_host.uri("stranger"))
    assert failure(services.enrol_again(actor=chief, host=row)) == "libvirt_refused"
    Host.objects.filter(pk=row.pk).update(uri=second_host.uri("nobody-here"))
    assert failure(services.enrol_again(actor=chief, host=row)) == "key_refused"
    Host.objects.filter(pk=row.pk).update(uri=second_host.uri("gate"))
    call(row.pk, "ping")
    second_host.kill_libvirtd()
    assert refusals(row)[-1] == "libvirt_absent"


def test_a_changed_host_key_is_refused_until_it_is_confirmed(chief, cast, second_host):
    """Red when ssh is told to accept new keys, or known_hosts of the account is read."""
    row, enrolment = joined(chief, second_host)
    call(row.pk, "ping")
    first = row.host_key
    second_host.change_host_key()
    assert refusals(row)[-1] == "host_key_changed"
    watch_until(lambda: health(row) == (Health.STALE, "host_key_changed"))
    assert failure(enrolment) == "host_key_changed"
    assert carry_out(services.greet_host(actor=chief, host=row)).state == State.SUCCEEDED
    row.refresh_from_db()
    assert row.host_key == first and row.offered_fingerprint == second_host.fingerprint
    with pytest.raises(Denied):
        services.confirm_host_key(actor=chief, host=row, fingerprint=row.fingerprint)
    services.confirm_host_key(actor=chief, host=row, fingerprint=second_host.fingerprint)
    call(row.pk, "ping")
    watch_until(lambda: health(row) == (Health.UP, ""))


def test_faults_of_the_host_are_seen_and_pass(chief, cast, second_host):
    """Red when the watcher has no limit of silence: a frozen libvirtd would never be noticed."""
    row, _enrolment = joined(chief, second_host)
    watcher = Watcher()
    try:
        watch_until(lambda: health(row)[0] == Health.UP, watcher)
        for fault, mend in (
            (second_host.kill_libvirtd, second_host.start_libvirtd),
            (second_host.freeze_libvirtd, second_host.thaw_libvirtd),
            (second_host.unplug, second_host.plug),
            (second_host.power_cut, second_host.power_on),
        ):
            fault()
            seen = watch_until(lambda: health(row)[0] == Health.STALE, watcher)
            assert seen < 15, f"{fault.__name__} was seen after {seen:.1f} s"
            mend()
            back = watch_until(lambda: health(row) == (Health.UP, ""), watcher)
            assert back < 20, f"after {mend.__name__} it was up again after {back:.1f} s"
    finally:
        watcher.close()
