"""A real machine made a file on the real libvirt, whatever dies meanwhile, and its disk looked into."""

import subprocess

import pytest

from portal.drivers.ova import archive
from portal.operations.models import Operation
from portal.operations.states import State
from tests.vms.test_cloning_live import SECTOR, original  # noqa: F401 (a fixture)
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
from vms.exports import kind, services
from vms.models import Export

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]


def copies(real):
    return [one.name for one in real[0].list_volumes(real[1].name) if "export" in one.name]


def test_a_machine_becomes_a_file_whatever_dies(cast, worker, real, original, tmp_path):  # noqa: F811
    """Red when Bring or Pack takes what a dead worker left for whole, or the overlay alone is packed."""
    driver = real[0]
    before = driver.definition(str(original.uuid))
    begun = services.export_machine(actor=cast.requester, machine=original)
    carry_out(worker, begun, *points(kind.EXPORT))
    made = Export.objects.get()
    path = kind.FOLDER / made.path
    assert copies(real) == [] and [one.name for one in path.parent.iterdir()] == [path.name]
    assert driver.definition(str(original.uuid)) == before
    with archive.opened(path) as found:
        [disk] = found.appliance().disks
        found.unpack(disk.file, tmp_path / "disk.qcow2")
        found.unpack("domain.xml", tmp_path / "domain.xml")
    assert (tmp_path / "domain.xml").read_text() == before.persistent
    told = subprocess.run(
        ["qemu-img", "info", tmp_path / "disk.qcow2"], capture_output=True, text=True, check=True
    ).stdout
    assert "backing file" not in told
    raw = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", tmp_path / "disk.qcow2", raw], check=True)
    with raw.open("rb") as file:
        file.seek(SECTOR * 512)
        assert file.read(6) == b"marked"


def test_an_export_that_fails_leaves_nothing(cast, worker, real, original):  # noqa: F811
    begun = services.export_machine(actor=cast.requester, machine=original)
    assert worker(begun.pk, failing="pack") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert copies(real) == [] and not Export.objects.exists()
    assert not (kind.FOLDER / begun.identifiers["folder"]).exists()
