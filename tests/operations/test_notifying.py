"""Whom each turn of a request or an operation tells, and of what."""

import uuid

import pytest

from portal.accounts.models import Membership, Notice, Role, User
from portal.operations import discussion, registry, revisions, services
from portal.operations.models import Operation, StepRecord
from portal.operations.policies import services as policies
from portal.operations.policies.rules import Level, Rule, Who
from portal.operations.states import State
from portal.operations.transitions import move
from tests import factories
from tests.conftest import GIB, make_spec
from vms.models import VirtualMachine
from vms.services import request_machine

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def asked(cast):
    return services.request_operation(
        actor=cast.requester,
        project=cast.project,
        spec=make_spec(),
        amounts={},
        token=uuid.uuid4(),
        title="Create example",
    )


def told(kind=None):
    """Return who has unread notices (of `kind`) and what they say."""
    found = Notice.objects.filter(read_at=None)
    found = found.filter(kind=kind) if kind else found
    return sorted(found.values_list("person__username", "text"))


def decide(cast, operation, **changes):
    arguments = {"actor": cast.approver, "spec_hash": operation.spec_hash, "approved": True, **changes}
    return services.decide(operation=operation, **arguments)


def run(operation, *states):
    for state in states:
        move(operation, state, actor="worker")


def test_a_request_tells_those_who_can_decide_and_not_who_asked(cast):
    """Red when waits() tells who asked, or leaves out those who approve in every project."""
    everywhere = User.objects.create(username="everywhere")
    Membership.objects.create(user=everywhere, role=Role.APPROVER)
    User.objects.create(username="gone", is_active=False)
    Membership.objects.create(user=User.objects.get(username="gone"), role=Role.APPROVER)
    services.request_operation(
        actor=cast.admin, project=cast.project, spec=make_spec(), amounts={}, token=uuid.uuid4(), title="Mine"
    )
    assert told() == [("approver", "admin asks: Mine"), ("everywhere", "admin asks: Mine")]
    assert Notice.objects.first().link == f"/requests/{Operation.objects.get().pk}/"


def test_a_doubled_submit_tells_once(cast):
    token = uuid.uuid4()
    for _ in range(2):
        services.request_operation(
            actor=cast.requester, project=cast.project, spec=make_spec(), amounts={}, token=token
        )
    assert len(told("request.waits")) == 2


@pytest.mark.parametrize(
    ("approved", "text"),
    [(True, "approver approved: Create example"), (False, "approver rejected: Create example")],
)
def test_a_decision_tells_the_requester_why_and_takes_back_that_it_waits(cast, asked, approved, text):
    """Red when decide() tells nobody, or moved() leaves the other approvers' notices unread."""
    decide(cast, asked, approved=approved, reason="as agreed")
    assert told() == [("requester", text)]
    assert Notice.objects.get(kind="request.decided").detail == "as agreed"


def test_each_level_tells_those_it_asks_and_no_others(cast, chief):
    """Red when _tell() of policies does not tell the next level, or decided() leaves who decided with it."""
    second = User.objects.create(username="second")
    Membership.objects.create(user=second, project=cast.project, role=Role.APPROVER)
    levels = (Level(Who.PROJECT_APPROVERS, 2), Level(Who.ADMINS))
    policies.add_policy(actor=chief, rule=Rule(name="two levels", levels=levels))
    asked = services.request_operation(
        actor=cast.requester,
        project=cast.project,
        spec=make_spec(),
        amounts={},
        token=uuid.uuid4(),
        title="A",
    )
    asks = "requester asks: A"
    assert told() == [(who, asks) for who in ("admin", "approver", "chief", "second")]
    decide(cast, asked)
    assert told("request.waits") == [("admin", asks), ("chief", asks), ("second", asks)]
    assert told("request.decided") == [("requester", "approver approved, others decide next: A")]
    decide(cast, asked, actor=second)
    assert told("request.waits") == [("chief", asks)]
    decide(cast, asked, actor=chief)
    assert told("request.waits") == []
    assert ("requester", "chief approved: A") in told("request.decided")


def test_a_refused_decision_tells_nobody(cast, asked):
    before = told()
    with pytest.raises(services.Denied):
        decide(cast, asked, spec_hash="another")
    assert told() == before


@pytest.mark.parametrize("way", ["withdrawn", "expired"])
def test_what_is_over_waits_for_nobody(cast, asked, way):
    if way == "withdrawn":
        services.withdraw(actor=cast.requester, operation=asked)
        assert told() == []
    else:
        move(asked, State.EXPIRED, actor="scheduler")
        assert told() == [("requester", "Expired: Create example")]


def test_a_comment_tells_the_others_who_take_part(cast, asked):
    """Red when commented() tells its author, or forgets who commented before."""
    discussion.comment(actor=cast.operator, operation=asked, text="Which image?")
    assert told("request.comment") == [("requester", "operator commented on: Create example")]
    discussion.comment(actor=cast.requester, operation=asked, text="The tiny one.")
    assert told("request.comment")[0] == ("operator", "requester commented on: Create example")
    assert Notice.objects.get(kind="request.comment", person=cast.operator).detail == "The tiny one."
    assert len(told("request.comment")) == 2


class Small(registry.Asking):
    """Takes nothing from any quota."""

    def amounts(self, operation, sizes):
        return {}

    def check_lowered(self, spec):
        pass

    def outlooks(self, operations):
        return {}

    def edit_url(self, operation):
        return ""

    copy_url = edit_url


@pytest.fixture
def small(monkeypatch):
    kind = registry.Kind("test.files", "Make files", (), asking=Small())
    monkeypatch.setitem(registry._kinds, "test.files", kind)


def test_lowering_tells_the_requester_and_an_edit_those_who_decide(cast, asked, small):
    """Red when edit() or lower() tells nobody."""
    lowered = revisions.lower(
        actor=cast.approver,
        operation=asked,
        spec_hash=asked.spec_hash,
        sizes={"disk": GIB},
        note="smaller will do",
    )
    assert told("request.decided") == [("requester", "approver lowered: Create example")]
    Notice.objects.all().delete()
    revisions.edit(
        actor=cast.requester, operation=lowered, spec_hash=lowered.spec_hash, spec=make_spec(vcpu=2)
    )
    who = [name for name, _text in told("request.waits")]
    assert who == ["admin", "approver"] and told("request.decided") == []


def test_lowering_and_approving_at_once_is_told_in_one_sentence(cast, asked, small):
    """Red when lower_and_approve() lowers by lower()."""
    revisions.lower_and_approve(
        actor=cast.approver,
        operation=asked,
        spec_hash=asked.spec_hash,
        sizes={"disk": GIB},
        reason="smaller will do",
    )
    assert told("request.decided") == [("requester", "approver lowered and approved: Create example")]
    assert Notice.objects.get(kind="request.decided").detail == "smaller will do"


def test_a_failure_tells_why_in_a_sentence(cast, asked):
    """Red when moved() takes the raw text, or no step's error."""
    decide(cast, asked)
    operation = services.claim(asked.pk, worker="worker")
    StepRecord.objects.create(
        operation=operation, index=0, name="x", error_code="pool_full", error_raw="ENOSPC <x>"
    )
    run(operation, State.UNDOING, State.FAILED)
    notice = Notice.objects.get(kind="operation.ended")
    assert (notice.person, notice.text) == (cast.requester, "Failed: Create example")
    assert notice.detail.startswith("The host's storage is full.")


def test_who_cancels_anothers_operation_is_told_of_by_name(cast, asked):
    decide(cast, asked)
    operation = services.claim(asked.pk, worker="worker")
    move(operation, State.CANCELLING, actor=cast.operator)
    assert told("operation.ended") == [("requester", "operator takes back: Create example")]
    Notice.objects.all().delete()


def test_a_machine_that_runs_is_announced_with_the_way_to_it(cast):
    """Red when the kind vm.create announces nothing or leads nowhere."""
    host, image = factories.make_host(), factories.make_image()
    factories.make_place(host, image=image)
    catalogue = factories.make_catalogue(image, factories.make_network())
    asked = request_machine(
        actor=cast.requester, project=cast.project, wish=factories.make_wish(catalogue), token=uuid.uuid4()
    )
    assert Notice.objects.filter(kind="request.waits").first().detail == "to try it"
    decide(cast, asked)
    run(services.claim(asked.pk, worker="worker"), State.SUCCEEDED)
    machine = VirtualMachine.objects.get()
    notice = Notice.objects.get(kind="operation.ended")
    assert (notice.text, notice.link) == ("example-vm is built and runs.", f"/machines/{machine.pk}/")


