"""Longer leases: who asks and decides, how far they may run, what stands in the way, and what they end."""

import uuid
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from portal.accounts.models import Membership, Notice, Role, User
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.hosts.models import Health, Host
from portal.operations import inbox, revisions, words
from portal.operations import services as operations
from portal.operations import tasks as worker
from portal.operations.models import Operation
from portal.operations.policies import services as policies
from portal.operations.policies.rules import Effect, Rule
from portal.operations.registry import StepContext, kind_of
from portal.operations.states import State
from tests.conftest import let_heartbeats_lapse
from tests.factories import (
    GIB,
    make_catalogue,
    make_host,
    make_image,
    make_machine,
    make_network,
    make_place,
)
from tests.racing import race
from vms import extending, leases, power
from vms.changes import disks
from vms.models import CatalogueItem, Observed, Status, VirtualMachine

pytestmark = pytest.mark.database
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@pytest.fixture
def machine(cast):
    image = make_image()
    make_catalogue(image, make_network())
    made = make_machine(
        cast, "example", make_host(), image, item_name="Tiny", observed_state=Observed.SHUTOFF
    )
    leave(5 * DAY)
    made.refresh_from_db()
    return made


def leave(left, **changes):
    VirtualMachine.objects.update(lease_until=timezone.now() + left, **changes)


def ask(actor, machine, days=30, why="not done yet", token=None):
    return extending.request_extension(
        actor=actor, machine=machine, days=days, why=why, token=token or uuid.uuid4()
    )


def approve(actor, operation):
    current = Operation.objects.get(pk=operation.pk)
    return operations.decide(actor=actor, operation=current, spec_hash=current.spec_hash, approved=True)


def left(machine):
    machine.refresh_from_db()
    return machine.lease_until - timezone.now()


def about(days):
    """Return what a lease of so many days has left a moment later."""
    return pytest.approx(days * 86_400, abs=60)


# Asking


@pytest.mark.django_db
def test_an_extension_is_asked_approved_and_carried_out(cast, machine):
    """Red when nobody carries the operation out, or the end is another than the approver saw."""
    asked = ask(cast.requester, machine)
    assert asked.state == State.AWAITING_APPROVAL and not asked.reservations.exists()
    assert asked.frozen["sizes"] == {"lease": 30 * 86_400}
    placed = approve(cast.approver, asked)
    host = machine.host
    assert (placed.state, placed.subject, placed.lane) == (State.QUEUED, machine.topic, host.scope)
    worker.carry_out(placed.pk)
    placed.refresh_from_db()
    assert placed.state == State.SUCCEEDED
    assert left(machine).total_seconds() == about(35)
    entry = AuditEntry.objects.get(verb="machine.lease_extended")
    assert entry.target_id == str(machine.pk) and entry.after == {
        "lease_until": machine.lease_until.isoformat()
    }
    done = Notice.objects.get(kind="operation.ended")
    assert done.person == cast.requester and done.text == "The lease of example is extended."
    assert done.link == reverse("vms:detail", args=[machine.pk])


@pytest.mark.django_db
def test_who_may_not_use_the_machine_or_not_ask_in_its_project_cannot_extend(client, cast, machine):
    """Red when why_not() leaves one of the two out."""
    colleague = User.objects.create(username="colleague")
    Membership.objects.create(user=colleague, project=cast.project, role=Role.REQUESTER)
    with pytest.raises(Denied, match="Only the owner"):
        ask(colleague, machine)
    # An owner who only looks on by now.
    mine = Membership.objects.filter(user=cast.requester)
    mine.update(role=Role.AUDITOR)
    with pytest.raises(Denied, match="may not ask|Only the owner"):
        ask(cast.requester, machine)
    client.force_login(cast.requester)
    assert client.get(url("lease", machine)).context["denied"]
    assert ask(cast.operator, machine).requester == cast.operator


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"days": 0}, "lease", "1 to 360 days"),
        ({"days": 361}, "lease", "1 to 360 days"),
        ({"days": 10**30}, "lease", "1 to 360 days"),
        ({"why": "  "}, "why", "in a few words"),
        ({"why": "a\x07b"}, "why", "cannot be shown"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_at_its_field(client, cast, machine, values, field, sentence):
    typed = {"days": 30, "why": "not done yet"} | values
    with pytest.raises(Denied, match=sentence) as denied:
        ask(cast.requester, machine, **typed)
    assert denied.value.field == field and not Operation.objects.filter(kind="vm.extend").exists()
    client.force_login(cast.requester)
    if typed["why"].strip() and "\x07" not in typed["why"]:
        page = client.post(url("lease", machine), typed | {"token": uuid.uuid4()})
        assert page.status_code == 422 and sentence in str(page.context["form"].errors["days"])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("remaining", "longest", "most"),
    [(5, 365, 360), (4.5, 365, 360), (-40, 365, 365), (0, 90, 90), (90, 90, 0), (95, 90, 0), (5, None, 360)],
)
def test_a_lease_never_runs_further_from_now_than_its_item_allows(cast, machine, remaining, longest, most):
    """Red when _most() forgets what is left of the present lease, or gives the days that are over on top."""
    leave(remaining * DAY)
    if longest is None:
        CatalogueItem.objects.all().delete()
    else:
        CatalogueItem.objects.update(longest_lease_days=longest)
    machine.refresh_from_db()
    assert extending.most_days(machine) == most
    with pytest.raises(Denied, match=f"1 to {most} days" if most else "as long already as it may"):
        ask(cast.requester, machine, days=most + 1)
    if most:
        worker.carry_out(approve(cast.approver, ask(cast.requester, machine, days=most)).pk)
        assert left(machine) <= (longest or extending.LONGEST) * DAY


@pytest.mark.django_db
def test_a_machine_has_one_extension_that_waits(client, cast, machine):
    """Red when why_not() does not look for one."""
    first = ask(cast.requester, machine)
    for actor in (cast.requester, cast.admin):
        with pytest.raises(Denied, match="waits for a decision already"):
            ask(actor, machine, days=3)
    other = make_machine(cast, "other", machine.host, machine.image, item_name="Tiny")
    VirtualMachine.objects.filter(pk=other.pk).update(lease_until=timezone.now())
    assert ask(cast.requester, other)
    client.force_login(cast.requester)
    page = client.get(url("detail", machine)).content.decode()
    assert "Extension waits" in page and reverse("operations:detail", args=[first.pk]) in page
    operations.withdraw(actor=cast.requester, operation=first)
    assert "Extension waits" not in client.get(url("detail", machine)).content.decode()
    assert ask(cast.requester, machine, days=3)


@pytest.mark.django_db
def test_the_owner_sees_that_an_admin_asked_without_a_link_that_leads_nowhere(client, cast, machine):
    """Red when the page links to a request that its reader may not see."""
    asked = ask(cast.admin, machine)
    client.force_login(cast.requester)
    page = client.get(url("detail", machine)).content.decode()
    assert "Extension waits" in page
    assert reverse("operations:detail", args=[asked.pk]) not in page


@pytest.mark.django_db
def test_a_doubled_click_is_one_request_also_when_the_first_is_done_by_then(cast, chief, machine):
    """Red when request_extension() does not look for what the form's first click asked for."""
    policies.add_policy(actor=chief, rule=Rule(name="At once", kinds=("vm.extend",), effect=Effect.AUTO))
    token = uuid.uuid4()
    first = ask(cast.requester, machine, token=token)
    worker.carry_out(first.pk)
    assert ask(cast.requester, machine, token=token) == first
    assert left(machine).total_seconds() == about(35)
    with pytest.raises(Denied, match="already used"):
        ask(cast.requester, machine, days=7, token=token)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("status", "sentence"), [(Status.BUILDING, "still being built"), (Status.BINNED, "in the bin")]
)
def test_what_is_built_or_in_the_bin_is_not_extended(client, cast, machine, status, sentence):
    asked = ask(cast.requester, machine)
    VirtualMachine.objects.update(status=status, bin_until=timezone.now() + DAY)
    with pytest.raises(Denied, match=sentence):
        approve(cast.approver, asked)
    asked.refresh_from_db()
    assert asked.state == State.AWAITING_APPROVAL and "until" not in asked.identifiers
    operations.withdraw(actor=cast.requester, operation=asked)
    with pytest.raises(Denied, match=sentence):
        ask(cast.requester, machine)
    client.force_login(cast.requester)
    assert sentence in client.get(url("lease", machine)).content.decode()


# Policies


@pytest.mark.django_db
def test_an_admin_lets_short_extensions_through_by_a_rule_of_the_kind(cast, chief, machine):
    """Red when the kind is not one that people ask for, or its size is not called lease."""
    short = Rule(
        name="Short",
        kinds=("vm.extend",),
        items=("Tiny",),
        ranges={"lease": (None, 30 * 86_400), "machines": (1, None)},
        effect=Effect.AUTO,
    )
    policies.add_policy(actor=chief, rule=short)
    long = ask(cast.requester, machine, days=31)
    assert long.state == State.AWAITING_APPROVAL
    operations.withdraw(actor=cast.requester, operation=long)
    asked = ask(cast.requester, machine, days=30)
    assert asked.state == State.QUEUED
    worker.carry_out(asked.pk)
    assert left(machine).total_seconds() == about(35)


@pytest.mark.django_db
def test_what_a_policy_cannot_give_at_once_waits_for_people(cast, chief, machine):
    policies.add_policy(actor=chief, rule=Rule(name="All", kinds=("vm.extend",), effect=Effect.AUTO))
    power.act(actor=cast.requester, machine=machine, verb="start")
    asked = ask(cast.requester, machine)
    assert asked.state == State.AWAITING_APPROVAL and asked.subject == ""
    assert asked.demand.note.startswith("Another change to this machine")


# Deciding


@pytest.mark.django_db
def test_an_approver_sees_where_and_until_when_and_may_give_less(client, cast, machine):
    """Red when outlooks() says what the whole request would give, or lowering is refused."""
    asked = ask(cast.requester, machine)
    client.force_login(cast.approver)
    page = client.get(reverse("operations:inbox")).content.decode()
    until = timezone.localtime(machine.lease_until + 30 * DAY)
    assert machine.host.name in page and f"{until:%b %Y %H:%M}" in page and "not done yet" in page
    with pytest.raises(Denied, match="only less"):
        lower(cast.approver, asked, 31)
    with pytest.raises(Denied, match="whole days"):
        revisions.lower(
            actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, sizes={"lease": 86_401}
        )
    lower(cast.approver, asked, 10)
    worker.carry_out(asked.pk)
    assert left(machine).total_seconds() == about(15)


def lower(actor, operation, days):
    return revisions.lower_and_approve(
        actor=actor, operation=operation, spec_hash=operation.spec_hash, sizes={"lease": days * 86_400}
    )


@pytest.mark.django_db
def test_the_outlook_warns_of_what_stands_in_the_way_by_as_many_queries_for_many(cast, machine):
    """Red when outlooks() asks for each request, or leaves an obstacle out that the approval meets."""
    names = ("well", "binned", "gone", "busy", "long")
    asked = {}
    for name in names:
        made = make_machine(cast, name, machine.host, machine.image, item_name="Tiny")
        VirtualMachine.objects.filter(pk=made.pk).update(lease_until=timezone.now() + 5 * DAY)
        asked[name] = ask(cast.requester, made)
    VirtualMachine.objects.filter(name="binned").update(status=Status.BINNED)
    VirtualMachine.objects.filter(name="gone").delete()
    VirtualMachine.objects.filter(name="busy").update(observed_state=Observed.SHUTOFF)
    power.act(actor=cast.requester, machine=VirtualMachine.objects.get(name="busy"), verb="start")
    VirtualMachine.objects.filter(name="long").update(lease_until=timezone.now() + 360 * DAY)
    with CaptureQueriesContext(connection) as queries:
        found = kind_of("vm.extend").asking.outlooks(list(asked.values()))
    assert len(queries) == 3
    warnings = {name: " ".join(found[operation.pk].warnings) for name, operation in asked.items()}
    assert warnings.pop("well") == "" and found[asked["well"].pk].place == machine.host.name
    parts = {"binned": "in the bin", "gone": "gone", "busy": "not finished yet", "long": "1 to 5 days"}
    for name, words_of_it in parts.items():
        assert words_of_it in warnings[name]
        with pytest.raises(Denied, match=words_of_it):
            approve(cast.approver, asked[name])
    shown = inbox.cards(cast.approver, list(Operation.objects.filter(kind="vm.extend")))
    assert len(shown) == len(names)


@pytest.mark.django_db
def test_a_machine_of_the_same_name_made_since_is_not_the_asked_one(cast, machine):
    """Red when place() finds the machine by its name."""
    asked = ask(cast.requester, machine)
    machine.delete()
    make_machine(cast, "example", machine.host, machine.image, item_name="Tiny")
    with pytest.raises(Denied, match="gone"):
        approve(cast.approver, asked)


@pytest.mark.django_db
def test_the_days_count_from_the_approval_when_the_lease_is_over_by_then(cast, machine):
    """Red when the end is counted from when it was asked, or from a lease that is over."""
    asked = ask(cast.requester, machine)
    leave(-20 * DAY)
    placed = approve(cast.approver, asked)
    until = datetime.fromisoformat(placed.identifiers["until"])
    # A worker that comes late gives what was approved.
    Operation.objects.update(created_at=timezone.now() - DAY)
    worker.carry_out(placed.pk)
    assert left(machine).total_seconds() == about(30) and machine.lease_until == until


@pytest.mark.django_db
def test_a_worker_that_died_at_any_point_moves_the_end_once(cast, machine):
    """Red when MoveEnd adds days to the end that it finds, or records it each time."""
    placed = approve(cast.approver, ask(cast.requester, machine))
    claimed = operations.claim(placed.pk, worker="first")
    [step] = kind_of("vm.extend").steps
    for _again in range(2):
        step.do(StepContext(claimed.frozen, claimed.identifiers, lambda: None))
    let_heartbeats_lapse()
    [taken] = operations.take_over_lapsed(worker="second")
    worker.resume(taken.pk, taken.attempt)
    placed.refresh_from_db()
    assert placed.state == State.SUCCEEDED and left(machine).total_seconds() == about(35)
    assert AuditEntry.objects.filter(verb="machine.lease_extended").count() == 1


@pytest.mark.django_db
def test_a_machine_that_went_before_the_worker_came_fails_with_a_sentence(cast, machine):
    placed = approve(cast.approver, ask(cast.requester, machine))
    machine.delete()
    worker.carry_out(placed.pk)
    placed.refresh_from_db()
    assert placed.state == State.FAILED and placed.steps.get().error_code == "domain_not_found"


# What it ends


@pytest.mark.django_db
def test_an_extension_during_the_days_of_grace_takes_the_machine_out_of_all_that(cast, machine):
    """Red when MoveEnd leaves lease_bin_at or lease_warned as they are."""
    leave(2 * DAY)
    leases.warn()
    leave(-3 * DAY)
    leases.end()
    VirtualMachine.objects.update(lease_bin_at=timezone.now() + MINUTE)
    placed = approve(cast.approver, ask(cast.requester, machine))
    VirtualMachine.objects.update(lease_bin_at=timezone.now() - MINUTE)
    # Approved: nothing is done to it any more, though no worker came yet.
    assert leases.put_into_bin() == 0
    worker.carry_out(placed.pk)
    machine.refresh_from_db()
    assert (machine.lease_bin_at, machine.lease_warned) == (None, None)
    assert not Notice.objects.filter(kind=leases.LEASE, read_at=None).exists()
    leases.keep()
    assert power.act(actor=cast.requester, machine=machine, verb="start")
    leave(14 * DAY)
    assert leases.warn() == 1


@pytest.mark.django_db
def test_a_short_extension_is_warned_of_by_what_lies_ahead_alone(cast, machine):
    leave(-DAY)
    worker.carry_out(approve(cast.approver, ask(cast.requester, machine, days=3)).pk)
    assert leases.warn() == 0
    leave(DAY)
    assert leases.warn() == 1


@pytest.mark.django_db
def test_a_host_that_is_away_keeps_nobody_from_extending(cast, machine):
    """Red when the lease is moved by a step on the host."""
    Host.objects.update(observed_health=Health.STALE)
    worker.carry_out(approve(cast.approver, ask(cast.requester, machine)).pk)
    assert left(machine).total_seconds() == about(35)


# The pages


def url(name, row):
    return reverse(f"vms:{name}", args=[row.pk])


@pytest.mark.django_db
def test_it_is_asked_edited_and_copied_in_the_browser(client, cast, machine):
    """Red when edit_url or copy_url lead nowhere, or the form sends what the service does not take."""
    client.force_login(cast.requester)
    assert url("lease", machine) in client.get(url("detail", machine)).content.decode()
    form = client.get(url("lease", machine)).context["form"]
    assert "At most 360." in str(form["days"].help_text)
    typed = {"token": form["token"].value(), "days": "30", "why": "not done yet"}
    answer = client.post(url("lease", machine), typed)
    asked = Operation.objects.get(kind="vm.extend")
    assert answer["Location"] == reverse("operations:detail", args=[asked.pk])
    page = client.get(answer["Location"]).content.decode()
    for address in (url("lease_edit", asked), url("lease_copy", asked)):
        assert address in page
    assert "30 days" in page and "Move the end of the lease" in page
    form = client.get(url("lease_edit", asked)).context["form"]
    assert (form["days"].value(), form["why"].value()) == (30, "not done yet")
    edited = {"days": "20", "why": "not done yet", "spec_hash": form["spec_hash"].value()}
    client.post(url("lease_edit", asked), edited)
    asked.refresh_from_db()
    assert asked.frozen["sizes"] == {"lease": 20 * 86_400} and asked.revision == 2
    assert client.get(url("lease_copy", asked)).context["form"]["days"].value() == 20


@pytest.mark.django_db
def test_an_edit_of_what_was_lowered_meanwhile_shows_that_first(client, cast, machine):
    """Red when the form about an older revision is taken, or never can be sent again."""
    asked = ask(cast.requester, machine)
    revisions.lower(
        actor=cast.approver, operation=asked, spec_hash=asked.spec_hash, sizes={"lease": 10 * 86_400}
    )
    client.force_login(cast.requester)
    typed = {"days": "20", "why": "still", "spec_hash": asked.spec_hash}
    page = client.post(url("lease_edit", asked), typed)
    assert page.status_code == 422 and "It changed while you edited it" in page.content.decode()
    again = typed | {"spec_hash": page.context["form"]["spec_hash"].value()}
    assert client.post(url("lease_edit", asked), again).status_code == 302
    asked.refresh_from_db()
    assert asked.frozen["sizes"] == {"lease": 20 * 86_400}


@pytest.mark.django_db
def test_a_request_for_a_machine_that_is_gone_says_so(client, cast, machine):
    asked = ask(cast.requester, machine)
    machine.delete()
    client.force_login(cast.requester)
    for name in ("lease_edit", "lease_copy"):
        page = client.get(url(name, asked), follow=True)
        assert "The machine is gone." in page.content.decode()
    with pytest.raises(Denied, match="gone"):
        extending.edit_extension(
            actor=cast.requester, operation=asked, days=1, why="x", spec_hash=asked.spec_hash
        )
    with pytest.raises(Denied, match="gone"):
        ask(cast.requester, VirtualMachine(pk=machine.pk or 77))


@pytest.mark.django_db
def test_what_was_asked_is_told_with_the_end_as_it_was(cast, machine):
    VirtualMachine.objects.update(lease_until=datetime(2031, 5, 6, 7, 8, tzinfo=UTC))
    CatalogueItem.objects.update(longest_lease_days=5000)
    machine.refresh_from_db()
    told = {fact.label: fact.value for fact in words.facts(ask(cast.requester, machine).frozen)}
    assert told["Lease ends without it"] == "6 May 2031 07:08" and told["Lease"] == "30 days"


@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_of_many_who_ask_at_once_one_request_waits(cast, machine):
    """Red on PostgreSQL when request_extension() locks no row."""
    results = race([partial(ask, cast.requester, machine)] * 10, at_once=10)
    connection.close()
    assert sum(isinstance(result, Operation) for result in results) == 1, results
    assert sum(isinstance(result, Denied) for result in results) == 9, results


@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_an_approval_and_the_scheduler_at_once_leave_one_of_them(cast, machine):
    """Red on PostgreSQL when place() locks nothing: the constraint would be the approver's error."""
    leave(-9 * DAY, lease_bin_at=timezone.now() - DAY)
    asked = ask(cast.requester, machine)
    results = race([leases.put_into_bin, partial(approve, cast.approver, asked)] * 5, at_once=10)
    connection.close()
    assert not [result for result in results if not isinstance(result, Denied | Operation | int)], results
    assert Operation.objects.filter(subject=machine.topic, state=State.QUEUED).count() == 1


@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_an_approval_beside_that_of_another_change_leaves_one_of_them(cast, machine):
    """Red on PostgreSQL when asking.claim() locks no row: the constraint would be an approver's error."""
    make_place(machine.host)
    for _turn in range(5):
        asked = ask(cast.requester, machine)
        disk = disks.request_disk(
            actor=cast.requester, machine=machine, capacity=GIB, why="data", token=uuid.uuid4()
        )
        results = race([partial(approve, cast.approver, one) for one in (asked, disk)])
        connection.close()
        assert sorted(type(result).__name__ for result in results) == ["Denied", "Operation"], results
        for operation in (asked, disk):
            operation.refresh_from_db()
            operations.withdraw(actor=cast.requester, operation=operation)
