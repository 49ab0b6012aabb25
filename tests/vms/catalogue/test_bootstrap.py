"""The first catalogue, made at set-up from the images, and left alone by later runs."""

import pytest
from django.core.management import call_command

from portal.accounts.models import Membership, Role, User
from portal.hosts.models import Image
from tests.factories import make_host
from tests.vms.catalogue.test_images import write_manifest
from vms.catalogue.values import ICONS, item_snapshot
from vms.models import CatalogueItem

pytestmark = [pytest.mark.database, pytest.mark.django_db]
BOTH = ["paravirtual", "emulated"]


@pytest.fixture(autouse=True)
def people(db):
    """Accounts that are there already: set-up makes none then."""
    admin = User.objects.create(username=Role.ADMIN)
    Membership.objects.create(user=admin, role=Role.ADMIN)


def test_a_new_portal_offers_each_image_in_what_it_has_drivers_for(tmp_path):
    """Red when bootstrap leaves out the new fields."""
    call_command("bootstrap", images=write_manifest(tmp_path, b"a", device_models=BOTH))
    item = CatalogueItem.objects.get()
    assert (item.device_models, item.default_devices) == (BOTH, "paravirtual")
    assert (item.accelerators, item.default_accelerator) == (["best", "kvm", "qemu"], "best")
    assert item.position == 1 and item.every_project and item.icon in ICONS
    assert item.flavours.exists() and item.networks.exists()


def test_a_later_run_leaves_the_catalogue_as_people_made_it(tmp_path):
    """Red when bootstrap moves items to a newer build by itself."""
    call_command("bootstrap", images=write_manifest(tmp_path, b"a"))
    item = CatalogueItem.objects.get()
    item.name, item.longest_lease_days = "Ours", 7
    item.save()
    before = item_snapshot(item)
    call_command("bootstrap", images=write_manifest(tmp_path, b"b", device_models=BOTH))
    assert item_snapshot(CatalogueItem.objects.get()) == before
    assert Image.objects.count() == 2


@pytest.mark.parametrize(("accelerator", "said"), [("qemu", True), ("kvm", False), ("", False)])
def test_who_starts_it_is_told_that_machines_will_be_slow(capsys, accelerator, said):
    """Red when the sentence goes by anything but the proof."""
    make_host("rack-1", accelerator=accelerator)
    call_command("bootstrap")
    assert ("KVM does not work on rack-1" in capsys.readouterr().out) == said
