"""The contract: the life of a domain."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from portal.drivers import errors
from portal.drivers.base import HypervisorDriver
from portal.drivers.registry import driver_for
from portal.drivers.types import DeviceModel, DomainSpec, DomainState
from tests.drivers.contract.bench import LIVE_URI, MIB, Bench


def test_definition_is_idempotent_and_guards_name_and_uuid(bench: Bench) -> None:
    spec = bench.domain()
    first = bench.driver.define(spec)
    assert (first.name, first.uuid, first.state) == (spec.name, spec.uuid, DomainState.SHUTOFF)
    assert (first.vcpus, first.memory_bytes) == (1, 64 * MIB)
    assert bench.driver.define(spec) == first
    for change in ({"uuid": str(uuid.uuid4())}, {"name": f"{bench.prefix}-other"}):
        with pytest.raises(errors.AlreadyExists):
            bench.driver.define(replace(spec, **change))
    assert first in bench.driver.list_domains()


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
@pytest.mark.parametrize("same_uuid", [True, False])
def test_two_at_once_end_in_one_domain(bench: Bench, same_uuid: bool) -> None:
    """Red when define_once does not look again after libvirt refused."""
    spec = bench.domain()
    drivers = [driver_for(LIVE_URI) for _ in range(2)]
    for _round in range(20):
        specs = [spec, spec if same_uuid else replace(spec, uuid=str(uuid.uuid4()))]
        gate = Barrier(2)

        def define(driver: HypervisorDriver, wanted: DomainSpec, gate: Barrier = gate) -> object:
            gate.wait()
            try:
                return driver.define(wanted)
            except errors.AlreadyExists as error:
                return error

        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(define, drivers, specs))
        (made,) = [info for info in bench.driver.list_domains() if info.name == spec.name]
        refused = sum(isinstance(answer, errors.AlreadyExists) for answer in answers)
        assert (refused, answers.count(made)) == ((0, 2) if same_uuid else (1, 1))
        bench.driver.undefine(made.uuid)
    for driver in drivers:
        driver.close()


def test_life_of_a_domain(bench: Bench) -> None:
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    for action, expected in (
        (driver.start, DomainState.RUNNING),
        (driver.start, DomainState.RUNNING),
        (driver.reboot, DomainState.RUNNING),
        (driver.suspend, DomainState.PAUSED),
        (driver.suspend, DomainState.PAUSED),
        (driver.resume, DomainState.RUNNING),
        (driver.resume, DomainState.RUNNING),
        (driver.destroy, DomainState.SHUTOFF),
        (driver.destroy, DomainState.SHUTOFF),
        (driver.shutdown, DomainState.SHUTOFF),
    ):
        action(spec.uuid)
        assert driver.domain_info(spec.uuid).state is expected, action
    assert driver.addresses(spec.uuid) == driver.leases(spec.uuid) == ()
    assert not driver.guest_agent_ping(spec.uuid)
    driver.undefine(spec.uuid)
    driver.undefine(spec.uuid)
    with pytest.raises(errors.DomainNotFound):
        driver.domain_info(spec.uuid)


def test_a_domain_of_emulated_devices_starts(bench: Bench) -> None:
    """Red when libvirt or QEMU refuse a device of that model."""
    paravirtual = bench.domain()
    disk = replace(paravirtual.disks[0], target="sda")
    spec = replace(paravirtual, devices=DeviceModel.EMULATED, disks=(disk,))
    bench.driver.define(spec)
    bench.driver.start(spec.uuid)
    assert bench.driver.domain_info(spec.uuid).state is DomainState.RUNNING


def test_a_domain_as_windows_wants_it_starts_and_is_forgotten_whole(bench: Bench) -> None:
    """Red when the firmware cannot be found by what is asked of it, or its variables keep the definition."""
    spec = replace(
        bench.domain(), uefi=True, secure_boot=True, tpm=True, windows=True, memory_bytes=256 * MIB
    )
    spec = replace(spec, installs=True, seed_path=None, cds=(spec.seed_path or "",))
    bench.driver.define(spec)
    bench.driver.start(spec.uuid)
    assert bench.driver.domain_info(spec.uuid).state is DomainState.RUNNING
    bench.driver.destroy(spec.uuid)
    bench.driver.undefine(spec.uuid)
    assert spec.name not in [info.name for info in bench.driver.list_domains()]


def test_state_forbids(bench: Bench) -> None:
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    for action in (driver.reboot, driver.suspend, driver.resume):
        with pytest.raises(errors.InvalidState):
            action(spec.uuid)
    driver.start(spec.uuid)
    with pytest.raises(errors.InvalidState):
        driver.undefine(spec.uuid)
    driver.suspend(spec.uuid)
    with pytest.raises(errors.InvalidState):
        driver.start(spec.uuid)
    assert driver.domain_info(spec.uuid).state is DomainState.PAUSED


@pytest.mark.parametrize(
    "call",
    [
        "start",
        "shutdown",
        "reboot",
        "destroy",
        "suspend",
        "resume",
        "addresses",
        "leases",
        "guest_agent_ping",
        "definition",
    ],
)
def test_unknown_domain_is_named(bench: Bench, call: str) -> None:
    with pytest.raises(errors.DomainNotFound) as caught:
        getattr(bench.driver, call)(str(uuid.uuid4()))
    assert caught.value.code == "domain_not_found"
    assert caught.value.raw
