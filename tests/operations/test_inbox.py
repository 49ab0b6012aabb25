"""The inbox, deciding in it, and a request's own page: what they show, to whom, and what is refused there."""

import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from portal.operations import discussion, live, revisions, services, transitions, words
from portal.operations.models import Counter, Operation, Reservation
from portal.operations.states import State
from tests.conftest import GIB, make_spec
from tests.operations.policies.conftest import another, policy  # noqa: F401

pytestmark = [pytest.mark.database, pytest.mark.django_db]
HTMX = {"HTTP_HX_REQUEST": "true"}


def ask(cast, **sizes):
    return services.request_operation(
        actor=cast.requester,
        project=cast.project,
        spec=make_spec(lease=30 * 86400, **sizes),
        amounts={},
        token=uuid.uuid4(),
        title="Create example",
    )


@pytest.fixture
def asked(cast):
    return ask(cast)


@pytest.fixture
def approver(client, cast):
    client.force_login(cast.approver)
    return client


def url(name, operation=None):
    return reverse(f"operations:{name}", args=[operation.pk] if operation else [])


def decide(client, operation, decision, **data):
    data = {"decision": decision, "spec_hash": operation.spec_hash, "where": "inbox", **data}
    return client.post(url("decide", operation), data, **HTMX)


def lowering(**changes):
    """Return the sizes of make_spec() as the form shows them, but for `changes`."""
    return {"vcpu": "1", "memory": "1", "disk": "2", "lease": "30", **changes}


# The list


def test_a_page_of_25_takes_as_many_queries_as_a_page_of_one(approver, cast):
    """Red when cards() asks anything inside its loop."""
    def count():
        with CaptureQueriesContext(connection) as queries:
            page = approver.get(url("inbox"))
        return len(page.context["cards"]), len(queries)

    first = ask(cast)
    revisions.lower(
        actor=cast.approver, operation=first, spec_hash=first.spec_hash, sizes={"disk": GIB}
    )
    discussion.comment(actor=cast.requester, operation=first, text="why?")
    one = count()
    for _ in range(24):
        ask(cast)
    assert count() == (25, one[1]) and one[0] == 1
    assert one[1] <= 22


def test_the_inbox_shows_what_waits_and_never_ones_own(client, cast, asked):
    for role, shown in (("approver", 1), ("admin", 1), ("requester", 0), ("operator", 0), ("auditor", 0)):
        client.force_login(getattr(cast, role))
        assert len(client.get(url("inbox")).context["cards"]) == shown, role


def test_hostile_text_is_shown_as_text(approver, cast):
    operation = ask(cast)
    evil = "<script>alert(1)</script>"
    discussion.comment(actor=cast.requester, operation=operation, text=evil)
    Operation.objects.update(title=evil)
    for page in ("inbox", "detail"):
        answer = approver.get(url(page, operation if page == "detail" else None)).content.decode()
        assert evil not in answer and "&lt;script&gt;alert(1)" in answer


# Deciding in it


def test_approving_in_the_inbox_answers_with_the_piece_of_page(approver, cast, asked):
    answer = decide(approver, asked, "approve")
    assert answer.status_code == 200 and f'id="waiting-{asked.pk}"' in answer.content.decode()
    assert "Queued" in answer.content.decode() and "<form" not in answer.content.decode()
    asked.refresh_from_db()
    assert asked.state == State.QUEUED


def test_rejecting_without_a_reason_says_so_at_the_field(approver, asked):
    """Red when DecideForm does not look at the reason: the service's sentence stands above the fields."""
    answer = decide(approver, asked, "reject", reason=" ")
    assert answer.status_code == 422
    assert f'id="id_{asked.pk}_reason_error" class="field-error"><div>' in answer.content.decode()
    assert "Say why" in answer.content.decode()
    asked.refresh_from_db()
    assert asked.state == State.AWAITING_APPROVAL
    decide(approver, asked, "reject", reason="too large")
    assert asked.decisions.get().reason == "too large"


def test_lowering_keeps_it_waiting_and_lowering_with_approval_does_not(approver, asked):
    answer = decide(approver, asked, "lower", **lowering(memory="0.5", lease="7"))
    asked.refresh_from_db()
    assert answer.status_code == 200 and asked.state == State.AWAITING_APPROVAL
    sizes = asked.frozen["sizes"]
    assert (sizes["memory"], sizes["lease"], sizes["disk"]) == (GIB // 2, 7 * 86400, 2 * GIB)
    assert "lowered this request" in answer.content.decode()
    decide(approver, asked, "lower_approve", **lowering(memory="0.5", lease="7", disk="1"))
    asked.refresh_from_db()
    assert (asked.state, asked.revision) == (State.QUEUED, 3)


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"memory": "1.5"}, "memory", "more than was asked for"),
        ({"memory": "0"}, "memory", "more than nothing"),
        ({"vcpu": "-1"}, "vcpu", "more than nothing"),
        ({"disk": "1e40"}, "disk", "more than was asked for"),
        ({"disk": "0.5"}, "disk", "smaller than the image"),
        ({"lease": "x"}, "lease", "Enter a whole number"),
        ({"lease": "9" * 40}, "lease", "more than was asked for"),
        ({"memory": ""}, "memory", "required"),
    ],
)
def test_what_cannot_be_lowered_so_is_said_at_its_field_and_kept(approver, asked, changes, field, sentence):
    before = list(Reservation.objects.values()), list(Counter.objects.values())
    answer = decide(approver, asked, "lower", **lowering(**changes))
    page = answer.content.decode()
    assert answer.status_code == 422 and "<details class=\"fold lower\" open>" in page
    slot = page.split(f'id="id_{asked.pk}_lower_{field}_error"')[1].split("</div>")[0]
    assert sentence in slot
    asked.refresh_from_db()
    assert asked.revision == 1
    assert (list(Reservation.objects.values()), list(Counter.objects.values())) == before


def test_a_decision_on_what_changed_meanwhile_is_refused_and_shows_what_is_there_now(approver, cast, asked):
    """Red when the answer keeps the hash that was refused, or decide does not compare it."""
    edited = revisions.edit(
        actor=cast.requester,
        operation=asked,
        spec_hash=asked.spec_hash,
        spec=make_spec(lease=30 * 86400, vcpu=2),
    )
    answer = decide(approver, asked, "approve", reason="fine")
    page = answer.content.decode()
    assert answer.status_code == 422 and "changed since you opened it" in page
    assert edited.spec_hash in page and asked.spec_hash not in page and ">\nfine</textarea>" in page
    assert "requester edited this request" in page
    asked.refresh_from_db()
    assert asked.state == State.AWAITING_APPROVAL


def test_no_room_is_refused_with_a_sentence_and_nothing_is_decided(approver, cast):
    Counter.objects.create(scope="host:1", resource="machines", limit=0)
    operation = ask(cast)
    Operation.objects.filter(pk=operation.pk).update(identifiers={"takes": [("host:1", "machines", 1)]})
    answer = decide(approver, operation, "approve")
    assert answer.status_code == 422 and "not enough machines left" in answer.content.decode()
    assert not operation.decisions.exists()


def test_without_scripts_the_same_buttons_lead_to_the_request(approver, asked):
    data = {"decision": "reject", "spec_hash": asked.spec_hash, "reason": ""}
    answer = approver.post(url("decide", asked), data, follow=True)
    assert answer.redirect_chain[-1][0] == url("detail", asked)
    assert "Say why" in answer.content.decode()
    assert approver.post(url("decide", asked), data | {"decision": "burn"}).status_code == 400


def test_who_stands_in_decides_without_a_role_of_their_own(client, cast, asked, chief, policy):  # noqa: F811
    from portal.accounts.models import User
    from tests.operations.policies.conftest import named

    somebody = User.objects.create(username="somebody")
    policy("by name", named(somebody))
    operation = ask(cast)
    client.force_login(somebody)
    assert [card.operation for card in client.get(url("inbox")).context["cards"]] == [operation]
    assert client.get(url("detail", operation)).status_code == 200
    assert client.get(url("detail", asked)).status_code == 404
    assert decide(client, operation, "approve").status_code == 200
    operation.refresh_from_db()
    assert operation.state == State.QUEUED


# Live


def fragment(user, panel, identity):
    from portal.live.panels import find

    return find(panel).render(user, [identity]).get(identity, "")


def test_a_request_decided_elsewhere_changes_in_the_inbox(cast, asked):
    """Red when the panel leaves out what waits no more: its card would stay as it was."""
    key = f"{asked.pk}-1"
    assert "<form" in fragment(cast.approver, "operations.waiting", key)
    services.decide(actor=cast.admin, operation=asked, spec_hash=asked.spec_hash, approved=True)
    shown = fragment(cast.approver, "operations.waiting", key)
    assert "<form" not in shown and "Queued" in shown and f'data-live="operations.waiting:{key}"' in shown


def test_a_request_edited_elsewhere_is_not_approved_unseen(cast, asked):
    """Red when Card.stale is never true: the page would get the new hash under the old revision."""
    edited = revisions.edit(
        actor=cast.requester,
        operation=asked,
        spec_hash=asked.spec_hash,
        spec=make_spec(lease=30 * 86400, vcpu=2),
    )
    shown = fragment(cast.approver, "operations.waiting", f"{asked.pk}-1")
    assert "changed this request while you looked" in shown and "<form" not in shown
    assert edited.spec_hash not in shown and "Show it as it is now" in shown
    assert edited.spec_hash in fragment(cast.approver, "operations.waiting", f"{asked.pk}-2")


@pytest.mark.parametrize("identity", ["", "-", "x", "1-x", "9" * 30, "1-2-3", "-1"])
def test_nonsense_from_a_browser_shows_nothing(cast, asked, identity):
    for panel in ("operations.waiting", "operations.asked", "operations.discussion", "operations.arrivals"):
        if identity not in {"1-2-3", "1-x"} or panel != "operations.waiting":
            assert fragment(cast.approver, panel, identity) == ""


def test_what_comes_in_is_announced_to_those_who_decide_alone(cast, asked):
    assert "1 more request came in" in fragment(cast.approver, "operations.arrivals", "0")
    assert "more request" not in fragment(cast.approver, "operations.arrivals", str(asked.pk))
    assert "more request" not in fragment(cast.requester, "operations.arrivals", "0")


def test_the_count_follows_what_still_waits(cast, asked, monkeypatch):
    """Red when move() rings no inbox for a request that waits no more, as for one that is withdrawn."""
    assert "1 request waits for you" in fragment(cast.approver, "operations.awaited", "me")
    assert "waits" not in fragment(cast.requester, "operations.awaited", "me")
    rung = []
    monkeypatch.setattr(transitions, "publish", lambda *topics: rung.extend(topics))
    services.withdraw(actor=cast.requester, operation=asked)
    assert "operations.inbox:all" in rung
    assert "waits" not in fragment(cast.approver, "operations.awaited", "me")


# A request's own page


def test_the_page_shows_revisions_with_what_each_changed(client, cast, asked):
    revisions.lower(
        actor=cast.approver,
        operation=asked,
        spec_hash=asked.spec_hash,
        sizes={"disk": GIB},
        note="enough",
    )
    client.force_login(cast.requester)
    page = client.get(url("detail", asked)).content.decode()
    assert "<del>2 GiB</del>" in page and "<ins>1 GiB</ins>" in page
    assert "Revision 2" in page and "Revision 1" in page and "enough" in page


def test_what_one_may_do_stands_there_with_why_not(cast, asked):
    def labels(user):
        return {item["label"]: item["denied"] for item in live.actions(user, asked)}

    assert labels(cast.requester) == {"Edit": "", "Copy": "", "Withdraw": ""}
    assert labels(cast.approver) == labels(cast.auditor) == {}
    services.decide(
        actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, approved=False, reason="no"
    )
    asked.refresh_from_db()
    denied = labels(cast.requester)
    assert denied["Edit"] == "This request is already rejected." and "too late" in denied["Withdraw"]


def test_talking_on_the_page(client, cast, asked):
    client.force_login(cast.requester)
    said = client.post(url("comment", asked), {"text": "Is  this\nenough?"}, **HTMX).content.decode()
    assert "Is  this\nenough?" in said and 'hx-swap-oob="true"' in said
    assert client.post(url("comment", asked), {"text": " "}, **HTMX).status_code == 422
    client.force_login(cast.auditor)
    page = client.get(url("detail", asked)).content.decode()
    assert "enough?" in page and 'id="comment-form"' not in page
    assert "Only who asked, who decides and operators may comment here." in page
    assert asked.comments.count() == 1


# Words


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILw2M8r2Qv8bQ1mJm1nV1m0n6VJb6cJk1m9c6fZyG1aB me@example"


def frozen(**pinned):
    cloud = {"user": "root", "ssh_keys": [], "packages": [], "user_data": ""}
    base = {"name": "vm", "network": {"name": "lan", "uuid": "1"}, "cloud": cloud}
    return {"version": 1, "kind": "vm.create", "sizes": {"vcpu": 1}, "pinned": base | pinned}


def test_a_difference_of_two_documents_is_shown_line_by_line():
    old = frozen(cloud={"user": "root", "ssh_keys": [KEY], "packages": [], "user_data": "a\nb\n"})
    new = frozen(cloud={"user": "root", "ssh_keys": [], "packages": ["git"], "user_data": "a\nc\n"})
    found = {item.label: item for item in words.differences(old, new)}
    assert found["User-data"].lines == [(" ", "a"), ("-", "b"), ("+", "c")]
    assert found["SSH keys"].before.startswith("me@example SHA256:") and found["SSH keys"].after == "none"
    assert (found["Packages"].before, found["Packages"].after) == ("", "git")


def test_two_requests_that_are_not_the_same_never_look_the_same():
    """Red when differences() compares only what people read."""
    old, new = frozen(), frozen(network={"name": "lan", "uuid": "2"})
    assert [item.label for item in words.differences(old, new)] == ["Details"]
    assert words.differences(old, frozen()) == []
