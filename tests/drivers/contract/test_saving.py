"""The contract: a domain's memory in a file of the host."""

import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from portal.drivers import errors
from portal.drivers.base import HypervisorDriver
from portal.drivers.inspection import Kind, inspect
from portal.drivers.registry import driver_for
from portal.drivers.types import DomainState
from tests.drivers.contract.bench import LIVE_URI, Bench

#: Where libvirt keeps what is saved.
SAVED = Path("/var/lib/libvirt/qemu/save")


def state(bench: Bench, uuid: str) -> tuple[DomainState, DomainState]:
    """Return what a domain is by itself and by the list."""
    (listed,) = [info for info in bench.driver.list_domains() if info.uuid == uuid]
    return bench.driver.domain_info(uuid).state, listed.state


def test_what_is_saved_is_off_and_goes_on_at_its_next_start(bench: Bench) -> None:
    """Red when describe() or the listing looks at the state alone, or a second save() begins another."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    driver.start(spec.uuid)
    for _again in range(2):
        driver.save(spec.uuid)
        assert state(bench, spec.uuid) == (DomainState.SAVED, DomainState.SAVED)
    assert driver.definition(spec.uuid).running == "" and driver.leases(spec.uuid) == ()
    driver.destroy(spec.uuid)
    driver.shutdown(spec.uuid)
    assert state(bench, spec.uuid) == (DomainState.SAVED, DomainState.SAVED)
    driver.start(spec.uuid)
    assert state(bench, spec.uuid) == (DomainState.RUNNING, DomainState.RUNNING)
    driver.destroy(spec.uuid)
    assert state(bench, spec.uuid) == (DomainState.SHUTOFF, DomainState.SHUTOFF)


def test_what_was_paused_is_paused_again_and_as_it_was_defined(bench: Bench) -> None:
    """Red when a restored domain takes what was defined since."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    driver.start(spec.uuid)
    driver.suspend(spec.uuid)
    driver.save(spec.uuid)
    seen = driver.definition(spec.uuid)
    driver.redefine(spec.uuid, {"title": "another"}, seen.digest)
    driver.start(spec.uuid)
    assert driver.domain_info(spec.uuid).state is DomainState.PAUSED
    found = driver.definition(spec.uuid)
    texts = (found.persistent, found.running)
    told = [inspect(Kind.DOMAIN, text.encode()).understood["title"] for text in texts]
    assert told == ["another", spec.title]


def test_what_is_discarded_starts_anew(bench: Bench) -> None:
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    driver.discard_saved(spec.uuid)
    driver.start(spec.uuid)
    driver.discard_saved(spec.uuid)
    assert driver.domain_info(spec.uuid).state is DomainState.RUNNING
    driver.save(spec.uuid)
    for _again in range(2):
        driver.discard_saved(spec.uuid)
        assert state(bench, spec.uuid) == (DomainState.SHUTOFF, DomainState.SHUTOFF)
    driver.start(spec.uuid)
    assert driver.domain_info(spec.uuid).state is DomainState.RUNNING


def test_what_is_saved_is_forgotten_with_its_domain(bench: Bench) -> None:
    """Red when undefine() refuses it, or leaves the file to another domain of that name."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    driver.start(spec.uuid)
    driver.save(spec.uuid)
    driver.undefine(spec.uuid)
    driver.define(spec)
    assert state(bench, spec.uuid) == (DomainState.SHUTOFF, DomainState.SHUTOFF)


def test_state_forbids_saving(bench: Bench) -> None:
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    with pytest.raises(errors.InvalidState):
        driver.save(spec.uuid)
    driver.start(spec.uuid)
    driver.save(spec.uuid)
    for action in (driver.reboot, driver.suspend, driver.resume):
        with pytest.raises(errors.InvalidState):
            action(spec.uuid)
    for action in (driver.save, driver.discard_saved):
        with pytest.raises(errors.DomainNotFound):
            action(str(uuid.uuid4()))


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_who_comes_in_the_middle_waits_for_the_end(bench: Bench) -> None:
    """Red when save() tells that it is off already, or start() that it is paused: a worker died meanwhile."""
    spec = bench.domain()
    bench.driver.define(spec)
    bench.driver.start(spec.uuid)
    drivers = [driver_for(LIVE_URI) for _ in range(3)]

    def start_late() -> None:
        while drivers[2].domain_info(spec.uuid).state is DomainState.SAVED:
            pass
        drivers[2].start(spec.uuid)

    for verb, after in (("save", DomainState.SAVED), ("start", DomainState.RUNNING)):
        gate = Barrier(2)

        def call(driver: HypervisorDriver, verb: str = verb, gate: Barrier = gate) -> None:
            gate.wait()
            getattr(driver, verb)(spec.uuid)

        with ThreadPoolExecutor(3) as threads:
            late = threads.submit(start_late) if verb == "start" else None
            list(threads.map(call, drivers[:2]))
        if late is not None:
            late.result()
        assert bench.driver.domain_info(spec.uuid).state is after
    for driver in drivers:
        driver.close()


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_a_domain_goes_on_where_there_is_no_room_to_save_it(bench: Bench) -> None:
    """Red when the full folder is told as a full pool, or as nothing that people can mend."""
    spec = bench.domain()
    bench.driver.define(spec)
    bench.driver.start(spec.uuid)
    owner = SAVED.stat()
    small = f"size=256k,mode=0755,uid={owner.st_uid},gid={owner.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", small, "tmpfs", SAVED], check=True)
    try:
        with pytest.raises(errors.NoRoomToSave):
            bench.driver.save(spec.uuid)
    finally:
        subprocess.run(["umount", SAVED], check=True)
    assert bench.driver.domain_info(spec.uuid).state is DomainState.RUNNING


@pytest.mark.live
@pytest.mark.parametrize("bench", ["libvirt"], indirect=True)
def test_what_is_damaged_stays_until_it_is_discarded(bench: Bench) -> None:
    """Red when start() tells no more than that it failed, or what was saved goes with it."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    driver.start(spec.uuid)
    driver.save(spec.uuid)
    with (SAVED / f"{spec.name}.save").open("r+b") as file:
        file.write(bytes(16))
    with pytest.raises(errors.CannotRestore):
        driver.start(spec.uuid)
    assert state(bench, spec.uuid) == (DomainState.SAVED, DomainState.SAVED)
    driver.discard_saved(spec.uuid)
    driver.start(spec.uuid)
    assert driver.domain_info(spec.uuid).state is DomainState.RUNNING
