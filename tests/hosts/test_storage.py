"""What lies in pools: looked at, made, grown, copied, deleted unless in use; orphans are found and kept."""

import uuid
from contextlib import suppress
from dataclasses import replace

import pytest
from django.urls import reverse
from django.utils import timezone

from portal.core.errors import Denied
from portal.drivers.fake import FakeDriver
from portal.drivers.types import Accelerator, CloneMode, DiskSpec, DomainSpec, PoolSpec, VolumeSpec
from portal.hosts import sharing, steps
from portal.hosts.images.values import BEING_MADE
from portal.hosts.models import BegunVolume, PoolAttachment, Volume
from portal.hosts.storage import kinds, services
from portal.hosts.storage.looking import note_begun
from portal.hosts.storage.using import uses_of
from portal.operations.messages import sentence
from portal.operations.models import Operation, StepRecord
from portal.operations.registry import StepContext, StepFailed
from portal.operations.states import State
from tests.factories import GIB, MIB, make_host, make_image, make_machine, make_place
from tests.hosts.conftest import carry_out
from tests.vms.sharers import strange_pool, use_too
from vms.models import Definition

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def fake(monkeypatch):
    """A fake host that answers the steps."""
    driver = FakeDriver(pool_bytes=64 * GIB)
    monkeypatch.setattr(steps, "call", lambda host, verb, *args, timeout: getattr(driver, verb)(*args))
    return driver


@pytest.fixture
def pool(fake):
    """A pool that its host has, and of which the portal saw how large it is."""
    place = make_place(make_host())
    fake.ensure_pool(PoolSpec(place.pool.name, str(place.pool.uuid), place.path))
    place.observed_capacity = place.observed_available = 64 * GIB
    place.save()
    return place


def put(fake, pool, name, **changes):
    """Put a volume onto the host that the portal knows nothing of."""
    return fake.create_volume(VolumeSpec(pool.pool.name, name, MIB, **changes))


def done(operation):
    return Operation.objects.get(pk=carry_out(operation).pk)


def code(failed):
    return StepRecord.objects.exclude(error_code="").get(operation=failed).error_code


def look(chief, pool):
    assert done(services.look(actor=chief, pool=pool)).state == State.SUCCEEDED
    pool.refresh_from_db()


def row(name):
    return Volume.objects.select_related("pool__pool", "pool__host").get(name=name)


def make(chief, pool, name="data.qcow2", **changes):
    values = {"capacity": GIB, "form": "qcow2", **changes}
    return services.create(actor=chief, pool=pool, name=name, **values)


def names(fake, pool):
    return [info.name for info in fake.list_volumes(pool.pool.name)]


def test_a_look_writes_what_is_there_and_forgets_what_is_not(fake, pool, chief):
    """Red when note_volumes keeps rows of volumes that are gone."""
    put(fake, pool, "one.qcow2")
    look(chief, pool)
    assert row("one.qcow2").observed_capacity == MIB and pool.observed_volumes_at
    fake.delete_volume(pool.pool.name, "one.qcow2")
    put(fake, pool, "two.qcow2")
    look(chief, pool)
    assert list(Volume.objects.values_list("name", flat=True)) == ["two.qcow2"]


def test_a_volume_is_made_grown_copied_and_deleted(fake, pool, chief):
    assert done(make(chief, pool)).state == State.SUCCEEDED
    made = row("data.qcow2")
    assert (made.made, made.observed_capacity) == (True, GIB)
    assert done(services.grow(actor=chief, volume=made, capacity=2 * GIB)).state == State.SUCCEEDED
    made.refresh_from_db()
    assert made.observed_capacity == 2 * GIB
    assert done(services.clone(actor=chief, volume=made, name="copy.qcow2")).state == State.SUCCEEDED
    assert row("copy.qcow2").observed_capacity == 2 * GIB and row("copy.qcow2").observed_backing == ""
    gone = services.delete(actor=chief, volume=made, confirm_name="data.qcow2")
    assert done(gone).state == State.SUCCEEDED
    assert names(fake, pool) == ["copy.qcow2"] == list(Volume.objects.values_list("name", flat=True))


def test_a_file_without_the_size_that_libvirtd_died_of_setting_is_made_anew(fake, pool, chief):
    """Red when Make takes whatever has the name for the whole volume."""
    begun = make(chief, pool)
    note_begun(begun.identifiers["mark"])
    fake.create_volume(VolumeSpec(pool.pool.name, "data.qcow2", 512, format="raw"))
    kinds.Make().do(StepContext(begun.frozen, begun.identifiers, lambda: None))
    made = fake.volume_info(pool.pool.name, "data.qcow2")
    assert (made.capacity_bytes, made.format) == (GIB, "qcow2")


def test_what_stands_on_a_file_of_the_host_is_not_copied(fake, pool, chief):
    """Red when the first volume below alone, or none, is looked for in the pools."""
    for name in ("top.qcow2", "middle.qcow2", "base.qcow2"):
        put(fake, pool, name)
    look(chief, pool)
    path = row("middle.qcow2").observed_path
    for backing in ("/etc/shadow", row("base.qcow2").observed_path):
        Volume.objects.filter(name="top.qcow2").update(observed_backing=path)
        Volume.objects.filter(name="middle.qcow2").update(observed_backing=backing)
        if backing == "/etc/shadow":
            with pytest.raises(Denied, match="It stands on /etc/shadow"):
                services.clone(actor=chief, volume=row("top.qcow2"), name="copy.qcow2")
    assert services.clone(actor=chief, volume=row("top.qcow2"), name="copy.qcow2").state == State.QUEUED


def test_a_volume_never_shrinks_and_no_wrong_one_is_made(fake, pool, chief):
    """Red when a service lets a smaller size, a taken or a strange name through."""
    done(make(chief, pool))
    with pytest.raises(Denied, match="only becomes larger"):
        services.grow(actor=chief, volume=row("data.qcow2"), capacity=MIB)
    for name in ("data.qcow2", "a/b", "../x", "x.iso", ""):
        with pytest.raises(Denied):
            make(chief, pool, name)
    with pytest.raises(Denied, match="whole pool"):
        make(chief, pool, "huge.qcow2", capacity=65 * GIB)
    with pytest.raises(Denied, match="exactly"):
        services.delete(actor=chief, volume=row("data.qcow2"), confirm_name="data")


def test_a_file_that_is_there_is_not_taken_for_the_new_one(fake, pool, chief):
    """Red when Claim.undo does not look for its mark: it would delete somebody's file."""
    put(fake, pool, "data.qcow2")
    failed = done(make(chief, pool, capacity=2 * GIB))
    assert (failed.state, code(failed)) == (State.FAILED, "name_taken")
    assert names(fake, pool) == ["data.qcow2"]


def test_a_full_pool_is_told_and_nothing_is_left(fake, pool, chief):
    done(make(chief, pool))
    fake.pool_bytes = MIB
    failed = done(services.clone(actor=chief, volume=row("data.qcow2"), name="copy.qcow2"))
    assert (failed.state, code(failed)) == (State.FAILED, "volume_pool_full")
    assert names(fake, pool) == ["data.qcow2"] and not BegunVolume.objects.exists()


def begun(chief, pool, source):
    """Begin to make `new.qcow2`, of `source` or empty; return the operation and what its steps know."""
    if source:
        look(chief, pool)
        operation = services.clone(actor=chief, volume=row(source), name="new.qcow2")
    else:
        operation = make(chief, pool, "new.qcow2", capacity=2 * MIB)
    return operation, StepContext(operation.frozen, operation.identifiers, lambda: None)


@pytest.mark.parametrize("source", ["", "base.qcow2"])
def test_what_comes_in_the_last_instant_is_left(fake, pool, chief, monkeypatch, source):
    """Red when Make's volume is not fresh, or a refused one counts as begun, which the undo deletes."""
    put(fake, pool, "base.qcow2")
    operation, _context = begun(chief, pool, source)
    delete = fake.delete_volume

    def taken(where, name):
        delete(where, name)
        monkeypatch.setattr(fake, "delete_volume", delete)
        fake.create_volume(VolumeSpec(where, name, 2 * MIB))

    monkeypatch.setattr(fake, "delete_volume", taken)
    failed = done(operation)
    assert (failed.state, code(failed)) == (State.FAILED, "name_taken")
    assert fake.volume_info(pool.pool.name, "new.qcow2").capacity_bytes == 2 * MIB


def test_what_took_the_place_of_the_mark_is_left(fake, pool, chief):
    """Red when Make deletes what has the name without a look whether it is the mark."""
    put(fake, pool, "base.qcow2")
    _operation, context = begun(chief, pool, "base.qcow2")
    kinds.Claim().do(context)
    fake.delete_volume(pool.pool.name, "new.qcow2")
    theirs = put(fake, pool, "new.qcow2")
    with pytest.raises(StepFailed, match="is there"):
        kinds.Make().do(context)
    for step in (kinds.Make(), kinds.Claim()):
        step.undo(context)
    assert fake.volume_info(pool.pool.name, "new.qcow2") == theirs


@pytest.mark.parametrize("source", ["", "base.qcow2"])
def test_a_volume_is_made_whenever_a_worker_died(fake, pool, chief, source, monkeypatch):
    """Red when a step does not know its own mark, or what it made: after each call the worker dies once."""
    put(fake, pool, "base.qcow2")
    operation, context = begun(chief, pool, source)
    calls = {"create_volume": fake.create_volume, "delete_volume": fake.delete_volume}
    deaths = set()

    def dying(verb):
        def act(*args):
            calls[verb](*args)
            if (verb, args) not in deaths:
                deaths.add((verb, args))
                raise Died

        return act

    with monkeypatch.context() as patched:
        for verb in calls:
            patched.setattr(fake, verb, dying(verb))
        for step in (kinds.Claim(), kinds.Make(), kinds.Look()):
            while True:
                with suppress(Died):
                    step.do(context)
                    step.do(context)
                    break
    assert len(deaths) == 3
    assert fake.volume_info(pool.pool.name, "new.qcow2").capacity_bytes == (MIB if source else 2 * MIB)
    for step in (kinds.Make(), kinds.Claim()):
        step.undo(context)
        step.undo(context)
    assert names(fake, pool) == ["base.qcow2"] and operation.state == State.QUEUED


class Died(Exception):
    """The worker, in the place of a SIGKILL."""


def test_sentences_speak_of_what_one_works_on(fake, pool, chief):
    """Red when a refusal speaks of a machine, or an error of the images of machines."""
    make(chief, pool)
    with pytest.raises(Denied, match="^Other work on this is not finished"):
        make(chief, pool)
    for word in kinds._MEANS.values():
        assert "image" not in sentence(word) and "machine" not in sentence(word)


def test_who_uses_a_volume_is_said_and_keeps_it(fake, pool, chief, cast):
    """Red when a room's users are not asked: a machine's disk, its seed, an image, a linked volume's base."""
    machine = make_machine(cast, "web", pool.host)
    machine.disks.create(pool=pool, volume_name="web.qcow2", capacity=MIB)
    base = put(fake, pool, "base.qcow2")
    put(fake, pool, "linked.qcow2", backing_path=base.path, clone=CloneMode.LINKED)
    image = pool.images.get()
    for name in ("web.qcow2", "foreign.qcow2", image.image.volume_name, "left.qcow2"):
        put(fake, pool, name)
    Definition.objects.create(
        host=pool.host,
        uuid=uuid.uuid4(),
        observed_name="theirs",
        observed_digest="d",
        observed_persistent={"devices": {"disks": [{"source": {"file": f"{pool.path}/foreign.qcow2"}}]}},
        observed_at=timezone.now(),
    )
    look(chief, pool)
    used = {
        "web.qcow2": "Machine web",
        "foreign.qcow2": "Domain theirs",
        "base.qcow2": "linked.qcow2",
        image.image.volume_name: "Image",
    }
    for name, words in used.items():
        with pytest.raises(Denied, match=words):
            services.delete(actor=chief, volume=row(name), confirm_name=name)
    assert uses_of([row("left.qcow2")]) == {row("left.qcow2").pk: []}


@pytest.mark.parametrize("place", ["link", "another"])
def test_what_stands_on_a_volume_by_a_link_keeps_it(fake, pool, place):
    """Red when users_of() compares paths as they are written, or names alone."""
    base = put(fake, pool, "base.qcow2")
    upper = put(fake, pool, "upper.qcow2")
    fake.links["/srv/link"] = pool.path
    there = replace(upper, backing_path=f"/srv/{place}/base.qcow2")
    fake._volumes[(pool.pool.name, "upper.qcow2")] = there
    users = sharing.users_of(lambda verb, *told: getattr(fake, verb)(*told), pool.pool.name, base.name)
    assert users == (["upper.qcow2"] if place == "link" else [])


def test_the_host_is_asked_again_before_a_volume_goes(fake, pool, chief):
    """Red when neither step of the deletion asks the host: the portal saw nothing of this domain yet."""
    info = put(fake, pool, "left.qcow2")
    look(chief, pool)
    begun = services.delete(actor=chief, volume=row("left.qcow2"), confirm_name="left.qcow2")
    spec = DomainSpec("hidden", str(uuid.uuid4()), 1, 64 * MIB, (DiskSpec(info.path),))
    fake.define(spec)
    failed = done(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "volume_in_use")
    assert names(fake, pool) == ["left.qcow2"] and spec.accelerator is Accelerator.KVM


@pytest.mark.parametrize("how", ["domain", "volume"])
@pytest.mark.parametrize("last", [kinds.Grow, kinds.Delete])
def test_a_worker_that_died_after_the_answer_asks_again(fake, pool, chief, how, last):
    """Red when Grow or Delete trusts the step before, which may be hours old, or looks into one pool only."""
    info = put(fake, pool, "left.qcow2")
    look(chief, pool)
    begun = services.grow(actor=chief, volume=row("left.qcow2"), capacity=GIB)
    context = StepContext(begun.frozen, begun.identifiers, lambda: None)
    kinds.Unused().do(context)
    use_too(fake, info.path, how)
    with pytest.raises(StepFailed) as failed:
        last().do(context)
    assert failed.value.code == "volume_in_use"
    assert fake.volume_info(pool.pool.name, "left.qcow2") == info


def test_a_pool_that_others_named_stands_in_nobodys_way(fake, pool, chief):
    """Red when the driver takes only names that it would give: nothing could be deleted or grown there."""
    strange_pool(fake)
    put(fake, pool, "left.qcow2")
    look(chief, pool)
    assert done(services.grow(actor=chief, volume=row("left.qcow2"), capacity=GIB)).state == State.SUCCEEDED
    gone = services.delete(actor=chief, volume=row("left.qcow2"), confirm_name="left.qcow2")
    assert done(gone).state == State.SUCCEEDED and names(fake, pool) == []


def test_two_hosts_that_share_a_pool_do_not_work_on_one_volume_at_once(fake, pool, chief):
    """Red when the subject is made of the host's attachment to the pool."""
    put(fake, pool, "one.qcow2")
    look(chief, pool)
    other = PoolAttachment.objects.create(
        host=make_host("other", "fake:///other"), pool=pool.pool, path="/other", observed_capacity=64 * GIB
    )
    services.grow(actor=chief, volume=row("one.qcow2"), capacity=GIB)
    with pytest.raises(Denied, match="not finished yet"):
        make(chief, other, "one.qcow2")
    make(chief, other, "two.qcow2")


def test_orphans_are_marked_and_made_ones_are_not(fake, pool, chief, client):
    """Red when is_orphan forgets who made a volume, or the filter shows all."""
    put(fake, pool, "left.qcow2")
    done(make(chief, pool, "data.qcow2"))
    client.force_login(chief)
    url = reverse("hosts:pool", args=[pool.pk])
    page = client.get(url).content.decode()
    assert "1 volume is an orphan" in page and "data.qcow2" in page and "left.qcow2" in page
    page = client.get(url, {"only": "orphans"}).content.decode()
    assert "left.qcow2" in page and "data.qcow2" not in page


def test_what_an_import_copies_is_no_orphan(fake, pool, chief):
    """Red when images count by their rows in pools alone: the copy has its volume first."""
    image = make_image(title="New", deprecated_reason=BEING_MADE, deprecated_at=timezone.now())
    put(fake, pool, image.volume_name)
    look(chief, pool)
    [use] = uses_of([row(image.volume_name)])[row(image.volume_name).pk]
    assert use.words == "Image New 1, which is being made"
    with pytest.raises(Denied, match="which is being made"):
        services.delete(actor=chief, volume=row(image.volume_name), confirm_name=image.volume_name)
    # An import that was taken back has no image; what it left there nobody uses.
    image.delete()
    assert not uses_of([row(image.volume_name)])[row(image.volume_name).pk]


def test_pages_search_and_say_what_is_wrong(fake, pool, chief, client):
    put(fake, pool, "left.qcow2")
    look(chief, pool)
    client.force_login(chief)
    assert pool.pool.name in client.get(reverse("hosts:pools")).content.decode()
    url = reverse("hosts:pool", args=[pool.pk])
    assert "left.qcow2" not in client.get(url, {"q": "nothing"}).content.decode()
    asked = {"name": "a b", "capacity": "1", "form": "raw"}
    wrong = client.post(reverse("hosts:volume-add", args=[pool.pk]), asked)
    assert wrong.status_code == 422 and b"Use letters" in wrong.content
    page = reverse("hosts:volume-delete", args=[row("left.qcow2").pk])
    assert client.post(page, {"confirm_name": "other"}).status_code == 422
    assert client.post(page, {"confirm_name": "left.qcow2"}).status_code == 302
