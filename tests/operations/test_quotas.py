"""Who may set which limit, what a limit does to what was taken before, and defaults."""

import time
import uuid

import pytest
from django.db import transaction

from portal.accounts.models import Membership, Project, Role
from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.operations import counters, ledger, quotas, scopes, services
from portal.operations.models import Counter, DefaultLimit, Operation, Reservation
from portal.operations.states import State
from portal.operations.transitions import move
from tests.conftest import GIB, make_spec
from tests.racing import race

pytestmark = pytest.mark.database
NONE = dict.fromkeys(quotas.RESOURCES)


def takes(cast, amount=1, resource="machines"):
    own = scopes.of_project(cast.project), scopes.of_member(cast.project, cast.requester)
    return {(scope, resource): amount for scope in (*own, scopes.of_person(cast.requester))}


def ask(cast, **more):
    return services.request_operation(
        actor=cast.requester,
        project=cast.project,
        spec=make_spec(),
        amounts=takes(cast, **more),
        token=uuid.uuid4(),
    )


def counter(scope, resource="machines"):
    return Counter.objects.get(scope=scope, resource=resource)


@pytest.mark.django_db
def test_a_limit_set_later_counts_what_was_taken_before(cast, chief):
    """Red when ledger.hold passes over a scope that has no counter yet."""
    built = ask(cast)
    move(built, State.QUEUED, actor="test")
    move(built, State.RUNNING, actor="test")
    move(built, State.SUCCEEDED, actor="test")
    ask(cast)
    scope = scopes.of_member(cast.project, cast.requester)
    assert quotas.set_quota(actor=chief, scope=scope, limits={"machines": 2}) == []
    assert (counter(scope).held, counter(scope).used) == (1, 1)
    with pytest.raises(Denied, match="not enough machines left for requester in the project example"):
        ask(cast)


@pytest.mark.django_db
def test_a_limit_below_what_is_taken_is_told_and_lets_nothing_new_in(cast, chief):
    """Red when set_quota tells nobody (returns no counter that is beyond its limit)."""
    for _ in range(3):
        ask(cast)
    scope = scopes.of_project(cast.project)
    beyond = quotas.set_quota(actor=chief, scope=scope, limits=NONE | {"machines": 1})
    assert [row.resource for row in beyond] == ["machines"] and beyond[0].left == 0
    assert counter(scope).held == 3
    with pytest.raises(Denied, match="1 asked, 0 of 1 left"):
        ask(cast)
    assert Operation.objects.count() == 3
    quotas.set_quota(actor=chief, scope=scope, limits=NONE)
    ask(cast)
    assert counter(scope).limit is None and counter(scope).held == 4


@pytest.mark.django_db
def test_a_new_project_follows_the_default_and_its_change(cast, chief):
    """Red when _make gives a counter no default, or when _set_default changes no follower."""
    quotas.set_quota(actor=chief, scope=scopes.EVERY_PROJECT, limits={"machines": 1})
    ask(cast)
    with pytest.raises(Denied, match="the project example"):
        ask(cast)
    quotas.set_quota(actor=chief, scope=scopes.EVERY_PROJECT, limits={"machines": 2})
    ask(cast)
    quotas.set_quota(actor=chief, scope=scopes.of_project(cast.project), limits={"machines": 5})
    quotas.set_quota(actor=chief, scope=scopes.EVERY_PROJECT, limits={"machines": 0})
    ask(cast)
    assert counter(scopes.of_project(cast.project)).limit == 5
    beyond = quotas.follow_default(actor=chief, scope=scopes.of_project(cast.project))
    assert [row.limit for row in beyond] == [0] and not beyond[0].own


@pytest.mark.django_db
def test_a_default_of_one_project_or_of_people_reaches_no_others(cast, chief):
    """Red when _set_default does not ask default_above of each follower."""
    other = Project.objects.create(name="other")
    Membership.objects.create(user=cast.requester, project=other, role=Role.REQUESTER)
    ask(cast)
    elsewhere = services.request_operation(
        actor=cast.requester,
        project=other,
        spec=make_spec(),
        amounts={(scopes.of_member(other, cast.requester), "machines"): 1},
        token=uuid.uuid4(),
    )
    assert elsewhere.reservations.count() == 1
    quotas.set_quota(actor=cast.admin, scope=scopes.each_member_of(cast.project), limits={"machines": 3})
    quotas.set_quota(actor=chief, scope=scopes.EVERY_PROJECT, limits={"machines": 7})
    limits = dict(Counter.objects.filter(resource="machines").values_list("scope", "limit"))
    assert limits == {
        scopes.of_project(cast.project): 7,
        scopes.of_member(cast.project, cast.requester): 3,
        scopes.of_member(other, cast.requester): None,
        scopes.of_person(cast.requester): None,
    }


@pytest.mark.django_db
@pytest.mark.parametrize("who", ["requester", "approver", "operator", "auditor", "admin", "chief"])
def test_a_projects_admin_parts_the_share_that_an_admin_of_all_gives(cast, chief, who):
    """Red when why_not lets a project's admin set the project's own limit."""
    actor = chief if who == "chief" else getattr(cast, who)
    may = {
        scopes.EVERY_PROJECT: who == "chief",
        scopes.EVERY_PERSON: who == "chief",
        scopes.of_project(cast.project): who == "chief",
        scopes.of_person(cast.requester): who == "chief",
        scopes.each_member_of(cast.project): who in {"admin", "chief"},
        scopes.of_member(cast.project, cast.requester): who in {"admin", "chief"},
    }
    for scope, allowed in may.items():
        assert bool(quotas.why_not(actor, scope)) is not allowed
        if allowed:
            quotas.set_quota(actor=actor, scope=scope, limits={"vcpu": 4})
            continue
        with pytest.raises(Denied, match="Only an admin"):
            quotas.set_quota(actor=actor, scope=scope, limits={"vcpu": 4})
    assert AuditEntry.objects.filter(verb="quota.set").count() == sum(may.values())


@pytest.mark.django_db
def test_the_trail_holds_the_limits_before_and_after_and_nothing_twice(cast, chief):
    """Red when _record writes also when nothing changed."""
    for _ in range(2):
        quotas.set_quota(actor=chief, scope=scopes.of_project(cast.project), limits={"memory": 4 * GIB})
    entry = AuditEntry.objects.get(verb="quota.set")
    assert (entry.target_type, entry.target_name) == ("accounts.project", "example")
    assert (entry.before, entry.after) == ({"memory": {"default": None}}, {"memory": 4 * GIB})


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [-1, quotas.HIGHEST + 1])
def test_a_limit_that_is_no_amount_is_refused(cast, chief, limit):
    with pytest.raises(Denied, match="from 0 upwards"):
        quotas.set_quota(actor=chief, scope=scopes.of_project(cast.project), limits={"disk": limit})


@pytest.mark.django_db
@pytest.mark.parametrize("amount", [2**62, 2**63 - 1])
def test_what_no_column_holds_is_refused_also_without_a_limit(cast, amount):
    """Red when a counter without a limit has no roof (PostgreSQL: an error instead of a refusal)."""
    ask(cast)
    with pytest.raises(Denied, match="more machines than can be counted"):
        ask(cast, amount=amount)
    assert counter(scopes.of_project(cast.project)).held == 1


@pytest.mark.django_db
@pytest.mark.parametrize("scope", ["", "host:1", "project:x", "person:1/project:1", "project:1/", "project:"])
def test_what_is_no_quota_is_no_scope(scope):
    with pytest.raises(ValueError, match="no scope"):
        scopes.place_of(scope)


@pytest.mark.django_db
def test_looking_makes_no_counter(cast, chief):
    quotas.set_quota(actor=chief, scope=scopes.EVERY_PROJECT, limits={"machines": 6})
    keys = list(takes(cast))
    assert [row.limit for row in counters.look(keys)] == [6, None, None]
    assert not Counter.objects.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_the_first_requests_race_for_a_default_that_changes_meanwhile(cast, chief):
    """Red on PostgreSQL when _make reads the default without locking its row, or makes no row to lock."""
    for number in range(5):
        Counter.objects.all().delete()
        DefaultLimit.objects.all().delete()
        limit = number + 1

        def change(limit=limit):
            return quotas.set_quota(
                actor=chief, scope=scopes.each_member_of(cast.project), limits={"machines": limit}
            )

        def make(person):
            key = (f"project:{cast.project.pk}/person:{person}", "machines")
            return lambda: in_transaction(key)

        results = race([make(1), make(2), change, make(3), make(4), make(5), make(6), make(7)])
        assert not [result for result in results if isinstance(result, Exception)]
        assert set(Counter.objects.values_list("limit", flat=True)) == {limit}


def in_transaction(key):
    """Make a counter, and stay in the transaction a moment, as a request does."""
    with transaction.atomic():
        counters.counters([key])
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_racing_first_requests_make_each_counter_once(cast):
    """Red when counters.counters makes a counter without minding that another was faster."""
    results = race([lambda: ask(cast)] * 20)
    assert not [result for result in results if isinstance(result, Exception)]
    assert set(Counter.objects.values_list("held", flat=True)) == {20}
    assert Counter.objects.count() == 3


@pytest.mark.slow
@pytest.mark.usefixtures("trail_that_can_be_flushed")
def test_who_locks_ahead_and_who_makes_a_counter_do_not_wait_for_each_other(cast):
    """Red on PostgreSQL when lock_ahead() locks what is there before it makes what is missing: a deadlock."""
    project = scopes.of_project(cast.project)
    for number in range(2):
        amounts = {(project, "machines"): 1, (scopes.of_member(cast.project, cast.admin), "machines"): 1}
        Counter.objects.filter(scope__contains="person").delete()
        made = [operation_of(cast) for _ in range(2)]
        with transaction.atomic():
            counters.counters([(project, "machines")])

        def ahead(operation=made[0], amounts=amounts):
            with transaction.atomic():
                ledger.lock_ahead(operation, amounts)
                time.sleep(0.3)
                ledger.hold(operation, amounts)

        def plain(operation=made[1], amounts=amounts):
            with transaction.atomic():
                counters.counters(amounts)
                time.sleep(0.15)
                ledger.hold(operation, amounts)

        assert race([ahead, plain]) == [None, None], number
        Reservation.objects.all().delete()


def operation_of(cast):
    """An operation that holds nothing yet."""
    return services.request_operation(
        actor=cast.requester, project=cast.project, spec=make_spec(), amounts={}, token=uuid.uuid4()
    )
