"""The contract: watchdogs, channels and USB devices, which come to what runs and go by themselves."""

import uuid
from dataclasses import replace
from typing import Any

import pytest

from portal.drivers import errors
from portal.drivers.inspection import Kind, inspect
from portal.drivers.types import DeviceModel, DiskSpec, DomainSpec
from tests.drivers.contract.bench import Bench

DOG = {"model": "i6300esb", "action": "poweroff"}
AGENT = {"type": "unix", "target": {"type": "virtio", "name": "org.qemu.guest_agent.0"}}
OTHER = {"type": "unix", "target": {"type": "virtio", "name": "org.example.<&>'"}}
_KIND = {"mode": "subsystem", "type": "usb", "managed": True}
STICK = {**_KIND, "usb": {"vendor": "0x058f", "product": "0x6387"}}


def devices(text: str, kind: str) -> list[Any]:
    found: list[Any] = inspect(Kind.DOMAIN, text.encode()).understood["devices"].get(kind, [])
    return found


def names(text: str) -> list[str]:
    return [one["target"]["name"] for one in devices(text, "channels")]


@pytest.fixture
def running(bench: Bench) -> DomainSpec:
    spec = bench.domain()
    bench.driver.define(spec)
    bench.driver.start(spec.uuid)
    return spec


def test_a_watchdog_comes_while_it_runs_and_is_no_part_of_the_definition(
    bench: Bench, running: DomainSpec
) -> None:
    """Red when the definition is changed too, a second one comes, or libvirt's search for a slot is all."""
    driver, uuid_ = bench.driver, running.uuid
    before = driver.definition(uuid_)
    for _turn in range(2):
        driver.plug_device(uuid_, "watchdogs", DOG)
        made = driver.definition(uuid_)
        assert devices(made.running, "watchdogs") == [DOG]
        assert made.persistent == before.persistent
    # As it is there already: another action is none of its name.
    driver.plug_device(uuid_, "watchdogs", {**DOG, "action": "reset"})
    assert driver.definition(uuid_) == made


def test_a_guest_that_keeps_a_watchdog_is_told_of(bench: Bench, running: DomainSpec) -> None:
    """Red when it counts as gone. On libvirt nothing boots that could heed."""
    driver, uuid_ = bench.driver, running.uuid
    driver.plug_device(uuid_, "watchdogs", DOG)
    made = driver.definition(uuid_)
    if hasattr(driver, "guest_heeds"):
        driver.guest_heeds = False
    for _turn in range(2):
        with pytest.raises(errors.GuestIgnores):
            driver.unplug_device(uuid_, "watchdogs", DOG)
        assert driver.definition(uuid_) == made


def test_a_channel_comes_and_goes_and_its_neighbour_stays(bench: Bench, running: DomainSpec) -> None:
    """Red when names are not compared, or the definition is changed too."""
    driver, uuid_ = bench.driver, running.uuid
    before = driver.definition(uuid_)
    agent = names(before.running)
    assert agent == ["org.qemu.guest_agent.0"]
    for _turn in range(2):
        driver.plug_device(uuid_, "channels", OTHER)
        assert names(driver.definition(uuid_).running) == [*agent, "org.example.<&>'"]
    for _turn in range(2):
        driver.unplug_device(uuid_, "channels", AGENT)
        assert names(driver.definition(uuid_).running) == ["org.example.<&>'"]
    driver.unplug_device(uuid_, "channels", OTHER)
    driver.plug_device(uuid_, "channels", AGENT)
    now = driver.definition(uuid_)
    assert names(now.running) == agent and now.persistent == before.persistent


def test_a_channel_is_given_back_as_it_ran(bench: Bench, running: DomainSpec) -> None:
    """Red when libvirt refuses what it told itself of a channel."""
    driver, uuid_ = bench.driver, running.uuid
    [ran] = devices(driver.definition(uuid_).running, "channels")
    driver.unplug_device(uuid_, "channels", ran)
    assert names(driver.definition(uuid_).running) == []
    driver.plug_device(uuid_, "channels", ran)
    assert devices(driver.definition(uuid_).running, "channels") == [ran]


def test_a_machine_without_a_bus_for_channels_gets_one_or_says_no(bench: Bench) -> None:
    """Red when it is half done: what cannot come is not there."""
    driver, spec = bench.driver, bench.domain()
    emulated = replace(spec, devices=DeviceModel.EMULATED, disks=(DiskSpec(spec.disks[0].path, "sda"),))
    driver.define(emulated)
    driver.start(emulated.uuid)
    try:
        driver.plug_device(emulated.uuid, "channels", AGENT)
    except errors.DriverError:
        assert names(driver.definition(emulated.uuid).running) == []
    else:
        assert names(driver.definition(emulated.uuid).running) == ["org.qemu.guest_agent.0"]


def test_a_usb_device_that_the_host_has_not_changes_nothing(bench: Bench, running: DomainSpec) -> None:
    """Red when libvirt takes the element for something else. The fake host has every device."""
    driver, uuid_ = bench.driver, running.uuid
    before = driver.definition(uuid_)
    if hasattr(driver, "guest_heeds"):
        driver.plug_device(uuid_, "host_devices", STICK)
        assert devices(driver.definition(uuid_).running, "host_devices") == [STICK]
        driver.unplug_device(uuid_, "host_devices", {**STICK, "usb": {"vendor": "1423", "product": "0x6387"}})
    else:
        with pytest.raises(errors.DriverError):
            driver.plug_device(uuid_, "host_devices", STICK)
    assert devices(driver.definition(uuid_).running, "host_devices") == []
    assert driver.definition(uuid_).persistent == before.persistent
    driver.unplug_device(uuid_, "host_devices", STICK)


def test_what_is_off_or_not_there_is_said(bench: Bench) -> None:
    """Red when the definition of a domain that is off is changed in its place."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    before = driver.definition(spec.uuid)
    for verb in (driver.plug_device, driver.unplug_device):
        with pytest.raises(errors.InvalidState):
            verb(spec.uuid, "channels", AGENT)
        with pytest.raises(errors.DomainNotFound):
            verb(str(uuid.uuid4()), "channels", AGENT)
    assert driver.definition(spec.uuid) == before


def test_what_nobody_could_tell_from_others_is_refused(bench: Bench, running: DomainSpec) -> None:
    """Red when a value reaches the host unchecked."""
    driver, uuid_ = bench.driver, running.uuid
    before = driver.definition(uuid_)
    pci = {"type": "pci", "address": {"bus": "0x01"}}
    for kind, values in (
        ("disks", {"target": {"dev": "vda"}}),
        ("watchdogs", {}),
        ("watchdogs", {**DOG, "stray": "x"}),
        ("watchdogs", {**DOG, "action": "\0"}),
        ("channels", {"target": {"type": "guestfwd", "name": "a"}}),
        ("channels", {"target": {"type": "virtio"}}),
        ("host_devices", pci),
        ("host_devices", {"type": "usb", "usb": {"vendor": "stick", "product": "0x1"}}),
    ):
        for verb in (driver.plug_device, driver.unplug_device):
            with pytest.raises(errors.InvalidSpec):
                verb(uuid_, kind, values)
    assert driver.definition(uuid_) == before
