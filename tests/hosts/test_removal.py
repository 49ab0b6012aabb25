"""A host is forgotten when nothing of the portal is on it, and only then."""

import uuid
from functools import partial

import pytest
from django.core.management import call_command
from django.db import transaction
from django.urls import reverse

from networks.models import Port
from portal.accounts.models import Notice
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.errors import HostRemoved
from portal.hosts import calls, removal, services, tasks
from portal.hosts.limits import set_limits
from portal.hosts.models import Health, Host, Image, PoolAttachment, StoragePool, Upload
from portal.operations import ledger
from portal.operations import services as operations
from portal.operations.messages import sentence
from portal.operations.models import Counter, Operation, Reservation
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from tests import factories
from tests.hosts.conftest import carry_out
from vms import placement
from vms.models import Status, VirtualMachine
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db, pytest.mark.usefixtures("own_state")]


def full(name="rack-1", uri="fake:///rack-1", pool=None):
    """A host with a pool, an image in it and counters, as an enrolment leaves it."""
    host = factories.make_host(name, uri)
    place = factories.make_place(host)
    if pool is not None:
        place.pool, unused = pool, place.pool
        place.save()
        unused.delete()
    set_limits(host)
    Counter.objects.get_or_create(scope=place.pool.scope, resource="disk", defaults={"limit": 1 << 40})
    return host


def remove(chief, host, typed=None):
    removal.remove_host(actor=chief, host=host, confirm_name=host.name if typed is None else typed)


def work(chief, host, state, kind="networks.remove", project=None):
    """An operation on a host that has come to `state`."""
    made = operations.begin_operation(
        actor=chief,
        project=project,
        spec=RequestSpec(kind, {}, {}),
        subject=f"test:{uuid.uuid4()}"[:64],
        title=f"Work on {host.name}",
        identifiers={"host": host.pk, "network": "example"},
        lane=host.scope,
    )
    lost_from = State.RUNNING if state == State.LOST else ""
    Operation.objects.filter(pk=made.pk).update(state=state, lost_from=lost_from)
    made.refresh_from_db()
    return made


def test_everything_of_the_host_goes_and_the_history_stays(chief, client):
    """Red when the counters, the pool or its images stay, or the trail does not say it."""
    host, other = full(), full("rack-2", "fake:///rack-2")
    before = work(chief, host, State.SUCCEEDED)
    pool = host.pools.get().pool
    Reservation.objects.create(
        operation=before, counter=Counter.objects.get(scope=host.scope, resource="vcpu"), amount=2,
        stage=Reservation.Stage.RELEASED,
    )  # fmt: skip
    remove(chief, host)
    assert list(Host.objects.all()) == [other]
    assert not Counter.objects.filter(scope__in=[host.scope, pool.scope]).exists()
    assert PoolAttachment.objects.get().host == other and StoragePool.objects.count() == 1
    assert Counter.objects.filter(scope=other.scope).count() == 2
    assert Image.objects.count() == 2
    entry = AuditEntry.objects.get(verb="host.removed")
    assert (entry.actor_name, entry.target_name) == (chief.username, "rack-1")
    assert entry.before == {"uri": "fake:///rack-1", "fingerprint": "", "folders": ["/example"]}
    client.force_login(chief)
    page = client.get(reverse("operations:detail", args=[before.pk])).content.decode()
    assert "Work on rack-1" in page
    assert "rack-1" in client.get(reverse("audit:trail")).content.decode()


def test_a_pool_that_another_host_shares_stays_with_what_is_taken_of_it(chief, cast):
    """Red when the pool's counter goes with the first of its hosts."""
    host = full()
    pool = host.pools.get().pool
    other = full("rack-2", "fake:///rack-2", pool=pool)
    factories.make_machine(cast, "elsewhere", other)
    counter = Counter.objects.get(scope=pool.scope)
    counter.used = 5
    counter.save()
    remove(chief, host)
    counter.refresh_from_db()
    assert counter.used == 5 and StoragePool.objects.get() == pool and pool.attachments.get().host == other


def test_an_upload_keeps_the_host_unless_it_is_given_up(chief):
    """Red when what somebody sends goes with the host, or what became a volume keeps it."""
    host, other = full(), full("rack-2", "fake:///rack-2")
    for one in (host, other):
        for state in (Upload.State.OPEN, Upload.State.DONE):
            Upload.objects.create(person=chief, pool=one.pools.get(), wanted={"title": "a"}, state=state)
    with pytest.raises(Denied, match="1 file is uploaded into its pools"):
        remove(chief, host)
    Upload.objects.filter(pool__host=host, state=Upload.State.OPEN).delete()
    remove(chief, host)
    Host.objects.update(observed_health=Health.STALE)
    removal.remove_host(actor=chief, host=other, confirm_name=other.name, give_up=True)
    assert not Upload.objects.exists() and not Host.objects.exists()


def occupied(host, cast, chief):
    """Put something of every kind on the host, one after the other, and say what the refusal must name."""
    kept = factories.make_machine(cast, "kept", host)
    yield "1 machine is on it."
    factories.make_machine(cast, "thrown-away", host, status=Status.BINNED)
    yield "2 machines are on it, 1 of them in the bin."
    VirtualMachine.objects.all().delete()
    network = factories.make_network()
    port = Port.objects.create(
        network=network, host=host, domain_uuid=kept.uuid, mac="52:54:00:00:00:01"
    )
    yield "1 network card is on its networks."
    port.delete()
    for state in (State.QUEUED, State.RUNNING, State.UNDOING):
        operation = work(chief, host, state)
        yield "1 operation on it is not finished."
        Operation.objects.filter(pk=operation.pk).update(state=State.FAILED)
    work(chief, host, State.LOST, kind="vm.start", project=cast.project)
    yield "1 operation on it is not finished."
    Operation.objects.filter(state=State.LOST).update(state=State.FAILED)


@pytest.mark.slow
def test_what_is_on_it_keeps_it_and_is_named_with_its_number(chief, cast, client):
    """Red when a room does not register, the service does not ask, or the page offers it all the same."""
    host = full()
    client.force_login(chief)
    page = lambda: client.get(reverse("hosts:detail", args=[host.pk])).content.decode()  # noqa: E731
    for reason in occupied(host, cast, chief):
        with pytest.raises(Denied, match=reason):
            remove(chief, host)
        assert reason in page() and "confirm_name" not in page()
        url = reverse("hosts:remove", args=[host.pk])
        answer = client.post(url, {"confirm_name": host.name}, follow=True)
        assert reason in answer.content.decode() and Host.objects.exists()
    assert "confirm_name" in page()
    remove(chief, host)
    assert not AuditEntry.objects.filter(verb="host.removed").exclude(target_id=host.pk).exists()


def test_capacity_that_nothing_accounts_for_keeps_it(chief):
    """Red when forget() deletes reservations that are not given back."""
    host = full()
    operation = work(chief, host, State.SUCCEEDED)
    ledger.hold(operation, {(host.scope, "vcpu"): 1})
    with pytest.raises(Denied, match="Something came onto the host"), transaction.atomic():
        remove(chief, host)
    assert Host.objects.exists() and PoolAttachment.objects.exists() and Counter.objects.count() == 3


def test_work_on_the_host_itself_that_waits_for_it_goes_with_it(chief):
    """Red when a host that never comes back is kept by what waits for it."""
    host = full()
    waits = work(chief, host, State.LOST)
    remove(chief, host)
    waits.refresh_from_db()
    assert (waits.state, waits.lost_from) == (State.CANCELLED, "") and not Host.objects.exists()


def test_a_lost_host_is_given_up_with_its_machines_and_their_owners_are_told(chief, cast, client):
    """Red when give_up_machines() is not registered, keeps what is in use, or work that waits is kept."""
    host = full()
    machine = factories.make_machine(cast, "kept", host)
    binned = factories.make_machine(cast, "thrown-away", host, image=machine.image, status=Status.BINNED)
    Port.objects.create(
        network=factories.make_network(), host=host, domain_uuid=machine.uuid, mac="52:54:00:00:00:01"
    )
    quota = Counter.objects.create(scope=f"project:{cast.project.pk}", resource="memory", limit=9, used=5)
    Reservation.objects.create(
        operation=machine.built_by, counter=quota, amount=5, stage=Reservation.Stage.USED
    )
    waits = work(chief, host, State.LOST, kind="vm.start", project=cast.project)
    Host.objects.filter(pk=host.pk).update(observed_health=Health.STALE)
    client.force_login(chief)
    assert "Give this host up" in client.get(reverse("hosts:detail", args=[host.pk])).content.decode()
    client.post(reverse("hosts:give-up", args=[host.pk]), {"confirm_name": host.name})
    assert not Host.objects.exists() and not VirtualMachine.objects.exists() and not Port.objects.exists()
    quota.refresh_from_db()
    waits.refresh_from_db()
    assert quota.used == 0 and waits.state == State.CANCELLED
    given_up = AuditEntry.objects.filter(verb="machine.given_up").values_list("target_name", flat=True)
    assert set(given_up) == {machine.name, binned.name}
    told = Notice.objects.filter(person=machine.owner, text__contains="lost with its host rack-1")
    assert told.count() == 2


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.UNDOING])
def test_a_host_that_answers_or_is_worked_on_is_not_given_up(chief, cast, client, state):
    """Red when why_not_given_up() does not ask."""
    host = full()
    factories.make_machine(cast, "kept", host)
    give_up = partial(removal.remove_host, actor=chief, host=host, confirm_name=host.name, give_up=True)
    client.force_login(chief)
    assert "Give this host up" not in client.get(reverse("hosts:detail", args=[host.pk])).content.decode()
    with pytest.raises(Denied, match="The host answers"):
        give_up()
    Host.objects.filter(pk=host.pk).update(observed_health=Health.STALE)
    work(chief, host, state, kind="vm.start", project=cast.project)
    with pytest.raises(Denied, match="1 operation on it is not finished"):
        give_up()
    assert VirtualMachine.objects.exists()


def test_only_an_admin_of_every_project_who_types_its_name(chief, cast, client):
    """Red when the service does not ask for the role or the name."""
    host = full()
    for actor in (cast.admin, cast.operator):
        with pytest.raises(Denied, match="role in every project"):
            remove(actor, host)
    for typed in ("", "rack", "RACK-1"):
        with pytest.raises(Denied, match="Type the host's name"):
            remove(chief, host, typed)
    client.force_login(chief)
    url = reverse("hosts:remove", args=[host.pk])
    client.post(url, {"confirm_name": "rack-2"})
    assert Host.objects.exists()
    answer = client.post(url, {"confirm_name": "rack-1"}, follow=True)
    assert answer.redirect_chain[-1][0] == reverse("hosts:list")
    assert "rack-1 is removed" in answer.content.decode() and not Host.objects.exists()
    assert client.post(url, {"confirm_name": "rack-1"}).status_code == 404


def test_what_comes_late_to_a_removed_host_is_refused_in_words(chief):
    """Red when a service takes the row for granted."""
    host = full()
    gone = Host.objects.get(pk=host.pk)
    remove(chief, host)
    late = (
        lambda: services.set_maintenance(actor=chief, host=gone, on=True, reason="x"),
        lambda: services.set_jump(actor=chief, host=gone, jump="rack-1"),
        lambda: services.enrol_again(actor=chief, host=gone, pool_path="/srv/gatehouse"),
        lambda: remove(chief, gone),
    )
    for act in late:
        with pytest.raises(Denied, match="rack-1 was removed meanwhile"):
            act()
    assert not Operation.objects.exists()


def test_an_operation_that_finds_no_host_fails_and_is_not_tried_for_ever(chief):
    """Red when a step lets Host.DoesNotExist out: the worker would die of it each time anew."""
    host = factories.make_host()
    operation = work(chief, host, State.QUEUED)
    host.delete()
    done = carry_out(operation)
    assert done.state == State.FAILED
    assert done.steps.get().error_code == "host_removed" and "removed" in sentence("host_removed")


def test_connections_of_workers_end_with_the_host(chief):
    """Red when the beat task does not look, or a call to a removed host raises anything but a DriverError."""
    host, other = full(), full("rack-2", "fake:///rack-2")
    for called in (host, other):
        calls.call(called.pk, "ping")
    pool = calls._pools[host.pk]
    child = pool._idle[0].process
    remove(chief, host)
    tasks.find_lost_operations()
    assert host.pk not in calls._pools and child.poll() is not None
    assert calls._pools[other.pk]._idle[0].process.poll() is None
    with pytest.raises(HostRemoved):
        calls.call(host.pk, "ping")
    remove(chief, other)
    calls.close_removed()
    assert not {host.pk, other.pk} & set(calls._pools)


def test_it_can_be_enrolled_again_and_finds_its_pool(chief):
    """Red when a name or an address stays taken, or the pool's identity is another one."""
    asked = {"actor": chief, "name": "rack-1", "uri": "fake:///rack-1", "pool_path": "/srv/gatehouse"}
    first = services.enrol_host(**asked)
    Operation.objects.update(state=State.FAILED)
    remove(chief, Host.objects.get())
    second = services.enrol_host(**asked)
    assert second.frozen["pinned"] == first.frozen["pinned"]
    assert second.identifiers != first.identifiers


def test_a_start_does_not_bring_back_what_was_removed(chief, cast, capsys):
    """Red when bootstrap enrols the host of the command line whenever there is none."""
    type(cast.admin).objects.filter(pk=cast.admin.pk).update(username="first-admin")
    type(chief).objects.filter(pk=chief.pk).update(username="admin")
    chief.refresh_from_db()
    host = full("here", "fake:///here")
    remove(chief, host)
    call_command("bootstrap", "--host", "here", "fake:///here", "/srv/gatehouse")
    assert not Host.objects.exists() and "was removed" in capsys.readouterr().out


def test_a_placement_that_was_overtaken_by_a_removal_is_refused(chief, cast, monkeypatch):
    """Red when placement does not look whether its host is still there: the machine would have none."""
    host = full()
    catalogue = factories.make_catalogue(host.pools.get().images.get().image, factories.make_network())
    wish = factories.make_wish(catalogue)
    waiting = request_machine(actor=cast.requester, project=cast.project, wish=wish, token=uuid.uuid4())
    chosen = placement.candidates

    def too_early(*args, **options):
        found = list(chosen(*args, **options))
        remove(chief, host)
        return found

    monkeypatch.setattr(placement, "candidates", too_early)
    with pytest.raises(Denied, match="removed meanwhile"), transaction.atomic():
        operations.decide(
            actor=cast.approver, operation=waiting, spec_hash=waiting.spec_hash, approved=True
        )
    assert not VirtualMachine.objects.exists()
