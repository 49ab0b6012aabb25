"""Pools are started and stopped, never under a machine, and start with their host or not."""

# Fixtures of another file are arguments here.
# ruff: noqa: F811

import uuid
from contextlib import suppress

import pytest
from django.urls import reverse

from portal.accounts.models import Membership, Role, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.types import CloneMode, DiskSpec, DomainSpec, PoolSpec, VolumeInfo
from portal.hosts import enrolment
from portal.hosts.limits import note_stopped
from portal.hosts.models import Health, Host, PoolAttachment
from portal.hosts.readiness import report
from portal.hosts.storage import pool_kinds, pools, turns
from portal.operations.models import Counter, Operation, StepRecord
from portal.operations.registry import StepContext
from portal.operations.states import State
from tests.factories import GIB, MIB, make_host, make_machine
from tests.hosts.test_storage import Died, code, done, fake, look, pool, put  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def operator(db):
    """Somebody who operates everything and administers nothing."""
    person = User.objects.create(username="olga")
    Membership.objects.create(user=person, role=Role.OPERATOR)
    return person


def mine(fake, pool):
    return next(info for info in fake.list_pools() if info.name == pool.pool.name)


def limit(pool):
    return Counter.objects.get(scope=pool.pool.scope, resource="disk").limit


def run(operation, pool):
    ended = done(operation)
    pool.refresh_from_db()
    return ended.state


def test_an_operator_stops_a_pool_and_starts_it(operator, pool, fake, chief):
    """Red when an admin's right is asked for, or what is seen is not written: nothing may be placed there."""
    put(fake, pool, "left.qcow2")
    look(chief, pool)
    assert limit(pool) == pool.observed_available > 0
    assert run(pools.stop(actor=operator, pool=pool), pool) == State.SUCCEEDED
    assert not mine(fake, pool).active and not pool.observed_active
    assert limit(pool) == 0 and pool.observed_capacity == 64 * GIB
    assert run(pools.start(actor=operator, pool=pool), pool) == State.SUCCEEDED
    assert mine(fake, pool).active and pool.observed_active and limit(pool) > 0
    verbs = list(AuditEntry.objects.values_list("actor_name", "verb"))
    assert verbs.count(("olga", "operation.begun")) == 2


@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_a_pool_that_libvirtd_runs_again_is_stopped_again(pool, fake, chief, monkeypatch, deaths):
    """Red when STOP ends with See: it would be told as stopped, and run."""
    stop, left = fake.stop_pool, [None] * deaths

    def stopped(name):
        # libvirtd dies once it has stopped it, and runs it again when it comes back.
        if left:
            left.pop()
        else:
            stop(name)

    monkeypatch.setattr(fake, "stop_pool", stopped)
    assert run(pools.stop(actor=chief, pool=pool), pool) == State.SUCCEEDED
    assert pool.observed_active is mine(fake, pool).active is (deaths == 2)
    remarks = StepRecord.objects.exclude(remark="").values_list("remark", flat=True)
    assert list(remarks) == ["pool_runs_again"] * (deaths == 2)


def test_nobody_looks_into_what_does_not_run(pool, fake, chief, monkeypatch):
    """Red when the round asks for it: it would take the turn of a pool that answers."""
    asked = []
    monkeypatch.setattr(turns, "call", lambda host, verb, *args, timeout: asked.append(args) or ())
    Host.objects.update(observed_health=Health.UP)
    assert run(pools.stop(actor=chief, pool=pool), pool) == State.SUCCEEDED
    assert turns.look_by_turns() == 0 and not asked
    assert run(pools.start(actor=chief, pool=pool), pool) == State.SUCCEEDED
    PoolAttachment.objects.update(observed_volumes_at=None)
    assert turns.look_by_turns() == 1 and asked


def test_what_a_machine_has_keeps_the_pool_running(pool, fake, chief, cast, client):
    """Red when a machine that is off does not count, or the page does not say who."""
    machine = make_machine(cast, "web", pool.host)
    machine.disks.create(pool=pool, volume_name="web.qcow2", capacity=MIB)
    put(fake, pool, "web.qcow2")
    look(chief, pool)
    with pytest.raises(Denied, match="Machine web"):
        pools.stop(actor=chief, pool=pool)
    client.force_login(chief)
    page = client.get(reverse("hosts:pool", args=[pool.pk])).content.decode()
    assert "It cannot be stopped now. What is in it is in use: Machine web." in page
    answer = client.post(reverse("hosts:pool-stop", args=[pool.pk]), follow=True)
    assert "Machine web" in answer.content.decode() and mine(fake, pool).active


def test_images_and_volumes_alone_do_not_keep_it(pool, fake, chief):
    """Red when whatever stands in the list of uses keeps a pool running, machine or not."""
    base = put(fake, pool, "base.qcow2")
    put(fake, pool, "linked.qcow2", backing_path=base.path, clone=CloneMode.LINKED)
    put(fake, pool, pool.images.get().image.volume_name)
    look(chief, pool)
    assert pools.why_not_removed(pool) and not pools.why_not_stopped(pool)
    assert run(pools.stop(actor=chief, pool=pool), pool) == State.SUCCEEDED


def test_what_is_promised_and_what_is_under_way_keeps_it(pool, fake, chief):
    """Red when only what lies there already counts."""
    look(chief, pool)
    Counter.objects.filter(scope=pool.pool.scope).update(held=MIB)
    with pytest.raises(Denied, match="promised"):
        pools.stop(actor=chief, pool=pool)
    Counter.objects.filter(scope=pool.pool.scope).update(held=0)
    pools.set_autostart(actor=chief, pool=pool, on=False)
    with pytest.raises(Denied, match="is not finished"):
        pools.stop(actor=chief, pool=pool)


@pytest.mark.parametrize("how", ["domain", "promise"])
def test_the_step_asks_again(pool, fake, chief, how):
    """Red when Stop trusts what was known when it was asked for: the host's domain, the ledger's promise."""
    info = put(fake, pool, "left.qcow2")
    look(chief, pool)
    begun = pools.stop(actor=chief, pool=pool)
    if how == "domain":
        fake.define(DomainSpec("hidden", str(uuid.uuid4()), 1, 64 * MIB, (DiskSpec(info.path),)))
    else:
        Counter.objects.filter(scope=pool.pool.scope, resource="disk").update(held=MIB)
    failed = done(begun)
    assert (failed.state, code(failed)) == (State.FAILED, "pool_in_use") and mine(fake, pool).active
    raw = StepRecord.objects.exclude(error_code="").get().error_raw
    assert raw == ("hidden" if how == "domain" else "a machine")


def test_what_others_named_in_it_does_not_keep_it(pool, fake, chief):
    """Red when its volumes are asked for one by one by names that the portal would give.

    Every ext4 has a folder lost+found, and libvirt lists folders as volumes.
    """
    for name in ("lost+found", "my disk.img"):
        path = f"{pool.path}/{name}"
        fake._volumes[pool.pool.name, name] = VolumeInfo(pool.pool.name, name, path, 0, 0)
    fake.define(DomainSpec("hidden", str(uuid.uuid4()), 1, 64 * MIB, (DiskSpec(path),)))
    failed = done(pools.stop(actor=chief, pool=pool))
    assert (failed.state, code(failed)) == (State.FAILED, "pool_in_use") and mine(fake, pool).active
    fake.undefine(fake.list_domains()[0].uuid)
    assert run(pools.stop(actor=chief, pool=pool), pool) == State.SUCCEEDED


def test_another_pool_of_the_name_is_left_alone(pool, fake, chief):
    """Red when the pool is known by its name alone."""
    fake.remove_pool(pool.pool.name)
    for act in (pools.start, pools.stop):
        failed = done(act(actor=chief, pool=pool))
        assert (failed.state, code(failed)) == (State.FAILED, "volume_pool_gone")
    fake.ensure_pool(PoolSpec(pool.pool.name, str(uuid.uuid4()), "/srv/theirs"))
    failed = done(pools.stop(actor=chief, pool=pool))
    assert (failed.state, code(failed)) == (State.FAILED, "name_taken") and mine(fake, pool).active
    fake.stop_pool(pool.pool.name)
    failed = done(pools.start(actor=chief, pool=pool))
    assert (failed.state, code(failed)) == (State.FAILED, "name_taken") and not mine(fake, pool).active


def test_it_starts_with_its_host_or_not(pool, fake, operator, client):
    """Red when the answer of the host is not written, or the page posts the same again."""
    client.force_login(operator)
    url = reverse("hosts:pool-autostart", args=[pool.pk])
    page = reverse("hosts:pool", args=[pool.pk])
    for asked, on in (({}, False), ({"on": "1"}, True)):
        shown = client.get(page).content.decode()
        assert ("Do not start with the host" in shown, 'name="on" value="1"' in shown) == (not on, on)
        client.post(url, asked)
        assert run(Operation.objects.order_by("pk").last(), pool) == State.SUCCEEDED
        assert (mine(fake, pool).autostart, pool.observed_autostart) == (on, on)


def test_a_proof_leaves_whether_the_pool_starts_with_its_host(pool, fake, chief):
    """Red when it is set by each proof, or a new pool stays as a worker that died had left it."""
    wanted = {"name": pool.pool.name, "uuid": str(pool.pool.uuid), "path": pool.path}
    context = StepContext({"pinned": {"pool": wanted}}, {"host": pool.host_id}, lambda: None)
    assert run(pools.set_autostart(actor=chief, pool=pool, on=False), pool) == State.SUCCEEDED
    enrolment.MakePool().do(context)
    pool.refresh_from_db()
    assert not mine(fake, pool).autostart and not pool.observed_autostart
    pool.images.all().delete()
    pool.delete()
    enrolment.MakePool().do(context)
    assert PoolAttachment.objects.get().observed_autostart


def test_who_may_not_gets_nothing(pool, cast):
    """Red when one of the three does not ask for the right."""
    for act, more in ((pools.start, {}), (pools.stop, {}), (pools.set_autostart, {"on": False})):
        with pytest.raises(Denied, match="You may not"):
            act(actor=cast.requester, pool=pool, **more)


@pytest.mark.parametrize("kind", [pool_kinds.START, pool_kinds.STOP])
def test_a_worker_may_die_after_each_call(pool, fake, chief, kind, monkeypatch):
    """Red when a step cannot be done twice: a pool that was stopped has no list of volumes."""
    put(fake, pool, "left.qcow2")
    if kind == pool_kinds.START:
        fake.stop_pool(pool.pool.name)
    begun = (pools.start if kind == pool_kinds.START else pools.stop)(actor=chief, pool=pool)
    deaths = set()

    def dying(verb):
        act = getattr(fake, verb)

        def acted(*args):
            found = act(*args)
            if verb not in deaths:
                deaths.add(verb)
                raise Died
            return found

        return acted

    own = ["start_pool", "list_volumes"] if kind == pool_kinds.START else ["stop_pool", "pool_users"]
    verbs = [*own, "list_pools"]
    context = StepContext(begun.frozen, begun.identifiers, lambda: None)
    steps = next(one for one in pool_kinds.RUNNING if one.name == kind).steps
    with monkeypatch.context() as patched:
        for verb in verbs:
            patched.setattr(fake, verb, dying(verb))
        for step in steps:
            while True:
                with suppress(Died):
                    step.do(context)
                    step.do(context)
                    break
    assert deaths == set(verbs)
    pool.refresh_from_db()
    assert mine(fake, pool).active == pool.observed_active == (kind == pool_kinds.START)


def test_a_stopped_pool_is_told_on_every_page(pool, fake, chief, client):
    """Red when a page goes on as if it ran."""
    assert run(pools.stop(actor=chief, pool=pool), pool) == State.SUCCEEDED
    client.force_login(chief)
    page = client.get(reverse("hosts:pool", args=[pool.pk])).content.decode()
    assert "The pool does not run" in page and reverse("hosts:pool-start", args=[pool.pk]) in page
    assert reverse("hosts:pool-stop", args=[pool.pk]) not in page
    assert "Stopped" in client.get(reverse("hosts:pools")).content.decode()
    found = [finding for finding in report(Host.objects.get(pk=pool.host_id)) if finding.found == "Stopped"]
    assert len(found) == 1


def test_a_pool_that_runs_on_another_host_gives_its_room(pool):
    """Red when one host's stopped pool closes what others have of it."""
    told = {"scope": pool.pool.scope, "resource": "disk"}
    Counter.objects.update_or_create(**told, defaults={"limit": GIB})
    second = make_host("second", "fake://second/")
    other = PoolAttachment.objects.create(host=second, pool=pool.pool, path="/second")
    note_stopped(pool)
    assert limit(pool) == GIB
    other.observed_active = False
    other.save()
    note_stopped(pool)
    assert limit(pool) == 0
