"""What starts with its host, when that loses its power and comes back. Not for: what the contract says."""

import uuid

import pytest

from portal.drivers.registry import driver_for
from portal.drivers.types import Accelerator, DomainSpec, DomainState
from tests.drivers.contract.bench import MIB
from tests.secondhost.lab import wait_for

pytestmark = pytest.mark.live


def test_a_host_starts_what_starts_with_it(second_host):
    """Red when autostart_domain() does nothing."""
    driver = driver_for(second_host.local_uri)
    specs = [
        DomainSpec(f"gttest-{name}", str(uuid.uuid4()), 1, 64 * MIB, accelerator=Accelerator.EMULATION)
        for name in ("starts", "stays")
    ]
    for spec in specs:
        driver.define(spec)
    driver.autostart_domain(specs[0].uuid, True)
    driver.close()
    second_host.power_cut()
    second_host.power_on()
    driver = driver_for(second_host.local_uri)
    wait_for(lambda: driver.domain_info(specs[0].uuid).state is DomainState.RUNNING)
    assert driver.domain_info(specs[1].uuid).state is DomainState.SHUTOFF
    driver.close()
