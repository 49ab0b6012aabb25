"""Suspending a machine to disk: who may when, that it goes on, what it forbids meanwhile, how it ends."""

from types import SimpleNamespace

import pytest
from django.db import transaction
from django.urls import reverse as url
from django.utils import timezone

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.drivers.errors import CallTimeout, CannotRestore, CannotSave, InvalidState, NoRoomToSave
from portal.drivers.fake import FakeDriver
from portal.drivers.types import DomainSpec, DomainState
from portal.hosts import steps
from portal.hosts.models import Host
from portal.operations import runner, services
from portal.operations.messages import sentence
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from tests.factories import GIB, make_host, make_machine
from vms import naming, noted, power, power_steps
from vms.changes import asking
from vms.models import Observed, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def host(cast, monkeypatch):
    """A fake host with a machine that runs; `calls` are those that it got, with their limits."""
    driver = FakeDriver()
    here = SimpleNamespace(driver=driver, calls=[])

    def call(_host, verb, *args, timeout=0):
        here.calls.append((verb, timeout))
        return getattr(driver, verb)(*args)

    monkeypatch.setattr(steps, "call", call)
    monkeypatch.setattr(runner, "PATIENCE", 0)
    here.machine = make_machine(cast, "example", make_host(), observed_state=Observed.RUNNING)
    here.uuid = str(here.machine.uuid)
    driver.define(DomainSpec("example", here.uuid, 1, GIB))
    driver.start(here.uuid)
    return here


@pytest.fixture
def saved(host):
    host.driver.save(host.uuid)
    look(host)
    return host


def look(host):
    """Let the portal see what the machine is."""
    state = host.driver.domain_info(host.uuid).state.value
    VirtualMachine.objects.update(observed_state=state)
    host.machine.refresh_from_db()


def work(operation):
    """Let a worker carry the operation out."""
    claimed = services.claim(operation.pk, worker="worker")
    runner.carry_on(claimed, worker="worker")
    return Operation.objects.get(pk=operation.pk)


def act(cast, host, verb):
    return work(power.act(actor=cast.requester, machine=host.machine, verb=verb))


def discard(cast, host):
    return power.discard_saved(actor=cast.requester, machine=host.machine, confirm_name="example")


def state(host):
    return host.driver.domain_info(host.uuid).state


@pytest.mark.parametrize("verb", [None, "suspend"])
def test_it_is_off_and_goes_on_as_it_was(cast, host, verb):
    """Red when a start of what is saved is not allowed, or what is paused cannot be saved."""
    if verb:
        act(cast, host, verb)
        look(host)
    before = state(host)
    assert act(cast, host, "save").state == State.SUCCEEDED
    assert state(host) is DomainState.SAVED
    look(host)
    assert host.machine.get_observed_state_display() == "Suspended to disk"
    assert act(cast, host, "start").state == State.SUCCEEDED
    assert state(host) is before
    assert AuditEntry.objects.filter(target_name="Suspend to disk example").exists()


def test_writing_and_reading_memory_may_take_long_and_a_plain_start_may_not(cast, host):
    """Red when Save or Start has the limit of a quick call: the memory of a large machine takes minutes."""
    act(cast, host, "save")
    look(host)
    act(cast, host, "start")
    look(host)
    act(cast, host, "destroy")
    look(host)
    act(cast, host, "start")
    told = [limit for verb, limit in host.calls if verb in {"save", "start"}]
    assert told[:2] == [power_steps.MEMORY_PATIENCE] * 2 and told[2] < power_steps.MEMORY_PATIENCE


def test_a_worker_that_died_in_the_middle_saved_it_once(cast, host):
    """Red when the step fails of a machine that is saved already."""
    begun = power.act(actor=cast.requester, machine=host.machine, verb="save")
    claimed = services.claim(begun.pk, worker="dies")
    StepRecord.objects.create(operation=claimed, index=0, name="save")
    host.driver.save(host.uuid)
    runner.carry_on(claimed, worker="dies")
    assert Operation.objects.get(pk=begun.pk).state == State.SUCCEEDED and state(host) is DomainState.SAVED


def test_a_worker_that_died_restored_what_was_paused(cast, host):
    """Red when Start takes it for a machine that somebody paused: nothing is left to be done."""
    act(cast, host, "suspend")
    look(host)
    act(cast, host, "save")
    look(host)
    begun = power.act(actor=cast.requester, machine=host.machine, verb="start")
    claimed = services.claim(begun.pk, worker="dies")
    StepRecord.objects.create(operation=claimed, index=0, name="start")
    host.driver.start(host.uuid)
    runner.carry_on(claimed, worker="dies")
    assert Operation.objects.get(pk=begun.pk).state == State.SUCCEEDED and state(host) is DomainState.PAUSED


def test_a_machine_that_was_off_and_is_paused_is_not_started(cast, host):
    """Red when any machine that is paused counts as started."""
    act(cast, host, "destroy")
    look(host)
    begun = power.act(actor=cast.requester, machine=host.machine, verb="start")
    host.driver.start(host.uuid)
    host.driver.suspend(host.uuid)
    assert work(begun).steps.get().error_code == "invalid_state"


def test_what_was_saved_and_cannot_be_started_now_is_not_taken_for_restored(cast, saved, monkeypatch):
    """Red when what was saved is not looked at again."""
    begun = power.act(actor=cast.requester, machine=saved.machine, verb="start")

    def refuse(_uuid):
        raise InvalidState("another call")

    monkeypatch.setattr(saved.driver, "start", refuse)
    assert work(begun).state == State.FAILED and state(saved) is DomainState.SAVED


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CannotSave("domain has assigned non-USB host devices"), "It says: domain has assigned non-USB host"),
        (NoRoomToSave("No space left on device"), "no room for the machine's memory"),
        (NoRoomToSave("No space left on device"), "other machines of the host are paused"),
        (CallTimeout("save did not end in time"), "took too long"),
    ],
)
def test_what_cannot_be_saved_goes_on_and_says_why(cast, host, error, told):
    """Red when a failed save switches the machine off, or its sentence does not name the hypervisor's."""
    host.driver.save_fails = error
    failed = act(cast, host, "save")
    assert failed.state == State.FAILED and state(host) is DomainState.RUNNING
    record = failed.steps.get()
    assert told in sentence(record.error_code, record.error_raw)


def test_what_cannot_be_restored_is_kept(cast, saved, monkeypatch):
    def refuse(_uuid):
        raise CannotRestore("file is damaged")

    monkeypatch.setattr(saved.driver, "start", refuse)
    failed = act(cast, saved, "start")
    record = failed.steps.get()
    assert failed.state == State.FAILED and state(saved) is DomainState.SAVED
    assert sentence(record.error_code, record.error_raw).endswith("The hypervisor says: file is damaged")


@pytest.mark.parametrize("verb", ["edit", "clone", "template", "export"])
def test_it_is_not_changed_and_not_copied(cast, saved, verb):
    """Red when state_forbids() takes what is saved for what is off."""
    with pytest.raises(Denied, match="Start it, or discard what was saved"), transaction.atomic():
        power.usable(cast.requester, saved.machine, verb)


def test_an_approved_change_finds_it_saved(cast, saved):
    """Red when a change that was asked for before is begun on what is saved."""
    frozen, topic = {"pinned": {"machine": saved.uuid}}, saved.machine.topic
    asked = SimpleNamespace(frozen=frozen, requester=cast.requester, subject=topic, pk=0)
    with pytest.raises(Denied, match="discard what was saved"), transaction.atomic():
        asking.claim(asked)


def test_it_is_named_binned_and_deleted_for_good(cast, saved):
    """Red when undefine() refuses what is saved, the bin wants it started first, or its title is a change."""
    noted.note(saved.machine.host_id, saved.uuid, saved.driver.definition(saved.uuid), timezone.now())
    named = naming.rename_machine(
        actor=cast.requester,
        machine=saved.machine,
        name="other",
        labels="a=b",
        seen=naming.named(saved.machine),
    )
    assert work(named).state == State.SUCCEEDED and state(saved) is DomainState.SAVED
    assert "<title>other</title>" in saved.driver.definition(saved.uuid).persistent
    saved.machine.refresh_from_db()
    binned = power.bin_machine(actor=cast.requester, machine=saved.machine, confirm_name="other")
    assert work(binned).state == State.SUCCEEDED and state(saved) is DomainState.SAVED
    purged = power.purge_machine(actor=cast.requester, machine=saved.machine, confirm_name="other")
    assert work(purged).state == State.SUCCEEDED
    assert saved.driver.list_domains() == () and not VirtualMachine.objects.exists()


def test_what_was_saved_is_discarded_once_its_name_is_typed(cast, saved):
    """Red when discard_saved() does not ask for the name."""
    with pytest.raises(Denied, match="name exactly"):
        power.discard_saved(actor=cast.requester, machine=saved.machine, confirm_name="exampel")
    assert work(discard(cast, saved)).state == State.SUCCEEDED
    assert state(saved) is DomainState.SHUTOFF
    look(saved)
    with pytest.raises(Denied, match="Nothing is saved"):
        discard(cast, saved)


def test_who_may_not_use_it_discards_nothing(cast, saved):
    with pytest.raises(Denied, match="Only the owner"):
        power.discard_saved(actor=cast.auditor, machine=saved.machine, confirm_name="example")


def test_its_lease_must_last_to_start_it(cast, saved):
    VirtualMachine.objects.update(lease_until="2000-01-01T00:00Z")
    with pytest.raises(Denied, match="lease"):
        power.act(actor=cast.requester, machine=saved.machine, verb="start")


def test_a_host_that_cannot_does_not_offer_it(client, cast, host):
    """Red when nobody asks what the host said of itself."""
    client.force_login(cast.requester)
    offered = url("vms:act", args=[host.machine.pk, "save"])
    assert offered in client.get(url("vms:detail", args=[host.machine.pk])).content.decode()
    Host.objects.update(readiness={"saves": False})
    assert offered not in client.get(url("vms:detail", args=[host.machine.pk])).content.decode()
    with pytest.raises(Denied, match="cannot suspend machines to disk"):
        power.act(actor=cast.requester, machine=host.machine, verb="save")


def test_the_page_says_what_it_is_and_leads_to_giving_it_up(client, cast, saved):
    client.force_login(cast.requester)
    page = client.get(url("vms:detail", args=[saved.machine.pk])).content.decode()
    address = url("vms:discard", args=[saved.machine.pk])
    assert "Suspended to disk" in page and "it goes on where it was" in page and address in page
    assert "had in memory is lost" in client.get(address).content.decode()
    refused = client.post(address, {"confirm_name": "exampel"})
    assert refused.status_code == 422 and "This is not the name" in refused.content.decode()
    answer = client.post(address, {"confirm_name": "example"})
    begun = Operation.objects.get(kind="vm.discard")
    assert answer.url == url("operations:detail", args=[begun.pk])


def test_of_what_is_not_saved_there_is_nothing_to_discard(client, cast, host):
    client.force_login(cast.requester)
    address = url("vms:discard", args=[host.machine.pk])
    assert address not in client.get(url("vms:detail", args=[host.machine.pk])).content.decode()
    assert "Nothing is saved of this machine" in client.get(address).content.decode()
    assert client.post(address, {"confirm_name": "example"}).status_code == 422
    assert not Operation.objects.filter(kind="vm.discard").exists()
