"""A pool on the real libvirt and machines in it, for the tests that build and end them."""

import json
import secrets
import uuid

import pytest

from portal.drivers.registry import driver_for
from portal.drivers.types import PoolSpec
from portal.operations import services as operations
from tests.vms.real import IMAGES, NETWORK, POOL_ROOT, URI, ask, force_away, offer


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
    """Return a function that approves a request for a machine, on a host that is this machine.

    The first call says on which network they all are; one of the test's own goes from the host in the end.
    """
    asked, catalogue = [], None

    def approve(network=None, **wish):
        nonlocal catalogue
        catalogue = catalogue or offer(real, network)
        asked.append(ask(cast, catalogue, **wish))
        return operations.decide(
            actor=cast.approver, operation=asked[-1], spec_hash=asked[-1].spec_hash, approved=True
        )

    yield approve
    for operation in asked:
        force_away(real[0], operation)
    if catalogue and catalogue.network.uuid != NETWORK:
        real[0].remove_network(catalogue.network.spec.name)


@pytest.fixture
def queued(approve):
    return approve()
