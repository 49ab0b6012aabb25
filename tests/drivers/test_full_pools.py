"""A pool that is nearly full, on the real libvirt. Not for: the contract, which any driver keeps."""

import os
import secrets
import subprocess
import uuid
from pathlib import Path

import pytest

from portal.drivers.registry import driver_for
from portal.drivers.types import POOL_PREFIX, PoolSpec

pytestmark = pytest.mark.live
URI = os.environ.get("GATEHOUSE_TEST_LIBVIRT_URI", "qemu:///system")
ROOT = os.environ.get("GATEHOUSE_TEST_POOL_ROOT", "/var/lib/libvirt/images")
MIB = 1 << 20


@pytest.fixture
def small():
    """A driver, and a pool of the portal's own on a file system of 16 MiB."""
    name = f"gttest-{secrets.token_hex(4)}"
    spec = PoolSpec(POOL_PREFIX + name, str(uuid.uuid4()), f"{ROOT}/{name}")
    Path(spec.path).mkdir(mode=0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", spec.path], check=True)
    driver = driver_for(URI)
    try:
        driver.ensure_pool(spec)
        yield driver, spec
        (Path(spec.path) / "kept").touch()  # an empty folder would go too, and it is mounted
        driver.remove_pool(spec.name)
    finally:
        driver.close()
        subprocess.run(["umount", spec.path], check=True)
        Path(spec.path).rmdir()


def test_room_that_somebody_makes_in_a_full_pool_is_seen(small):
    """Red when list_pools() reads no pool again: it would stay full, and nothing be built in it."""
    driver, spec = small
    filler = Path(spec.path) / "filler"
    available = lambda: next(p for p in driver.list_pools() if p.name == spec.name).available_bytes  # noqa: E731
    filler.write_bytes(bytes(14 * MIB))
    driver.list_volumes(spec.name)  # which reads it
    assert available() <= 2 * MIB
    filler.unlink()
    assert available() >= 15 * MIB
