"""Volumes go to another pool of their host: copied first, and the original deleted last."""

import struct

import pytest
from django.urls import reverse

from portal.core.errors import Denied
from portal.drivers.types import CloneMode, PoolKind, PoolSpec, VolumeSpec
from portal.hosts.images import purposes
from portal.hosts.models import BegunVolume, Upload, Volume
from portal.hosts.storage import move_kinds, moving, pools, services
from portal.operations import runner
from portal.operations import services as operations
from portal.operations.messages import sentence
from portal.operations.models import Counter, Operation, StepRecord
from portal.operations.services import claim
from portal.operations.states import State
from tests.factories import GIB, MIB, make_host, make_machine, make_place
from tests.hosts.test_storage import code, done, fake, look, names, pool, put, row  # noqa: F401 (fixtures)
from tests.vms.sharers import use_too

pytestmark = [pytest.mark.django_db, pytest.mark.database]
NAME = "data.qcow2"
ACTS = {"copy": moving.copy, "move": moving.move}


@pytest.fixture
def other(fake, pool):  # noqa: F811
    """A second pool of the host."""
    place = make_place(pool.host, "second", "/second")
    fake.ensure_pool(PoolSpec("second", str(place.pool.uuid), "/second"))
    place.observed_capacity = place.observed_available = 64 * GIB
    place.save()
    for one in (pool, place):
        counter = {"scope": one.pool.scope, "resource": Counter.Resource.DISK}
        Counter.objects.update_or_create(**counter, defaults={"limit": 64 * GIB})
    return place


@pytest.fixture
def volume(fake, pool, other, chief):  # noqa: F811
    """A volume that nobody uses; return its row."""
    put(fake, pool, NAME)
    fake._contents[f"{pool.path}/{NAME}"] = b"what people wrote"
    look(chief, pool)
    return row(NAME)


def begin(chief, volume, other, what="move", name=NAME):  # noqa: F811
    return ACTS[what](actor=chief, volume=volume, to=other, name=name)


def held(place):
    return Counter.objects.get(scope=place.pool.scope, resource=Counter.Resource.DISK).taken


def whole(fake, place, name=NAME):  # noqa: F811
    """Tell whether a pool has the volume, with what people wrote into it."""
    if name not in names(fake, place):
        return False
    info, digest = fake.volume_info(place.pool.name, name), fake.digest_volume(place.pool.name, name)
    assert (info.format, info.capacity_bytes) == ("qcow2", MIB) and digest.length_bytes == 17
    return True


def test_a_copy_stands_beside_the_volume(fake, pool, other, volume, chief):  # noqa: F811
    """Red when the source goes, or room stays held."""
    begun = begin(chief, volume, other, "copy", "copy.qcow2")
    assert held(other) == 1
    ended = done(begun)
    assert ended.state == State.SUCCEEDED and held(other) == 0
    assert whole(fake, pool) and whole(fake, other, "copy.qcow2")
    made = row("copy.qcow2")
    assert (made.pool, made.made, made.observed_capacity) == (other, True, MIB)
    assert move_kinds.volume_page(ended) == reverse("hosts:volume", args=[made.pk])
    assert row(NAME).pool == pool and not BegunVolume.objects.exists()


def test_a_moved_volume_is_in_its_new_pool_alone(fake, pool, other, volume, chief):  # noqa: F811
    """Red when the source stays, its row does, or the page of the new one is not shown."""
    begun = begin(chief, volume, other)
    assert move_kinds.volume_page(begun) == reverse("hosts:pool", args=[other.pk])
    ended = done(begun)
    assert ended.state == State.SUCCEEDED and held(other) == held(pool) == 0
    assert names(fake, pool) == [] and whole(fake, other)
    moved = row(NAME)
    assert moved.pool == other and moved.made and not BegunVolume.objects.exists()
    assert move_kinds.volume_page(ended) == reverse("hosts:volume", args=[moved.pk])


class Killed(BaseException):
    """The worker, by SIGKILL."""


#: All that such an operation calls, but for who uses the volume.
CALLS = ("create_volume", "delete_volume", "refresh_pool", "volume_info", "list_volumes")


def dying(monkeypatch, fake, at, before):  # noqa: F811
    """Let the worker die at the call of that number, before or after the host did it; return the count."""
    count = [0]

    def wrapped(verb):
        real = getattr(fake, verb)

        def act(*args):
            count[0] += 1
            if before and count[0] == at:
                raise Killed
            told = real(*args)
            if not before and count[0] == at:
                raise Killed
            return told

        return act

    for verb in CALLS:
        monkeypatch.setattr(fake, verb, wrapped(verb))
    return count


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("then", ["go on", "cancel"])
@pytest.mark.parametrize("what", ["copy", "move"])
def test_a_worker_that_dies_at_any_call_leaves_the_old_or_the_new(
    fake, pool, other, volume, chief, monkeypatch, what, then, before  # noqa: F811
):
    """Red when CopyOver.undo does not ask whether the original is going, or DeleteSource does not note it."""
    at, deaths, ends = 0, 0, set()
    while True:
        at += 1
        begun = begin(chief, row(NAME), other, what)
        operation = claim(begun.pk, worker="first")
        with monkeypatch.context() as patched:
            count = dying(patched, fake, at, before)
            try:
                runner.carry_on(operation, worker="first")
            except Killed:
                deaths += 1
        if count[0] < at:
            break
        if then == "cancel":
            operations.cancel(actor=chief, operation=Operation.objects.get(pk=begun.pk))
        runner.carry_on(Operation.objects.get(pk=begun.pk), worker="second")
        ended = Operation.objects.get(pk=begun.pk)
        old, new = whole(fake, pool), whole(fake, other)
        ends.add((ended.state, old, new))
        if ended.state == State.SUCCEEDED or (what == "move" and new):
            assert new and old == (what == "copy")
        else:
            assert (ended.state, old, new) == (State.CANCELLED, True, False)
        told = StepRecord.objects.filter(operation=ended, remark="volume_moved_already").exists()
        assert told == (new and what == "move" and then == "cancel")
        assert not BegunVolume.objects.exists() and held(other) == 0
        restore(fake, pool, other, chief)
    assert deaths > 8
    if then == "cancel":
        assert (State.CANCELLED, True, False) in ends
        assert what == "copy" or (State.CANCELLED, False, True) in ends
    else:
        assert {state for state, _old, _new in ends} == {State.SUCCEEDED}


def restore(fake, pool, other, chief):  # noqa: F811
    """Let the volume be where it was."""
    for name in names(fake, other):
        fake.delete_volume("second", name)
    if NAME not in names(fake, pool):
        put(fake, pool, NAME)
        fake._contents[f"{pool.path}/{NAME}"] = b"what people wrote"
    for one in (pool, other):
        look(chief, one)


def test_a_name_that_is_there_is_never_written_over(fake, pool, other, volume, chief):  # noqa: F811
    """Red when a file of the name is taken for the copy, whether the portal saw it or not."""
    begun = begin(chief, volume, other)
    theirs = put(fake, other, NAME)
    failed = done(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "name_taken")
    assert fake.volume_info("second", NAME) == theirs and whole(fake, pool)
    look(chief, other)
    with pytest.raises(Denied, match="has a volume of this name already") as denied:
        begin(chief, volume, other)
    assert denied.value.field == "name"
    assert begin(chief, volume, other, name="free.qcow2").state == State.QUEUED


def test_a_full_pool_is_named_and_the_volume_stays(fake, pool, other, volume, chief, client):  # noqa: F811
    """Red when the pool is not asked before, its counter is not, or what was begun there stays."""
    Volume.objects.update(observed_allocation=2 * GIB)
    counter = Counter.objects.filter(scope=other.pool.scope)
    counter.update(limit=GIB)
    client.force_login(chief)
    url = reverse("hosts:volume-to-pool", args=[volume.pk])
    asked = {"other-pool": other.pk, "other-name": NAME, "what": "move"}
    refused = client.post(url, asked)
    assert refused.status_code == 422 and b"1 GiB of 1 GiB left" in refused.content
    assert not Operation.objects.filter(kind=move_kinds.MOVE).exists()
    counter.update(limit=64 * GIB)
    type(other).objects.filter(pk=other.pk).update(observed_available=GIB)
    with pytest.raises(Denied, match="too full") as denied:
        begin(chief, row(NAME), other)
    assert denied.value.field == "pool"
    Volume.objects.update(observed_allocation=0)
    begun = begin(chief, row(NAME), other)
    fake.pool_bytes = MIB // 2
    failed = done(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "other_pool_full")
    raw = StepRecord.objects.get(operation=failed, name="copy").error_raw
    assert "The pool second has no room" in sentence("other_pool_full", raw)
    assert names(fake, other) == [] and whole(fake, pool) and held(other) == 0


@pytest.mark.parametrize("what", ["copy", "move"])
def test_who_uses_it_is_named_and_it_stays(fake, pool, other, volume, chief, cast, what):  # noqa: F811
    """Red when machines, images, volumes that stand on it or uploads under way are not asked for."""
    image = pool.images.get().image
    put(fake, pool, image.volume_name)
    base = put(fake, pool, "base.qcow2")
    put(fake, pool, "upper.qcow2", backing_path=base.path, clone=CloneMode.LINKED)
    put(fake, pool, "web.qcow2")
    put(fake, pool, "sent.qcow2")
    make_machine(cast, "web", pool.host).disks.create(pool=pool, volume_name="web.qcow2", capacity=MIB)
    wanted = {"title": "sent.qcow2", "name": "sent.qcow2"}
    upload = Upload.objects.create(person=chief, pool=pool, wanted=wanted)
    purposes.begin(chief, upload)
    look(chief, pool)
    for name, words in {
        "web.qcow2": "It is in use: Machine web",
        image.volume_name: "It is in use: Image",
        "base.qcow2": "upper.qcow2, which stands on it",
        "upper.qcow2": "It stands on .*base.qcow2.* Copy it in its pool",
        "sent.qcow2": "Make sent.qcow2 of an uploaded file is not finished",
    }.items():
        with pytest.raises(Denied, match=words):
            begin(chief, row(name), other, what, name)


@pytest.mark.parametrize("how", ["domain", "volume"])
def test_the_host_is_asked_who_uses_it(fake, pool, other, volume, chief, how):  # noqa: F811
    """Red when SourceFree trusts what the portal saw."""
    begun = begin(chief, volume, other)
    use_too(fake, f"{pool.path}/{NAME}", how)
    failed = done(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "volume_in_use")
    assert whole(fake, pool) and names(fake, other) == []


def test_who_took_it_while_it_was_copied_keeps_it(fake, pool, other, volume, chief, monkeypatch):  # noqa: F811
    """Red when DeleteSource does not ask again: a guest would lose the disk that it writes to."""
    begun, create = begin(chief, volume, other), fake.create_volume

    def made(spec):
        told = create(spec)
        if spec.backing_path:
            use_too(fake, spec.backing_path, "domain")
        return told

    monkeypatch.setattr(fake, "create_volume", made)
    failed = done(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "volume_in_use")
    assert whole(fake, pool) and names(fake, other) == []


def test_a_copy_that_somebody_deleted_takes_the_original_from_nobody(
    fake, pool, other, volume, chief, monkeypatch  # noqa: F811
):
    """Red when DeleteSource does not look whether the copy is there."""
    create = fake.create_volume

    def made(spec):
        told = create(spec)
        if spec.backing_path:
            fake.delete_volume(spec.pool, spec.name)
        return told

    monkeypatch.setattr(fake, "create_volume", made)
    failed = done(begin(chief, volume, other))
    assert (failed.state, code(failed)) == (State.FAILED, "copy_gone") and whole(fake, pool)


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [(60, 1, "volume_snapshots"), (32, 2, "volume_encrypted"), (76, 4, "volume_external")],
)
def test_what_a_copy_would_lose_is_refused(fake, pool, other, volume, chief, monkeypatch, at, value, why):  # noqa: F811
    """Red when the header is not read: qemu-img leaves snapshots out without a word."""
    head = bytearray(struct.pack(">4sI", b"QFI\xfb", 3).ljust(512, b"\0"))
    struct.pack_into(">I", head, at, value)
    monkeypatch.setattr(fake, "read_volume", lambda *_told: bytes(head))
    failed = done(begin(chief, volume, other))
    assert (failed.state, code(failed)) == (State.FAILED, why)
    assert whole(fake, pool) and names(fake, other) == []


@pytest.mark.parametrize("what", ["copy", "move"])
def test_nobody_works_on_either_meanwhile(fake, pool, other, volume, chief, client, what):  # noqa: F811
    """Red when _change does not look who copies or moves the volume, or a pool is stopped under it."""
    begin(chief, volume, other, what)
    doing = f"{what.title()} data.qcow2 to second is not finished"
    with pytest.raises(Denied, match=doing):
        services.grow(actor=chief, volume=volume, capacity=GIB)
    with pytest.raises(Denied, match=doing):
        services.delete(actor=chief, volume=volume, confirm_name=NAME)
    with pytest.raises(Denied, match=doing):
        begin(chief, volume, other, "move", "again.qcow2")
    with pytest.raises(Denied, match="Other work on this is not finished"):
        services.create(actor=chief, pool=other, name=NAME, capacity=MIB, form="qcow2")
    for place in (pool, other):
        with pytest.raises(Denied, match=doing):
            pools.stop(actor=chief, pool=place)
    # Two may read it at once, but not while it goes.
    if what == "copy":
        assert services.clone(actor=chief, volume=volume, name="near.qcow2").state == State.QUEUED
    else:
        for act in (
            lambda: services.clone(actor=chief, volume=volume, name="near.qcow2"),
            lambda: services.download(actor=chief, volume=volume),
        ):
            with pytest.raises(Denied, match=doing):
                act()
    client.force_login(chief)
    page = client.get(reverse("hosts:volume", args=[volume.pk])).content.decode()
    assert "Not now:" in page and doing in page


@pytest.mark.parametrize("begun", ["grow", "delete", "download"])
def test_what_is_worked_on_does_not_go(fake, pool, other, volume, chief, begun):  # noqa: F811
    """Red when only copies count as work."""
    {
        "grow": lambda: services.grow(actor=chief, volume=volume, capacity=GIB),
        "delete": lambda: services.delete(actor=chief, volume=volume, confirm_name=NAME),
        "download": lambda: services.download(actor=chief, volume=volume),
    }[begun]()
    with pytest.raises(Denied, match="data.qcow2 is not finished"):
        begin(chief, volume, other)


def test_a_pool_that_is_no_folder_takes_what_libvirt_can(fake, pool, other, volume, chief, client):  # noqa: F811
    """Red when the page offers a pool that cannot, or the format changes on the way."""
    for name, kind in (("vg", PoolKind.LOGICAL), ("tank", PoolKind.ZFS)):
        place = make_place(pool.host, name, "")
        place.observed_kind, place.observed_capacity, place.observed_available = kind, GIB, GIB
        place.save()
        fake.ensure_pool(PoolSpec(name, str(place.pool.uuid), kind=kind, source=name))
    vg, tank = pool.host.pools.get(pool__name="vg"), pool.host.pools.get(pool__name="tank")
    with pytest.raises(Denied, match="Volumes of this pool are raw") as denied:
        begin(chief, volume, vg)
    assert denied.value.field == "pool"
    fake.create_volume(VolumeSpec(pool.pool.name, "plain", MIB, format="raw"))
    look(chief, pool)
    with pytest.raises(Denied, match="no volume is copied"):
        begin(chief, row("plain"), tank, name="plain")
    assert [place.pool.name for place in moving.targets(row("plain"))] == ["second", "vg"]
    assert done(begin(chief, row("plain"), vg, name="plain")).state == State.SUCCEEDED
    moved = row("plain")
    assert moved.pool == vg and moved.observed_format == "raw" and names(fake, pool) == [NAME]
    back = begin(chief, moved, other, "move", "back")
    assert done(back).state == State.SUCCEEDED and row("back").pool == other


def test_wrong_pools_are_refused(fake, pool, other, volume, chief):  # noqa: F811
    """Red when a pool of another host, the volume's own, or one that does not run is taken."""
    strange = make_place(make_host("far", "fake:///far"), "far", "/far")
    with pytest.raises(Denied, match="has this pool no more"):
        begin(chief, volume, strange)
    with pytest.raises(Denied, match="in this pool already"):
        begin(chief, volume, pool, name="free.qcow2")
    with pytest.raises(Denied, match="Use letters"):
        begin(chief, volume, other, name="../x")
    pools.stop(actor=chief, pool=other)
    with pytest.raises(Denied, match="Stop the pool second is not finished"):
        begin(chief, volume, other)


def test_the_page_says_what_is_done_and_does_it(fake, pool, other, volume, chief, client):  # noqa: F811
    """Red when a button does what the other says."""
    client.force_login(chief)
    page = reverse("hosts:volume", args=[volume.pk])
    shown = client.get(page).content.decode()
    for words in ("Copy to another pool", "Move to another pool", "second, 64 GiB free"):
        assert words in shown
    url = reverse("hosts:volume-to-pool", args=[volume.pk])
    wrong = client.post(url, {"other-pool": other.pk, "other-name": "a b", "what": "copy"})
    assert wrong.status_code == 422 and b"Use letters" in wrong.content
    for what, kind in (("copy", move_kinds.COPY), ("move", move_kinds.MOVE)):
        sent = client.post(url, {"other-pool": other.pk, "other-name": f"{what}.qcow2", "what": what})
        assert sent.status_code == 302
        begun = Operation.objects.latest("pk")
        assert begun.kind == kind and done(begun).state == State.SUCCEEDED
        shown = client.get(reverse("operations:detail", args=[begun.pk])).content.decode()
        assert reverse("hosts:volume", args=[row(f"{what}.qcow2").pk]) in shown
    assert names(fake, other) == ["copy.qcow2", "move.qcow2"] and names(fake, pool) == []


def test_who_may_not_operate_moves_nothing(volume, other, cast):
    """Red when a service does not ask for the verb."""
    for act in ACTS.values():
        with pytest.raises(Denied):
            act(actor=cast.requester, volume=volume, to=other, name=NAME)
