"""A bench for each driver: every test of this folder runs on every one."""

import secrets
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.drivers.registry import driver_for
from portal.drivers.types import PoolSpec
from tests.drivers.contract.bench import LIVE_URI, MIB, POOL_ROOT, Bench


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.live)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    driver = driver_for("fake:///" if request.param == "fake" else LIVE_URI)
    prefix = f"gttest-{secrets.token_hex(4)}"
    pool = PoolSpec(f"{prefix}-pool", str(uuid.uuid4()), f"{POOL_ROOT}/{prefix}")
    made = Bench(driver, prefix, pool)
    try:
        driver.ensure_pool(pool)
        yield made
    finally:
        made.clean()
        driver.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Make a qcow2 of 16 MiB with 3 MiB of noise in it."""
    raw, path = tmp_path / "noise.raw", tmp_path / "image.qcow2"
    raw.write_bytes(secrets.token_bytes(3 * MIB).ljust(16 * MIB, b"\0"))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    return path


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """Make a device with a small file system that is nobody's."""
    image = tmp_path / "fs.img"
    with image.open("wb") as file:
        file.truncate(24 * MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    loop = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True)
    yield loop.stdout.strip()
    subprocess.run(["losetup", "-d", loop.stdout.strip()], check=True)
