"""Pools that somebody else made: found, taken over as they are, used, given back without a trace there."""

import uuid
from dataclasses import replace

import pytest
from django.urls import reverse
from django.utils import timezone

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.observations import HostTold
from portal.drivers.types import DiskSpec, DomainSpec, PoolKind, PoolSpec, VolumeSpec
from portal.hosts import enrolment
from portal.hosts.models import (
    FoundPool,
    ImageAttachment,
    MadeBefore,
    PoolAttachment,
    StoragePool,
    Upload,
    Volume,
)
from portal.hosts.observations import note, now
from portal.hosts.storage import pools, services, taking_over, taking_over_kind
from portal.hosts.storage.found import MOST
from portal.hosts.storage.looking import note_volumes
from portal.hosts.storage.using import is_orphan, uses_of
from portal.operations.models import Counter
from portal.operations.registry import StepContext, StepFailed
from portal.operations.states import State
from tests.factories import MIB, make_host, make_machine
from tests.hosts.test_adding_pools import SPARE, add, image_of
from tests.hosts.test_storage import code, done, fake, make, pool, row  # noqa: F401 (fixtures)
from vms import noted
from vms.models import VirtualMachine

pytestmark = [pytest.mark.django_db, pytest.mark.database]
UUID = "11111111-2222-4333-8444-555555555555"
THEIRS = PoolSpec("theirs", UUID, "/srv/theirs")


def see(fake, host):  # noqa: F811
    note(host.pk, HostTold(*now(), pools=fake.list_pools()))


@pytest.fixture
def theirs(fake, pool):  # noqa: F811
    """A pool with a volume that somebody else made, as the watcher saw it."""
    fake.ensure_pool(THEIRS)
    fake.create_volume(VolumeSpec("theirs", "left.qcow2", MIB))
    see(fake, pool.host)
    return FoundPool.objects.get()


def take(chief, found):
    return taking_over.take_over(actor=chief, found=found, seen=taking_over.seen_as(found))


def taken(chief, found):
    assert done(take(chief, found)).state == State.SUCCEEDED
    return PoolAttachment.objects.select_related("pool", "host").get(pool__uuid=found.uuid)


def give(chief, place):
    taking_over.give_back(actor=chief, pool=place, confirm_name=place.pool.name)


def test_what_a_host_has_and_the_portal_does_not_is_found(fake, pool, theirs):  # noqa: F811
    """Red when note_found() keeps what is gone or known, or does not write what changed."""
    assert (theirs.observed_name, theirs.place, theirs.observed_kind) == ("theirs", "/srv/theirs", "dir")
    assert theirs.observed_active and theirs.observed_capacity and taking_over.why_not(theirs) == ""
    fake.stop_pool("theirs")
    fake.autostart_pool("theirs", False)
    fake.ensure_pool(PoolSpec("gatehouse-probe-1-abc", str(uuid.uuid4()), "/probe"))
    see(fake, pool.host)
    theirs.refresh_from_db()
    assert (theirs.observed_active, theirs.observed_autostart, theirs.observed_capacity) == (False, False, 0)
    fake.remove_pool("theirs")
    see(fake, pool.host)
    assert not FoundPool.objects.exists()


def test_a_host_that_tells_of_no_end_of_pools_fills_nothing(fake, pool, chief, client):  # noqa: F811
    """Red when MOST, or the cuts of values_of(), are left out, or the page hides that it leaves some out."""
    [info] = fake.list_pools()
    long = replace(info, name="x" * 5000, path="/" + "y" * 9000, kind="z" * 99, capacity_bytes=1 << 70)
    told = [replace(long, uuid=str(uuid.UUID(int=number))) for number in range(1, MOST + 50)]
    for _turn in range(2):
        note(pool.host_id, HostTold(*now(), pools=(info, *told)))
    assert FoundPool.objects.count() == MOST
    client.force_login(chief)
    page = client.get(reverse("hosts:detail", args=[pool.host_id]))
    left_out = MOST - taking_over.SHOWN
    assert len(page.context["others"]) == taking_over.SHOWN
    assert f"{left_out} more are not shown" in page.content.decode()
    assert "It is of the kind zzz" in taking_over.why_not(FoundPool.objects.first())


def test_one_is_taken_over_used_and_given_back_as_it_was(fake, pool, theirs, chief):  # noqa: F811
    """Red when anything but rows is changed by taking over or giving back."""
    before = fake._pools["theirs"], dict(fake._volumes)
    place = taken(chief, theirs)
    assert (place.taken_over, place.path, place.observed_kind) == (True, "/srv/theirs", "dir")
    assert place.observed_capacity and Counter.objects.get(scope=place.pool.scope).limit
    assert not FoundPool.objects.exists() and not place.images.exists()
    left = row("left.qcow2")
    assert is_orphan(left, uses_of([left])[left.pk])
    assert done(make(chief, place)).state == State.SUCCEEDED
    copied = services.clone(actor=chief, volume=row("left.qcow2"), name="copy.qcow2")
    assert done(copied).state == State.SUCCEEDED
    give(chief, place)
    assert not StoragePool.objects.filter(uuid=UUID).exists() and not Volume.objects.exists()
    assert not Counter.objects.filter(scope=place.pool.scope).exists()
    assert fake._pools["theirs"] == before[0] and before[1].items() <= fake._volumes.items()
    assert {("theirs", "data.qcow2"), ("theirs", "copy.qcow2")} <= set(fake._volumes)
    assert AuditEntry.objects.filter(verb="pool.given_back", before__name="theirs").exists()
    again = FoundPool.objects.get()
    see(fake, pool.host)
    assert taking_over.seen_as(again) == taking_over.seen_as(theirs)
    taken(chief, FoundPool.objects.get())


def orphans():
    return {one.name for one in Volume.objects.all() if is_orphan(one, uses_of([one])[one.pk])}


@pytest.mark.parametrize("runs", [True, False])
def test_what_people_made_in_it_is_no_orphan_when_it_is_taken_over_again(
    fake, pool, theirs, chief, runs  # noqa: F811
):
    """Red when give_back() keeps no marks, or the first look does not heed them, or believes a name alone.

    While such a pool does not run nobody can look into it: it is looked into once it does.
    """
    place = taken(chief, theirs)
    assert done(make(chief, place)).state == State.SUCCEEDED
    assert done(make(chief, place, "other.qcow2")).state == State.SUCCEEDED
    assert orphans() == {"left.qcow2"}
    give(chief, place)
    # By other means somebody makes another one of the name.
    fake.delete_volume("theirs", "other.qcow2")
    fake.create_volume(VolumeSpec("theirs", "other.qcow2", 7 * MIB))
    if not runs:
        fake.stop_pool("theirs")
        see(fake, pool.host)
        place = taken(chief, FoundPool.objects.get())
        # Nobody looked into it meanwhile, and what was kept is not lost.
        give(chief, place)
    place = taken(chief, FoundPool.objects.get())
    if not runs:
        assert not Volume.objects.exists()
        fake.start_pool("theirs")
        note_volumes(place.pk, fake.list_volumes("theirs"), timezone.now())
    assert orphans() == {"left.qcow2", "other.qcow2"}
    assert not MadeBefore.objects.exists()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"observed_path": "/srv/example"}, "The pool example-pool has this folder"),
        ({"observed_path": "/srv/example/in/it"}, "The pool example-pool has this folder"),
        ({"observed_path": "/etc/libvirt"}, "is the system's"),
        ({"observed_path": "/var/lib"}, "is the system's"),
        ({"observed_path": "/srv/../etc"}, "full path"),
        ({"observed_path": "/srv/a\n<b/>"}, "full path"),
        ({"observed_path": ""}, "full path"),
        ({"observed_name": "<script>"}, "Its name is not one"),
        ({"observed_name": "my pool"}, "Its name is not one"),
        ({"observed_name": "x" * 65}, "Its name is not one"),
        ({"observed_name": "example-pool"}, "another pool of this name"),
        ({"observed_kind": "scsi"}, "of the kind scsi, and the portal does these: dir, fs"),
        ({"observed_kind": "<b>"}, "of the kind <b>"),
        ({"observed_persistent": False}, "only while it runs"),
        ({"observed_kind": "fs", "observed_source": "/etc/shadow"}, "Name the device"),
        ({"observed_kind": "netfs", "observed_source": "/a", "observed_server": "-oA"}, "Name the server"),
        ({"observed_kind": "logical", "observed_source": "a'><b"}, "Name the volume group"),
    ],
)
def test_what_cannot_be_taken_over_says_why(pool, theirs, chief, client, changes, why):  # noqa: F811
    """Red when a check of _check() is left out."""
    PoolAttachment.objects.update(path="/srv/example")
    FoundPool.objects.update(**changes)
    theirs.refresh_from_db()
    with pytest.raises(Denied, match=why):
        take(chief, theirs)
    client.force_login(chief)
    page = client.get(reverse("hosts:detail", args=[pool.host_id]))
    assert [why in shown.denied for shown in page.context["others"]] == [True]
    assert b"<script>" not in page.content.split(b'id="found-pools"')[1].split(b"</table>")[0]
    url = reverse("hosts:pool-take-over", args=[theirs.pk])
    refused = client.post(url, {"seen": taking_over.seen_as(theirs)})
    assert refused.status_code == 422 and why in refused.context["denied"]
    assert PoolAttachment.objects.count() == 1


@pytest.mark.parametrize("how", ["gone", "another", "moved", "transient"])
def test_what_became_another_meanwhile_is_refused(fake, pool, theirs, chief, how):  # noqa: F811
    """Red when TakeOver.check() does not compare what the host has now with what was seen."""
    begun = take(chief, theirs)
    if how == "transient":
        fake.transient_pools.add("theirs")
    else:
        fake.remove_pool("theirs")
    if how == "another":
        fake.ensure_pool(replace(THEIRS, uuid=str(uuid.uuid4())))
    if how == "moved":
        fake.ensure_pool(replace(THEIRS, path="/srv/elsewhere"))
    failed = done(begun)
    gone = how in {"gone", "another"}
    assert (failed.state, code(failed)) == (State.FAILED, "pool_vanished" if gone else "pool_changed")
    assert not StoragePool.objects.filter(uuid=UUID).exists()


def test_only_what_was_seen_is_taken_over(fake, theirs, chief):  # noqa: F811
    """Red when take_over() does not look whether the row is as it was shown."""
    seen = taking_over.seen_as(theirs)
    FoundPool.objects.update(observed_path="/srv/other")
    with pytest.raises(Denied, match="not any more as you saw it"):
        taking_over.take_over(actor=chief, found=theirs, seen=seen)
    FoundPool.objects.all().delete()
    with pytest.raises(Denied, match="gone from its host"):
        taking_over.take_over(actor=chief, found=theirs, seen=seen)


def test_only_admins_take_over_and_give_back(theirs, cast, chief):
    with pytest.raises(Denied, match="may not take over pools"):
        take(cast.requester, theirs)
    place = taken(chief, theirs)
    with pytest.raises(Denied, match="may not give pools back"):
        give(cast.requester, place)


def test_of_two_that_lie_in_each_other_one_is_taken_over(fake, pool, theirs, chief):  # noqa: F811
    """Red when folders_of() leaves out what is about to come."""
    fake.ensure_pool(PoolSpec("inner", str(uuid.uuid4()), "/srv/theirs/in"))
    see(fake, pool.host)
    begun = take(chief, theirs)
    inner = FoundPool.objects.get(observed_name="inner")
    with pytest.raises(Denied, match="The pool theirs has this folder"):
        take(chief, inner)
    with pytest.raises(Denied, match="The pool theirs has this folder"):
        add(chief, pool.host, path="/srv/theirs/new")
    assert done(begun).state == State.SUCCEEDED
    with pytest.raises(Denied, match="The pool theirs has this folder"):
        take(chief, inner)


def test_what_lies_on_the_same_as_a_pool_of_any_host_is_refused(fake, pool, theirs, chief):  # noqa: F811
    """Red when check_alone() is not asked, or does not know of what was taken over."""
    nfs = {"observed_kind": "netfs", "observed_source": "/disks", "observed_server": "nas"}
    FoundPool.objects.update(**nfs)
    theirs.refresh_from_db()
    fake._pools["theirs"] = replace(THEIRS, kind=PoolKind.NETFS, source="/disks", server="nas")
    place = taken(chief, theirs)
    assert pools.source_of(place) == "nas /disks"
    second = make_host("second-host", "fake://second/")
    told = {"observed_name": "other", "observed_path": "/srv/other", **nfs}
    found = FoundPool.objects.create(host=second, uuid=uuid.uuid4(), **told)
    with pytest.raises(Denied, match="The pool theirs of example-host lies there"):
        take(chief, found)
    FoundPool.objects.filter(pk=found.pk).update(uuid=UUID)
    found.refresh_from_db()
    with pytest.raises(Denied, match="has its UUID as that of the pool theirs"):
        take(chief, found)


def test_one_that_is_being_added_or_removed_is_nobody_elses(fake, pool, chief):  # noqa: F811
    """Red when _check_uuid() does not look for work: what is on its way out would be taken over."""
    begun = add(chief, pool.host)
    fake.ensure_pool(PoolSpec("spare", begun.identifiers["uuid"], SPARE["path"]))
    see(fake, pool.host)
    assert taking_over.rows(pool.host) == []
    with pytest.raises(Denied, match="is not finished"):
        take(chief, FoundPool.objects.get())


def test_a_pool_that_does_not_run_is_taken_over_as_it_is(fake, pool, theirs, chief):  # noqa: F811
    """Red when LookIn looks into what does not run, or starts it."""
    fake.stop_pool("theirs")
    see(fake, pool.host)
    theirs.refresh_from_db()
    place = taken(chief, theirs)
    assert not place.observed_active and "theirs" in fake.stopped_pools
    assert done(pools.start(actor=chief, pool=place)).state == State.SUCCEEDED
    assert row("left.qcow2").pool == place


def test_a_worker_may_die_after_each_step_and_only_rows_are_taken_back(fake, theirs, chief):  # noqa: F811
    """Red when a step cannot be done twice, or the undo touches the host."""
    begun = take(chief, theirs)
    context = StepContext(begun.frozen, begun.identifiers, lambda: None)
    for step in taking_over_kind.KIND.steps:
        step.do(context)
        step.do(context)
    assert PoolAttachment.objects.filter(pool__uuid=UUID, taken_over=True).count() == 1
    before = fake._pools["theirs"], dict(fake._volumes)
    for step in reversed(taking_over_kind.KIND.steps):
        step.undo(context)
        step.undo(context)
    assert not StoragePool.objects.filter(uuid=UUID).exists()
    assert (fake._pools["theirs"], dict(fake._volumes)) == before


def test_a_worker_that_lost_the_operation_makes_nothing_known(theirs, chief):
    """Red when TakeOver does not look before it writes: somebody may have taken it back already."""
    begun = take(chief, theirs)

    def lost():
        raise StepFailed("lost")

    with pytest.raises(StepFailed, match="lost"):
        taking_over_kind.TakeOver().do(StepContext(begun.frozen, begun.identifiers, lost))
    assert not StoragePool.objects.filter(uuid=UUID).exists()


def test_nothing_is_put_into_it_by_itself(fake, pool, theirs, chief, tmp_path):  # noqa: F811
    """Red when a proof or an import copies images into what was taken over."""
    place = taken(chief, theirs)
    image_of(tmp_path, "one")
    enrolment.ENROL.steps[-1].do(StepContext({}, {"host": pool.host_id}, lambda: None))
    assert not place.images.exists() and {name for _pool, name in fake._volumes} == {"left.qcow2"}


def test_it_is_never_removed(theirs, chief, client):
    """Red when why_not_removed() does not tell one that was taken over."""
    place = taken(chief, theirs)
    with pytest.raises(Denied, match="given back, not removed"):
        pools.remove(actor=chief, pool=place, confirm_name="theirs")
    client.force_login(chief)
    page = client.get(reverse("hosts:pool", args=[place.pk])).content.decode()
    assert "Give this pool back" in page and "Remove this pool" not in page
    give_url, typed = reverse("hosts:pool-give-back", args=[place.pk]), {"confirm_name": "theirs"}
    assert client.post(reverse("hosts:pool-remove", args=[place.pk]), typed).status_code == 422
    assert client.post(give_url, {"confirm_name": "other"}).status_code == 422
    assert PoolAttachment.objects.filter(pk=place.pk).exists()
    client.post(give_url, typed)
    assert not PoolAttachment.objects.filter(pk=place.pk).exists()


def test_a_pool_of_the_portals_own_is_not_given_back(pool, chief):  # noqa: F811
    with pytest.raises(Denied, match="removed, not given back"):
        give(chief, pool)


@pytest.mark.parametrize("what", ["disk", "upload", "image", "work"])
def test_what_of_the_portals_is_in_it_keeps_it(fake, pool, theirs, chief, cast, what):  # noqa: F811
    """Red when a check of why_not_given_back() is left out."""
    place = taken(chief, theirs)
    match what:
        case "disk":
            machine = make_machine(cast, "web", pool.host)
            machine.disks.create(pool=place, volume_name="left.qcow2", capacity=MIB)
        case "upload":
            Upload.objects.create(person=chief, pool=place, wanted={"title": "a.qcow2"})
        case "image":
            path = "/srv/theirs/left.qcow2"
            ImageAttachment.objects.filter(pool=pool).update(pool=place, path=path)
        case "work":
            make(chief, place)
    why = {"disk": "Machine web", "upload": "uploads", "image": "lies nowhere else", "work": "not finished"}
    with pytest.raises(Denied, match=why[what]):
        give(chief, place)
    assert PoolAttachment.objects.filter(pk=place.pk).exists()


def test_a_machines_disk_that_nobody_sees_keeps_it(fake, pool, theirs, chief, cast):  # noqa: F811
    """Red when ProtectedError of a row without a volume is not told as a refusal."""
    place = taken(chief, theirs)
    machine = make_machine(cast, "web", pool.host)
    machine.disks.create(pool=place, volume_name="unseen.qcow2", capacity=MIB)
    with pytest.raises(Denied, match="came into the pool meanwhile"):
        give(chief, place)
    assert PoolAttachment.objects.filter(pk=place.pk).exists()


def test_what_others_use_in_it_is_told_and_does_not_keep_it(fake, pool, theirs, chief, cast):  # noqa: F811
    """Red when a domain of somebody else's, or an adopted machine without a row, does not show as a user."""
    place = taken(chief, theirs)
    own = str(uuid.uuid4())
    fake.define(DomainSpec("hidden", own, 1, 64 * MIB, (DiskSpec("/srv/theirs/left.qcow2"),)))
    noted.note(pool.host_id, own, fake.definition(own), timezone.now())
    volume = row("left.qcow2")
    assert [use.words for use in uses_of([volume])[volume.pk]] == ["Domain hidden, which is no machine here"]
    with pytest.raises(Denied, match="Domain hidden"):
        services.delete(actor=chief, volume=volume, confirm_name="left.qcow2")
    machine = make_machine(cast, "web", pool.host, adopted=True)
    VirtualMachine.objects.update(uuid=own)
    assert [use.words for use in uses_of([volume])[volume.pk]] == ["Machine web"]
    machine.delete()
    give(chief, place)


def test_the_pages_say_what_it_is_and_what_taking_it_over_means(theirs, pool, chief, client):  # noqa: F811
    client.force_login(chief)
    shown = client.get(reverse("hosts:detail", args=[pool.host_id])).content.decode()
    url = reverse("hosts:pool-take-over", args=[theirs.pk])
    assert "Pools that the portal does not know" in shown and url in shown and "/srv/theirs" in shown
    assert "#found-pools" in client.get(reverse("hosts:pools")).content.decode()
    page = client.get(url)
    assert "On the host nothing is changed" in page.content.decode()
    assert client.post(url, {"seen": "x"}).status_code == 422
    assert client.post(url, {"seen": page.context["seen"]}).status_code == 302
