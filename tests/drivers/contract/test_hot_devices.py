"""The contract: cards, media and limits, changed while a domain runs. What a guest sees, tests/vms shows."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from portal.drivers import errors
from portal.drivers.inspection import Inspection, Kind, inspect
from portal.drivers.types import (
    LIMITS,
    CardWas,
    DeviceModel,
    DiskSpec,
    DomainDefinition,
    DomainSpec,
    NicPlace,
    NicSpec,
    SeedSpec,
)
from tests.drivers.contract.bench import Bench

MODEL = DeviceModel.PARAVIRTUAL
MAC = "52:54:00:aa:bb:02"
NONE = dict.fromkeys(LIMITS, 0)


def devices(text: str) -> dict[str, Any]:
    found: dict[str, Any] = inspect(Kind.DOMAIN, text.encode()).understood["devices"]
    return found


def whole(text: str) -> Inspection:
    """Return all that a definition says, however it is spaced."""
    return inspect(Kind.DOMAIN, text.encode())


def cards(text: str) -> dict[str, dict[str, Any]]:
    return {card["mac"]: card for card in devices(text).get("interfaces", [])}


def medium(text: str, target: str = "sda") -> str:
    [drive] = [disk for disk in devices(text)["disks"] if disk["target"]["dev"] == target]
    assert drive["device"] == "cdrom"
    return str(drive.get("source", {}).get("file", ""))


def limits(text: str, target: str = "vda") -> dict[str, int]:
    [disk] = [disk for disk in devices(text)["disks"] if disk["target"]["dev"] == target]
    return dict(disk.get("limits", {}))


def both(definition: DomainDefinition) -> tuple[str, str]:
    return definition.persistent, definition.running


@pytest.fixture
def domain(bench: Bench) -> DomainSpec:
    """A domain that is defined, and off."""
    spec = bench.domain()
    bench.driver.define(spec)
    return spec


@pytest.fixture
def running(bench: Bench, domain: DomainSpec) -> DomainSpec:
    bench.driver.start(domain.uuid)
    return domain


@pytest.fixture
def extra(bench: Bench) -> NicSpec:
    return NicSpec(MAC, bench.network.name)


@pytest.mark.parametrize("model", DeviceModel)
def test_a_card_comes_while_it_runs_and_stays(bench: Bench, model: DeviceModel, extra: NicSpec) -> None:
    """Red when either definition is left out, or the same card is attached twice."""
    driver, spec = bench.driver, bench.domain()
    if model is DeviceModel.EMULATED:
        spec = replace(spec, devices=model, disks=(DiskSpec(spec.disks[0].path, "sda"),))
    driver.define(spec)
    driver.start(spec.uuid)
    assert driver.attach_nic(spec.uuid, extra, model) is True
    made = driver.definition(spec.uuid)
    assert driver.attach_nic(spec.uuid, extra, model) is True
    assert driver.definition(spec.uuid) == made
    wanted = "virtio" if model is MODEL else "e1000e"
    for text in both(made):
        assert (cards(text)[MAC]["model"], cards(text)[MAC]["source"]["network"]) == (wanted, extra.network)
        assert len(cards(text)) == 2
    with pytest.raises(errors.AlreadyExists):
        driver.attach_nic(spec.uuid, replace(extra, network=f"{extra.network}-other"), model)
    assert driver.definition(spec.uuid) == made


def test_half_an_attachment_is_made_whole(bench: Bench, domain: DomainSpec, extra: NicSpec) -> None:
    """Red when a card that only what runs has, or only the definition, counts as attached."""
    driver, uuid_ = bench.driver, domain.uuid
    driver.start(uuid_)
    driver.attach_nic(uuid_, extra, MODEL)
    # As somebody who takes it from the definition alone would leave it.
    before = driver.definition(uuid_)
    rank = list(cards(before.persistent)).index(MAC)
    driver.redefine(uuid_, {"devices": {"interfaces": [{}] * rank + [None]}}, before.digest)
    assert MAC not in cards(driver.definition(uuid_).persistent)
    assert driver.attach_nic(uuid_, extra, MODEL) is True
    assert all(list(cards(text)).count(MAC) == 1 for text in both(driver.definition(uuid_)))
    driver.destroy(uuid_)
    assert driver.attach_nic(uuid_, extra, MODEL) is False


def test_a_card_comes_back_to_each_side_as_it_was_there(bench: Bench, domain: DomainSpec) -> None:
    """Red when what it was like is left out: it would be of its model by default, and not be started from."""
    driver, uuid_, card = bench.driver, domain.uuid, domain.nics[0]
    found = driver.definition(uuid_)
    own = {"model": "e1000e", "boot_order": 2, "link": "down"}
    kinds = whole(found.persistent).understood["os"]["boot"]
    # Where no device is left in the order, libvirt goes by kinds again, and takes none into an order.
    named = {"interfaces": [own], "disks": [{"boot_order": 1}]}
    change = {"devices": named, "os": {"boot": [None] * len(kinds)}}
    driver.redefine(uuid_, change, found.digest)
    driver.start(uuid_)
    made = driver.definition(uuid_)
    was, ran = (cards(text)[card.mac] for text in both(made))
    assert {**was, **own} == was and ran["model"] == "e1000e"

    driver.redefine(uuid_, {"devices": {"interfaces": [None]}}, made.digest)
    with pytest.raises(errors.InvalidSpec):
        driver.attach_nic(uuid_, card, MODEL, CardWas({**was, "mac": MAC}, ran))
    for _turn in range(2):
        assert driver.attach_nic(uuid_, card, MODEL, CardWas(was, ran)) is True
        again = driver.definition(uuid_)
        assert cards(again.persistent) == {card.mac: was} and again.running == made.running

    driver.destroy(uuid_)
    driver.detach_nic(uuid_, card.mac)
    driver.start(uuid_)
    driver.redefine(uuid_, {"devices": {"interfaces": [was]}}, driver.definition(uuid_).digest)
    assert card.mac not in cards(driver.definition(uuid_).running)
    assert driver.attach_nic(uuid_, card, MODEL, CardWas(was, ran)) is True
    given = cards(driver.definition(uuid_).running)[card.mac]
    same = ("model", "boot_order", "link", "address")
    assert [given.get(name) for name in same] == [ran.get(name) for name in same]
    assert given["source"]["network"] == card.network
    assert cards(driver.definition(uuid_).persistent) == {card.mac: was}


def test_a_card_is_taken_from_one_that_is_off_and_only_the_one_that_was_meant(
    bench: Bench, domain: DomainSpec, extra: NicSpec
) -> None:
    """Red when the MAC is not compared."""
    driver = bench.driver
    before = cards(driver.definition(domain.uuid).persistent)
    assert driver.attach_nic(domain.uuid, extra, MODEL) is False
    driver.detach_nic(domain.uuid, "52:54:00:aa:bb:03")
    assert MAC in cards(driver.definition(domain.uuid).persistent)
    driver.detach_nic(domain.uuid, MAC)
    driver.detach_nic(domain.uuid, MAC)
    assert cards(driver.definition(domain.uuid).persistent) == before
    assert bench.network.name in [info.name for info in driver.list_networks()]


def test_a_guest_that_keeps_a_card_keeps_it_defined(
    bench: Bench, running: DomainSpec, extra: NicSpec
) -> None:
    """Red when the definition loses what the guest still has. On libvirt nothing boots that could heed."""
    bench.driver.attach_nic(running.uuid, extra, MODEL)
    if hasattr(bench.driver, "guest_heeds"):
        bench.driver.guest_heeds = False
    made = bench.driver.definition(running.uuid)
    with pytest.raises(errors.GuestIgnores):
        bench.driver.detach_nic(running.uuid, MAC)
    assert bench.driver.definition(running.uuid) == made


def test_a_link_goes_down_and_up_and_nothing_else_changes(bench: Bench, running: DomainSpec) -> None:
    """Red when either side is left out, or up leaves something behind of down."""
    driver, mac = bench.driver, running.nics[0].mac
    before = driver.definition(running.uuid)
    for _turn in range(2):
        driver.set_link(running.uuid, mac, False)
        down = driver.definition(running.uuid)
        assert [cards(text)[mac].get("link") for text in both(down)] == ["down", "down"]
    driver.destroy(running.uuid)
    driver.start(running.uuid)
    assert cards(driver.definition(running.uuid).running)[mac]["link"] == "down"
    driver.set_link(running.uuid, mac, True)
    after = driver.definition(running.uuid)
    assert cards(after.persistent) == cards(before.persistent)
    assert "link" not in cards(after.running)[mac]
    with pytest.raises(errors.DeviceNotFound):
        driver.set_link(running.uuid, MAC, False)


@pytest.fixture
def elsewhere(bench: Bench) -> Iterator[NicPlace]:
    """Another network of the host."""
    own = bench.network
    spec = replace(own, name=f"{bench.prefix}-two", uuid=str(uuid.uuid4()), bridge=f"gv{own.bridge[2:]}")
    spec = replace(spec, address="10.213.79.1", dhcp_start="10.213.79.10", dhcp_end="10.213.79.20")
    bench.driver.ensure_network(spec)
    yield NicPlace(network=spec.name)
    for info in bench.driver.list_domains():
        if info.name.startswith(bench.prefix):
            bench.driver.destroy(info.uuid)
    bench.driver.remove_network(spec.name)


def filtered(bench: Bench, domain: DomainSpec) -> None:
    """Let a domain's card have a filter, an MTU and a place in the order of starts."""
    seen = bench.driver.definition(domain.uuid)
    parameters = [{"name": "IP", "value": "10.213.77.9"}]
    own = {"mtu": 1400, "boot_order": 3, "filter": {"name": "clean-traffic", "parameters": parameters}}
    change = {"devices": {"interfaces": [own]}, "os": {"boot": [None]}}
    bench.driver.redefine(domain.uuid, change, seen.digest)


@pytest.mark.parametrize("on", [True, False])
def test_a_card_comes_to_another_network_and_back_and_all_else_stays(
    bench: Bench, domain: DomainSpec, elsewhere: NicPlace, on: bool
) -> None:
    """Red when either side is left out, or anything but the source is written anew."""
    driver, mac = bench.driver, domain.nics[0].mac
    filtered(bench, domain)
    if on:
        driver.start(domain.uuid)
    before, home = driver.definition(domain.uuid), NicPlace(network=domain.nics[0].network)
    for to, was in ((elsewhere, home), (elsewhere, home), (home, elsewhere), (home, elsewhere)):
        driver.rewire_nic(domain.uuid, mac, to, was)
        made = driver.definition(domain.uuid)
        for text, old in zip(both(made), both(before), strict=True):
            if text:
                assert cards(text)[mac]["source"]["network"] == to.network
                assert {**cards(text)[mac], "source": None} == {**cards(old)[mac], "source": None}
    assert whole(made.persistent) == whole(before.persistent)
    driver.rewire_nic(domain.uuid, mac, elsewhere, home)
    if on:
        driver.destroy(domain.uuid)
        driver.start(domain.uuid)
        assert cards(driver.definition(domain.uuid).running)[mac]["source"]["network"] == elsewhere.network


def test_a_card_that_was_brought_halfway_is_brought_whole(
    bench: Bench, running: DomainSpec, elsewhere: NicPlace
) -> None:
    """Red when the network of one side counts for both."""
    driver, mac, home = bench.driver, running.nics[0].mac, NicPlace(network=running.nics[0].network)
    seen = driver.definition(running.uuid)
    change = {"devices": {"interfaces": [{"source": {"network": elsewhere.network}}]}}
    driver.redefine(running.uuid, change, seen.digest)
    for to, was in ((elsewhere, home), (home, elsewhere)):
        driver.rewire_nic(running.uuid, mac, to, was)
        found = driver.definition(running.uuid)
        assert [cards(text)[mac]["source"]["network"] for text in both(found)] == [to.network] * 2


def test_a_card_that_is_elsewhere_or_of_another_kind_stays(
    bench: Bench, domain: DomainSpec, elsewhere: NicPlace
) -> None:
    """Red when the present place is not looked at, or a card on no network gets a source."""
    driver, mac = bench.driver, domain.nics[0].mac
    before = driver.definition(domain.uuid)
    with pytest.raises(errors.AlreadyExists):
        driver.rewire_nic(domain.uuid, mac, elsewhere, NicPlace(bridge="br9"))
    with pytest.raises(errors.DeviceNotFound):
        driver.rewire_nic(domain.uuid, MAC, elsewhere, NicPlace(network=domain.nics[0].network))
    assert driver.definition(domain.uuid) == before
    direct = {"type": "direct", "source": {"network": None, "dev": "eth0", "mode": "bridge"}}
    made = driver.redefine(domain.uuid, {"devices": {"interfaces": [direct]}}, before.digest)
    with pytest.raises(errors.NotSupported):
        driver.rewire_nic(domain.uuid, mac, elsewhere, NicPlace(network=domain.nics[0].network))
    assert driver.definition(domain.uuid) == made


def test_a_card_on_a_bridge_comes_to_a_network_and_back(
    bench: Bench, domain: DomainSpec, elsewhere: NicPlace
) -> None:
    """Red when the kind of the card stays, as of a machine that others made."""
    driver, mac, home = bench.driver, domain.nics[0].mac, NicPlace(bridge=bench.network.bridge)
    seen = driver.definition(domain.uuid)
    bridged = {"type": "bridge", "source": {"network": None, "bridge": home.bridge}}
    before = driver.redefine(domain.uuid, {"devices": {"interfaces": [bridged]}}, seen.digest)
    driver.start(domain.uuid)
    driver.rewire_nic(domain.uuid, mac, elsewhere, home)
    for text in both(driver.definition(domain.uuid)):
        assert (cards(text)[mac]["type"], cards(text)[mac]["source"]["network"]) == (
            "network",
            elsewhere.network,
        )
    driver.rewire_nic(domain.uuid, mac, home, elsewhere)
    assert whole(driver.definition(domain.uuid).persistent) == whole(before.persistent)


def test_a_network_that_is_not_made_leaves_a_running_card_where_it_is(
    bench: Bench, running: DomainSpec
) -> None:
    """Red when the definition is changed first."""
    mac, home = running.nics[0].mac, NicPlace(network=running.nics[0].network)
    before = bench.driver.definition(running.uuid)
    with pytest.raises(errors.NetworkNotFound):
        bench.driver.rewire_nic(running.uuid, mac, NicPlace(network=f"{bench.prefix}-none"), home)
    assert bench.driver.definition(running.uuid) == before


@pytest.mark.parametrize("on", [True, False])
def test_a_medium_is_taken_out_and_put_in(bench: Bench, domain: DomainSpec, on: bool) -> None:
    """Red when either side is left out, or the drive goes with its medium."""
    driver, seed = bench.driver, domain.seed_path
    if on:
        driver.start(domain.uuid)
    before = driver.definition(domain.uuid)
    assert seed is not None and medium(before.persistent) == seed
    other = SeedSpec(bench.pool.name, f"{bench.prefix}-other.iso", "instance-id: b\n", "#cloud-config\n")
    for wanted in (None, None, seed, driver.write_seed(other).path, seed):
        driver.change_media(domain.uuid, "sda", wanted)
        made = driver.definition(domain.uuid)
        assert {medium(text) for text in both(made) if text} == {wanted or ""}
    assert devices(made.persistent) == devices(before.persistent)
    with pytest.raises(errors.DeviceNotFound):
        driver.change_media(domain.uuid, "vda", None)
    with pytest.raises(errors.VolumeNotFound):
        driver.change_media(domain.uuid, "sda", f"{seed}.other.iso")
    assert driver.definition(domain.uuid) == made


@pytest.mark.parametrize("on", [True, False])
def test_a_medium_is_forced_out_and_another_in(bench: Bench, domain: DomainSpec, on: bool) -> None:
    """Red when a guest that holds its tray keeps it against force, or force changes what is defined alone."""
    driver, seed = bench.driver, domain.seed_path
    if on:
        driver.start(domain.uuid)
    if hasattr(driver, "guest_heeds"):
        driver.guest_heeds = False
        if on:
            with pytest.raises(errors.GuestIgnores):
                driver.change_media(domain.uuid, "sda", None)
            assert medium(driver.definition(domain.uuid).persistent) == seed
    for wanted in (None, None, seed):
        driver.change_media(domain.uuid, "sda", wanted, True)
        made = driver.definition(domain.uuid)
        assert {medium(text) for text in both(made) if text} == {wanted or ""}


@pytest.mark.parametrize("on", [True, False])
def test_a_disk_is_limited_and_set_free(bench: Bench, domain: DomainSpec, on: bool) -> None:
    """Red when either side is left out, or 0 is taken for a limit."""
    driver, path = bench.driver, domain.disks[0].path
    if on:
        driver.start(domain.uuid)
    before = driver.definition(domain.uuid)
    some = {"read_bytes_sec": 1 << 20, "total_iops_sec": 100}
    for wanted in (some, some, {"total_bytes_sec": 5 << 20}, some):
        driver.limit_disk(domain.uuid, "vda", path, NONE | wanted)
        made = driver.definition(domain.uuid)
        assert all(limits(text) == wanted for text in both(made) if text)
    with pytest.raises(errors.DeviceNotFound):
        driver.limit_disk(domain.uuid, "vda", f"{path}.other", NONE)
    assert driver.definition(domain.uuid) == made
    driver.limit_disk(domain.uuid, "vda", path, NONE)
    assert devices(driver.definition(domain.uuid).persistent) == devices(before.persistent)


def test_what_is_not_there_is_said(bench: Bench, domain: DomainSpec, extra: NicSpec) -> None:
    nobody, path = str(uuid.uuid4()), domain.disks[0].path
    for call in (
        lambda: bench.driver.attach_nic(nobody, extra, MODEL),
        lambda: bench.driver.detach_nic(nobody, MAC),
        lambda: bench.driver.set_link(nobody, MAC, True),
        lambda: bench.driver.rewire_nic(nobody, MAC, NicPlace(network="a"), NicPlace(network="b")),
        lambda: bench.driver.change_media(nobody, "sda", None),
        lambda: bench.driver.limit_disk(nobody, "vda", path, NONE),
    ):
        with pytest.raises(errors.DomainNotFound):
            call()


def test_a_card_on_a_network_that_is_not_made_is_refused_while_it_runs(
    bench: Bench, running: DomainSpec
) -> None:
    before = bench.driver.definition(running.uuid)
    with pytest.raises(errors.NetworkNotFound):
        bench.driver.attach_nic(running.uuid, NicSpec(MAC, f"{bench.prefix}-none"), MODEL)
    assert bench.driver.definition(running.uuid) == before


def test_hostile_values_are_refused(bench: Bench, running: DomainSpec) -> None:
    """Red when a value reaches the host unchecked."""
    driver, uuid_, path = bench.driver, running.uuid, running.disks[0].path
    before = driver.definition(uuid_)
    for call in (
        lambda: driver.attach_nic(uuid_, NicSpec("<&>", bench.network.name), MODEL),
        lambda: driver.attach_nic(uuid_, NicSpec(MAC, "'/>"), MODEL),
        lambda: driver.attach_nic(uuid_, NicSpec(MAC, ssh_port=22001), MODEL),
        lambda: driver.detach_nic(uuid_, "52:54:00:AA:BB:01"),
        lambda: driver.set_link(uuid_, "", False),
        lambda: driver.rewire_nic(uuid_, "", NicPlace(network="a"), NicPlace(network="b")),
        lambda: driver.rewire_nic(uuid_, MAC, NicPlace(), NicPlace(network="b")),
        lambda: driver.rewire_nic(uuid_, MAC, NicPlace(network="a", bridge="b"), NicPlace(network="b")),
        lambda: driver.rewire_nic(uuid_, MAC, NicPlace(network="a"), NicPlace(bridge="b", portgroup="c")),
        lambda: driver.change_media(uuid_, "sda", "../x.iso"),
        lambda: driver.change_media(uuid_, "sda'/>", None),
        lambda: driver.limit_disk(uuid_, "vda", path, {}),
        lambda: driver.limit_disk(uuid_, "vda", path, {**NONE, "group_name": 1}),
        lambda: driver.limit_disk(uuid_, "vda", path, {**NONE, "total_iops_sec": -1}),
        lambda: driver.limit_disk(uuid_, "vda", path, {**NONE, "total_iops_sec": 10**16}),
        lambda: driver.limit_disk(uuid_, "vda", path, {**NONE, "total_iops_sec": 5, "read_iops_sec": 5}),
    ):
        with pytest.raises(errors.InvalidSpec):
            call()
    assert driver.definition(uuid_) == before
