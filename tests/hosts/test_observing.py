"""What hosts tell becomes the picture in the database, in few queries and in the right order."""

import signal
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from networks.models import Port
from portal.drivers.observations import (
    AddressesSeen,
    Changes,
    DefinitionsSeen,
    DomainChanged,
    DomainList,
    Heartbeat,
    HostLost,
    HostSilent,
    Snapshot,
)
from portal.drivers.reading import DefinitionSeen
from portal.drivers.types import AddressInfo, DomainInfo, DomainState, HostInfo, PoolInfo
from portal.hosts import removal
from portal.hosts import watcher as watching
from portal.hosts.keys import ensure_key
from portal.hosts.limits import set_limits
from portal.hosts.models import Health
from portal.hosts.watcher import Watcher
from portal.operations.models import Counter, Operation
from portal.operations.states import State
from tests.factories import (
    GIB,
    HOST_KEY,
    make_host,
    make_image,
    make_machine,
    make_network,
    make_place,
    make_ssh_host,
)
from vms.models import Definition, Observed, Status, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]

RUNNING, OFF = DomainState.RUNNING, DomainState.SHUTOFF


@pytest.fixture
def estate(cast):
    """A host and another one, with machines on the first."""
    host, other, image = make_host(observed_at=None), make_host("other", "fake:///other"), make_image()

    def machine(name, on=host, **changes):
        return make_machine(cast, name, on, image, **changes)

    return SimpleNamespace(host=host, other=other, machine=machine, cast=cast)


@pytest.fixture
def watcher(estate):
    made = Watcher()
    made._hosts = {estate.host.uri: estate.host.pk, estate.other.uri: estate.other.pk}
    yield made
    made._pending = {}
    made.close()


def seen(machine):
    machine.refresh_from_db()
    return machine.observed_state


def listed(at, *machines, state=RUNNING):
    infos = [DomainInfo(m.domain_name, str(m.uuid), state, m.vcpus, m.memory) for m in machines]
    return DomainList(at, 0, tuple(infos))


def changed(at, *machines, state=RUNNING):
    found = tuple(DomainChanged(at, 0, str(m.uuid), m.domain_name, state) for m in machines)
    return Changes(at, 0, found)


def tell(watcher, host, *messages):
    for message in messages:
        watcher.hear(host.uri, message)
    watcher.flush()


def test_a_list_and_changes_are_written(estate, watcher):
    one, two = estate.machine("one"), estate.machine("two")
    tell(watcher, estate.host, listed(10, one, two), changed(11, two, state=OFF))
    assert (seen(one), seen(two)) == (Observed.RUNNING, Observed.SHUTOFF)
    estate.host.refresh_from_db()
    assert estate.host.observed_health == Health.UP
    assert estate.host.observed_at == datetime.fromtimestamp(10, UTC)


def test_an_older_observation_never_overwrites_a_newer_one(estate, watcher):
    """Red when _is_older is always true, in one batch or in two."""
    one = estate.machine("one")
    tell(watcher, estate.host, changed(20, one, state=OFF))
    tell(watcher, estate.host, listed(15, one))
    assert seen(one) == Observed.SHUTOFF
    tell(watcher, estate.host, changed(30, one, state=RUNNING), listed(25, one, state=OFF))
    assert seen(one) == Observed.RUNNING
    # Seen as it was by a later list: what began before that list is old too.
    tell(watcher, estate.host, listed(40, one))
    tell(watcher, estate.host, changed(35, one, state=OFF))
    assert seen(one) == Observed.RUNNING


def test_only_an_active_machine_at_rest_can_be_missing(estate, watcher):
    """Red when _missing looks at no status, or at no operation."""
    gone, building = estate.machine("gone"), estate.machine("building", status=Status.BUILDING)
    binned, moving = estate.machine("binned", status=Status.BINNED), estate.machine("moving")
    elsewhere = estate.machine("elsewhere", on=estate.other)
    just = estate.machine("just")
    operation = {"kind": "test.files", "requester": estate.cast.requester, "spec": "{}"}
    Operation.objects.create(
        **operation, state=State.RUNNING, subject=moving.topic, token=uuid.uuid4()
    )
    Operation.objects.create(
        **operation,
        state=State.SUCCEEDED,
        subject=just.topic,
        token=uuid.uuid4(),
        finished_at=datetime.fromtimestamp(12, UTC),
    )
    tell(watcher, estate.host, listed(10))
    assert seen(gone) == Observed.MISSING
    assert {seen(vm) for vm in (building, binned, moving, elsewhere, just)} == {Observed.UNKNOWN}
    tell(watcher, estate.host, listed(20, gone))
    assert seen(gone) == Observed.RUNNING
    tell(watcher, estate.host, changed(30, gone, state=None))
    assert seen(gone) == Observed.MISSING
    assert VirtualMachine.objects.count() == 6


@pytest.mark.parametrize("trouble", [HostLost(20, 0, "gone"), HostSilent(20, 0, 6.0)])
def test_a_stale_host_knows_nothing_until_its_next_list(estate, watcher, trouble):
    """Red when host_stale forgets the host, or the list after it is taken for old."""
    one, other = estate.machine("one"), estate.machine("other", on=estate.other)
    tell(watcher, estate.host, listed(10, one))
    tell(watcher, estate.other, listed(10, other))
    tell(watcher, estate.host, trouble)
    estate.host.refresh_from_db()
    assert estate.host.observed_health == Health.STALE and estate.host.observed_reason
    assert (seen(one), seen(other)) == (Observed.UNKNOWN, Observed.RUNNING)
    tell(watcher, estate.host, listed(19, one))
    assert seen(one) == Observed.UNKNOWN
    tell(watcher, estate.host, Heartbeat(21, 0), listed(22, one))
    estate.host.refresh_from_db()
    assert (estate.host.observed_health, estate.host.observed_reason) == (Health.UP, "")
    assert seen(one) == Observed.RUNNING


def test_a_burst_takes_few_queries(estate, watcher):
    """Red when a change is written by a query of its own."""
    image_of = estate.machine("model")
    built = Operation.objects.bulk_create(
        Operation(
            kind="test.files",
            requester=estate.cast.requester,
            state=State.SUCCEEDED,
            spec="{}",
            token=uuid.uuid4(),
        )
        for _ in range(1000)
    )
    fields = {f.attname: getattr(image_of, f.attname) for f in VirtualMachine._meta.concrete_fields}
    own = ("id", "name", "uuid", "built_by_id")
    common = {name: value for name, value in fields.items() if name not in own}
    VirtualMachine.objects.bulk_create(
        VirtualMachine(name=f"m{i}", uuid=uuid.uuid4(), built_by=operation, **common)
        for i, operation in enumerate(built)
    )
    machines = list(VirtualMachine.objects.filter(name__startswith="m").exclude(name="model"))
    for number, machine in enumerate(machines):
        watcher.hear(estate.host.uri, changed(10 + number / 1e4, machine))
    with CaptureQueriesContext(connection) as queries:
        watcher.flush()
    assert VirtualMachine.objects.filter(observed_state=Observed.RUNNING).count() == 1000
    assert len(queries) < 20, [query["sql"][:80] for query in queries]


def test_foreign_domains_lower_what_the_host_can_give(estate, watcher):
    """Red when set_limits leaves the foreign ones out, or managed ones are taken for foreign."""
    ours = estate.machine("ours", memory=2 * GIB)
    stranger = DomainInfo("stranger", str(uuid.uuid4()), RUNNING, 2, 3 * GIB)
    off = DomainInfo("off", str(uuid.uuid4()), OFF, 4, 4 * GIB)
    set_limits(estate.host)
    domains = (*listed(10, ours).domains, stranger, off)
    tell(watcher, estate.host, DomainList(10, 0, domains))
    limits = dict(Counter.objects.filter(scope=estate.host.scope).values_list("resource", "limit"))
    assert limits == {"vcpu": 8 * 4 - 2, "memory": 16 * GIB - GIB - 3 * GIB}
    tell(watcher, estate.host, listed(20, ours))
    limits = dict(Counter.objects.filter(scope=estate.host.scope).values_list("resource", "limit"))
    assert limits == {"vcpu": 8 * 4, "memory": 15 * GIB}


def test_a_snapshot_tells_pools_and_the_size_of_the_host(estate, watcher):
    """Red when the whole capacity of a pool is there to give, or only what is free."""
    place = make_place(estate.host)
    pool = PoolInfo("example-pool", str(place.pool.uuid), "/example", True, 100, 40, 60)
    host = HostInfo("h", "QEMU", 9_000_000, 7_000_000, 4, 8 * GIB)
    tell(watcher, estate.host, Snapshot(10, 0, (), {}, (pool,), (), host))
    place.refresh_from_db()
    estate.host.refresh_from_db()
    assert (place.observed_capacity, place.observed_available) == (100, 60)
    assert (estate.host.observed_cpus, estate.host.observed_memory) == (4, 8 * GIB)
    limit = lambda: Counter.objects.get(scope=place.pool.scope, resource="disk").limit  # noqa: E731
    assert limit() == 60
    # What was promised is the portal's own, however much of it is written; what others keep there is not.
    Counter.objects.filter(scope=place.pool.scope).update(used=10, held=5)
    tell(watcher, estate.host, Snapshot(10, 0, (), {}, (pool,), (), host))
    assert limit() == 75
    Counter.objects.filter(scope=place.pool.scope).update(used=90)
    tell(watcher, estate.host, Snapshot(10, 0, (), {}, (pool,), (), host))
    assert limit() == 100


def test_an_address_counts_only_for_the_card_it_was_given_to(estate, watcher):
    """Red when _address_of does not compare the MAC, or takes what is no address."""
    one = estate.machine("one")
    port = Port.objects.create(
        network=make_network(), host=estate.host, domain_uuid=one.uuid, mac="52:54:00:00:00:01"
    )
    told = [("52:54:00:00:00:02", "10.0.0.9"), (port.mac, "<b>"), (port.mac, "127.0.0.1")]
    told += [(port.mac, "fd00::5"), (port.mac, "10.213.77.12")]
    addresses = {str(one.uuid): tuple(AddressInfo(mac, address, 24) for mac, address in told)}
    tell(watcher, estate.host, AddressesSeen(10, 0, addresses))
    one.refresh_from_db()
    port.refresh_from_db()
    assert one.observed_address == port.observed_address == "10.213.77.12"


@pytest.mark.parametrize("state", [OFF, DomainState.SAVED])
def test_a_machine_that_is_off_has_no_address(estate, watcher, state):
    """Red when the observer keeps it, or takes a lease that outlived the machine."""
    vm = estate.machine("off")
    card = {"network": make_network(), "host": estate.host, "mac": "52:54:00:00:00:01"}
    port = Port.objects.create(domain_uuid=vm.uuid, **card)
    lease = {str(vm.uuid): (AddressInfo(port.mac, "10.213.77.20", 24),)}
    tell(watcher, estate.host, listed(1, vm), AddressesSeen(1.0, 1, lease))
    port.refresh_from_db()
    vm.refresh_from_db()
    assert vm.observed_address == port.observed_address == "10.213.77.20"
    tell(watcher, estate.host, changed(2, vm, state=state), AddressesSeen(2.0, 2, lease))
    port.refresh_from_db()
    vm.refresh_from_db()
    assert (vm.observed_address, port.observed_address) == (None, None)


def defined(at, *machines, title="", running=None, digest="d"):
    values = {"name": "a", "title": title}
    seen = DefinitionSeen(digest + title, values, running, 3)
    return DefinitionsSeen(at, 0, {str(machine.uuid): seen for machine in machines})


def titles(host):
    return dict(Definition.objects.filter(host=host).values_list("uuid", "observed_persistent__title"))


def test_definitions_are_written_the_newer_over_the_older(estate, watcher):
    """Red when noted.write() compares no moments, or forgets what did not change."""
    one, two = estate.machine("one"), estate.machine("two")
    tell(watcher, estate.host, defined(10, one, two, title="first"))
    tell(watcher, estate.host, defined(12, one, title="second"), defined(11, one, title="late"))
    tell(watcher, estate.host, defined(11.5, one, title="later"), defined(11.5, two, title="first"))
    assert titles(estate.host) == {one.uuid: "second", two.uuid: "first"}
    row = Definition.objects.get(uuid=two.uuid)
    assert (row.observed_at.timestamp(), row.observed_digest, row.observed_kept) == (11.5, "dfirst", 3)
    assert titles(estate.other) == {}


def test_definitions_of_domains_that_are_gone_are_forgotten(estate, watcher):
    """Red when a list is not complete and forgets, or one that began earlier does."""
    one, two = estate.machine("one"), estate.machine("two")
    stranger = SimpleNamespace(uuid=uuid.uuid4(), domain_name="stranger", vcpus=1, memory=GIB)
    tell(watcher, estate.host, listed(9, one, two, stranger), defined(10, one, two, stranger))
    assert set(titles(estate.host)) == {one.uuid, two.uuid, stranger.uuid}
    tell(watcher, estate.host, changed(11, one))
    tell(watcher, estate.host, listed(9.5, one))
    assert len(titles(estate.host)) == 3
    tell(watcher, estate.host, listed(12, one, stranger))
    assert set(titles(estate.host)) == {one.uuid, stranger.uuid}


def test_pages_hear_of_a_definition_that_changed_alone(estate, watcher, monkeypatch):
    """Red when noted.write() rings for what was seen as it was."""
    rung = []
    monkeypatch.setattr("vms.noted.publish", lambda *topics: rung.extend(topics))
    one = estate.machine("one")
    tell(watcher, estate.host, defined(10, one, title="first"))
    assert rung == [one.topic]
    tell(watcher, estate.host, defined(11, one, title="first"))
    assert rung == [one.topic]
    tell(watcher, estate.host, defined(12, one, title="first", running={"name": "a"}))
    assert rung == [one.topic] * 2


def test_what_was_seen_waits_for_a_locked_database(estate, watcher, monkeypatch):
    """Red when flush forgets what is pending before it is written."""
    one = estate.machine("one")

    def locked(*_args):
        raise OperationalError("database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(watching, "write", locked)
        # The connection that holds the test's own transaction must stay.
        patched.setattr(watching, "close_old_connections", lambda: None)
        tell(watcher, estate.host, listed(10, one))
        tell(watcher, estate.host, changed(12, one, state=OFF))
    assert seen(one) == Observed.UNKNOWN
    watcher.flush()
    assert seen(one) == Observed.SHUTOFF


def test_a_broken_observation_costs_only_itself(estate, watcher, caplog):
    """Red when _write_one lets any error out."""
    one, other = estate.machine("one"), estate.machine("other", on=estate.other)
    watcher.hear(estate.host.uri, DomainList("nonsense", 0, ()))
    watcher.hear(estate.host.uri, DomainList(10, 0, (None,)))
    watcher.hear(estate.other.uri, listed(10, other))
    watcher.flush()
    assert seen(other) == Observed.RUNNING
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2
    tell(watcher, estate.host, listed(11, one))
    assert seen(one) == Observed.RUNNING


def test_hosts_are_read_again(estate, chief, watcher, monkeypatch):
    """Red when _read_hosts never removes, or what a removed host told last is written all the same."""
    monkeypatch.setattr(watching, "READ_HOSTS_SECONDS", 0)
    watcher.turn(0)
    assert watcher._watch.uris == {estate.host.uri, estate.other.uri}
    child = watcher._watch._hosts[estate.other.uri]._child.process
    assert child.poll() is None
    watcher.hear(estate.other.uri, Heartbeat(10, 0))
    removal.remove_host(actor=chief, host=estate.other, confirm_name="other")
    watcher.turn(0)
    assert watcher._watch.uris == {estate.host.uri}
    assert child.wait(10) == -signal.SIGKILL
    watcher.flush()
    watcher.hear("fake:///other", Heartbeat(11, 0))
    assert not watcher._pending and not Counter.objects.filter(scope=estate.other.scope).exists()


def test_the_files_of_a_removed_host_go(chief, watcher, monkeypatch, own_state):
    """Red when the watcher leaves the portal's key in the folder of a host that is no more."""
    ensure_key(chief)
    monkeypatch.setattr(watching, "READ_HOSTS_SECONDS", 0)
    monkeypatch.setattr(watcher._watch, "add", lambda _uri: None)
    ssh_host, kept = (make_ssh_host(name, host_key=HOST_KEY) for name in ("rack-1", "rack-2"))
    watcher.turn(0)
    folders = own_state / "run/ssh"
    assert len(list(folders.iterdir())) == 2
    Operation.objects.filter(subject=ssh_host.topic).delete()
    removal.remove_host(actor=chief, host=ssh_host, confirm_name="rack-1")
    watcher.turn(0)
    assert [path.name.split("-")[0] for path in folders.iterdir()] == [str(kept.pk)]
