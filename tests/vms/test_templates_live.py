"""A real machine made into an image on the real libvirt, whatever dies meanwhile, and one made from that."""

import hashlib
import uuid
from pathlib import Path

import pytest

from portal.drivers.types import DomainState
from portal.hosts.models import Image
from portal.operations.models import Operation
from portal.operations.services import decide
from portal.operations.states import State
from tests import factories
from tests.factories import MIB
from tests.vms.real import await_agent, force_away, inside
from tests.vms.test_changes_live import see
from tests.vms.test_cloning_live import SECTOR, give_raw, original  # noqa: F401 (a fixture)
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
from vms.building import CREATE
from vms.changes import templates
from vms.models import CatalogueItem, VirtualMachine
from vms.services import request_machine

pytestmark = [
    pytest.mark.database,
    pytest.mark.live,
    pytest.mark.usefixtures("trail_that_can_be_flushed"),
]


def make(cast, machine):
    return templates.make_template(actor=cast.operator, machine=machine, title="Marked")


def test_a_template_is_whole_whatever_dies_and_a_machine_of_it_has_its_marks(
    cast, chief, worker, real, original  # noqa: F811
):
    """Red when CopyDisk takes a half copy for a whole one or leaves out a disk, or a copy needs its image.

    The machine has a further disk, a raw one, which the machine made from the template gets as its second.
    """
    driver = real[0]
    give_raw(cast, chief, worker, real, original)
    begun = make(cast, original)
    carry_out(worker, begun, *points(templates.TEMPLATE))
    image = Image.objects.get(title="Marked")
    place = image.attachments.get()
    content = Path(place.path).read_bytes()
    assert (image.sha256, image.size) == (hashlib.sha256(content).hexdigest(), len(content))
    volume = driver.volume_info(real[1].name, begun.identifiers["volume"])
    assert volume.backing_path is None and volume.capacity_bytes == image.virtual_size
    [further] = image.further
    second = driver.volume_info(real[1].name, begun.identifiers["further"][0]["volume"])
    assert (second.path, second.format, second.backing_path) == (place.paths[1], "qcow2", None)
    assert second.capacity_bytes == further["capacity"] == 16 * MIB
    assert further["sha256"] == hashlib.sha256(Path(second.path).read_bytes()).hexdigest()

    item = CatalogueItem.objects.get()
    image.device_models = item.image.device_models
    image.save()
    item.image = image
    item.save()
    wish = factories.make_wish(
        factories.SimpleNamespace(item=item, flavour=item.flavours.get(), network=item.networks.get()),
        name="gttemplated",
    )
    asked = request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())
    queued = decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)
    try:
        carry_out(worker, queued, *points(CREATE)[2:4])
        made = VirtualMachine.objects.get(name="gttemplated")
        await_agent(driver, made.uuid)
        read = f"/bin/busybox dd if=/dev/vda bs=512 skip={SECTOR} count=1 | /bin/busybox head -c 6"
        assert inside(made.uuid, "/bin/busybox", "sh", "-c", read) == "marked"
        assert inside(made.uuid, "/bin/busybox", "hostname").strip() == "gttemplated"
        read = "/bin/busybox head -c 3 /dev/vdb"
        assert inside(made.uuid, "/bin/busybox", "sh", "-c", read) == "raw"
        mine = {disk.volume_name: disk for disk in made.disks.all()}
        there = {one.name: one for one in driver.list_volumes(real[1].name) if one.name in mine}
        assert sorted(disk.target for disk in mine.values()) == ["vda", "vdb"] and len(there) == 2
        assert {one.backing_path for one in there.values()} == set(place.paths)
    finally:
        force_away(driver, queued)
    for path in place.paths:
        driver.delete_volume(real[1].name, Path(path).name)
    see(real, original)
    assert driver.domain_info(str(original.uuid)).state is DomainState.SHUTOFF


@pytest.mark.parametrize("failing", [step.name for step in templates.TEMPLATE.steps])
def test_a_template_that_fails_leaves_nothing(cast, chief, worker, real, original, failing):  # noqa: F811
    """Red when CopyDisk.undo or ListImage.undo do nothing, or forget the further disk."""
    give_raw(cast, chief, worker, real, original)
    begun = make(cast, original)
    assert worker(begun.pk, failing=failing) == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    names = [one.name for one in real[0].list_volumes(real[1].name)]
    further = [disk["volume"] for disk in begun.identifiers["further"]]
    assert len(further) == 1 and not {begun.identifiers["volume"], *further} & set(names)
    assert not Image.objects.filter(title="Marked").exists()
