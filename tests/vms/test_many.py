"""One thing done to many machines: each for itself, some at a time on a host, and all of it on one page."""

import uuid

import pytest
from django.urls import reverse as url

from portal.accounts.models import Project
from portal.core.errors import Denied
from portal.operations import services as operations
from portal.operations.models import Operation
from portal.operations.services import claim
from portal.operations.states import State
from portal.operations.transitions import move
from tests.factories import make_host, make_image, make_machine
from vms import bulk, power
from vms.models import Observed, Status, VirtualMachine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def machines(cast):
    """Seven machines of the requester's that run on one host."""
    host, image = make_host(), make_image()
    running = {"observed_state": Observed.RUNNING}
    return [make_machine(cast, f"example-{number}", host, image, **running) for number in range(7)]


def begin(actor, machines, verb="shutdown", token=None, **more):
    return bulk.begin(actor=actor, machines=machines, verb=verb, token=token or uuid.uuid4(), **more)


def test_each_becomes_an_operation_and_who_may_not_is_left_alone(cast, machines):
    """Red when a refusal of one ends the others."""
    VirtualMachine.objects.filter(pk=machines[1].pk).update(observed_state=Observed.SHUTOFF)
    elsewhere = Project.objects.create(name="elsewhere")
    VirtualMachine.objects.filter(pk=machines[2].pk).update(owner=cast.admin, project=elsewhere)
    begun = begin(cast.requester, machines)
    assert begun.count == 5
    assert {one.machine.name: one.reason for one in begun.refused} == {
        "example-1": "The machine is off.",
        "example-2": "Only the owner, an operator or an admin may do this.",
    }
    made = Operation.objects.filter(batch=begun.batch)
    assert {one.kind for one in made} == {"vm.shutdown"} and made.count() == 5


def test_many_are_suspended_to_disk_and_started_again(cast, machines):
    """Red when the verb is not offered for many."""
    VirtualMachine.objects.filter(pk=machines[1].pk).update(observed_state=Observed.SAVED)
    begun = begin(cast.requester, machines, "save")
    assert [one.reason for one in begun.refused] == ["The machine is suspended to disk."]
    assert {one.kind for one in Operation.objects.filter(batch=begun.batch)} == {"vm.save"}
    assert begin(cast.requester, machines[1:2], "start").count == 1


def test_nothing_begun_is_a_refusal(cast, machines):
    with pytest.raises(Denied, match="Nothing could be done. The machine is running"):
        begin(cast.requester, machines, "start")
    assert not Operation.objects.exclude(batch=None).exists()


def test_a_doubled_click_is_one_batch_and_nobody_elses(cast, machines):
    """Red when begin() does not look for its token."""
    token = uuid.uuid4()
    begin(cast.requester, machines, token=token)
    assert begin(cast.requester, machines, token=token).count == 7
    assert Operation.objects.filter(batch=token).count() == 7
    with pytest.raises(Denied, match="already used"):
        begin(cast.operator, machines, token=token)


def test_what_was_cut_off_in_the_middle_is_completed_by_its_own_form(cast, machines):
    """Red when a repeat is content with what the first began, or asks for some of it again."""
    token = uuid.uuid4()
    begin(cast.requester, machines[:3], token=token)
    move(Operation.objects.filter(batch=token).first(), State.CANCELLED, actor=cast.requester)
    assert begin(cast.requester, machines, token=token).count == 7
    assert Operation.objects.filter(batch=token).count() == 7


def test_a_repeat_asks_again_for_who_was_refused(cast, machines):
    token = uuid.uuid4()
    VirtualMachine.objects.filter(pk=machines[1].pk).update(observed_state=Observed.SHUTOFF)
    assert len(begin(cast.requester, machines, token=token).refused) == 1
    VirtualMachine.objects.filter(pk=machines[1].pk).update(observed_state=Observed.RUNNING)
    begun = begin(cast.requester, machines, token=token)
    assert (begun.count, begun.refused) == (7, [])


def test_the_other_half_of_a_doubled_click_refuses_nobody(cast, machines, monkeypatch):
    """Red when a machine that was begun meanwhile in the same batch counts as refused."""
    token, act = uuid.uuid4(), power.act

    def twice(**asked):
        act(**asked)
        return act(**asked)

    monkeypatch.setattr(power, "act", twice)
    begun = begin(cast.requester, machines, token=token)
    assert (begun.count, begun.refused) == (7, [])


def test_a_deletion_that_was_cut_off_is_completed_when_some_are_in_the_bin(client, cast, machines):
    """Red when the page leaves out what the first half put into the bin: the number would not fit."""
    client.force_login(cast.requester)
    token = uuid.uuid4()
    begin(cast.requester, machines[:2], "delete", token=token, confirm_count="2")
    for operation in Operation.objects.filter(batch=token):
        move(operation, State.CANCELLED, actor=cast.requester)
    VirtualMachine.objects.filter(pk__in=[machines[0].pk, machines[1].pk]).update(status=Status.BINNED)
    typed = {"machine": [vm.pk for vm in machines], "verb": "delete", "sure": "1", "token": token}
    answer = client.post(url("vms:many"), typed | {"confirm_count": "7"})
    assert answer.status_code == 302
    assert Operation.objects.filter(batch=token).count() == 7


@pytest.mark.parametrize("verb", sorted(bulk.LOSING))
def test_what_loses_something_is_confirmed_by_the_number(cast, machines, verb):
    for typed in ("", "6"):
        with pytest.raises(Denied, match="Type the number") as refused:
            begin(cast.requester, machines, verb, confirm_count=typed)
        assert refused.value.field == "confirm_count"
    assert begin(cast.requester, machines, verb, confirm_count="7").count == 7


def test_a_host_carries_out_some_of_them_at_a_time_and_others_do_not_wait(cast, machines, settings):
    """Red when claim() or next_in_lane() does not look at the batch."""
    settings.BATCH_CAP = 2
    batch = begin(cast.requester, machines[:6]).batch
    keys = list(Operation.objects.filter(batch=batch).order_by("pk").values_list("pk", flat=True))
    taken = [claim(pk, worker="worker") for pk in keys]
    assert [one is not None for one in taken] == [True, True, False, False, False, False]
    single = power.act(actor=cast.requester, machine=machines[6], verb="reboot")
    assert _sent(single.lane) == [single.pk]
    move(taken[0], State.SUCCEEDED, actor="worker")
    sent = _sent(single.lane)
    assert sent[0] == keys[2] and sent[-1] == single.pk
    assert claim(single.pk, worker="worker") is not None


def test_slow_work_leaves_workers_to_what_is_quick(cast, machines, settings):
    """Red when claim() or next_in_lane() takes what is slow as anything else, or "save" is not slow."""
    settings.BATCH_CAP = 8
    slow = [power.act(actor=cast.requester, machine=one, verb="save") for one in machines[:5]]
    taken = [claim(one.pk, worker="worker") for one in slow]
    assert [one is not None for one in taken] == [True, True, True, False, False]
    quick = power.act(actor=cast.requester, machine=machines[6], verb="destroy")
    assert _sent(quick.lane) == [quick.pk]
    assert claim(quick.pk, worker="worker") is not None
    move(taken[0], State.SUCCEEDED, actor="worker")
    assert slow[3].pk in _sent(quick.lane) and claim(slow[3].pk, worker="worker") is not None
    assert claim(slow[4].pk, worker="worker") is None


def _sent(lane):
    sent = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operations, "send", lambda name, pk: sent.append(pk))
        operations.next_in_lane(lane)
    return sent


def test_the_page_names_them_all_before_and_shows_them_after(client, cast, machines):
    VirtualMachine.objects.filter(pk=machines[1].pk).update(observed_state=Observed.SHUTOFF)
    client.force_login(cast.requester)
    shown = client.get(url("vms:list")).content.decode()
    assert f'form="many" name="machine" value="{machines[0].pk}"' in shown
    typed = {"machine": [vm.pk for vm in machines], "verb": "destroy"}
    asked = client.post(url("vms:many"), typed)
    page = asked.content.decode()
    assert asked.status_code == 200 and "<li>example-0</li>" in page
    assert "example-1: The machine is off." in page
    assert "Type 7" in page and not Operation.objects.exclude(batch=None).exists()
    token = uuid.uuid4()
    sure = typed | {"sure": "1", "token": token}
    assert client.post(url("vms:many"), sure | {"confirm_count": "6"}).status_code == 422
    answer = client.post(url("vms:many"), sure | {"confirm_count": "7"}, follow=True)
    page = answer.content.decode()
    assert answer.redirect_chain[-1][0] == url("operations:together", args=[token])
    assert "0 of 6 done" in page and "example-1: The machine is off." in page


def test_machines_that_one_does_not_see_are_not_there(client, cast, machines):
    other = type(cast.requester).objects.create(username="other")
    client.force_login(other)
    typed = {"machine": [machines[0].pk], "verb": "start", "sure": "1", "token": uuid.uuid4()}
    assert client.post(url("vms:many"), typed).status_code == 404
    assert client.post(url("vms:many"), typed | {"verb": "purge"}).status_code == 400
