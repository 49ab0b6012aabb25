"""The contract: what a domain is defined as, and how that is changed."""

import uuid
from typing import Any

import pytest

from portal.drivers import errors
from portal.drivers.inspection import Kind, inspect
from portal.drivers.types import FRESH, DomainState
from tests.drivers.contract.bench import MIB, Bench


def understood(text: str) -> dict[str, Any]:
    return inspect(Kind.DOMAIN, text.encode()).understood


def test_a_definition_is_what_the_next_start_makes_of_it(bench: Bench) -> None:
    """Red when what runs is told as what is defined, or something runs of a domain that is off."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    found = driver.definition(spec.uuid)
    assert found.running == "" and understood(found.persistent)["title"] == "<&\"'>"
    driver.start(spec.uuid)
    running = driver.definition(spec.uuid)
    assert (running.persistent, running.digest) == (found.persistent, found.digest)
    assert understood(running.running)["uuid"] == spec.uuid
    driver.destroy(spec.uuid)
    assert driver.definition(spec.uuid) == found


def test_a_change_is_for_the_next_start(bench: Bench) -> None:
    """Red when redefine() changes what runs, or writes other values than were asked for."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    driver.start(spec.uuid)
    seen = driver.definition(spec.uuid)
    change = {
        "title": "New & <shiny>",
        "description": "two\nlines",
        "vcpus": 2,
        "memory_bytes": 96 * MIB,
        "current_memory_bytes": 96 * MIB,
        "os": {"boot": [{"dev": "cdrom"}, {"dev": "hd"}]},
    }
    made = driver.redefine(spec.uuid, change, seen.digest)
    assert {name: understood(made.persistent).get(name) for name in change if name != "os"} == {
        name: value for name, value in change.items() if name != "os"
    }
    assert understood(made.persistent)["os"]["boot"] == [{"dev": "cdrom"}, {"dev": "hd"}]
    assert made.running == seen.running and made.digest != seen.digest
    info = driver.domain_info(spec.uuid)
    assert (info.state, info.vcpus, info.memory_bytes) == (DomainState.RUNNING, 1, 64 * MIB)
    driver.destroy(spec.uuid)
    driver.start(spec.uuid)
    info = driver.domain_info(spec.uuid)
    assert (info.vcpus, info.memory_bytes) == (2, 96 * MIB)


def test_a_domain_starts_with_its_host_or_not(bench: Bench) -> None:
    """Red when autostart_domain() does nothing, or redefine() makes it start otherwise."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    before = driver.definition(spec.uuid)
    assert before.autostart is False
    for on in (True, True, False, False, True):
        driver.autostart_domain(spec.uuid, on)
        assert driver.definition(spec.uuid).autostart is on
    assert driver.definition(spec.uuid).digest == before.digest
    assert driver.redefine(spec.uuid, {"title": "New"}, before.digest).autostart
    with pytest.raises(errors.DomainNotFound):
        driver.autostart_domain(str(uuid.uuid4()), True)


def test_devices_of_the_host_come_and_go_one_by_one(bench: Bench) -> None:
    """Red when a hypervisor fills in, or writes otherwise, what the portal tells a device of the host by."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    seen = driver.definition(spec.uuid)
    common = {"mode": "subsystem", "managed": True}
    address = {"domain": "0x0000", "bus": "0x1f", "slot": "0x10", "function": "0x7"}
    card = {**common, "type": "pci", "address": address}
    stick = {**common, "type": "usb", "usb": {"vendor": "0x058f", "product": "0x6387"}}
    made = driver.redefine(spec.uuid, {"devices": {"host_devices": [card]}}, seen.digest)
    both = driver.redefine(spec.uuid, {"devices": {"host_devices": [{}, stick]}}, made.digest)
    assert understood(both.persistent)["devices"]["host_devices"] == [card, stick]
    one = driver.redefine(spec.uuid, {"devices": {"host_devices": [None, {}]}}, both.digest)
    assert understood(one.persistent)["devices"]["host_devices"] == [stick]


def drive(target: str, unit: int) -> dict[str, Any]:
    """Return an empty drive in a place of the board's SATA controller."""
    address = {"type": "drive", "controller": "0", "bus": "0", "target": "0", "unit": str(unit)}
    driver = {"name": "qemu", "type": "raw"}
    target_ = {"dev": target, "bus": "sata"}
    values = {"type": "file", "device": "cdrom", "driver": driver, "target": target_, "address": address}
    return {**values, "readonly": True}


def test_a_drive_comes_at_the_next_start_where_it_was_said_and_goes(bench: Bench) -> None:
    """Red when an address is not understood, or what runs gets the drive."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    driver.start(spec.uuid)
    seen = driver.definition(spec.uuid)
    there = understood(seen.persistent)["devices"]["disks"]
    # Out of the order of its name, as beside a disk that somebody moved.
    wanted = drive("sdb", 4)
    change = {"devices": {"disks": [*({} for _one in there), wanted]}}
    made = driver.redefine(spec.uuid, change, seen.digest)
    assert understood(made.persistent)["devices"]["disks"] == [*there, wanted]
    assert made.running == seen.running
    driver.destroy(spec.uuid)
    driver.start(spec.uuid)
    now = understood(driver.definition(spec.uuid).running)["devices"]["disks"]
    assert [disk["target"]["dev"] for disk in now] == ["vda", "sda", "sdb"]
    gone = {"devices": {"disks": [*({} for _one in there), None]}}
    left = driver.redefine(spec.uuid, gone, made.digest)
    assert understood(left.persistent) == understood(seen.persistent)


def disk_named(name: str, text: str) -> tuple[dict[str, Any], int]:
    """Return a disk of a definition, and its place: libvirt sorts them."""
    disks = understood(text)["devices"]["disks"]
    [place] = [at for at, disk in enumerate(disks) if disk["target"]["dev"] == name]
    return disks[place], place


@pytest.mark.parametrize("bus", ["sata", "scsi"])
def test_a_disk_comes_onto_another_bus_and_back(bench: Bench, bus: str) -> None:
    """Red when parts of an address stay of the one before, or the disk takes another name or order."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    seen = driver.definition(spec.uuid)
    order = {"os": {"boot": [None]}, "devices": {"disks": [{"boot_order": 1}]}}
    first = driver.redefine(spec.uuid, order, seen.digest)
    disk = understood(first.persistent)["devices"]["disks"][0]
    slot = disk.get("address", {})
    address = {"type": "drive", "controller": "0", "bus": "0", "target": "0", "unit": "3"}
    whole = {**dict.fromkeys(slot), **address}
    change = {"devices": {"disks": [{"target": {"bus": bus}, "address": whole}]}}
    made = driver.redefine(spec.uuid, change, first.digest)
    found, place = disk_named("vda", made.persistent)
    assert found == {**disk, "target": {"dev": "vda", "bus": bus}, "address": address}
    driver.start(spec.uuid)
    driver.destroy(spec.uuid)
    back = {"target": {"bus": "virtio"}, "address": None}
    left = driver.redefine(spec.uuid, {"devices": {"disks": [{}] * place + [back]}}, made.digest)
    found, _place = disk_named("vda", left.persistent)
    assert {**found, "address": None} == {**disk, "address": None}
    assert found.get("address", {}).get("type", "pci") == "pci"
    driver.start(spec.uuid)


@pytest.mark.parametrize("model", ["e1000e", "e1000", "rtl8139"])
def test_a_card_becomes_of_another_model_and_starts(bench: Bench, model: str) -> None:
    """Red when a hypervisor keeps a slot that does not fit, or does not know the model."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    seen = driver.definition(spec.uuid)
    [card] = understood(seen.persistent)["devices"]["interfaces"]
    moved = {} if model == "e1000e" else {"address": None}
    driver.redefine(spec.uuid, {"devices": {"interfaces": [{"model": model, **moved}]}}, seen.digest)
    driver.start(spec.uuid)
    # libvirt may write more into a definition at its first start.
    [found] = understood(driver.definition(spec.uuid).persistent)["devices"]["interfaces"]
    assert {**found, "address": None} == {**card, "model": model, "address": None}
    if not moved:
        assert found.get("address") == card.get("address")
    driver.destroy(spec.uuid)
    # Where it stood can stand the bridge that libvirt adds for older models.
    now, back = driver.definition(spec.uuid), {"model": "virtio", **moved}
    left = driver.redefine(spec.uuid, {"devices": {"interfaces": [back]}}, now.digest)
    [found] = understood(left.persistent)["devices"]["interfaces"]
    assert {**found, "address": None} == {**card, "address": None}
    driver.start(spec.uuid)


def test_a_firmware_forgets_once_what_another_one_kept(bench: Bench) -> None:
    """Red when start() does not look for the trace, or leaves it for the start after."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    seen = driver.definition(spec.uuid)
    made = driver.redefine(spec.uuid, {"traces": {"firmware": FRESH}}, seen.digest)
    assert understood(made.persistent)["traces"] == {"firmware": FRESH}
    driver.start(spec.uuid)
    now = driver.definition(spec.uuid)
    assert "traces" not in understood(now.persistent) and understood(now.running)["uuid"] == spec.uuid


def test_a_change_is_made_once_and_to_what_was_seen(bench: Bench) -> None:
    """Red when the digest is not compared, or a change that is made already is refused for it."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    seen = driver.definition(spec.uuid)
    made = driver.redefine(spec.uuid, {"title": "first"}, seen.digest)
    assert driver.redefine(spec.uuid, {"title": "first"}, seen.digest) == made
    with pytest.raises(errors.DefinitionChanged):
        driver.redefine(spec.uuid, {"title": "second"}, seen.digest)
    assert driver.definition(spec.uuid) == made
    back = driver.redefine(spec.uuid, {"title": understood(seen.persistent)["title"]}, made.digest)
    assert back == seen


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"uuid": "11111111-2222-4333-8444-555555555555"},
        {"type": "kvm"},
        {"colour": "blue"},
        {"memory_bytes": "much"},
        {"title": "a\0b"},
        {"devices": {"disks": [{"serial": "fine"}, {"readonly": False}]}},
    ],
    ids=str,
)
def test_a_change_that_cannot_be_changes_nothing(bench: Bench, change: dict[str, Any]) -> None:
    """Red when anything is defined before all of the change was written."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    seen = driver.definition(spec.uuid)
    with pytest.raises(errors.InvalidSpec):
        driver.redefine(spec.uuid, {"title": "fine", **change}, seen.digest)
    assert driver.definition(spec.uuid) == seen


def test_a_domain_that_is_not_there_is_not_changed(bench: Bench) -> None:
    with pytest.raises(errors.DomainNotFound):
        bench.driver.redefine(str(uuid.uuid4()), {"title": "a"}, "")
