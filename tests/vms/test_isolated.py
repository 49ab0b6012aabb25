"""Machines on an isolated network of the real libvirt: they have addresses and each other, and no way out."""

import subprocess

import pytest

from networks.models import Port
from networks.services import Wanted, add_network
from portal.operations.states import State
from vms import reach
from vms.models import VirtualMachine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
#: Whose workers `worker` runs.
WORKER = "tests.vms.killed_builder"
WANTED = Wanted("gttest-alone", "Alone", "isolated", subnet="10.213.95.0/24")


@pytest.fixture
def outside(lab, second_host):
    """A further host that would find its way back to any network here."""
    second_host.run("ip", "route", "add", "default", "via", f"{lab.network}.254")
    return second_host


def build(approve, worker, caller, network):
    operation = approve(network, ssh_keys=caller.public_key)
    assert worker(operation.pk) == 0
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED
    return VirtualMachine.objects.get(built_by=operation)


def test_machines_of_an_isolated_network_have_each_other_and_no_way_out(
    chief, real, outside, approve, worker, caller
):
    """Red when `Network.spec` says NAT of this kind too, or its element asks for any `forward`."""
    network = add_network(actor=chief, wanted=WANTED)
    first, second = (build(approve, worker, caller, network) for _ in range(2))
    assert Port.objects.filter(network=network, observed_address__startswith="10.213.95.").count() == 2
    (made,) = [info for info in real[0].list_networks() if info.name == network.spec.name]
    assert (made.active, made.forward, made.bridge) == (True, "", "gh-gttest-alone")
    (way,) = reach.ways(first, reach.ports_of([first])[first.uuid])
    caller.reach(way.command)
    # The lease names no router; a guest that puts one in by itself is still refused.
    assert "default" not in caller.call(way.command, "ip route").stdout
    assert caller.call(way.command, f"ip route add default via {network.address}").returncode == 0
    greeting = "nc -w 3 {} 22 </dev/null | head -c 4"
    for other, said in ((second.observed_address, "SSH-"), (outside.address, "")):
        assert caller.call(way.command, greeting.format(other)).stdout == said
    with pytest.raises(subprocess.CalledProcessError):
        outside.run("timeout", "3", "bash", "-c", f"head -c 4 </dev/tcp/{first.observed_address}/22")
