"""Several machines by one request: asked, approved and begun together or not; and the page of all."""

import uuid

import pytest
from django.urls import reverse as url

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.live import panels
from portal.operations import live, quotas, revisions, scopes, words
from portal.operations import services as operations
from portal.operations.models import Counter, Operation, Reservation
from portal.operations.policies.rules import Effect, Rule
from portal.operations.policies.services import add_policy
from portal.operations.runner import carry_on
from portal.operations.services import claim
from portal.operations.states import State
from portal.operations.transitions import move
from tests import factories
from tests.factories import MIB
from vms import prefill, services
from vms.models import VirtualMachine
from vms.services import DEPLOY, KIND, request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def host():
    return factories.make_host()


@pytest.fixture
def catalogue(host):
    image = factories.make_image()
    factories.make_place(host, image=image)
    return factories.make_catalogue(image, factories.make_network())


def ask(cast, catalogue, count=5, name="web", token=None):
    wish = factories.make_wish(catalogue, name=name, count=count)
    return request_machine(
        actor=cast.requester, project=cast.project, wish=wish, token=token or uuid.uuid4()
    )


def consent(cast, asked):
    return operations.decide(actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=True)


def taken(scope, resource):
    counter = Counter.objects.get(scope=scope, resource=resource)
    return counter.held, counter.used


def parts(asked):
    return list(Operation.objects.filter(batch=asked.token).order_by("pk"))


def test_one_request_holds_the_quota_of_all_and_says_so(cast, catalogue):
    """Red when the sizes are those of one machine."""
    asked = ask(cast, catalogue)
    assert (asked.kind, asked.state, Operation.objects.count()) == (DEPLOY, State.AWAITING_APPROVAL, 1)
    project = scopes.of_project(cast.project)
    assert taken(project, "memory") == (5 * 128 * MIB, 0) and taken(project, "machines") == (5, 0)
    facts = {fact.label: fact.value for fact in words.facts(asked.frozen)}
    assert facts["Machines"] == "5" and facts["vCPUs"] == "5" and facts["Cost a month"] == "12.50"
    assert facts["Name"] == "web-1 – web-5" and facts["Each of them"].startswith("vCPUs 1, Memory 128 MiB")


def test_a_quota_for_four_refuses_five(cast, chief, catalogue):
    quotas.set_quota(actor=chief, scope=scopes.of_project(cast.project), limits={"machines": 4})
    with pytest.raises(Denied, match="5 asked"):
        ask(cast, catalogue)
    assert not Operation.objects.exists() and not Reservation.objects.exists()


def test_at_the_approval_each_becomes_an_operation_with_what_it_holds(cast, host, catalogue):
    """Red when divide() leaves the request's own reservations, or a part holds nothing."""
    Counter.objects.create(scope=host.scope, resource="memory")
    asked = consent(cast, ask(cast, catalogue))
    made = parts(asked)
    assert [one.title for one in made] == [f"Create web-{number}" for number in range(1, 6)]
    assert {(one.kind, one.state) for one in made} == {(KIND, State.QUEUED)}
    assert sorted(VirtualMachine.objects.values_list("name", flat=True)) == [f"web-{n}" for n in range(1, 6)]
    assert [one.frozen["pinned"]["cloud"]["hostname"] for one in made] == [f"web-{n}" for n in range(1, 6)]
    assert {one.frozen["pinned"]["cost_month"] for one in made} == {"2.50"}
    assert len({one.identifiers["mac"] for one in made}) == 5
    assert not asked.reservations.exists()
    project = scopes.of_project(cast.project)
    assert taken(project, "memory") == taken(host.scope, "memory") == (5 * 128 * MIB, 0)
    assert AuditEntry.objects.filter(verb="operation.begun", after__part_of=asked.pk).count() == 5

    carry_on(claim(asked.pk, worker="worker"), worker="worker")
    asked.refresh_from_db()
    assert asked.state == State.SUCCEEDED
    # One ends, one fails: each for itself.
    move(claim(made[0].pk, worker="worker"), State.SUCCEEDED, actor="worker")
    failed = claim(made[1].pk, worker="worker")
    move(failed, State.UNDOING, actor="worker")
    move(failed, State.FAILED, actor="worker")
    assert taken(project, "memory") == (3 * 128 * MIB, 128 * MIB)
    assert VirtualMachine.objects.count() == 4


def test_all_are_placed_or_none(cast, host, catalogue):
    """Red when divide() is not one transaction with the approval."""
    Counter.objects.create(scope=host.scope, resource="memory", limit=4 * 128 * MIB)
    asked = ask(cast, catalogue)
    with pytest.raises(Denied, match="Not all 5 machines can be built now, so none is begun. There is not"):
        consent(cast, asked)
    asked.refresh_from_db()
    assert asked.state == State.AWAITING_APPROVAL and parts(asked) == []
    assert not VirtualMachine.objects.exists()
    assert taken(scopes.of_project(cast.project), "memory") == (5 * 128 * MIB, 0)
    assert taken(host.scope, "memory") == (0, 0)


def test_they_may_lie_on_several_hosts(client, cast, host, catalogue):
    Counter.objects.create(scope=host.scope, resource="memory", limit=3 * 128 * MIB)
    second = factories.make_host("second-host", "fake://second/")
    factories.make_place(second, "second-pool", image=catalogue.item.image)
    asked = ask(cast, catalogue)
    client.force_login(cast.approver)
    page = client.get(url("operations:detail", args=[asked.pk])).content.decode()
    assert "example-host (3), second-host (2)" in page or "second-host (5)" in page
    consent(cast, asked)
    hosts = {one.host_id for one in VirtualMachine.objects.all()}
    assert VirtualMachine.objects.filter(host=host).count() <= 3 and second.pk in hosts


def test_a_name_that_waits_in_such_a_request_is_taken(cast, catalogue):
    """Red when name_is_taken() does not look into requests for several."""
    asked = ask(cast, catalogue)
    assert services.name_is_taken("web-3") and not services.name_is_taken("web-6")
    assert not services.name_is_taken("root")
    with pytest.raises(Denied, match="web-5 is taken"):
        ask(cast, catalogue, count=1, name="web-5")
    with pytest.raises(Denied, match="web-1 is taken"):
        ask(cast, catalogue, count=2)
    assert not services.name_is_taken("web-3", besides=asked)


@pytest.mark.parametrize(("count", "name"), [(0, "web"), (51, "web"), (10, "w" * 61)])
def test_what_cannot_be_is_refused(cast, catalogue, count, name):
    with pytest.raises(Denied):
        ask(cast, catalogue, count=count, name=name)
    assert not Operation.objects.exists()


def test_a_doubled_click_is_one_request(cast, catalogue):
    token = uuid.uuid4()
    assert ask(cast, catalogue, token=token) == ask(cast, catalogue, token=token)
    assert Operation.objects.count() == 1


def test_policies_see_the_number_and_the_sums(cast, chief, catalogue):
    """Red when policies take it for another kind, or for one machine."""
    rule = Rule("few", kinds=(KIND,), ranges={"machines": (None, 3)}, effect=Effect.AUTO)
    add_policy(actor=chief, rule=rule)
    assert ask(cast, catalogue, count=5).state == State.AWAITING_APPROVAL
    Operation.objects.filter(state=State.AWAITING_APPROVAL).update(state=State.REJECTED)
    assert ask(cast, catalogue, count=4, name="db").state == State.QUEUED
    assert VirtualMachine.objects.count() == 4


def test_machines_that_wait_count_each(cast, chief, catalogue):
    rule = Rule("few", kinds=(KIND,), ranges={"machines": (None, 3)}, effect=Effect.AUTO)
    ask(cast, catalogue, count=4)
    add_policy(actor=chief, rule=rule)
    assert ask(cast, catalogue, count=1, name="db").state == State.AWAITING_APPROVAL


def test_it_is_lowered_for_each_alike(cast, catalogue):
    asked = ask(cast, catalogue)
    uneven = {"memory": 5 * 128 * MIB - 1}
    with pytest.raises(Denied, match="share evenly") as refused:
        revisions.lower(
            actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, sizes=uneven
        )
    assert refused.value.field == "memory"
    with pytest.raises(Denied, match="at least"):
        revisions.lower(
            actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, sizes={"memory": 5 * 32 * MIB}
        )
    lowered = revisions.lower(
        actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, sizes={"memory": 5 * 64 * MIB}
    )
    consent(cast, lowered)
    assert {one.memory for one in VirtualMachine.objects.all()} == {64 * MIB}


def test_it_is_edited_and_copied_as_it_was_asked(client, cast, catalogue):
    asked = ask(cast, catalogue)
    filled = prefill.like(asked).values
    assert (filled["name"], filled["count"], filled["flavour"]) == ("web", 5, catalogue.flavour.pk)
    client.force_login(cast.requester)
    page = client.get(url("vms:edit", args=[asked.pk])).content.decode()
    assert 'name="count" value="5"' in page
    typed = {
        "token": uuid.uuid4(),
        "spec_hash": asked.spec_hash,
        "operation": asked.pk,
        "name": "web",
        "flavour": catalogue.flavour.pk,
        "network": catalogue.network.pk,
        "lease_days": 7,
        "why": "to try it",
        "user": "root",
    }
    assert client.post(url("vms:edit", args=[asked.pk]), typed | {"count": 1}).status_code == 422
    client.post(url("vms:edit", args=[asked.pk]), typed | {"count": 3})
    asked.refresh_from_db()
    assert asked.frozen["sizes"]["machines"] == 3 and asked.revision == 2
    assert taken(scopes.of_project(cast.project), "machines") == (3, 0)


def test_the_form_asks_for_several_and_says_what_they_take(client, cast, catalogue):
    client.force_login(cast.requester)
    typed = {
        "token": uuid.uuid4(),
        "project": cast.project.pk,
        "name": "web",
        "count": 5,
        "flavour": catalogue.flavour.pk,
        "network": catalogue.network.pk,
        "lease_days": 7,
        "why": "to try it",
        "user": "root",
    }
    sight = client.post(url("vms:what_if", args=[catalogue.item.pk]), typed).content.decode()
    assert "5 machines, together" in sight and "example-host (5)" in sight and "12.50" in sight
    client.post(url("vms:ask", args=[catalogue.item.pk]), typed)
    assert Operation.objects.get().title == "Create web-1 to 5"


def test_one_page_shows_how_far_all_are(client, cast, catalogue):
    """Red when a failure has no sentence, or its request cannot be made again alone."""
    asked = consent(cast, ask(cast, catalogue, count=3))
    made = parts(asked)
    move(claim(made[0].pk, worker="worker"), State.SUCCEEDED, actor="worker")
    failed = claim(made[1].pk, worker="worker")
    failed.steps.create(index=1, name="volume", error_code="pool_full", stage="undone")
    move(failed, State.UNDOING, actor="worker")
    move(failed, State.FAILED, actor="worker")
    client.force_login(cast.requester)
    request = client.get(url("operations:detail", args=[asked.pk])).content.decode()
    assert url("operations:together", args=[asked.token]) in request
    page = client.get(url("operations:together", args=[asked.token])).content.decode()
    assert "1 of 3 done" in page and "1 wait for their turn" in page and "1 not done" in page
    assert "storage is full" in page and url("vms:copy", args=[made[1].pk]) in page
    assert 'value="66"' in page
    assert "web-2" in client.get(url("vms:copy", args=[made[1].pk])).content.decode()
    part = client.get(url("operations:detail", args=[made[1].pk])).content.decode()
    assert url("operations:together", args=[asked.token]) in part
    shown = panels._panels["operations.together"].render(cast.requester, [str(asked.token), "nonsense"])
    assert list(shown) == [str(asked.token)]


def test_who_sees_none_of_them_sees_no_page(client, cast, catalogue):
    asked = consent(cast, ask(cast, catalogue, count=2))
    other = type(cast.requester).objects.create(username="other")
    client.force_login(other)
    assert client.get(url("operations:together", args=[asked.token])).status_code == 404
    assert panels._panels["operations.together"].render(other, [str(asked.token)]) == {}


def test_a_request_that_was_rejected_leaves_nothing(cast, catalogue):
    asked = ask(cast, catalogue)
    operations.decide(
        actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=False, reason="no"
    )
    assert taken(scopes.of_project(cast.project), "memory") == (0, 0)
    assert not parts(asked)


def test_what_was_divided_is_not_taken_back_as_a_whole(cast, chief, catalogue):
    """Red when _divided() says nothing: the request would be gone, and every machine built all the same."""
    waits = ask(cast, catalogue, count=2, name="db")
    operations.withdraw(actor=cast.requester, operation=waits)
    asked = consent(cast, ask(cast, catalogue, count=2))
    for actor, take_back in ((cast.requester, operations.withdraw), (chief, operations.cancel)):
        with pytest.raises(Denied, match="divided into one operation for each machine"):
            take_back(actor=actor, operation=asked)
    asked.refresh_from_db()
    assert asked.state == State.QUEUED
    withdraw = [one for one in live.actions(cast.requester, asked) if one["label"] == "Withdraw"]
    assert "was divided" in withdraw[0]["denied"]
    operations.withdraw(actor=cast.requester, operation=parts(asked)[0])
