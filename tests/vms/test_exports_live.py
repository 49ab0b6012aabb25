"""A real machine made a file on the real libvirt, whatever dies meanwhile, and its disk looked into."""

import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from networks.models import Network
from portal.drivers.ova import archive
from portal.hosts.images import services as images
from portal.hosts.images import store
from portal.hosts.models import Image
from portal.operations import services as operations
from portal.operations.models import Operation
from portal.operations.states import State
from tests.hosts.images.conftest import MIB, WANTED, send
from tests.vms.real import ask, await_agent, force_away, inside
from tests.vms.test_cloning_live import SECTOR, original  # noqa: F401 (a fixture)
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
from vms.exports import kind, services
from vms.models import CatalogueItem, Export, VirtualMachine

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


def test_what_was_exported_comes_in_again_and_boots(cast, chief, worker, real, original):  # noqa: F811
    """Red when the import takes the archive for the disk, or the image cannot be asked for."""
    carry_out(worker, services.export_machine(actor=cast.requester, machine=original))
    content = (kind.FOLDER / Export.objects.get().path).read_bytes()
    upload = images.begin_upload(actor=chief, wanted=replace(WANTED, name="again", min_memory=0))
    carry_out(worker, send(chief, upload, content, chunk=8 * MIB, name="again.ova"))
    image = Image.objects.get(name="again")
    assert image.told["name"] == original.name and image.min_memory == original.memory
    item, network = CatalogueItem.objects.get(), Network.objects.get()
    item.image = image
    item.save()
    asked = ask(cast, SimpleNamespace(item=item, flavour=item.flavours.get(), network=network))
    told = {"actor": cast.approver, "operation": asked, "spec_hash": asked.spec_hash}
    begun = operations.decide(**told, approved=True)
    try:
        carry_out(worker, begun)
        machine = VirtualMachine.objects.get(built_by=begun)
        assert machine.image == image and machine.observed_address
        await_agent(real[0], machine.uuid)
        assert inside(machine.uuid, "/bin/busybox", "hostname").strip() == machine.name
    finally:
        force_away(real[0], begun)
        real[0].delete_volume(real[1].name, image.volume_name)
        store.clear(upload)


def test_an_export_that_fails_leaves_nothing(cast, worker, real, original):  # noqa: F811
    begun = services.export_machine(actor=cast.requester, machine=original)
    assert worker(begun.pk, failing="pack") == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    assert copies(real) == [] and not Export.objects.exists()
    assert not (kind.FOLDER / begun.identifiers["folder"]).exists()
