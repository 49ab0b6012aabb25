"""A real host of Xen: enrolled, a domain of virsh's adopted, run and changed; what Xen has not, refused."""

import asyncio
import time
import uuid
from collections import Counter as Lines

import pytest
from django.urls import reverse

from portal.drivers import errors, ssh
from portal.drivers.console import ConsoleKind, open_console
from portal.drivers.registry import driver_for
from portal.drivers.types import LIMITS, XEN_HOST, DomainState
from portal.hosts import services
from portal.hosts.connections import connection_uri
from portal.hosts.keys import authorized_line, current_key
from portal.hosts.models import Host
from portal.operations.states import State
from tests.factories import MIB
from tests.hosts.conftest import carry_out
from tests.xen.machine import FOLDER
from vms import editing, power
from vms.adoption.services import adopt_machine
from vms.changes import resizing
from vms.models import Definition, Observed, VirtualMachine

pytestmark = [pytest.mark.live, pytest.mark.slow]
#: Seconds for whatever this host does: its processors are emulated, and so are those of its guests.
LIMIT = 240.0
GUEST = """\
<domain type='xen'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <metadata>
    <app:note xmlns:app='urn:example:app' app:colour='blue'>keep <app:b>me</app:b></app:note>
  </metadata>
  <memory unit='MiB'>192</memory>
  <currentMemory unit='MiB'>192</currentMemory>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='xenpv'>linux</type>
    <kernel>/srv/guest/vmlinux</kernel>
    <initrd>/srv/guest/initrd.img</initrd>
    <cmdline>console=hvc0</cmdline>
  </os>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>preserve</on_crash>
  <devices>
    <disk type='block' device='disk'>
      <driver name='phy'/><source dev='{device}'/><target dev='xvda' bus='xen'/>
    </disk>
    <interface type='network'><mac address='{mac}'/><source network='default'/></interface>
    <console type='pty'><target type='xen' port='0'/></console>
  </devices>
</domain>
"""


@pytest.fixture
def guest(xen):
    """The UUID of a domain with a disk and a card, defined by virsh; it goes in the end."""
    own = str(uuid.uuid4())
    name = f"Old_Web-{own[:6]}"
    device = xen.run(f"truncate -s 16M /srv/{own}; losetup -f --show /srv/{own}").strip()
    text = GUEST.format(name=name, uuid=own, mac=f"00:16:3e:{own[:2]}:{own[2:4]}:{own[4:6]}", device=device)
    xen.run("cat >/tmp/guest.xml && virsh -q define /tmp/guest.xml", text)
    yield own
    xen.run(f"virsh -q destroy {own}; virsh -q undefine --managed-save {own}; true")
    xen.run(f"losetup -d {device}; rm /srv/{own}")


@pytest.fixture
def driver(xen, tmp_path):
    """The portal's driver, by the portal's own way of SSH, as `gate`."""
    key = (FOLDER / "host_key.pub").read_text()
    host_key = ssh.check_key(key)
    uri = ssh.prepare(tmp_path / "ssh", "1", xen.uri(), (FOLDER / "key").read_text(), host_key)
    made = driver_for(uri)
    yield made
    made.close()


def until(seen, turn=lambda: time.sleep(0.5)):
    """Return what `seen` returns, once it returns something."""
    end = time.monotonic() + LIMIT
    while not (found := seen()):
        assert time.monotonic() < end, "not seen in time"
        turn()
    return found


async def answer(uri, own, question, wanted):
    """Type on a serial console until what comes holds `wanted`."""
    stream = await open_console(uri, own, ConsoleKind.SERIAL, timeout=LIMIT)
    async with stream, asyncio.timeout(LIMIT):
        said, reading = b"", asyncio.create_task(stream.read())
        while wanted not in said:
            # Again and again: what comes before there is a shell is lost.
            await stream.write(question + b"\n")
            if (await asyncio.wait({reading}, timeout=5))[0]:
                said += reading.result()
                reading = asyncio.create_task(stream.read())
        reading.cancel()
        return said


def changed_lines(before, after):
    """Return the lines that went and those that came."""
    old, new = (Lines(line.strip() for line in text.splitlines()) for text in (before, after))
    return list((old - new).elements()), list((new - old).elements())


def test_what_the_host_tells_and_what_it_has_not(driver, guest):
    """Red when Domain-0 is told, or what Xen cannot fails otherwise than by NotSupported."""
    info = driver.host_info()
    assert (info.hypervisor, info.hypervisor_version // 1_000_000) == ("Xen", 4)
    ready = driver.readiness()
    assert ready.saves and not ready.kvm_offered
    assert {able.board for able in ready.abilities if able.type == "xen"} >= {"xenpv", "xenpvh", "xenfv"}
    [found] = driver.list_domains()
    assert (found.uuid, found.state) == (guest, DomainState.SHUTOFF)
    assert driver.domain_info(guest).state is DomainState.SHUTOFF
    for verb in (driver.destroy, driver.shutdown, driver.suspend, driver.domain_info):
        with pytest.raises(errors.DomainNotFound):
            verb(XEN_HOST)
    assert any(network.name == "default" and network.active for network in driver.list_networks())
    driver.start(guest)
    assert driver.guest_agent_ping(guest) is False and driver.definition(guest).running
    device = driver.definition(guest).running.split("<source dev='")[1].split("'")[0]
    with pytest.raises(errors.NotSupported):
        driver.limit_disk(guest, "xvda", device, dict.fromkeys(LIMITS, 0) | {"total_iops_sec": 9})


@pytest.mark.database
@pytest.mark.usefixtures("trail_that_can_be_flushed", "own_state")
def test_one_is_enrolled_and_a_domain_of_it_is_adopted_run_and_changed(
    chief, cast, xen, guest, watcher, client
):
    """Red when anything on this road takes the host for one of QEMU."""
    greeting = services.enrol_host(actor=chief, name="xen-1", uri=xen.uri(), pool_path="/var/lib/gatehouse")
    assert carry_out(greeting).state == State.SUCCEEDED
    xen.authorize(authorized_line(current_key()))
    row = Host.objects.get()
    enrolment = services.confirm_host_key(actor=chief, host=row, fingerprint=row.offered_fingerprint)
    done = carry_out(enrolment)
    assert done.state == State.SUCCEEDED, list(done.steps.values_list("name", "error_code", "error_raw"))
    row.refresh_from_db()
    assert (row.accelerator, row.gives, row.bridges, row.pools.count()) == ("xen", [], True, 1)

    def turn():
        watcher.turn(0.5)

    until(lambda: Definition.objects.filter(uuid=guest).first(), turn)
    assert not Definition.objects.filter(uuid=XEN_HOST).exists()
    client.force_login(chief)
    page = client.get(reverse("vms:found")).content.decode()
    assert "Old_Web" in page and "Domain-0" not in page
    wanted = {"project": cast.project, "owner": cast.requester, "name": "old-web", "lease_days": 30}
    begun = adopt_machine(actor=chief, definition=Definition.objects.get(uuid=guest), **wanted)
    assert carry_out(begun).state == State.SUCCEEDED
    machine = VirtualMachine.objects.get()
    assert (machine.accelerator, machine.virtualization) == ("xen", "Paravirtualization on Xen")

    def seen_as(state):
        return until(lambda: VirtualMachine.objects.filter(observed_state=state).first(), turn)

    def act(verb, state):
        seen = VirtualMachine.objects.get()
        done = carry_out(power.act(actor=cast.requester, machine=seen, verb=verb))
        assert done.state == State.SUCCEEDED, (verb, list(done.steps.values_list("error_code", "error_raw")))
        return seen_as(state)

    uri = connection_uri(row)
    seen_as(Observed.SHUTOFF)
    before = xen.run(f"virsh dumpxml --inactive {guest}")
    _edit(cast, machine)
    _resize(cast, machine, {"vcpu": 1, "memory": 160 * MIB}, turn)
    gone, came = changed_lines(before, xen.run(f"virsh dumpxml --inactive {guest}"))
    assert "<description>ours &lt;now&gt;</description>" in came and len(came) == 4 and len(gone) == 3

    act("start", Observed.RUNNING)
    assert asyncio.run(answer(uri, guest, b"echo here-$((40+2))", b"here-42"))
    act("suspend", Observed.PAUSED)
    act("resume", Observed.RUNNING)
    act("save", Observed.SAVED)
    act("start", Observed.RUNNING)
    assert asyncio.run(answer(uri, guest, b"echo back-$((40+2))", b"back-42"))
    act("reboot", Observed.RUNNING)


def _edit(cast, machine):
    digest = Definition.objects.get(uuid=machine.uuid).observed_digest
    values = {"description": "ours <now>"}
    begun = editing.edit_machine(actor=cast.requester, machine=machine, values=values, digest=digest)
    done = carry_out(begun)
    assert done.state == State.SUCCEEDED, list(done.steps.values_list("error_code", "error_raw"))


def _resize(cast, machine, sizes, turn):
    def is_told():
        found = Definition.objects.get(uuid=machine.uuid)
        return (found.observed_persistent or {}).get("description") == "ours <now>"

    until(is_told, turn)
    machine.refresh_from_db()
    seen = resizing.sizes_of(machine)
    begun = resizing.request_resize(
        actor=cast.requester, machine=machine, sizes=sizes, seen=seen, why="less", token=uuid.uuid4()
    )
    done = carry_out(begun)
    assert done.state == State.SUCCEEDED, list(done.steps.values_list("error_code", "error_raw"))
