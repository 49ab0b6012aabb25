"""A real machine on the real libvirt, with the worker killed at every point: it runs, or nothing is left."""

import json
import os
import secrets
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from networks.models import Port
from portal.drivers.registry import driver_for
from portal.drivers.types import DomainState, PoolSpec
from portal.hosts.models import Image
from portal.operations import services as operations
from portal.operations.models import Counter, Operation
from portal.operations.runner import leftovers
from portal.operations.states import State
from tests import factories
from tests.conftest import let_heartbeats_lapse
from vms.building import CREATE
from vms.models import Status, VirtualMachine
from vms.services import request_machine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]
URI = os.environ.get("GATEHOUSE_TEST_LIBVIRT_URI", "qemu:///system")
POOL_ROOT = os.environ.get("GATEHOUSE_TEST_POOL_ROOT", "/var/lib/libvirt/images")
IMAGES = Path(os.environ.get("GATEHOUSE_IMAGES", Path(__file__).resolve().parents[2] / "var/images"))
STEPS = [step.name for step in CREATE.steps]
#: Whose workers `worker` runs.
WORKER = "tests.vms.killed_builder"


@pytest.fixture(scope="module")
def real():
    """A driver, and a pool that holds the tiny image; what the tests leave fails the module."""
    driver = driver_for(URI)
    prefix = f"gttest-{secrets.token_hex(4)}"
    pool = PoolSpec(prefix, str(uuid.uuid4()), f"{POOL_ROOT}/{prefix}")
    driver.ensure_pool(pool)
    entry = next(item for item in json.loads((IMAGES / "images.json").read_text()) if item["name"] == "tiny")
    volume = driver.upload_image(pool.name, "tiny.qcow2", str(IMAGES / entry["file"]))
    yield driver, pool, entry, volume
    for left in driver.list_volumes(pool.name):
        driver.delete_volume(pool.name, left.name)
    driver.remove_network("gatehouse-example78")
    driver.remove_pool(pool.name)
    driver.close()


@pytest.fixture
def approve(cast, real):
    """Return a function that approves a request for a machine, on a host that is this machine."""
    asked = []

    def approve(**wish):
        asked.append(ask(cast, real, **wish))
        return operations.decide(
            actor=cast.approver, operation=asked[0], spec_hash=asked[0].spec_hash, approved=True
        )

    yield approve
    for operation in asked:
        force_away(real[0], operation)


@pytest.fixture
def queued(approve):
    return approve()


def ask(cast, real, **wish):
    """Ask for a machine of the tiny image, with everything that this needs."""
    _driver, pool, entry, volume = real
    host = factories.make_host(uri=URI)
    image = factories.make_image(
        sha256=entry["sha256"],
        virtual_size=entry["virtual_size_bytes"],
        device_models=entry["device_models"],
    )
    place = factories.make_place(host, pool.name, pool.path, image)
    place.images.update(path=volume.path)
    Counter.objects.create(scope=host.scope, resource="memory", limit=factories.GIB)
    catalogue = factories.make_catalogue(Image.objects.get(), factories.make_network(78, uuid=NETWORK))
    catalogue.item.device_models = entry["device_models"]
    catalogue.item.save()
    name = f"gttest-{secrets.token_hex(3)}"
    made = factories.make_wish(catalogue, name=name, **wish)
    return request_machine(actor=cast.requester, project=cast.project, wish=made, token=uuid.uuid4())


#: One network for the module: it stays on the host between tests, as networks do.
NETWORK = uuid.uuid4()


def force_away(driver, operation):
    """Remove what a failed test would leave on the host."""
    operation = Operation.objects.get(pk=operation.pk)
    names = operation.identifiers
    for info in driver.list_domains():
        if info.uuid == names["uuid"]:
            driver.destroy(info.uuid)
            driver.undefine(info.uuid)
    for volume in (names["volume"], names["seed"]):
        driver.delete_volume(names["pool"], volume)


def on_host(driver, operation):
    """Return what the operation has on the host: domains and volumes under its names."""
    names = operation.identifiers
    domains = [info.name for info in driver.list_domains() if info.uuid == names["uuid"]]
    volumes = [info.name for info in driver.list_volumes(names["pool"]) if info.name != "tiny.qcow2"]
    return domains + volumes


def held(operation):
    counter = Counter.objects.get(scope=operation.lane, resource="memory")
    return counter.held, counter.used


def check_runs(driver, operation):
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED
    machine = VirtualMachine.objects.get(built_by=operation)
    assert machine.status == Status.ACTIVE and machine.observed_address.startswith("10.213.78.")
    assert driver.domain_info(str(machine.uuid)).state is DomainState.RUNNING
    assert len(on_host(driver, operation)) == 3
    assert held(operation) == (0, machine.memory)


def check_nothing(driver, operation):
    operation.refresh_from_db()
    assert operation.state == State.FAILED and leftovers(operation) == []
    assert on_host(driver, operation) == []
    assert not VirtualMachine.objects.exists() and not Port.objects.exists()
    assert held(operation) == (0, 0)


def test_a_machine_without_any_virtio_device_is_built_and_has_an_address(worker, real, approve):
    """Red when tiny's grub.cfg starts the cloud kernel always, or the seed or disk is on another bus."""
    queued = approve(devices="emulated")
    assert worker(queued.pk) == 0
    check_runs(real[0], queued)
    machine = VirtualMachine.objects.get(built_by=queued)
    assert machine.virtualization == "Full virtualization in software"
    shown = subprocess.run(
        ["virsh", "-q", "-c", URI, "dumpxml", str(machine.uuid)], capture_output=True, text=True, check=True
    )
    assert "e1000e" in shown.stdout and "virtio" not in shown.stdout


@pytest.mark.parametrize("point", [f"{when}:{step}" for step in STEPS for when in ("before", "after")])
def test_killed_while_building_the_machine_is_finished_by_the_next_worker(worker, real, queued, point):
    """Red when take_over_lapsed takes nothing."""
    assert worker(queued.pk, point) == -signal.SIGKILL
    let_heartbeats_lapse()
    assert worker("reap") == 0
    check_runs(real[0], queued)


@pytest.mark.parametrize(
    "point", [f"undo-{when}:{step}" for step in STEPS for when in ("before", "after")]
)
def test_killed_while_undoing_nothing_is_left_in_the_end(worker, real, queued, point):
    """Red when StartDomain.undo or DefineDomain.undo do nothing."""
    assert worker(queued.pk, point, failing="address") == -signal.SIGKILL
    queued.refresh_from_db()
    assert queued.state == State.UNDOING and leftovers(queued)
    let_heartbeats_lapse()
    assert worker("reap") == 0
    check_nothing(real[0], queued)


@pytest.mark.parametrize("failing", STEPS)
def test_a_step_that_fails_after_it_acted_leaves_nothing(worker, real, queued, failing):
    """Red when _note of a failed step marks it undone before it was."""
    assert worker(queued.pk, failing=failing) == 0
    check_nothing(real[0], queued)


def test_what_was_built_before_a_kill_goes_when_the_next_worker_fails(worker, real, queued):
    """Red when _undo_all walks only over the steps that are done."""
    assert worker(queued.pk, "after:domain") == -signal.SIGKILL
    let_heartbeats_lapse()
    assert worker("reap", failing="start") == 0
    check_nothing(real[0], queued)
