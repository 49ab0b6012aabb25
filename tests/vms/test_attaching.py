"""A volume of a pool becomes a machine's disk, and a disk becomes a volume again: who may, what it takes."""

import struct
import uuid
from dataclasses import replace

import pytest
from django.urls import reverse as url
from django.utils import timezone

from portal.accounts.models import Membership, Role
from portal.core.errors import Denied
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import DiskSpec, VolumeSpec
from portal.hosts.models import PoolAttachment, Volume
from portal.hosts.storage import looking, using
from portal.hosts.storage import services as storage
from portal.operations import ledger, revisions, words
from portal.operations import services as operations
from portal.operations.messages import sentence
from portal.operations.models import Counter, Operation, StepRecord
from portal.operations.registry import kind_of
from portal.operations.states import State
from tests.factories import GIB
from tests.vms.sharers import use_too
from tests.vms.test_moving import host, look, taken, work  # noqa: F401 (host: a fixture)
from vms.changes import attaching, disks
from vms.models import Disk

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def surely(cast, django_user_model):
    """Somebody who operates the whole estate."""
    person = django_user_model.objects.create(username="surely")
    Membership.objects.create(user=person, role=Role.OPERATOR)
    return person


@pytest.fixture
def volume(host):  # noqa: F811
    """A volume of 1 GiB that lies in the second pool and that nobody uses."""
    host.driver.create_volume(VolumeSpec("second", "data.qcow2", GIB))
    see(host)
    return Volume.objects.get(name="data.qcow2")


def see(host):  # noqa: F811
    """Let the portal see what lies in the second pool."""
    looking.note_volumes(host.other.pk, host.driver.list_volumes("second"), timezone.now())


def attach(actor, host, volume, **changes):  # noqa: F811
    asked = {"machine": host.machine, "volume": volume, "why": "old data", "token": uuid.uuid4()}
    return attaching.request_attachment(actor=actor, **asked | changes)


def consent(cast, asked):
    return operations.decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)


def defined(host):  # noqa: F811
    """Return the disks of the definition and of what runs, each as (target, file, format)."""
    found = DefinitionSeen.of(host.driver.definition(str(host.machine.uuid)))
    return [
        [
            (disk["target"]["dev"], disk["source"]["file"], disk["driver"]["type"])
            for disk in side["devices"]["disks"]
        ]
        for side in (found.persistent, found.running)
    ]


def test_a_volume_becomes_a_disk_that_counts(cast, surely, host, volume):  # noqa: F811
    """Red when the row of the disk is of another pool, or the disk is made anew."""
    asked = attach(surely, host, volume)
    told = {fact.label: fact.value for fact in words.facts(asked.frozen)}
    assert told["Volume"] == "none → second/data.qcow2" and told["Disk"] == "1 GiB"
    begun = consent(cast, asked)
    assert taken(host)["second"] == (1, 0)
    assert work(begun).state == State.SUCCEEDED
    disk = Disk.objects.get(target="vdb")
    assert (disk.volume_name, disk.capacity, disk.pool) == ("data.qcow2", GIB, host.other)
    for side in defined(host):
        assert ("vdb", "/second/data.qcow2", "qcow2") in side
    assert taken(host) == {"first": (0, 2), "second": (0, 1)}
    assert [use.words for use in using.uses_of([volume])[volume.pk]] == ["Machine example"]


def test_a_full_pool_has_room_for_what_fills_it_already(cast, surely, host, volume):  # noqa: F811
    """Red when what is written in the volume has to be free beside it."""
    Volume.objects.update(observed_allocation=GIB)
    Counter.objects.filter(scope=host.other.pool.scope).update(limit=0)
    consent(cast, attach(surely, host, volume))
    assert taken(host)["second"] == (1, 0)


def test_what_a_volume_may_grow_to_must_be_free(cast, surely, host, volume):  # noqa: F811
    Volume.objects.update(observed_allocation=GIB // 2)
    Counter.objects.filter(scope=host.other.pool.scope).update(limit=GIB // 4)
    with pytest.raises(Denied, match="not enough disk"):
        consent(cast, attach(surely, host, volume))
    assert Counter.objects.get(scope=host.other.pool.scope).limit == GIB // 4


def test_a_raw_volume_is_read_as_raw(cast, surely, host):  # noqa: F811
    """Red when the format is left out: what a guest writes into its first sector would name other files."""
    host.driver.create_volume(VolumeSpec("second", "data.raw", GIB, format="raw"))
    see(host)
    work(consent(cast, attach(surely, host, Volume.objects.get(name="data.raw"))))
    for side in defined(host):
        assert ("vdb", "/second/data.raw", "raw") in side


def test_the_same_volume_is_attached_once(cast, surely, host, volume):  # noqa: F811
    first, second = attach(surely, host, volume), None
    with pytest.raises(Denied, match="waits for approval already"):
        attach(surely, host, volume)
    begun = consent(cast, first)
    with pytest.raises(Denied):
        second = attach(surely, host, volume)
    work(begun)
    look(host)
    with pytest.raises(Denied, match="Machine example"):
        second = attach(surely, host, volume)
    assert second is None and volume not in attaching.volumes_for(host.machine)


def test_what_somebody_took_meanwhile_is_refused_at_approval(cast, surely, host, volume):  # noqa: F811
    asked = attach(surely, host, volume)
    other = Disk.objects.create(
        machine=host.machine, pool=host.other, target="vdz", volume_name=volume.name, capacity=GIB
    )
    with pytest.raises(Denied, match="in use"):
        consent(cast, asked)
    other.delete()
    Volume.objects.update(observed_capacity=2 * GIB)
    with pytest.raises(Denied, match="another size or format by now"):
        consent(cast, asked)
    Volume.objects.all().delete()
    with pytest.raises(Denied, match="gone from its pool"):
        consent(cast, asked)


@pytest.mark.parametrize("how", ["domain", "volume"])
def test_the_host_is_asked_who_has_it(cast, surely, host, volume, how):  # noqa: F811
    """Red when only what the portal saw counts: two guests that write one file destroy it."""
    begun = consent(cast, attach(surely, host, volume))
    use_too(host.driver, "/second/data.qcow2", how)
    done = work(begun)
    assert done.state == State.FAILED
    step = StepRecord.objects.get(operation=done, name="unused")
    name = "stranger" if how == "domain" else "my overlay.qcow2"
    assert sentence(step.error_code, step.error_raw) == sentence("volume_in_use", name)
    assert not Disk.objects.filter(target="vdb").exists()
    assert taken(host) == {"first": (0, 2), "second": (0, 0)}
    assert host.driver.volume_info("second", "data.qcow2").capacity_bytes == GIB


def test_one_that_is_being_deleted_is_left(cast, surely, host, volume):  # noqa: F811
    """Red when only the host is asked: it deletes the file after this looked and before the guest has it."""
    asked = attach(surely, host, volume)
    deleted = storage.delete(actor=surely, volume=volume, confirm_name=volume.name)
    with pytest.raises(Denied, match="Delete data.qcow2 is not finished"):
        consent(cast, asked)
    Operation.objects.filter(pk=deleted.pk).update(state=State.CANCELLED)
    begun = consent(cast, asked)
    Operation.objects.filter(pk=deleted.pk).update(state=State.RUNNING)
    assert work(begun).state == State.FAILED
    assert StepRecord.objects.get(operation=begun, name="unused").error_raw == str(deleted)
    assert not Disk.objects.filter(target="vdb").exists()


def test_somebody_who_took_it_while_a_worker_was_dead_is_seen(cast, surely, host, volume):  # noqa: F811
    """Red when only the step before asks: hours may lie between the two."""
    begun, asked = consent(cast, attach(surely, host, volume)), []

    def before(verb, _args):
        if verb == "domain_info" and not asked:
            asked.append(verb)
            use_too(host.driver, "/second/data.qcow2", "domain")

    host.before = before
    assert work(begun).state == State.FAILED
    assert StepRecord.objects.get(operation=begun, name="attach").error_raw == "stranger"
    assert not Disk.objects.filter(target="vdb").exists()


def test_one_that_is_being_copied_is_left(cast, surely, host, volume):  # noqa: F811
    """Red when only what changes a volume counts: a copy of what a guest writes is none."""
    asked = attach(surely, host, volume)
    copied = storage.clone(actor=surely, volume=volume, name="copy.qcow2")
    with pytest.raises(Denied, match="Copy data.qcow2 to copy.qcow2 is not finished"):
        consent(cast, asked)
    Operation.objects.filter(pk=copied.pk).update(state=State.CANCELLED)
    consent(cast, asked)
    with pytest.raises(Denied, match="Machine example"):
        storage.clone(actor=surely, volume=volume, name="other.qcow2")


def test_what_a_guest_wrote_names_no_disk_of_another(cast, surely, host, volume):  # noqa: F811
    """Red when any base in a pool will do: who had a raw disk writes what reads as an overlay of any."""
    Volume.objects.filter(pk=volume.pk).update(observed_backing="/first/example-vda.qcow2")
    looking.note_volumes(host.place.pk, host.driver.list_volumes("first"), timezone.now())
    assert attaching.volumes_for(host.machine) == []
    with pytest.raises(Denied, match="what another one has for a disk: Machine example"):
        attach(surely, host, Volume.objects.get(pk=volume.pk))
    with pytest.raises(Denied, match="what another one has for a disk: Machine example"):
        storage.clone(actor=surely, volume=Volume.objects.get(pk=volume.pk), name="copy.qcow2")


def test_what_was_written_since_it_was_seen_is_left(cast, surely, host, volume):  # noqa: F811
    begun = consent(cast, attach(surely, host, volume))
    key = ("second", "data.qcow2")
    host.driver._volumes[key] = replace(host.driver._volumes[key], backing_path="/etc/shadow")
    assert work(begun).state == State.FAILED
    assert StepRecord.objects.get(operation=begun, name="unused").error_code == "volume_other"


def test_a_qcow2_whose_content_lies_elsewhere_is_left(cast, surely, host, volume, monkeypatch):  # noqa: F811
    """Red when the header is not read: the emulator would read whatever file it names."""
    begun = consent(cast, attach(surely, host, volume))
    head = struct.pack(">4sI64xQ", b"QFI\xfb", 3, 1 << 2).ljust(512, b"\0")
    monkeypatch.setattr(host.driver, "read_volume", lambda *_told: head)
    assert work(begun).state == State.FAILED
    assert StepRecord.objects.get(operation=begun, name="unused").error_code == "image_external"


def test_a_copy_of_an_image_is_no_disk(surely, host, volume):  # noqa: F811
    """Red when only rows of copies count: one that is being made has none yet."""
    image = host.place.images.get().image
    Volume.objects.filter(pk=volume.pk).update(name=image.volume_name)
    assert attaching.volumes_for(host.machine) == []
    with pytest.raises(Denied, match="copy of an image"):
        attach(surely, host, Volume.objects.get(pk=volume.pk))


def test_a_disk_that_is_defined_in_another_way_is_not_called_detached(cast, surely, host, volume):  # noqa: F811
    """Red when nobody looks: nothing would be detached, and the volume be free to be given away."""
    work(consent(cast, attach(surely, host, volume)))
    look(host)
    disk = Disk.objects.get(target="vdb")
    PoolAttachment.objects.filter(pk=host.other.pk).update(path="/second/../second")
    with pytest.raises(Denied, match="in another way than the portal knows it"):
        attaching.detach(actor=surely, disk=disk)
    with pytest.raises(Denied, match="in another way than the portal knows it"):
        disks.remove_disk(actor=cast.requester, disk=disk, confirm_name="vdb")


def test_the_approver_reads_of_no_shortage_that_is_none(cast, surely, host, volume):  # noqa: F811
    Volume.objects.update(observed_allocation=GIB)
    Counter.objects.filter(scope=host.place.pool.scope).update(limit=2 * GIB)
    asked = attach(surely, host, volume)
    [seen] = operations_seen(asked)
    assert seen.warnings == []


def operations_seen(*asked):
    """Return what approvers are told of requests."""
    outlooks = kind_of(attaching.ATTACH).asking.outlooks(asked)
    return [outlooks[one.pk] for one in asked]


def test_one_that_became_another_is_left(cast, surely, host, volume):  # noqa: F811
    begun = consent(cast, attach(surely, host, volume))
    host.driver.resize_volume("second", "data.qcow2", 2 * GIB)
    assert work(begun).state == State.FAILED
    assert StepRecord.objects.get(operation=begun, name="unused").error_code == "volume_other"
    assert not Disk.objects.filter(target="vdb").exists()


def test_what_is_no_disk_is_not_offered(cast, surely, host, volume):  # noqa: F811
    names = ["a.iso", "b.kernel", "my data.qcow2"]
    infos = [replace(host.driver.volume_info("second", volume.name), name=name) for name in names]
    strange = replace(infos[0], name="c.vmdk", format="vmdk")
    outside = replace(infos[0], name="d.qcow2", path="/second/d.qcow2", backing_path="/etc/shadow")
    seen = [*host.driver.list_volumes("second"), *infos, strange, outside]
    looking.note_volumes(host.other.pk, seen, timezone.now())
    assert [one.name for one in attaching.volumes_for(host.machine)] == ["data.qcow2"]
    for name in (*names, "c.vmdk"):
        with pytest.raises(Denied, match="Only volumes in the formats"):
            attach(surely, host, Volume.objects.get(name=name))
    with pytest.raises(Denied, match="/etc/shadow"):
        attach(surely, host, Volume.objects.get(name="d.qcow2"))
    host.other.observed_active = False
    host.other.save()
    with pytest.raises(Denied, match="does not run"):
        attach(surely, host, Volume.objects.get(name=volume.name))


def test_only_who_operates_the_estate_attaches_and_keeps(cast, host, volume):  # noqa: F811
    for actor in (cast.requester, cast.operator, cast.approver):
        with pytest.raises(Denied):
            attach(actor, host, volume)
        with pytest.raises(Denied):
            attaching.detach(actor=actor, disk=host.disk)


def test_an_approver_cannot_make_it_smaller(cast, surely, host, volume):  # noqa: F811
    asked = attach(surely, host, volume)
    with pytest.raises(Denied, match="as large as it is"):
        revisions.lower(
            actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, sizes={"disk": GIB // 2}
        )


def test_a_disk_is_detached_and_its_volume_kept(cast, surely, host, volume):  # noqa: F811
    """Red when the volume goes with the disk, when the quota stays taken, or when it is called an orphan."""
    work(consent(cast, attach(surely, host, volume)))
    look(host)
    begun = attaching.detach(actor=surely, disk=Disk.objects.get(target="vdb"))
    assert work(begun).state == State.SUCCEEDED
    assert [[disk[0] for disk in side] for side in defined(host)] == [["vda"], ["vda"]]
    assert host.driver.volume_info("second", "data.qcow2").capacity_bytes == GIB
    assert not Disk.objects.filter(target="vdb").exists()
    assert taken(host) == {"first": (0, 2), "second": (0, 0)}
    volume.refresh_from_db()
    assert volume.made and not using.is_orphan(volume, using.uses_of([volume])[volume.pk])
    assert attaching.volumes_for(host.machine) == [volume]
    ledger.give_back(host.machine.built_by)
    assert taken(host)["first"] == (0, 0)


def test_what_virsh_gave_a_machine_is_in_use(cast, surely, host, volume):  # noqa: F811
    """Red when of a machine here its rows alone count: the volume was an orphan, and offered to others."""
    own = str(host.machine.uuid)
    host.driver.attach_disk(own, DiskSpec("/second/data.qcow2", "vdb"))
    look(host)
    [use] = using.uses_of([volume])[volume.pk]
    assert use.words == f"Machine {host.machine.name}" and not using.is_orphan(volume, [use])
    assert attaching.volumes_for(host.machine) == []
    with pytest.raises(Denied, match="It is in use: Machine"):
        attach(surely, host, volume)
    # It is free as soon as the machine has it no more.
    host.driver.detach_disk(own, "vdb", "/second/data.qcow2")
    look(host)
    assert attaching.volumes_for(host.machine) == [volume]


def test_a_volume_that_no_look_saw_yet_is_kept_too(cast, surely, host, volume):  # noqa: F811
    work(consent(cast, attach(surely, host, volume)))
    look(host)
    Volume.objects.all().delete()
    work(attaching.detach(actor=surely, disk=Disk.objects.get(target="vdb")))
    assert Volume.objects.get().made
    see(host)
    assert Volume.objects.get().made and Volume.objects.get().observed_format == "qcow2"


def test_the_disk_that_it_starts_from_stays(surely, host):  # noqa: F811
    with pytest.raises(Denied, match="starts from this disk"):
        attaching.detach(actor=surely, disk=host.disk)


def test_volumes_are_attached_and_detached_on_pages(client, cast, surely, host, volume):  # noqa: F811
    client.force_login(surely)
    address = url("vms:disk_attach", args=[host.machine.pk])
    assert address in client.get(url("vms:disk_add", args=[host.machine.pk])).content.decode()
    page = client.get(address)
    assert "second: data.qcow2, 1 GiB" in page.content.decode()
    posted = {**page.context["form"].initial, "volume": volume.pk, "why": "old data"}
    assert client.post(address, {**posted, "volume": ""}).status_code == 422
    client.post(address, posted)
    asked = Operation.objects.get(kind=attaching.ATTACH)
    edit = client.get(f"{address}?edit={asked.pk}")
    assert edit.context["form"].initial["volume"] == volume.pk
    client.post(f"{address}?edit={asked.pk}", {**edit.context["form"].initial, "why": "more"})
    asked.refresh_from_db()
    assert asked.revision == 2 and asked.frozen["pinned"]["why"] == "more"
    work(consent(cast, asked))
    look(host)
    assert "No volume of this host can be attached" in client.get(address).content.decode()
    there = url("vms:disk", args=[host.machine.pk, "vdb"])
    gone = url("vms:disk_detach", args=[host.machine.pk, "vdb"])
    assert gone in client.get(there).content.decode()
    assert client.get(gone).status_code == 405
    client.post(gone, {"seen": client.get(there).context["carried"]})
    work(Operation.objects.get(kind=attaching.DETACH))
    assert client.get(there).status_code == 404

    client.force_login(cast.requester)
    page = client.get(address).content.decode()
    assert "operate the whole estate" in page and "data.qcow2" not in page
    assert address not in client.get(url("vms:disk_add", args=[host.machine.pk])).content.decode()
