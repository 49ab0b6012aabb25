"""Machines as files: what is asked of whom, what is in the file, and that it goes when its time is over."""

import hashlib
import shutil
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.urls import reverse as url
from django.utils import timezone

from portal.accounts.models import Membership, Role, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.fake import FakeDriver
from portal.drivers.ova import archive
from portal.drivers.types import DiskSpec, DomainSpec, PoolSpec, VolumeSpec
from portal.hosts import bringing
from portal.hosts.models import PoolAttachment
from portal.operations.models import Operation
from portal.operations.registry import StepContext, StepFailed
from portal.operations.states import State
from tests.factories import GIB
from tests.vms.test_changes import finish, machine, off, used  # noqa: F401 (a fixture)
from tests.vms.test_cloning import original  # noqa: F401 (a fixture)
from vms import power
from vms.exports import kind, services
from vms.models import Export, VirtualMachine

POOL = "example-pool"
pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for module in (kind, services):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def host(original, monkeypatch):  # noqa: F811
    """The machine's host: a driver in this process, with the machine's disk and definition."""
    driver = FakeDriver("fake:///exports")
    pool = PoolAttachment.objects.get()
    PoolAttachment.objects.update(path="/example")
    driver.ensure_pool(PoolSpec(pool.pool.name, str(pool.pool.uuid), "/example"))
    driver.create_volume(VolumeSpec(pool.pool.name, "example-vda.qcow2", 2 * GIB))
    disks = (DiskSpec("/example/example-vda.qcow2"),)
    driver.define(DomainSpec("example", str(original.uuid), 1, GIB, disks))

    def call(_host, verb, *args, timeout):
        return getattr(driver, verb)(*args)

    monkeypatch.setattr("portal.hosts.steps.call", call)
    return driver


def export(actor, found):
    return services.export_machine(actor=actor, machine=found)


def context_of(operation):
    return StepContext(operation.frozen, operation.identifiers, lambda: None)


def carried_out(operation):
    for step in kind.EXPORT.steps:
        step.do(context_of(operation))
    finish(operation)
    return Export.objects.get()


def test_a_file_holds_the_machine_and_says_what_is_in_it(cast, original, host, folder):  # noqa: F811
    """Red when the disk that is packed is not the copy, or the digest is not the file's."""
    begun = export(cast.requester, original)
    assert used("disk")["pool"] == (2 * GIB, 2 * GIB)
    taken, download = [], host.download_volume
    host.download_volume = lambda pool, name, target: taken.append(name) or download(pool, name, target)
    made = carried_out(begun)
    path = folder / made.path
    assert made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and made.size == path.stat().st_size
    with archive.opened(path) as found:
        told = found.appliance()
        [disk] = told.disks
        assert (told.name, told.vcpus, told.memory_bytes) == ("example", 1, GIB)
        assert (disk.file, disk.capacity_bytes, disk.format) == ("example-vda.qcow2", 2 * GIB, "qcow2")
        assert set(found.checksums()) == {"example.ovf", "domain.xml", disk.file}
        found.unpack("domain.xml", folder / "xml")
        assert (folder / "xml").read_text() == host.definition(str(original.uuid)).persistent
        # A copy holds what the disk does, which the fake host tells by its path.
        assert taken == [begun.identifiers["disks"][0]["volume"]] != ["example-vda.qcow2"]
        assert b"/example-vda.qcow2 " in _unpacked(found, disk.file, folder)
    # Nothing is left but the file, neither here nor on the host, nor what it took there.
    assert [one.name for one in path.parent.iterdir()] == ["example.ova"]
    assert [one.name for one in host.list_volumes(POOL)] == ["example-vda.qcow2"]
    assert used("disk")["pool"] == (0, 2 * GIB)


def _unpacked(found, name, folder):
    found.unpack(name, folder / "out")
    return (folder / "out").read_bytes()


def test_whoever_comes_after_a_dead_worker_makes_the_same_file(cast, original, host, folder):  # noqa: F811
    """Red when Pack takes a folder without disks for an empty machine."""
    begun = export(cast.requester, original)
    told = context_of(begun)
    for step in kind.EXPORT.steps[:3]:
        step.do(told)
        step.do(told)
    first = Export.objects.get()
    file = (folder / first.path).read_bytes()
    # It died after it had the file and before the disks were gone.
    kind.Bring().do(told)
    kind.Pack().do(told)
    with archive.opened(folder / first.path) as found:
        assert [disk.file for disk in found.appliance().disks] == ["example-vda.qcow2"]
    assert len(file) == Export.objects.get().size and Export.objects.count() == 1


def test_what_is_undone_leaves_nothing(cast, original, host, folder):  # noqa: F811
    begun = export(cast.requester, original)
    for step in kind.EXPORT.steps[:3]:
        step.do(context_of(begun))
    for step in reversed(kind.EXPORT.steps):
        step.undo(context_of(begun))
        step.undo(context_of(begun))
    finish(begun, State.FAILED)
    assert not list(folder.iterdir()) and not Export.objects.exists()
    assert [one.name for one in host.list_volumes(POOL)] == ["example-vda.qcow2"]
    assert used("disk")["pool"] == (0, 2 * GIB)


def test_a_portal_without_room_says_so_before_anything_is_brought(
    cast, original, host, folder, monkeypatch  # noqa: F811
):
    """Red when Bring does not look for room."""
    begun = export(cast.requester, original)
    kind.CopyDisks().do(context_of(begun))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=bringing.LEFT_FREE))
    with pytest.raises(StepFailed) as failed:
        kind.Bring().do(context_of(begun))
    assert failed.value.code == "portal_full"
    assert not [one for one in folder.rglob("*") if one.is_file()]


def test_a_machine_stays_off_and_whole_meanwhile(cast, original):  # noqa: F811
    begun = export(cast.requester, original)
    for verb in ("start", "export"):
        with pytest.raises(Denied, match="Another change to this machine"):
            if verb == "export":
                export(cast.requester, original)
            else:
                power.act(actor=cast.requester, machine=original, verb=verb)
    finish(begun, State.FAILED)
    power.act(actor=cast.requester, machine=original, verb="start")


def test_only_one_that_is_off_and_by_whom_it_belongs_to_is_exported(cast, original):  # noqa: F811
    with pytest.raises(Denied, match="Only the owner"):
        export(cast.auditor, original)
    VirtualMachine.objects.update(observed_state="running")
    with pytest.raises(Denied, match="Switch it off first"):
        export(cast.requester, original)
    off(original)
    original.disks.all().delete()
    with pytest.raises(Denied, match="lies in no pool|nothing to export"):
        export(cast.requester, original)
    assert not Operation.objects.filter(kind="vm.export").exists()


def test_a_pool_without_room_for_the_copies_refuses(cast, original):  # noqa: F811
    """Red when export_machine holds nothing of the pool."""
    original.disks.update(capacity=9 * GIB)
    with pytest.raises(Denied, match="not enough disk"):
        export(cast.requester, original)
    assert not Operation.objects.filter(kind="vm.export").exists()


def test_the_file_comes_by_the_page_and_the_trail_says_who_took_it(
    cast, original, host, client  # noqa: F811
):
    made = carried_out(export(cast.requester, original))
    client.force_login(cast.requester)
    shown = client.get(url("vms:detail", args=[original.pk])).content.decode()
    assert made.sha256 in shown and url("vms:export_take", args=[made.pk]) in shown
    answer = client.post(url("vms:export_take", args=[made.pk]))
    content = b"".join(answer.streaming_content)
    assert hashlib.sha256(content).hexdigest() == made.sha256
    assert answer["Content-Length"] == str(len(content)) and "example.ova" in answer["Content-Disposition"]
    taken = AuditEntry.objects.get(verb="export.taken")
    assert taken.actor_name == "requester" and taken.after == {"sha256": made.sha256}

    another = User.objects.create(username="another")
    Membership.objects.create(user=another, project=cast.project, role=Role.REQUESTER)
    client.force_login(another)
    assert client.post(url("vms:export_take", args=[made.pk])).status_code == 404


def test_a_file_outlives_its_machine_on_a_page_of_its_own(cast, original, host, client):  # noqa: F811
    """Red when the page asks for the machine, or shows files to who may not have them."""
    made = carried_out(export(cast.requester, original))
    client.force_login(cast.requester)
    there = url("vms:exports")
    assert there in client.get(url("vms:detail", args=[original.pk])).content.decode()
    assert there in client.get(url("vms:list")).content.decode()
    power.forget(original)
    take = url("vms:export_take", args=[made.pk])
    assert take in client.get(there).content.decode()
    assert client.post(take).status_code == 200

    client.force_login(cast.auditor)
    assert take not in client.get(there).content.decode()
    client.force_login(cast.requester)
    answer = client.post(url("vms:export_delete", args=[made.pk]), {"back": "exports"}, follow=True)
    page = answer.content.decode()
    assert answer.redirect_chain[-1][0] == there and take not in page and "No exported files" in page


def test_a_file_goes_when_it_is_deleted_or_its_time_is_over(cast, original, host, folder):  # noqa: F811
    """Red when sweep() leaves the file, or a file whose time is over is handed out."""
    made = carried_out(export(cast.requester, original))
    services.sweep()
    assert (folder / made.path).exists()
    with pytest.raises(Denied):
        services.delete_export(actor=cast.auditor, export=made)
    services.delete_export(actor=cast.requester, export=made)
    made.refresh_from_db()
    with pytest.raises(Denied, match="is deleted"):
        services.open_export(actor=cast.requester, export=made)
    assert not services.exports_of(original, cast.requester).exists()
    assert services.sweep() == 1
    assert not list(folder.iterdir()) and not Export.objects.exists()

    again = carried_out(export(cast.requester, original))
    Export.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert services.sweep() == 1 and not (folder / again.path).exists()


def test_a_row_whose_file_is_gone_as_after_a_restore_goes_too(cast, original, host, folder):  # noqa: F811
    """Red when sweep() looks at nothing but the time."""
    made = carried_out(export(cast.requester, original))
    shutil.rmtree((folder / made.path).parent)
    assert services.sweep() == 1 and not Export.objects.exists()
