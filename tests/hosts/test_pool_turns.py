"""Pools are looked into by turns, orphans are kept, and what was promised of pools is said."""

import uuid
from datetime import timedelta

import pytest
from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from portal.celery import app
from portal.drivers.errors import CallTimeout
from portal.drivers.types import PoolSpec
from portal.hosts.models import Health, Host, PoolAttachment, Volume
from portal.hosts.storage import kinds, turns
from tests.factories import GIB
from tests.hosts.test_storage import (  # noqa: F401 (fixtures)
    begun,
    done,
    fake,
    look,
    make,
    names,
    pool,
    put,
    row,
)

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def calls(fake, pool, monkeypatch):  # noqa: F811
    """Let the scheduler ask the fake host, which answers its watcher; return what it was asked."""
    asked = []

    def call(_host, verb, *args, timeout):
        asked.append((verb, *args))
        return getattr(fake, verb)(*args)

    monkeypatch.setattr(turns, "call", call)
    Host.objects.update(observed_health=Health.UP)
    return asked


def test_what_others_made_appears_and_stays(fake, pool, calls, chief, client):  # noqa: F811
    """Red when the scheduler looks into nothing, or takes an orphan away."""
    put(fake, pool, "by-hand.qcow2")
    app.loader.import_default_modules()
    task = app.tasks[settings.CELERY_BEAT_SCHEDULE["look into pools"]["task"]]
    task()
    assert row("by-hand.qcow2").observed_path
    client.force_login(chief)
    page = client.get(reverse("hosts:pool", args=[pool.pk]), {"only": "orphans"}).content.decode()
    assert "by-hand.qcow2" in page
    PoolAttachment.objects.update(observed_volumes_at=timezone.now() - timedelta(days=1))
    task()
    assert names(fake, pool) == ["by-hand.qcow2"] and {verb for verb, *_more in calls} == {"list_volumes"}


def test_a_round_costs_little(fake, pool, calls):  # noqa: F811
    """Red when a round asks for every pool, for one that was looked into just now, or a host that is away."""
    for number in range(5):
        spec = PoolSpec(f"more-{number}", str(uuid.uuid4()), f"/more/{number}")
        fake.ensure_pool(spec)
        shared = type(pool.pool).objects.create(name=spec.name)
        PoolAttachment.objects.create(host=pool.host, pool=shared, path=spec.path)
    assert turns.look_by_turns() == turns.MOST
    assert [turns.look_by_turns() for _round in range(3)] == [2, 2, 0]
    assert len(calls) == len(set(calls)) == 6
    PoolAttachment.objects.update(observed_volumes_at=timezone.now() - 2 * turns.OLD)
    Host.objects.update(observed_health=Health.STALE)
    assert turns.look_by_turns() == 0


def test_a_pool_that_does_not_answer_is_left_for_later(fake, pool, calls, monkeypatch):  # noqa: F811
    def busy(*_args, **_more):
        raise CallTimeout

    monkeypatch.setattr(turns, "call", busy)
    assert turns.look_by_turns() == 0
    assert PoolAttachment.objects.get(pk=pool.pk).observed_volumes_at is None


def test_a_look_in_the_middle_forgets_nobody(fake, pool, calls, chief):  # noqa: F811
    """Red when Make writes who made a volume: a look that began before it would forget the row."""
    _operation, context = begun(chief, pool, "")
    kinds.Claim().do(context)
    kinds.Make().do(context)
    Volume.objects.all().delete()
    kinds.Look().do(context)
    assert row("new.qcow2").made


def test_what_is_promised_is_said_on_both_pages(fake, pool, calls, chief, client):  # noqa: F811
    """Red when the ratio is not of the volumes' virtual sizes, or nobody is told what it means."""
    client.force_login(chief)
    pages = [reverse("hosts:pool", args=[pool.pk]), reverse("hosts:detail", args=[pool.host_id])]

    def said(*words):
        for page in pages:
            shown = client.get(page).content.decode()
            assert not [word for word in words if word not in shown]

    said("Nobody looked into the pool yet")
    done(make(chief, pool, "one.qcow2", capacity=32 * GIB))
    said("64 GiB free", "32 GiB promised", "0.50 times", "Every volume can fill up")
    done(make(chief, pool, "two.qcow2", capacity=64 * GIB))
    said("96 GiB promised", "1.50 times", "More is promised than the pool has")
