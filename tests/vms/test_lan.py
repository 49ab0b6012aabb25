"""Machines on a LAN's bridge: the guest tells their address, at the first start and each later one."""

import secrets
import subprocess
import time
import uuid
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from networks.models import Network, Port
from portal.drivers.errors import CallTimeout
from portal.drivers.types import AddressInfo, DomainState
from portal.operations.observers import DomainSeen
from portal.operations.states import State
from tests import factories
from vms import lan as asking
from vms import reach
from vms.models import Observed, Status, VirtualMachine
from vms.observer import MachineObserver

LEASED = "10.214.7."
#: Whose workers `worker` runs.
WORKER = "tests.vms.killed_builder"


@pytest.fixture
def lan():
    """A bridge with a DHCP server that is not libvirt's, as a LAN has one."""
    bridge = f"gtt{secrets.token_hex(4)}"
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    server = None
    try:
        subprocess.run(["ip", "address", "add", f"{LEASED}1/24", "dev", bridge], check=True)
        subprocess.run(["ip", "link", "set", bridge, "up"], check=True)
        server = subprocess.Popen(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping"]
            + [f"--interface={bridge}", "--bind-interfaces", "--leasefile-ro"]
            + [f"--dhcp-range={LEASED}50,{LEASED}99,1h"],
            stderr=subprocess.DEVNULL,
        )
        yield bridge
    finally:
        if server is not None:
            server.terminate()
            server.wait(10)
        subprocess.run(["ip", "link", "delete", bridge], check=True)


@pytest.mark.database
@pytest.mark.live
@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_a_machine_on_a_lan_tells_its_address_at_each_start(real, lan, approve, worker):
    """Red when the wait looks at libvirt's leases alone, or nobody asks again after a restart."""
    network = Network.objects.create(
        name=f"gttest-{secrets.token_hex(3)}", title="The LAN", kind=Network.Kind.BRIDGE, bridge=lan
    )
    operation = approve(network)
    driver = real[0]
    assert worker(operation.pk) == 0
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED
    machine = VirtualMachine.objects.get()
    assert machine.observed_address.startswith(LEASED)
    ways = reach.ways(machine, list(Port.objects.select_related("network")))
    assert [way.command for way in ways] == [f"ssh root@{machine.observed_address}"]
    driver.destroy(str(machine.uuid))
    _observe(machine, DomainState.SHUTOFF)
    driver.start(str(machine.uuid))
    assert _observe(machine, DomainState.RUNNING).observed_address is None
    end = time.monotonic() + 60
    while not asking.ask_addresses() and time.monotonic() < end:
        time.sleep(0.5)
    machine.refresh_from_db()
    assert machine.observed_address.startswith(LEASED)


def _observe(machine, state):
    began = timezone.now() + timedelta(seconds=1)
    seen = [DomainSeen(str(machine.uuid), state, began)]
    with transaction.atomic():
        MachineObserver().domains(machine.host_id, seen, False, began)
    machine.refresh_from_db()
    # The next observation is a later one.
    VirtualMachine.objects.update(observed_at=timezone.now() - timedelta(seconds=1))
    return machine


@pytest.mark.database
@pytest.mark.django_db
def test_only_running_guests_of_a_lan_without_an_address_are_asked(cast, monkeypatch):
    """Red when any condition of the query is left out, or one silent host holds up the others."""
    lan = Network.objects.create(name="lan", title="LAN", kind=Network.Kind.BRIDGE, bridge="br0")
    hosts = [factories.make_host(name, f"fake:///{name}") for name in ("a", "b")]
    image = factories.make_image()
    machines = {}
    for name, host, network, state in (
        ("silent", hosts[0], lan, Observed.RUNNING),
        ("tells", hosts[1], lan, Observed.RUNNING),
        ("off", hosts[1], lan, Observed.SHUTOFF),
        ("nat", hosts[1], factories.make_network(), Observed.RUNNING),
    ):
        built = _built(cast)
        machine = VirtualMachine.objects.create(
            name=name,
            uuid=uuid.uuid4(),
            project=cast.project,
            owner=cast.requester,
            host=host,
            built_by=built,
            image=image,
            vcpus=1,
            memory=1 << 28,
            status=Status.ACTIVE,
            observed_state=state,
            lease_until=timezone.now(),
        )
        mac = f"52:54:00:00:00:0{len(machines)}"
        Port.objects.create(network=network, host=host, domain_uuid=machine.uuid, mac=mac)
        machines[str(machine.uuid)] = machine, mac
    asked = []

    def call(host, verb, domain, *, timeout):
        machine, mac = machines[domain]
        asked.append(machine.name)
        if machine.name == "silent":
            raise CallTimeout("frozen")
        return (AddressInfo(mac, "10.0.0.9", 24),)

    monkeypatch.setattr(asking, "call", call)
    assert asking.ask_addresses() == 1
    assert sorted(asked) == ["silent", "tells"]
    assert VirtualMachine.objects.get(name="tells").observed_address == "10.0.0.9"


def _built(cast):
    from portal.operations.models import Operation

    return Operation.objects.create(
        kind="test.files", requester=cast.requester, state=State.SUCCEEDED, spec="{}", token=uuid.uuid4()
    )
