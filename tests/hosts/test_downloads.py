"""Volumes taken away as they are stored, whole or not at all."""

import uuid

import pytest
from django.urls import reverse

from portal.accounts.models import User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.errors import HostUnreachable
from portal.drivers.types import DiskSpec, DomainSpec
from portal.hosts.storage import downloading, services
from tests.factories import MIB
from tests.hosts.test_storage import fake, look, make, pool, put, row  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.django_db, pytest.mark.database]
NAME = "left.qcow2"


@pytest.fixture
def host(fake, pool, chief, monkeypatch):  # noqa: F811
    """The fake host, asked also by the web; a volume lies there, of two pieces and a half."""

    def call(_host, verb, *args, timeout):
        return getattr(fake, verb)(*args)

    monkeypatch.setattr(downloading, "call", call)
    monkeypatch.setattr(downloading, "LONGEST_READ", 400_000)
    put(fake, pool, NAME)
    look(chief, pool)
    content = bytes(range(256)) * 4096
    fake.seeds[f"{pool.path}/{NAME}"] = content
    return fake, content


def taken():
    return AuditEntry.objects.filter(verb="volume.taken")


def test_a_volume_comes_whole_and_the_trail_says_who_took_it(host, chief, client):
    """Red when a piece is left out or comes twice, or nothing is recorded."""
    client.force_login(chief)
    url = reverse("hosts:volume-download", args=[row(NAME).pk])
    assert client.get(url).status_code == 405
    answer = client.post(url)
    assert b"".join(answer.streaming_content) == host[1]
    assert answer["Content-Length"] == str(MIB) and NAME in answer["Content-Disposition"]
    assert taken().get().actor_name == chief.username


def test_who_may_not_gets_nothing(host, cast):
    with pytest.raises(Denied, match="may not download"):
        downloading.take(actor=cast.requester, volume=row(NAME))
    assert User.objects.exists() and not taken().exists()


def test_a_volume_that_runs_or_is_worked_on_is_refused(host, pool, chief, client):  # noqa: F811
    """Red when the state of who uses it is not asked, or the storage operation not looked for."""
    driver, _content = host
    theirs = DomainSpec("theirs", str(uuid.uuid4()), 1, 64 * MIB, (DiskSpec(f"{pool.path}/{NAME}"),))
    driver.define(theirs)
    downloading.take(actor=chief, volume=row(NAME))
    driver.start(theirs.uuid)
    client.force_login(chief)
    answer = client.post(reverse("hosts:volume-download", args=[row(NAME).pk]), follow=True)
    assert "theirs runs and may write to it" in answer.content.decode()
    driver.destroy(theirs.uuid)
    services.grow(actor=chief, volume=row(NAME), capacity=2 * MIB)
    with pytest.raises(Denied, match="Grow left.qcow2.* is not finished"):
        downloading.take(actor=chief, volume=row(NAME))
    assert taken().count() == 1


@pytest.mark.parametrize("change", ["grown", "started", "gone", "away"])
def test_what_changes_meanwhile_is_broken_off(host, pool, chief, change):  # noqa: F811
    """Red when the last piece goes out before somebody looks again."""
    driver, content = host
    _info, pieces = downloading.take(actor=chief, volume=row(NAME))
    sent = next(pieces)
    theirs = DomainSpec("theirs", str(uuid.uuid4()), 1, 64 * MIB, (DiskSpec(f"{pool.path}/{NAME}"),))
    match change:
        case "grown":
            driver.resize_volume(pool.pool.name, NAME, 2 * MIB)
        case "started":
            driver.define(theirs)
            driver.start(theirs.uuid)
        case "gone":
            driver.delete_volume(pool.pool.name, NAME)
        case "away":
            driver.reachable = False
    with pytest.raises((downloading.Torn, downloading.DriverError)):
        for piece in pieces:
            sent += piece
    assert len(sent) < len(content) and content.startswith(sent)


def test_a_host_or_a_volume_that_is_not_there_is_told(host, pool, chief, monkeypatch):  # noqa: F811
    driver, _content = host
    driver.delete_volume(pool.pool.name, NAME)
    with pytest.raises(Denied, match="not in its pool any more"):
        downloading.take(actor=chief, volume=row(NAME))

    def silent(*_args, **_more):
        raise HostUnreachable

    monkeypatch.setattr(downloading, "call", silent)
    with pytest.raises(Denied, match="did not answer"):
        downloading.take(actor=chief, volume=row(NAME))
    assert not taken().exists() and make(chief, pool).kind == "storage.create"
