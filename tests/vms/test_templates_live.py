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
from tests.vms.real import await_agent, force_away, inside
from tests.vms.test_changes_live import see
from tests.vms.test_cloning_live import SECTOR, original  # noqa: F401 (a fixture)
from tests.vms.test_ending import WORKER, carry_out, points  # noqa: F401 (WORKER: whose workers `worker` runs)
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


def test_a_template_is_whole_whatever_dies_and_a_machine_of_it_has_its_mark(cast, worker, real, original):  # noqa: F811
    """Red when CopyDisk takes a half copy for a whole one, or the copy still needs its image."""
    driver = real[0]
    begun = make(cast, original)
    carry_out(worker, begun, *points(templates.TEMPLATE))
    image = Image.objects.get(title="Marked")
    place = image.attachments.get()
    content = Path(place.path).read_bytes()
    assert (image.sha256, image.size) == (hashlib.sha256(content).hexdigest(), len(content))
    volume = driver.volume_info(real[1].name, begun.identifiers["volume"])
    assert volume.backing_path is None and volume.capacity_bytes == image.virtual_size

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
        carry_out(worker, queued)
        made = VirtualMachine.objects.get(name="gttemplated")
        await_agent(driver, made.uuid)
        read = f"/bin/busybox dd if=/dev/vda bs=512 skip={SECTOR} count=1 | /bin/busybox head -c 6"
        assert inside(made.uuid, "/bin/busybox", "sh", "-c", read) == "marked"
        assert inside(made.uuid, "/bin/busybox", "hostname").strip() == "gttemplated"
    finally:
        force_away(driver, queued)
    driver.delete_volume(real[1].name, begun.identifiers["volume"])
    see(real, original)
    assert driver.domain_info(str(original.uuid)).state is DomainState.SHUTOFF


@pytest.mark.parametrize("failing", [step.name for step in templates.TEMPLATE.steps])
def test_a_template_that_fails_leaves_nothing(cast, worker, real, original, failing):  # noqa: F811
    """Red when CopyDisk.undo or ListImage.undo do nothing."""
    begun = make(cast, original)
    assert worker(begun.pk, failing=failing) == 0
    assert Operation.objects.get(pk=begun.pk).state == State.FAILED
    names = [one.name for one in real[0].list_volumes(real[1].name)]
    assert begun.identifiers["volume"] not in names
    assert not Image.objects.filter(title="Marked").exists()
