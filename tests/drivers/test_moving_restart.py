"""A disk that is copied while its libvirt dies, on a real further host. Not for: what the contract says."""

import json
import secrets
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import libvirt
import libvirt_qemu
import pytest

from portal.drivers.errors import DriverError, HostUnreachable, InvalidState
from portal.drivers.registry import driver_for
from portal.drivers.types import (
    Accelerator,
    CopyStage,
    DiskSpec,
    DomainSpec,
    DomainState,
    PoolSpec,
    VolumeSpec,
)
from tests.drivers.contract.bench import MIB
from tests.drivers.contract.conftest import image  # noqa: F401 (a fixture)
from tests.drivers.contract.test_hot import disks
from tests.vms.orphans import at_change_over, has_open

pytestmark = pytest.mark.live
ROOT = "/var/lib/libvirt/images"
NAME = "gttest"


@pytest.fixture
def there(second_host, image: Path):  # noqa: F811
    """A domain that runs on a further host, its disk's `path`, and an empty volume `to` in another pool."""
    driver = driver_for(second_host.local_uri)
    first, second = (PoolSpec(f"gttest-{name}", str(uuid.uuid4()), f"{ROOT}/gttest-{name}") for name in "ab")
    for pool in (first, second):
        driver.ensure_pool(pool)
    path = driver.upload_image(first.name, "noise.qcow2", str(image)).path
    to = driver.create_volume(VolumeSpec(second.name, f"{secrets.token_hex(4)}.qcow2", 16 * MIB)).path
    domain, disk = str(uuid.uuid4()), (DiskSpec(path),)
    driver.define(DomainSpec(NAME, domain, 1, 64 * MIB, disks=disk, accelerator=Accelerator.EMULATION))
    driver.start(domain)
    found = SimpleNamespace(host=second_host, driver=driver, domain=domain, path=path, to=to)
    yield found
    found.driver.close()


def until_ready(there):
    end = time.monotonic() + 60
    while (copy := there.driver.disk_copy(there.domain, "vda", there.to)).stage is not CopyStage.READY:
        assert copy.stage is CopyStage.COPYING and time.monotonic() < end
        time.sleep(0.1)


def finish(there):
    there.driver.finish_copy(there.domain, "vda", there.path, there.to, False)


def files(there):
    """Return the file of the disk in the definition and in what runs."""
    found = there.driver.definition(there.domain)
    return [disks(text).get("vda") if text else None for text in (found.persistent, found.running)]


def test_a_copy_goes_on_without_libvirt_and_is_found_again(there):
    """Red when a copy is known by anything that dies with libvirt, or finish_copy() trusts an old look."""
    begin = there.domain, "vda", there.path, there.to
    there.driver.begin_copy(*begin)
    died(there)
    there.driver.begin_copy(*begin)
    until_ready(there)
    died(there)
    assert files(there) == [there.path, there.path]
    until_ready(there)
    finish(there)
    died(there)
    assert there.driver.disk_copy(there.domain, "vda", there.to).stage is CopyStage.MOVED
    finish(there)
    assert files(there) == [there.to, there.to]


def test_a_libvirt_that_dies_at_the_change_over_forgets_the_domain(there):
    """What `vms.changes.changing_over` is for; not so with a libvirt that reads what it wrote."""
    for _turn in range(10):
        there.driver.begin_copy(there.domain, "vda", there.path, there.to)
        until_ready(there)
        at = at_change_over(there.host, NAME)
        killing = threading.Thread(target=there.host.kill_libvirtd_at, args=(at, 10))
        killing.start()
        with suppress(HostUnreachable):
            finish(there)
        killing.join()
        restarted(there)
        if there.driver.domain_info(there.domain).state is DomainState.SHUTOFF:
            break
        # It had not begun to write that down, or was through.
        finish(there)
        there.path, there.to = there.to, there.path
    assert files(there) == [there.path, None]
    assert there.driver.disk_copy(there.domain, "vda", there.to).stage is CopyStage.NONE
    assert has_open(there.domain, there.to)


def test_a_libvirt_that_did_not_note_its_order_takes_it_for_an_abortion(there):
    """As when it dies between telling the emulator and writing that down: it says the old file, wrongly."""
    begin = there.domain, "vda", there.path, there.to
    there.driver.begin_copy(*begin)
    until_ready(there)
    connection = libvirt.open(there.host.local_uri)
    domain = connection.lookupByUUIDString(there.domain)
    [job] = tell(domain, "query-block-jobs")
    tell(domain, "job-complete", id=job["device"])
    end = time.monotonic() + 20
    while there.driver.disk_copy(there.domain, "vda", there.to).stage is not CopyStage.NONE:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert files(there) == [there.path, there.path]
    [block] = tell(domain, "query-block")
    assert block["inserted"]["image"]["filename"] == there.to
    connection.close()
    with pytest.raises(InvalidState):
        finish(there)
    # Its emulator's lock keeps another copy off the file that the guest writes to.
    with pytest.raises(DriverError):
        there.driver.begin_copy(*begin)


def tell(domain, command, **arguments):
    text = json.dumps({"execute": command, "arguments": arguments})
    return json.loads(libvirt_qemu.qemuMonitorCommand(domain, text, 0))["return"]


def died(there):
    """Kill the host's libvirt and start it again."""
    there.host.kill_libvirtd()
    restarted(there)


def restarted(there):
    there.host.start_libvirtd()
    with suppress(DriverError):  # its daemon is gone
        there.driver.close()
    there.driver = driver_for(there.host.local_uri)
