"""Somebody who uses a machine's disk by other means than the portal. Not for: machines of the portal."""

import uuid

from portal.drivers.fake import FakeDriver
from portal.drivers.types import DiskSpec, DomainSpec, PoolSpec, VolumeInfo
from tests.factories import GIB


def use_too(driver: FakeDriver, path: str, how: str) -> None:
    """Let another `domain` have the file for its disk, or a `volume` of their own pool stand on it."""
    if how == "domain":
        driver.define(DomainSpec("stranger", str(uuid.uuid4()), 1, GIB, disks=(DiskSpec(path),)))
    else:
        pool = strange_pool(driver)
        place = f"{pool.path}/my overlay.qcow2"
        made = VolumeInfo(pool.name, "my overlay.qcow2", place, 2 * GIB, 0, path)
        driver._volumes[made.pool, made.name] = made


def strange_pool(driver: FakeDriver) -> PoolSpec:
    """Let the host have a pool of a name that the portal would not give, as other programs make them."""
    spec = PoolSpec("My VMs", str(uuid.uuid4()), "/home/me/My VMs")
    driver._pools[spec.name] = spec
    return spec
