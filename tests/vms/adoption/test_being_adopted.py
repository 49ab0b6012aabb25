"""What is done to an adopted machine, until it is deleted or released."""

import pytest
from django.urls import reverse as url

from networks.models import Port
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.errors import InvalidSpec
from portal.drivers.types import SeedSpec, VolumeInfo
from portal.live.consumer import _render as live_render
from portal.operations.models import Counter
from portal.operations.states import State
from tests import factories
from tests.factories import GIB
from tests.vms.adoption.making import FOLDER, adopted, finish, left, make, see, taken
from tests.vms.sharers import strange_pool, use_too
from vms import power
from vms.adoption.services import lost_with, release_machine
from vms.changes import disks
from vms.models import Definition, Disk, Observed, VirtualMachine

pytestmark = pytest.mark.database


@pytest.mark.django_db
@pytest.mark.parametrize("known", [True, False])
def test_every_page_of_it_works_without_image_disks_and_cards(client, cast, operator, machine, known):
    """Red when a page asks for what only a machine that the portal built has."""
    machine.disks.all().delete()
    if not known:
        Definition.objects.all().delete()
    for person in (cast.requester, operator):
        client.force_login(person)
        for name in ("detail", "settings"):
            assert client.get(url(f"vms:{name}", args=[machine.pk])).status_code == 200
        for name in ("vnc", "serial"):
            assert client.get(url(f"console:{name}", args=[machine.pk])).status_code == 200
        assert "Adopted" in client.get(url("vms:list")).content.decode()
        for panel in ("vms.row", "vms.state", "vms.status", "vms.export"):
            assert live_render(person.pk, [f"{panel}:{machine.pk}"])[0]
    detail = client.get(url("vms:detail", args=[machine.pk])).content.decode()
    assert "as the domain Old_Web.1" in detail


@pytest.mark.django_db
def test_its_owner_switches_it_and_nobody_signs_in_as_nobody(client, cast, machine):
    network = factories.make_network(kind="bridge", bridge="br0")
    Port.objects.create(
        network=network,
        host=machine.host,
        domain_uuid=machine.uuid,
        mac="52:54:00:00:00:09",
        observed_address="10.0.0.9",
    )
    VirtualMachine.objects.update(observed_state=Observed.RUNNING)
    client.force_login(cast.requester)
    assert "ssh 10.0.0.9" in client.get(url("vms:detail", args=[machine.pk])).content.decode()
    begun = power.act(actor=cast.requester, machine=machine, verb="shutdown")
    assert begun.identifiers["volumes"] == [["example-pool", "volume-a"]]


@pytest.mark.django_db
def test_its_end_says_what_stays_and_deletes_what_is_its_own(client, cast, driver, place, machine):
    """Red when volumes_of() names a seed, or the page does not say which files stay."""
    client.force_login(cast.requester)
    page = client.get(url("vms:detail", args=[machine.pk])).content.decode()
    assert "these disks are lost: example-pool/volume-a" in page
    assert "stay on the host: /srv/&lt;elsewhere&gt;.raw" in page and "<elsewhere>" not in page
    driver.write_seed(SeedSpec("example-pool", "Old_Web.1-seed.iso", "", ""))
    assert (
        finish(power.bin_machine(actor=cast.requester, machine=machine, confirm_name="old-web")).state
        == State.SUCCEEDED
    )
    machine.refresh_from_db()
    assert taken(place.host.scope) == {} and taken(place.pool.scope) == {"disk": 2 * GIB}
    assert "/srv/&lt;elsewhere&gt;.raw" in client.get(url("vms:detail", args=[machine.pk])).content.decode()
    power.restore_machine(actor=cast.requester, machine=machine)
    assert taken(place.host.scope) == {"vcpu": 2, "memory": GIB, "machines": 1}
    finish(power.bin_machine(actor=cast.requester, machine=machine, confirm_name="old-web"))
    machine.refresh_from_db()
    finish(power.purge_machine(actor=cast.requester, machine=machine, confirm_name="old-web"))
    assert not VirtualMachine.objects.exists() and not Definition.objects.exists()
    assert [volume.name for volume in driver.list_volumes("example-pool")] == ["Old_Web.1-seed.iso"]
    assert driver.list_domains() == () and not Counter.objects.exclude(held=0, used=0).exists()


@pytest.mark.django_db
@pytest.mark.parametrize("how", ["domain", "volume"])
def test_a_disk_that_others_use_by_then_is_left(cast, driver, machine, how):
    """Red when DeleteVolumes deletes what the portal took for the machine's own when it was adopted."""
    use_too(driver, f"{FOLDER}/volume-a", how)
    finish(power.bin_machine(actor=cast.requester, machine=machine, confirm_name="old-web"))
    machine.refresh_from_db()
    ended = finish(power.purge_machine(actor=cast.requester, machine=machine, confirm_name="old-web"))
    assert ended.state == State.SUCCEEDED and not VirtualMachine.objects.exists()
    assert ended.steps.get(name="volumes").remark == "disks_left"
    assert driver.volume_info("example-pool", "volume-a")


@pytest.mark.django_db
@pytest.mark.parametrize("disk", ["volume-a", "my disk.img"])
def test_names_that_others_gave_stand_in_nobodys_way(cast, operator, driver, host, disk):
    """Red when the driver takes only names that it would give: all would fail where others have a pool."""
    strange_pool(driver)
    info = VolumeInfo("example-pool", disk, f"{FOLDER}/{disk}", 2 * GIB, 0)
    driver._volumes[info.pool, info.name] = info
    found = adopted(operator, make(driver, host, disks=[info.path]), cast)
    assert list(found.disks.values_list("volume_name", flat=True)) == [disk]
    finish(power.bin_machine(actor=cast.requester, machine=found, confirm_name="old-web"))
    found.refresh_from_db()
    ended = finish(power.purge_machine(actor=cast.requester, machine=found, confirm_name="old-web"))
    assert ended.state == State.SUCCEEDED and not VirtualMachine.objects.exists()
    assert driver.list_volumes("example-pool") == () and not ended.steps.get(name="volumes").remark


@pytest.mark.django_db
def test_a_disk_whose_removal_fails_comes_back_as_it_was(cast, operator, driver, place, monkeypatch):
    """Red when it comes back as the portal's own disks are: a raw one would be read as qcow2."""
    definition = make(driver, place.host, disks=["volume-a", "volume-b"])
    raw = {"driver": {"type": "raw", "cache": "none"}, "target": {"bus": "scsi"}}
    driver.redefine(
        str(definition.uuid), {"devices": {"disks": [{}, raw]}}, definition.observed_digest
    )
    mine = adopted(operator, definition, cast)
    before = see(place.host, driver, str(definition.uuid)).observed_persistent["devices"]["disks"]

    def refused(_pool, _name):
        raise InvalidSpec("no")

    with monkeypatch.context() as patched:
        patched.setattr(driver, "delete_volume", refused)
        disk = mine.disks.get(target="vdb")
        ended = finish(disks.remove_disk(actor=cast.requester, disk=disk, confirm_name="vdb"))
    assert ended.state == State.FAILED and mine.disks.filter(target="vdb").exists()
    after = see(place.host, driver, str(definition.uuid)).observed_persistent["devices"]["disks"]
    assert after == before and before[1]["driver"]["type"] == "raw"


@pytest.mark.django_db
def test_a_machine_of_no_disk_says_that_none_is_lost(cast, operator, driver, host):
    machine = adopted(operator, make(driver, host), cast)
    assert lost_with(machine) == "Its definition on the host is lost, and none of its disks."


@pytest.mark.django_db
def test_what_is_released_is_found_again_and_gives_all_back(client, cast, operator, driver, machine):
    """Red when release_machine() asks the host, keeps a row, or gives nothing back."""
    before = driver.definition(str(machine.uuid)), driver.list_volumes("example-pool")
    client.force_login(operator)
    address = url("vms:release", args=[machine.pk])
    assert "exactly to release" in client.post(address, {"confirm_name": "x"}, follow=True).content.decode()
    answer = client.post(address, {"confirm_name": "old-web"}, follow=True)
    assert [row.definition.uuid for row in answer.context["rows"]] == [machine.uuid]
    assert not VirtualMachine.objects.exists() and not Disk.objects.exists()
    assert not Counter.objects.exclude(held=0, used=0).exists()
    assert (driver.definition(str(machine.uuid)), driver.list_volumes("example-pool")) == before
    assert AuditEntry.objects.get(verb="machine.released").before["domain"] == "Old_Web.1"
    assert adopted(operator, Definition.objects.get(), cast).uuid == machine.uuid


@pytest.mark.django_db
def test_only_an_adopted_machine_that_nothing_works_on_is_released(client, cast, operator, machine):
    """Red when why_not_released() asks for neither."""
    built = factories.make_machine(cast, "built", machine.host)
    with pytest.raises(Denied, match="itself built this machine"):
        release_machine(actor=operator, machine=built, confirm_name="built")
    client.force_login(operator)
    assert "Release" not in client.get(url("vms:detail", args=[built.pk])).content.decode()
    VirtualMachine.objects.update(observed_state=Observed.RUNNING)
    power.act(actor=cast.requester, machine=machine, verb="shutdown")
    with pytest.raises(Denied, match="not finished yet"):
        release_machine(actor=operator, machine=machine, confirm_name="old-web")
    assert "Not now:" in client.get(url("vms:detail", args=[machine.pk])).content.decode()
    client.force_login(cast.requester)
    assert (
        url("vms:release", args=[machine.pk])
        not in client.get(url("vms:detail", args=[machine.pk])).content.decode()
    )


@pytest.mark.django_db
def test_one_in_the_bin_is_released_and_counts_nothing_of_its_host(cast, operator, host, machine):
    finish(power.bin_machine(actor=cast.requester, machine=machine, confirm_name="old-web"))
    machine.refresh_from_db()
    release_machine(actor=operator, machine=machine, confirm_name="old-web")
    assert (left(host, "vcpu"), left(host, "memory")) == (8, 16 * GIB)
