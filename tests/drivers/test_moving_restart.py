"""A disk that is copied while its libvirt dies, on a real further host. Not for: what the contract says."""

import secrets
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from portal.drivers.errors import DriverError
from portal.drivers.registry import driver_for
from portal.drivers.types import Accelerator, CopyStage, DiskSpec, DomainSpec, PoolSpec, VolumeSpec
from tests.drivers.contract.bench import MIB
from tests.drivers.contract.conftest import image  # noqa: F401 (a fixture)
from tests.drivers.contract.test_hot import disks

pytestmark = pytest.mark.live
ROOT = "/var/lib/libvirt/images"


def until_ready(driver, domain, to):
    end = time.monotonic() + 60
    while (copy := driver.disk_copy(domain, "vda", to)).stage is not CopyStage.READY:
        assert copy.stage is CopyStage.COPYING and time.monotonic() < end
        time.sleep(0.1)


def test_a_copy_goes_on_without_libvirt_and_is_found_again(second_host, image: Path):  # noqa: F811
    """Red when a copy is known by anything that dies with libvirt, or finish_copy() trusts an old look."""
    driver = driver_for(second_host.local_uri)
    first, second = (PoolSpec(f"gttest-{name}", str(uuid.uuid4()), f"{ROOT}/gttest-{name}") for name in "ab")
    for pool in (first, second):
        driver.ensure_pool(pool)
    path = driver.upload_image(first.name, "noise.qcow2", str(image)).path
    to = driver.create_volume(VolumeSpec(second.name, f"{secrets.token_hex(4)}.qcow2", 16 * MIB)).path
    domain, disk = str(uuid.uuid4()), (DiskSpec(path),)
    driver.define(DomainSpec("gttest", domain, 1, 64 * MIB, disks=disk, accelerator=Accelerator.EMULATION))
    driver.start(domain)

    driver.begin_copy(domain, "vda", path, to)
    driver = died(second_host, driver)
    driver.begin_copy(domain, "vda", path, to)
    until_ready(driver, domain, to)
    driver = died(second_host, driver)
    assert disks(driver.definition(domain).persistent)["vda"] == path
    until_ready(driver, domain, to)
    driver.finish_copy(domain, "vda", path, to, False)
    driver = died(second_host, driver)
    assert driver.disk_copy(domain, "vda", to).stage is CopyStage.MOVED
    driver.finish_copy(domain, "vda", path, to, False)
    found = driver.definition(domain)
    assert disks(found.persistent)["vda"] == disks(found.running)["vda"] == to
    driver.close()


def died(host, driver):
    """Kill the host's libvirt, start it again, and return a driver of the new one."""
    host.kill_libvirtd()
    host.start_libvirtd()
    with suppress(DriverError):  # its daemon is gone
        driver.close()
    return driver_for(host.local_uri)
