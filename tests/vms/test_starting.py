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


def take_out(cast, host):
    return power.restore_machine(actor=cast.requester, machine=VirtualMachine.objects.get())


def autostart(host):
    return host.driver.definition(host.uuid).autostart


def test_what_lies_in_the_bin_does_not_start_with_its_host_and_comes_back_as_it_was(client, cast, host):
    """Red when vm.bin has no StayOff (the machine would run in the bin after its host's next start), or
    restore_machine() begins nothing.

    The watcher did not see yet that somebody said so on the host: it is asked.
    """
    host.driver.autostart_domain(host.uuid, True)
    assert bin_it(cast, host).state == State.SUCCEEDED and not autostart(host)
    client.force_login(cast.requester)
    assert "once it is taken out" in client.get(url("vms:detail", args=[host.machine.pk])).content.decode()
    answer = client.post(url("vms:restore", args=[host.machine.pk]), follow=True)
    assert "start it by itself again" in answer.content.decode()
    begun = Operation.objects.get(kind=power.RESTORE)
    assert not autostart(host) and work(begun).state == State.SUCCEEDED
    assert starts(host) == (True, True)


def test_what_did_not_start_with_its_host_does_not_after_the_bin(cast, host):
    """Red when restore_machine() leaves the mark in the row: it would say so after the second bin."""
    host.driver.autostart_domain(host.uuid, True)
    bin_it(cast, host)
    work(take_out(cast, host))
    assert work(put(cast, host, False)).state == State.SUCCEEDED
    bin_it(cast, host)
    assert take_out(cast, host) is None and not autostart(host)


def test_a_worker_that_died_while_it_put_a_machine_into_the_bin_forgot_nothing(cast, host):
    """Red when StayOff writes down what its host says after it told the host."""
    host.driver.autostart_domain(host.uuid, True)
    begun = power.bin_machine(actor=cast.requester, machine=host.machine, confirm_name="example")
    claimed = services.claim(begun.pk, worker="dies")
    StepRecord.objects.create(operation=claimed, index=0, name="stay_off")
    real, host.driver.autostart_domain = host.driver.autostart_domain, _dies(host.driver.autostart_domain)
    with pytest.raises(KeyboardInterrupt):
        runner.carry_on(claimed, worker="dies")
    host.driver.autostart_domain = real
    runner.carry_on(claimed, worker="dies")
    assert not autostart(host)
    work(take_out(cast, host))
    assert autostart(host)


def _dies(call):
    """Return `call`, after which its worker is dead."""

    def dying(*args):
        call(*args)
        raise KeyboardInterrupt

    return dying


def test_a_host_that_does_not_answer_is_told_when_it_is_back(cast, host):
    """Red when vm.restore does not wait for its host."""
    host.driver.autostart_domain(host.uuid, True)
    bin_it(cast, host)
    begun = take_out(cast, host)
    Host.objects.update(observed_health=Health.STALE)
    host.fail = "autostart_domain"
    assert work(begun).state == State.LOST
    host.fail = ""
    services.find_lost(lanes=[host.machine.host.scope], worker="watch")
    again = Operation.objects.get(pk=begun.pk)
    runner.carry_on(again, worker="worker")
    assert Operation.objects.get(pk=begun.pk).state == State.SUCCEEDED and autostart(host)


def test_while_a_host_is_told_again_nobody_is_told_that_it_is_so_already(cast, host):
    """Red when set_autostart() looks for its own kind alone: what it said would be overruled in silence."""
    host.driver.autostart_domain(host.uuid, True)
    bin_it(cast, host)
    take_out(cast, host)
    Definition.objects.update(observed_autostart=False)
    with pytest.raises(Denied, match="not finished"):
        put(cast, host, False)


@pytest.mark.parametrize("on", [True, False])
def test_a_deletion_that_fails_leaves_it_as_it_was(cast, host, on):
    """Red when StayOff.undo() does nothing, or sets what was not so before."""
    if on:
        work(put(cast, host, True))
    host.fail = "destroy"
    assert bin_it(cast, host).state == State.FAILED
    assert autostart(host) == on and not VirtualMachine.objects.get().binned_autostart


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
