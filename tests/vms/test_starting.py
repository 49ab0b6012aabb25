"""Machines that start with their host: who says so, what the host is told, and the bin."""

from types import SimpleNamespace

import pytest
from django.urls import reverse as url
from django.utils import timezone

from portal.core.errors import Denied
from portal.drivers.fake import FakeDriver
from portal.drivers.types import DomainSpec
from portal.hosts import steps
from portal.hosts.models import Health, Host
from portal.operations import runner, services
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from tests.factories import GIB, make_host, make_machine
from vms import noted, power, starting
from vms.models import Definition, Observed, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def host(cast, monkeypatch):
    """A fake host with a machine that is off; `fail` names the driver's verb that goes wrong."""
    driver = FakeDriver()
    here = SimpleNamespace(driver=driver, fail="")

    def call(_host, verb, *args, timeout=0):
        if verb == here.fail:
            driver.reachable = False
        try:
            return getattr(driver, verb)(*args)
        finally:
            driver.reachable = True

    monkeypatch.setattr(steps, "call", call)
    monkeypatch.setattr(runner, "PATIENCE", 0)
    here.machine = make_machine(cast, "example", make_host(), observed_state=Observed.SHUTOFF)
    here.uuid = str(here.machine.uuid)
    driver.define(DomainSpec("example", here.uuid, 1, GIB))
    noted.note(here.machine.host_id, here.uuid, driver.definition(here.uuid), timezone.now())
    return here


def work(operation):
    claimed = services.claim(operation.pk, worker="worker")
    runner.carry_on(claimed, worker="worker")
    return Operation.objects.get(pk=operation.pk)


def put(cast, host, on):
    return starting.set_autostart(actor=cast.requester, machine=host.machine, on=on)


def starts(host):
    """Return what the host does, and what the portal knows of it."""
    return host.driver.definition(host.uuid).autostart, Definition.objects.get().observed_autostart


def test_it_starts_with_its_host_and_then_no_more(cast, host):
    """Red when Autostart does not tell the host, or does not note what the host says then."""
    assert starts(host) == (False, False)
    assert work(put(cast, host, True)).state == State.SUCCEEDED
    assert starts(host) == (True, True)
    assert put(cast, host, True) is None
    assert work(put(cast, host, False)).state == State.SUCCEEDED
    assert starts(host) == (False, False)


def test_a_worker_that_died_in_the_middle_told_the_host_once(cast, host):
    begun = put(cast, host, True)
    claimed = services.claim(begun.pk, worker="dies")
    StepRecord.objects.create(operation=claimed, index=0, name="autostart")
    host.driver.autostart_domain(host.uuid, True)
    runner.carry_on(claimed, worker="dies")
    assert Operation.objects.get(pk=begun.pk).state == State.SUCCEEDED and starts(host) == (True, True)


def test_what_somebody_said_on_the_host_is_seen(cast, host):
    """Red when noted.write() takes a definition that is the same for no news."""
    host.driver.autostart_domain(host.uuid, True)
    noted.note(host.machine.host_id, host.uuid, host.driver.definition(host.uuid), timezone.now())
    assert starts(host) == (True, True)


def test_who_may_not_use_a_machine_does_not_say_when_it_starts(cast, host):
    with pytest.raises(Denied, match="Only the owner"):
        starting.set_autostart(actor=cast.auditor, machine=host.machine, on=True)
    Host.objects.update(observed_health=Health.STALE)
    with pytest.raises(Denied, match="does not answer"):
        put(cast, host, True)


def test_a_machine_whose_lease_ended_can_only_stop_starting(cast, host):
    """Red when the lease is not asked, or keeps one from starting no more."""
    work(put(cast, host, True))
    VirtualMachine.objects.update(lease_until=timezone.now())
    assert work(put(cast, host, False)).state == State.SUCCEEDED
    with pytest.raises(Denied, match="lease of this machine ended"):
        put(cast, host, True)


def bin_it(cast, host):
    return work(power.bin_machine(actor=cast.requester, machine=host.machine, confirm_name="example"))


def test_what_lies_in_the_bin_does_not_start_with_its_host(cast, host):
    """Red when vm.bin has no StayOff: the machine would run in the bin after its host's next start."""
    host.driver.autostart_domain(host.uuid, True)
    assert bin_it(cast, host).state == State.SUCCEEDED
    assert not host.driver.definition(host.uuid).autostart


@pytest.mark.parametrize("on", [True, False])
def test_a_deletion_that_fails_leaves_it_as_it_was(cast, host, on):
    """Red when StayOff.undo() does nothing, or sets what was not so before."""
    if on:
        work(put(cast, host, True))
    host.fail = "destroy"
    assert bin_it(cast, host).state == State.FAILED
    assert host.driver.definition(host.uuid).autostart == on


def test_a_machine_that_is_gone_from_its_host_can_be_deleted(cast, host):
    """Red when StayOff takes a domain that is not there for a failure."""
    host.driver.undefine(host.uuid)
    assert bin_it(cast, host).state == State.SUCCEEDED


def test_the_page_of_settings_offers_what_is_not_so(client, cast, host):
    """Red when the button posts what is so already."""
    client.force_login(cast.requester)
    page = url("vms:settings", args=[host.machine.pk])
    said = client.get(page).content.decode()
    assert "Start with the host" in said and "Do not start with the host" not in said
    answer = client.post(url("vms:autostart", args=[host.machine.pk]), {"on": "1"})
    begun = Operation.objects.get(kind=starting.NAME)
    assert answer.url == url("operations:detail", args=[begun.pk])
    work(begun)
    assert "Do not start with the host" in client.get(page).content.decode()
    again = client.post(url("vms:autostart", args=[host.machine.pk]), {"on": "1"}, follow=True)
    assert "set so already" in again.content.decode()
