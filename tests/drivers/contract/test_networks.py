"""The contract: networks, bridges and the guests' own ports."""

import socket
import subprocess
import uuid
from dataclasses import replace

import pytest

from portal.drivers import errors
from portal.drivers.fake import FakeDriver
from portal.drivers.types import NicSpec
from tests.drivers.contract.bench import Bench


def test_network_is_idempotent_and_guards_its_name(bench: Bench) -> None:
    first = bench.driver.ensure_network(bench.network)
    assert first.active
    assert bench.driver.ensure_network(bench.network) == first
    with pytest.raises(errors.AlreadyExists):
        bench.driver.ensure_network(replace(bench.network, uuid=str(uuid.uuid4())))
    bench.driver.remove_network(bench.network.name)
    bench.driver.remove_network(bench.network.name)
    assert bench.driver.ensure_network(bench.network) == first


def test_networks_are_listed_with_their_kind(bench: Bench) -> None:
    for changes, forward in (
        ({}, "nat"),
        ({"nat": False}, ""),
        ({"host_bridge": True, "address": "", "dhcp_start": "", "dhcp_end": ""}, "bridge"),
    ):
        spec = replace(bench.network, **changes)
        made = bench.driver.ensure_network(spec)
        assert (made.forward, made.bridge, made.active) == (forward, spec.bridge, True)
        assert made in bench.driver.list_networks()
        bench.driver.remove_network(spec.name)
    with pytest.raises(errors.InvalidSpec):
        bench.driver.ensure_network(replace(bench.network, host_bridge=True))


def test_a_bridge_is_proven_and_leaves_nothing(bench: Bench) -> None:
    """Red when the network of a proof is left there."""
    proof = bench.driver.prove_bridge()
    assert proof.works, proof.evidence
    assert not [info for info in bench.driver.list_networks() if info.name.startswith("gatehouse-probe")]


def test_a_network_of_the_guests_own_needs_nothing_of_the_host(bench: Bench) -> None:
    """Red when such a card is looked for among the host's networks."""
    with pytest.raises(errors.InvalidSpec):
        bench.driver.ensure_network(replace(bench.network, user=True))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = replace(bench.domain(), nics=(NicSpec("52:54:00:aa:bb:01", ssh_port=port),))
    bench.driver.remove_network(bench.network.name)
    bench.driver.define(spec)
    bench.driver.start(spec.uuid)
    assert bench.driver.leases(spec.uuid) == ()
    if isinstance(bench.driver, FakeDriver):
        assert [found.mac for found in bench.driver.addresses(spec.uuid)] == [spec.nics[0].mac]
    else:
        # Nobody listens in this guest, which has no system; the emulator listens for it.
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    bench.driver.destroy(spec.uuid)


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_a_port_of_another_program_is_named(bench: Bench) -> None:
    """Red when the emulator's sentence about it is not recognised."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        spec = replace(bench.domain(), nics=(NicSpec("52:54:00:aa:bb:01", ssh_port=taken.getsockname()[1]),))
        bench.driver.define(spec)
        with pytest.raises(errors.PortTaken):
            bench.driver.start(spec.uuid)
    bench.driver.start(spec.uuid)


def test_start_names_a_missing_network(bench: Bench) -> None:
    spec = bench.domain()
    bench.driver.define(spec)
    bench.driver.remove_network(bench.network.name)
    with pytest.raises(errors.NetworkNotFound):
        bench.driver.start(spec.uuid)


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_a_bridge_that_is_left_is_named(bench: Bench) -> None:
    """Red when libvirt's sentence about it is not recognised."""
    bridge = bench.network.bridge
    bench.driver.remove_network(bench.network.name)
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    try:
        with pytest.raises(errors.BridgeTaken):
            bench.driver.ensure_network(bench.network)
    finally:
        subprocess.run(["ip", "link", "delete", bridge], check=True)
    assert bench.driver.ensure_network(bench.network).active
