"""Somebody who uses a machine's disk by other means than the portal. Not for: machines of the portal."""

import uuid

from portal.drivers.fake import FakeDriver
from portal.drivers.types import DiskSpec, DomainSpec, PoolSpec, VolumeSpec
from tests.factories import GIB


def use_too(driver: FakeDriver, path: str, how: str) -> None:
    """Let another `domain` have the file for its disk, or a `volume` of a strange pool stand on it."""
    if how == "domain":
        driver.define(DomainSpec("stranger", str(uuid.uuid4()), 1, GIB, disks=(DiskSpec(path),)))
    else:
        driver.ensure_pool(PoolSpec("strange", str(uuid.uuid4()), "/strange"))
        driver.create_volume(VolumeSpec("strange", "overlay.qcow2", 2 * GIB, path))
