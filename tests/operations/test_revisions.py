"""Editing, lowering and discussing a request that waits, and what the ledger and the trail keep of it."""

import uuid

import pytest

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.operations import discussion, ledger, revisions, services
from portal.operations.models import Comment, Counter, Operation, RequestRevision, Reservation
from portal.operations.states import State
from tests.conftest import GIB, make_spec

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def quota(cast):
    return Counter.objects.create(scope=f"project:{cast.project.pk}", resource="memory", limit=4 * GIB)


@pytest.fixture
def asked(cast, quota):
    return services.request_operation(
        actor=cast.requester,
        project=cast.project,
        spec=make_spec(),
        amounts={(quota.scope, "memory"): GIB},
        token=uuid.uuid4(),
    )


def edit(cast, operation, spec, **changes):
    arguments = {"actor": cast.requester, "spec_hash": operation.spec_hash, **changes}
    return revisions.edit(operation=operation, spec=spec, **arguments)


def lower(cast, operation, service=revisions.lower, **changes):
    arguments = {"actor": cast.approver, "spec_hash": operation.spec_hash, **changes}
    return service(operation=operation, **arguments)


def everything():
    """What must be as it was when a change is refused."""
    return [
        list(model.objects.order_by("pk").values())
        for model in (Operation, RequestRevision, Reservation, Counter, AuditEntry)
    ]


# Editing


def test_an_edit_makes_a_new_revision_and_holds_its_quota_anew(cast, asked, quota):
    old_hash = asked.spec_hash
    edited = edit(cast, asked, make_spec(memory=3 * GIB), title="Make more files")
    quota.refresh_from_db()
    assert (edited.revision, edited.asked_revision, quota.held) == (2, 2, 3 * GIB)
    assert edited.frozen["sizes"]["memory"] == 3 * GIB and edited.spec_hash != old_hash
    kept = RequestRevision.objects.values_list("number", "change", "spec_hash", "author__username")
    assert list(kept) == [
        (1, "asked", old_hash, "requester"),
        (2, "edited", edited.spec_hash, "requester"),
    ]
    entry = AuditEntry.objects.get(verb="operation.edited")
    assert entry.before["spec"]["sizes"]["memory"] == GIB
    assert entry.after["spec"]["sizes"]["memory"] == 3 * GIB


def test_an_edit_to_less_gives_quota_back(cast, asked, quota):
    """Red when rehold takes only what is more."""
    edit(cast, asked, make_spec(memory=GIB // 2))
    quota.refresh_from_db()
    assert quota.held == asked.reservations.get(counter=quota).amount == GIB // 2


def test_an_edit_over_the_quota_changes_nothing_and_says_how_much_there_is(cast, asked, quota):
    """Red when edit() is not one transaction. What it holds itself counts as left: 4 GiB, not 3."""
    before = everything()
    with pytest.raises(Denied, match="5 GiB asked, 4 GiB of 4 GiB left") as refused:
        edit(cast, asked, make_spec(memory=5 * GIB))
    assert refused.value.field == "memory"
    assert everything() == before


def test_an_edit_may_use_the_whole_quota(cast, asked, quota):
    """Red when rehold asks for room for the whole and not for the difference."""
    edit(cast, asked, make_spec(memory=4 * GIB))
    quota.refresh_from_db()
    assert quota.held == 4 * GIB


def test_an_edit_back_and_forth_leaves_the_ledger_as_it_was(cast, asked, quota):
    edited = edit(cast, asked, make_spec(memory=2 * GIB))
    again = edit(cast, edited, make_spec())
    quota.refresh_from_db()
    assert (again.revision, quota.held) == (3, GIB)
    assert again.spec_hash == asked.spec_hash


def test_the_same_request_again_is_no_new_revision(cast, asked):
    edit(cast, asked, make_spec())
    assert not RequestRevision.objects.exists()


@pytest.mark.parametrize("role", ["approver", "operator", "auditor", "admin"])
def test_only_who_asked_edits(cast, asked, role):
    before = everything()
    with pytest.raises(Denied, match="Only who asked"):
        edit(cast, asked, make_spec(vcpu=2), actor=getattr(cast, role))
    assert everything() == before


def test_an_edit_of_what_was_not_seen_is_refused(cast, asked):
    """Red when _waiting does not compare the hash."""
    stale = asked.spec_hash
    edit(cast, asked, make_spec(vcpu=2))
    with pytest.raises(Denied, match="changed since"):
        edit(cast, asked, make_spec(vcpu=3), spec_hash=stale)


def test_an_approval_after_an_edit_is_refused_and_the_new_hash_is_accepted(cast, asked):
    seen = asked.spec_hash
    edited = edit(cast, asked, make_spec(vcpu=2))
    with pytest.raises(Denied, match="changed since"):
        services.decide(actor=cast.approver, operation=asked, spec_hash=seen, approved=True)
    done = services.decide(
        actor=cast.approver, operation=asked, spec_hash=edited.spec_hash, approved=True
    )
    assert done.state == State.QUEUED


@pytest.mark.parametrize("approved", [True, False])
def test_what_was_decided_is_neither_edited_nor_lowered(cast, asked, approved):
    services.decide(
        actor=cast.approver,
        operation=asked,
        spec_hash=asked.spec_hash,
        approved=approved,
        reason="because",
    )
    before = everything()
    with pytest.raises(Denied, match="already"):
        edit(cast, asked, make_spec(vcpu=2))
    with pytest.raises(Denied, match="already"):
        lower(cast, asked, sizes={"disk": GIB})
    assert everything() == before


# Lowering


def test_lowering_gives_quota_back_and_keeps_what_was_asked(cast, asked, quota):
    """Red when lower() leaves the ledger alone."""
    lowered = lower(cast, asked, sizes={"memory": GIB // 2}, note="enough for a trial")
    quota.refresh_from_db()
    assert (quota.held, lowered.revision, lowered.asked_revision) == (GIB // 2, 2, 1)
    row = RequestRevision.objects.get(number=2)
    assert (row.change, row.author, row.note) == ("lowered", cast.approver, "enough for a trial")
    assert RequestRevision.objects.get(number=1).spec_hash == asked.spec_hash
    assert AuditEntry.objects.get(verb="operation.lowered").actor_name == "approver"


def test_lowering_works_when_the_limit_is_below_what_is_held(cast, asked, quota):
    """Red when rehold asks for room for what becomes smaller."""
    Counter.objects.update(limit=1)
    lower(cast, asked, sizes={"memory": GIB // 2})
    quota.refresh_from_db()
    assert quota.held == GIB // 2


def test_lowering_never_takes_what_was_not_held(cast, asked, quota):
    """Red when lower() calls rehold and not shrink: a quota that came later would be taken."""
    later = Counter.objects.create(scope=quota.scope, resource="vcpu", limit=0)
    lower(cast, asked, sizes={"memory": GIB // 2})
    later.refresh_from_db()
    assert later.held == 0


@pytest.mark.parametrize(
    ("sizes", "sentence", "field"),
    [
        ({"memory": 2 * GIB}, "more than was asked", "memory"),
        ({"memory": GIB // 2, "disk": 3 * GIB}, "more than was asked", "disk"),
        ({"gpu": 1}, "no size called gpu", ""),
        ({"memory": 0}, "more than nothing", "memory"),
        ({"memory": -1}, "more than nothing", "memory"),
        ({"memory": True}, "more than nothing", "memory"),
        ({"memory": 10**30}, "more than was asked", "memory"),
        ({"disk": 1}, "smaller than the image", "disk"),
        ({"memory": GIB}, "Nothing was lowered", ""),
        ({}, "Nothing was lowered", ""),
    ],
)
def test_what_is_no_lowering_is_refused_and_changes_nothing(cast, asked, sizes, sentence, field):
    before = everything()
    with pytest.raises(Denied, match=sentence) as refused:
        lower(cast, asked, sizes=sizes)
    assert refused.value.field == field
    assert everything() == before


def test_nobody_lowers_their_own_nor_without_the_right(cast, asked):
    own = services.request_operation(
        actor=cast.admin, project=cast.project, spec=make_spec(), amounts={}, token=uuid.uuid4()
    )
    with pytest.raises(Denied, match="their own"):
        lower(cast, own, actor=cast.admin, sizes={"memory": 1})
    for role in ("requester", "operator", "auditor"):
        with pytest.raises(Denied):
            lower(cast, asked, actor=getattr(cast, role), sizes={"memory": 1})


def test_lower_and_approve_is_one_thing(cast, asked, quota):
    done = lower(cast, asked, revisions.lower_and_approve, sizes={"memory": GIB // 2}, reason="a trial")
    quota.refresh_from_db()
    assert (done.state, done.revision, quota.held) == (State.QUEUED, 2, GIB // 2)
    decision = done.decisions.get()
    assert decision.spec_hash == done.spec_hash and decision.spec_hash != asked.spec_hash


def test_lower_and_approve_without_room_changes_nothing(cast, quota):
    """Red when lower_and_approve is not one transaction."""
    host = Counter.objects.create(scope="host:1", resource="machines", limit=0)
    asked = services.request_operation(
        actor=cast.requester,
        project=cast.project,
        spec=make_spec(),
        amounts={(quota.scope, "memory"): GIB},
        token=uuid.uuid4(),
        identifiers={"takes": [(host.scope, "machines", 1)]},
    )
    before = everything()
    with pytest.raises(Denied, match="not enough machines left"):
        lower(cast, asked, revisions.lower_and_approve, sizes={"memory": GIB // 2})
    assert everything() == before


# The ledger


def test_rehold_takes_gives_back_and_drops(cast, asked, quota):
    disk = Counter.objects.create(scope=quota.scope, resource="disk", limit=10)
    ledger.rehold(asked, {(quota.scope, "disk"): 4})
    quota.refresh_from_db()
    disk.refresh_from_db()
    assert (quota.held, disk.held) == (0, 4)
    assert asked.reservations.get().counter == disk
    with pytest.raises(Denied):
        ledger.rehold(asked, {(quota.scope, "memory"): 1, (quota.scope, "disk"): 11})
    disk.refresh_from_db()
    quota.refresh_from_db()
    assert (quota.held, disk.held) == (0, 4)


# Talking


@pytest.mark.parametrize("role", ["requester", "approver", "operator", "admin"])
def test_those_concerned_may_talk_and_it_is_on_record(cast, asked, role):
    said = discussion.comment(
        actor=getattr(cast, role), operation=asked, text=" <b>why</b> so much?\r\n"
    )
    assert said.text == "<b>why</b> so much?"
    assert AuditEntry.objects.get(verb="operation.commented").after["text"] == said.text


def test_others_may_not_talk(cast, asked, django_user_model):
    stranger = django_user_model.objects.create(username="stranger")
    for person in (cast.auditor, stranger):
        with pytest.raises(Denied, match="may comment here"):
            discussion.comment(actor=person, operation=asked, text="hello")
    assert not Comment.objects.exists()


@pytest.mark.parametrize("text", ["", " \n ", "x" * 4001, "a\0b"])
def test_a_comment_that_is_none_is_refused_at_its_field(cast, asked, text):
    with pytest.raises(Denied) as refused:
        discussion.comment(actor=cast.requester, operation=asked, text=text)
    assert refused.value.field == "text" and not Comment.objects.exists()
