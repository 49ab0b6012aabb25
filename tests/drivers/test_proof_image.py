"""A kernel from an image is the proof that one sector is not."""

import os
import secrets
import uuid
from pathlib import Path

import pytest

from portal.drivers.registry import driver_for
from portal.drivers.types import Accelerator, PoolSpec

pytestmark = pytest.mark.live
IMAGES = Path(os.environ.get("GATEHOUSE_IMAGES", Path(__file__).resolve().parents[2] / "var/images"))


def test_the_tiny_image_asks_to_sign_in(second_host):
    """Red when the clone is not what boots, or its serial line is not what is listened to."""
    driver = driver_for(second_host.local_uri)
    name = f"gttest-{secrets.token_hex(4)}"
    driver.ensure_pool(PoolSpec(name, str(uuid.uuid4()), f"/var/lib/libvirt/images/{name}"))
    driver.upload_image(name, "tiny.qcow2", str(IMAGES / "tiny.qcow2"))
    proof = driver.prove_image(Accelerator.EMULATION, name, "tiny.qcow2", 90)
    assert proof.works, proof.evidence
    assert [volume.name for volume in driver.list_volumes(name)] == ["tiny.qcow2"]
    driver.close()
