"""The first catalogue, made at set-up from the images, and left alone by later runs."""

import pytest
from django.core.management import call_command

from portal.accounts.models import Membership, Project, Role, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.hosts import services as hosts
from portal.hosts.models import Host, Image
from portal.operations.models import DefaultLimit
from tests.factories import make_host
from tests.vms.catalogue.test_images import write_manifest
from vms.catalogue.values import ICONS, item_snapshot
from vms.models import CatalogueItem, Flavour

pytestmark = [pytest.mark.database, pytest.mark.django_db]
BOTH = ["paravirtual", "emulated"]


@pytest.fixture(autouse=True)
def people(db):
    """Accounts that are there already: set-up makes none then."""
    admin = User.objects.create(username=Role.ADMIN)
    Membership.objects.create(user=admin, role=Role.ADMIN)


def test_a_new_portal_has_one_account_a_role_told_in_one_file(settings, tmp_path):
    """Red when the file can be read by others, or an account has another password than it says."""
    Membership.objects.all().delete()
    User.objects.all().delete()
    settings.STATE_DIR = tmp_path
    call_command("bootstrap")
    told = tmp_path / "credentials"
    assert told.stat().st_mode & 0o777 == 0o600
    lines = dict(line.split(":", 1) for line in told.read_text().splitlines())
    assert set(lines) == {"admin", "approver", "operator", "auditor", "requester"} == set(Role.values)
    assert len(set(lines.values())) == 5 and min(map(len, lines.values())) >= 16
    for name, password in lines.items():
        person = User.objects.get(username=name)
        assert person.check_password(password) and person.memberships.get().role == name
    before = told.read_text()
    call_command("bootstrap")
    assert told.read_text() == before


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


def test_a_portal_whose_first_admin_is_locked_and_renamed_starts_by_another(tmp_path, capsys):
    """Red when set-up acts as the account `admin`, or as somebody who is deactivated."""
    User.objects.update(username="handed-over", is_active=False)
    heir = User.objects.create(username="heir")
    Membership.objects.create(user=heir, role=Role.ADMIN)
    for build in (b"a", b"b"):
        call_command("bootstrap", images=write_manifest(tmp_path, build))
    assert Image.objects.count() == 2 and DefaultLimit.objects.exists()
    assert "No active account" not in capsys.readouterr().out
    doers = AuditEntry.objects.filter(verb="image.imported").values_list("actor_name", flat=True)
    assert set(doers) == {"set-up"}


@pytest.mark.parametrize("lost", ["role", "account", "project"])
def test_a_portal_that_nobody_administers_starts_and_says_so(tmp_path, capsys, lost):
    """Red when set-up needs an admin to import images, or enrols a host in the name of nobody."""
    if lost == "role":
        Membership.objects.filter(project=None).delete()
    elif lost == "account":
        User.objects.filter(memberships__project=None).update(is_active=False)
    else:
        Membership.objects.filter(project=None).update(project=Project.objects.create(name="One"))
    manifest = write_manifest(tmp_path, b"a")
    for _start in range(2):
        call_command("bootstrap", "--host", "here", "fake:///here", "/srv/gatehouse", images=manifest)
        assert "No active account is an admin of every project" in capsys.readouterr().out
    assert Image.objects.exists() and CatalogueItem.objects.exists()
    assert not Host.objects.exists() and not DefaultLimit.objects.exists()


def test_samples_that_an_admin_deleted_do_not_come_back(tmp_path):
    """Red when an empty catalogue counts as one that was never made."""
    manifest = write_manifest(tmp_path, b"a")
    call_command("bootstrap", images=manifest)
    CatalogueItem.objects.all().delete()
    Flavour.objects.filter(name="Tiny").delete()
    call_command("bootstrap", images=manifest)
    assert not CatalogueItem.objects.exists()
    assert not Flavour.objects.filter(name="Tiny").exists()


def test_sizes_that_are_there_stay_as_they_are(tmp_path):
    """Red when set-up makes sizes without looking: the next start ended with an IntegrityError."""
    Flavour.objects.create(name="Small", vcpus=7, memory=1 << 30, disk=10 << 30)
    call_command("bootstrap", images=write_manifest(tmp_path, b"a"))
    assert Flavour.objects.get(name="Small").vcpus == 7
    assert CatalogueItem.objects.get().flavours.filter(name="Small").exists()


def test_importing_by_hand_still_needs_an_admin(tmp_path):
    """Red when import_images asks nobody for a role."""
    stranger = User.objects.create(username="stranger")
    with pytest.raises(Denied, match="import images"):
        hosts.import_images(actor=stranger, manifest=write_manifest(tmp_path, b"a"))
