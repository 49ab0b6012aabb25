"""Volumes of pools that are no folders: made without a mark, kept, and only what their kind can."""

import uuid
from contextlib import suppress
from types import SimpleNamespace

import pytest
from django.urls import reverse
from django.utils import timezone

from portal.core.errors import Denied
from portal.drivers.types import VolumeInfo, VolumeSpec, VolumeVerb, can
from portal.hosts import bringing
from portal.hosts.models import BegunVolume, Volume
from portal.hosts.storage import downloading, kinds, pool_words, services, uploading
from portal.hosts.storage.using import uses_of
from portal.operations.registry import StepFailed
from portal.operations.states import State
from tests import factories
from tests.factories import GIB, MIB
from tests.hosts.test_block_pools import CEPH, EACH, ISCSI, VG, ZFS, added, context_of, host  # noqa: F401
from tests.hosts.test_storage import Died, code, done, fake, look, pool, row  # noqa: F401 (fixtures)
from vms.models import Definition

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def make(chief, place, name="data", capacity=GIB, form="raw"):
    return services.create(actor=chief, pool=place, name=name, capacity=capacity, form=form)


@pytest.mark.parametrize("values", [VG, CEPH, ZFS])
def test_a_volume_is_made_and_deleted(fake, host, chief, values, monkeypatch):  # noqa: F811
    """Red when a mark is made: its size is rounded, so that nobody knows it again."""
    place = added(chief, host, values)
    sizes, create = [], fake.create_volume

    def made(spec):
        sizes.append(spec.capacity_bytes)
        return create(spec)

    monkeypatch.setattr(fake, "create_volume", made)
    assert done(make(chief, place, capacity=GIB + 512)).state == State.SUCCEEDED
    assert sizes == [GIB + 512]
    made = row("data")
    assert made.made and made.observed_format == "raw" and made.observed_capacity >= GIB + 512
    assert not BegunVolume.objects.exists()
    gone = services.delete(actor=chief, volume=made, confirm_name="data")
    assert done(gone).state == State.SUCCEEDED and not Volume.objects.exists()


def test_what_has_the_name_is_left(fake, host, chief):  # noqa: F811
    """Red when Claim or its undo takes what is there for the operation's own."""
    place = added(chief, host, VG)
    begun = make(chief, place, capacity=2 * GIB)
    theirs = fake.create_volume(VolumeSpec("fast", "data", GIB, format="raw"))
    failed = done(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "name_taken")
    assert fake.list_volumes("fast") == (theirs,)


def test_what_comes_in_the_last_instant_is_left(fake, host, chief, monkeypatch):  # noqa: F811
    """Red when the volume is not made fresh, or what is not the operation's own is deleted."""
    place = added(chief, host, VG)
    begun = make(chief, place)
    create = fake.create_volume

    def taken(spec):
        monkeypatch.setattr(fake, "create_volume", create)
        create(VolumeSpec(spec.pool, spec.name, spec.capacity_bytes, format="raw"))
        return create(spec)

    def never(*told):
        raise AssertionError("there is nothing of its own to delete")

    monkeypatch.setattr(fake, "create_volume", taken)
    monkeypatch.setattr(fake, "delete_volume", never)
    failed = done(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "name_taken")
    assert [info.name for info in fake.list_volumes("fast")] == ["data"] and not BegunVolume.objects.exists()


@pytest.mark.parametrize("source", ["", "base"])
def test_a_volume_is_made_whenever_a_worker_died(fake, host, chief, source, monkeypatch):  # noqa: F811
    """Red when Make does not know what it made, or keeps half a copy; and the undo leaves nothing."""
    place = added(chief, host, VG)
    fake.create_volume(VolumeSpec("fast", "base", MIB, format="raw"))
    look(chief, place)
    begun = services.clone(actor=chief, volume=row("base"), name="data") if source else make(chief, place)
    context, deaths, made = context_of(begun), set(), []
    calls = {verb: getattr(fake, verb) for verb in ("create_volume", "list_volumes", "delete_volume")}

    def dying(verb):
        def act(*args):
            told = calls[verb](*args)
            if verb == "create_volume":
                made.append(args[0].name)
            if verb not in deaths:
                deaths.add(verb)
                raise Died
            return told

        return act

    with monkeypatch.context() as patched:
        for verb in calls:
            patched.setattr(fake, verb, dying(verb))
        for step in (kinds.Claim(), kinds.Make(), kinds.Look()):
            while True:
                with suppress(Died):
                    step.do(context)
                    break
    # A copy that a worker left is made anew; an empty volume is what it is.
    assert made == ["data"] * (2 if source else 1)
    assert row("data").made
    for step in (kinds.Make(), kinds.Claim()):
        step.undo(context)
        step.undo(context)
    assert [info.name for info in fake.list_volumes("fast")] == ["base"]


def test_a_failure_before_anything_was_begun_deletes_nothing(fake, host, chief):  # noqa: F811
    """Red when Make's undo deletes whatever has the name."""
    place = added(chief, host, VG)
    context = context_of(make(chief, place))
    kinds.Claim().do(context)
    fake.create_volume(VolumeSpec("fast", "data", GIB, format="raw"))
    with pytest.raises(StepFailed):
        kinds.Make().do(context)
    for step in (kinds.Make(), kinds.Claim()):
        step.undo(context)
    assert [info.name for info in fake.list_volumes("fast")] == ["data"]


def lun(fake, place, name="unit:0:0:1"):  # noqa: F811
    """Put a volume into a pool in which none is made."""
    path = f"/dev/disk/by-path/{name}"
    fake._volumes[place.pool.name, name] = VolumeInfo(place.pool.name, name, path, GIB, 0, format="raw")


def acts(chief, volume):
    """Return what people do to volumes, by the verb that it needs of the pool."""
    return {
        VolumeVerb.CREATE: lambda: make(chief, volume.pool, "other"),
        VolumeVerb.CLONE: lambda: services.clone(actor=chief, volume=volume, name="copy"),
        VolumeVerb.GROW: lambda: services.grow(actor=chief, volume=volume, capacity=2 * GIB),
        VolumeVerb.READ: lambda: services.download(actor=chief, volume=volume),
        VolumeVerb.DELETE: lambda: services.delete(actor=chief, volume=volume, confirm_name=volume.name),
    }


@pytest.mark.parametrize("values", EACH)
def test_what_a_kind_cannot_is_refused_in_words_and_not_offered(fake, host, chief, client, values):  # noqa: F811
    """Red when a service does not ask the table, or the page offers what it refuses."""
    place = added(chief, host, values)
    if values is ISCSI:
        lun(fake, place)
    else:
        fake.create_volume(VolumeSpec(values["name"], "data", GIB, format="raw"))
    look(chief, place)
    volume = Volume.objects.select_related("pool__pool", "pool__host").get()
    client.force_login(chief)
    page = client.get(reverse("hosts:volume", args=[volume.pk])).content.decode()
    of_pool = client.get(reverse("hosts:pool", args=[place.pk])).content.decode()
    addresses = {
        VolumeVerb.CLONE: reverse("hosts:volume-clone", args=[volume.pk]),
        VolumeVerb.GROW: reverse("hosts:volume-grow", args=[volume.pk]),
        VolumeVerb.READ: reverse("hosts:volume-download", args=[volume.pk]),
        VolumeVerb.DELETE: reverse("hosts:volume-delete", args=[volume.pk]),
    }
    for verb, act in acts(chief, volume).items():
        url, where = (
            (addresses[verb], page)
            if verb in addresses
            else (reverse("hosts:volume-add", args=[place.pk]), of_pool)
        )
        assert (f'action="{url}"' in where) == can(values["kind"], verb), verb
        if not can(values["kind"], verb):
            reason = pool_words.why_not(values["kind"], verb)
            shown = pool_words.not_here(values["kind"]) if verb in addresses else [reason]
            assert all(line in where.replace("&#x27;", "'") for line in shown)
            with pytest.raises(Denied) as denied:
                act()
            assert denied.value.reason == reason
    upload = reverse("hosts:upload-begin", args=[place.pk])
    assert f'action="{upload}"' not in of_pool and "Files are uploaded into pools that are folders" in of_pool
    with pytest.raises(Denied, match="Files are uploaded"):
        uploading.begin(actor=chief, pool=place, name="disk")
    assert client.post(upload, {"upload-name": "disk"}).status_code == 422


def test_only_raw_volumes_are_made_and_offered(fake, host, chief, client):  # noqa: F811
    """Red when qcow2 is offered where a volume is a device."""
    place = added(chief, host, VG)
    with pytest.raises(Denied, match="are raw") as denied:
        make(chief, place, form="qcow2")
    assert denied.value.field == "form"
    client.force_login(chief)
    url = reverse("hosts:volume-add", args=[place.pk])
    page = client.post(url, {"name": "data", "capacity": "1", "form": "qcow2"})
    assert page.status_code == 422 and b'value="qcow2"' not in page.content
    assert client.post(url, {"name": "data", "capacity": "1", "form": "raw"}).status_code == 302


def test_a_lun_is_downloaded_by_its_name(fake, host, chief, tmp_path, monkeypatch):  # noqa: F811
    """Red when libvirt's names of LUNs, with colons, are refused, or too little room is asked for."""
    place = added(chief, host, ISCSI)
    lun(fake, place)
    look(chief, place)
    volume = Volume.objects.select_related("pool__pool", "pool__host").get()
    begun = services.download(actor=chief, volume=volume)
    free = [0]
    monkeypatch.setattr(bringing.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[0]))
    monkeypatch.setattr(downloading, "FOLDER", tmp_path)
    brought = []
    monkeypatch.setattr(downloading, "bring", lambda *told, size: brought.append((told[3], size)))
    # All of it is written here, whatever of it the host says is taken.
    free[0] = GIB + bringing.LEFT_FREE - 1
    with pytest.raises(StepFailed, match="bytes are needed"):
        downloading.Fetch().do(context_of(begun))
    free[0] += 1
    downloading.Fetch().do(context_of(begun))
    assert brought == [("unit:0:0:1", GIB)]


def test_who_has_a_device_is_said(fake, host, chief, cast):  # noqa: F811
    """Red when a domain's disk on a logical volume is seen by its file alone: it would seem an orphan.

    A machine's own such disk has no row either, since it is no file.
    """
    place = added(chief, host, VG)
    for name in ("web-data", "logs", "db", "free"):
        fake.create_volume(VolumeSpec("fast", name, GIB, format="raw"))
    look(chief, place)
    machine = factories.make_machine(cast, "web", host)
    mine = {"dev": "/dev/mapper/vg0-web--data"}, {"pool": "fast", "volume": "logs"}
    for own, sources in ((machine.uuid, mine), (uuid.uuid4(), ({"pool": "fast", "volume": "db"},))):
        Definition.objects.create(
            host=host,
            uuid=own,
            observed_name="theirs",
            observed_digest="d",
            observed_persistent={"devices": {"disks": [{"source": source} for source in sources]}},
            observed_at=timezone.now(),
        )
    for name, user in (("web-data", "Machine web"), ("logs", "Machine web"), ("db", "Domain theirs")):
        with pytest.raises(Denied, match=user):
            services.delete(actor=chief, volume=row(name), confirm_name=name)
    assert uses_of([row("free")])[row("free").pk] == []


def test_why_not_is_said_once():
    """Red when the page repeats a reason for each thing that it does not offer."""
    words = [pool_words.not_here(kind) for kind in ("dir", "iscsi", "rbd")]
    assert [len(lines) for lines in words] == [0, 1, 2]
    assert words[1][0].startswith(
        "Here a volume is not copied in its pool, nor made larger, nor deleted: what the"
    )
