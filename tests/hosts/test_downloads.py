"""Volumes taken away as they are stored, whole or not at all."""

import os
import shutil
import uuid
from types import SimpleNamespace

import pytest
from django.urls import reverse

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.core.web import streaming
from portal.drivers.errors import InvalidSpec
from portal.drivers.types import DiskSpec, DomainSpec
from portal.hosts import bringing
from portal.hosts.storage import downloading, services
from portal.operations.messages import sentence
from portal.operations.models import Operation
from portal.operations.registry import StepContext
from portal.operations.states import State
from tests.factories import MIB
from tests.hosts.test_storage import code, done, fake, look, pool, put, row  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.django_db, pytest.mark.database]
NAME = "left.qcow2"
CONTENT = bytes(range(256)) * 4096


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "FOLDER", tmp_path)
    monkeypatch.setattr(streaming, "PIECE", 400_000)
    return tmp_path


@pytest.fixture
def host(fake, pool, chief):  # noqa: F811
    """The fake host, with a volume that holds something."""
    put(fake, pool, NAME)
    look(chief, pool)
    fake._contents[f"{pool.path}/{NAME}"] = CONTENT
    return fake


@pytest.fixture
def theirs(host, pool):  # noqa: F811
    """A domain that has the volume, and is off."""
    spec = DomainSpec("theirs", str(uuid.uuid4()), 1, 64 * MIB, (DiskSpec(f"{pool.path}/{NAME}"),))
    host.define(spec)
    return spec.uuid


def bring(chief):
    return services.download(actor=chief, volume=row(NAME))


def taken():
    return AuditEntry.objects.filter(verb="volume.taken")


def test_a_volume_comes_whole_and_the_trail_says_who_took_it(host, theirs, chief, client):
    """Red when a piece is left out or comes twice, or nothing is recorded."""
    client.force_login(chief)
    assert client.get(reverse("hosts:volume-download", args=[row(NAME).pk])).status_code == 405
    assert client.post(reverse("hosts:volume-download", args=[row(NAME).pk])).status_code == 302
    take = reverse("hosts:volume-take", args=[row(NAME).pk])
    page = reverse("hosts:volume", args=[row(NAME).pk])
    assert take not in client.get(page).content.decode()
    assert done(Operation.objects.get(kind=downloading.FETCH)).state == State.SUCCEEDED
    assert take in client.get(page).content.decode()
    answer = client.post(take)
    assert b"".join(answer.streaming_content) == CONTENT
    assert answer["Content-Length"] == str(len(CONTENT)) and NAME in answer["Content-Disposition"]
    assert taken().get().actor_name == chief.username


def test_who_may_not_gets_nothing(host, cast, chief):
    """Red when one of the two does not ask for the right."""
    with pytest.raises(Denied, match="may not download"):
        bring(cast.requester)
    done(bring(chief))
    subject = services.subject_of(row(NAME).pool, NAME)
    with pytest.raises(Denied, match="may not download"):
        downloading.take(actor=cast.requester, volume=row(NAME), subject=subject)
    assert not taken().exists()


def test_a_volume_that_runs_is_refused(host, theirs, chief, folder):
    """Red when the state of who uses it is not asked."""
    host.start(theirs)
    failed = done(bring(chief))
    assert (failed.state, code(failed)) == (State.FAILED, "volume_written")
    assert not list(folder.iterdir())


def test_one_whose_machine_is_suspended_to_disk_is_refused_in_words_of_that(host, theirs, chief, folder):
    """Red when it is told to be running, and to be switched off, which it is."""
    host.start(theirs)
    host.save(theirs)
    failed = done(bring(chief))
    assert (failed.state, code(failed)) == (State.FAILED, "volume_saved")
    assert "theirs is suspended to disk" in sentence("volume_saved", "theirs")
    assert not list(folder.iterdir())
    host.discard_saved(theirs)
    assert done(bring(chief)).state == State.SUCCEEDED


def test_one_that_is_worked_on_is_refused_and_is_not_worked_on(host, chief):
    """Red when the two do not share the subject."""
    begun = services.grow(actor=chief, volume=row(NAME), capacity=2 * MIB)
    with pytest.raises(Denied, match="Other work on this is not finished"):
        bring(chief)
    done(begun)
    bring(chief)
    with pytest.raises(Denied, match="Other work on this is not finished"):
        services.delete(actor=chief, volume=row(NAME), confirm_name=NAME)


@pytest.mark.parametrize(
    ("change", "word"),
    [("grown", "volume_changed"), ("started", "volume_written"), ("gone", "volume_gone")],
)
def test_what_changes_meanwhile_is_thrown_away(host, theirs, chief, change, word, folder, monkeypatch):
    """Red when nobody looks again at its end, or the undo leaves the file."""
    download = host.download_volume

    def changing(where, name, target):
        found = download(where, name, target)
        match change:
            case "grown":
                host.resize_volume(where, name, 2 * MIB)
            case "started":
                host.start(theirs)
            case "gone":
                host.delete_volume(where, name)
        return found

    monkeypatch.setattr(host, "download_volume", changing)
    failed = done(bring(chief))
    assert (failed.state, code(failed)) == (State.FAILED, word)
    assert not list(folder.iterdir())


def test_a_portal_that_gets_full_meanwhile_says_that(host, chief, folder, monkeypatch):
    """Red when what the driver says of the file here is taken for something that was asked wrongly."""

    def full(*_told):
        raise InvalidSpec("no space left on device")

    monkeypatch.setattr(host, "download_volume", full)
    failed = done(bring(chief))
    assert (failed.state, code(failed)) == (State.FAILED, "portal_full")
    assert not list(folder.iterdir())


def test_a_portal_without_room_says_so_first(host, chief, folder, monkeypatch):
    """Red when Fetch does not look for room."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=bringing.LEFT_FREE - 1))
    failed = done(bring(chief))
    assert (failed.state, code(failed)) == (State.FAILED, "portal_full")
    assert not list(folder.iterdir())


def test_who_comes_after_a_dead_worker_brings_it_anew(host, chief, folder):
    """Red when what is there already is taken for the whole file."""
    begun = bring(chief)
    half = folder / begun.identifiers["folder"]
    half.mkdir()
    (half / NAME).write_bytes(CONTENT[:9])
    context = StepContext(begun.frozen, begun.identifiers, lambda: None)
    downloading.Fetch().do(context)
    downloading.Fetch().do(context)
    assert (half / NAME).read_bytes() == CONTENT
    downloading.Fetch().undo(context)
    downloading.Fetch().undo(context)
    assert not list(folder.iterdir())


def test_a_file_goes_when_its_time_is_over(host, chief, folder, client):
    """Red when sweep() leaves the file, or takes one whose time is not over or that is still to come."""
    begun = bring(chief)
    done(begun)
    assert downloading.sweep() == 0
    path = folder / begun.identifiers["folder"] / NAME
    old = path.stat().st_mtime - downloading.KEPT.total_seconds() - 60
    os.utime(path, (old, old))
    os.utime(path.parent, (old, old))
    client.force_login(chief)
    answer = client.post(reverse("hosts:volume-take", args=[row(NAME).pk]), follow=True)
    assert "not here any more" in answer.content.decode() and not taken().exists()
    Operation.objects.filter(pk=begun.pk).update(state=State.RUNNING)
    assert downloading.sweep() == 0
    Operation.objects.filter(pk=begun.pk).update(state=State.SUCCEEDED)
    assert (downloading.sweep(), downloading.sweep()) == (1, 0) and not list(folder.iterdir())
