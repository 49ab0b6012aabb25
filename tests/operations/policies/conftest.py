"""Policies, people and requests that the tests of policies need."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from portal.accounts.models import Membership, Role, User
from portal.operations import services
from portal.operations.models import Delegation, Operation
from portal.operations.policies import deciders
from portal.operations.policies import services as policies
from portal.operations.policies.rules import Level, Rule, Who
from tests.conftest import make_spec


@pytest.fixture
def another(cast):
    """Return one more approver of the project by each call."""

    def make(name, role=Role.APPROVER, project=cast.project):
        person = User.objects.create(username=name)
        Membership.objects.create(user=person, role=role, project=project)
        return person

    return make


@pytest.fixture
def policy(chief):
    """Return a policy that is asked last; levels are given as who, or (who, needed), or a Level."""

    def make(name="policy", *levels, **values):
        if levels:
            values["levels"] = tuple(_level(level) for level in levels)
        return policies.add_policy(actor=chief, rule=Rule(name=name, **values))

    return make


def _level(level):
    if isinstance(level, Level):
        return level
    return Level(*level) if isinstance(level, tuple) else Level(level)


def named(*people, needed=1):
    return Level(Who.PEOPLE, needed, tuple(sorted(person.pk for person in people)))


@pytest.fixture
def ask(cast):
    """Return a request for files, by the requester unless somebody else is named."""

    def make(*, actor=None, amounts=None, takes=(), **sizes):
        return services.request_operation(
            actor=actor or cast.requester,
            project=cast.project,
            spec=make_spec(**sizes),
            amounts=amounts or {},
            token=uuid.uuid4(),
            identifiers={"takes": list(takes)},
        )

    return make


def decide(actor, operation, approved=True, **changes):
    values = {"spec_hash": operation.spec_hash, "approved": approved, "reason": "" if approved else "no"}
    return services.decide(actor=actor, operation=operation, **values | changes)


def state(operation):
    return Operation.objects.get(pk=operation.pk).state


def inbox(person):
    return {operation.pk for operation in deciders.waiting_for(person)}


def stand_in(person, deputy, *, starts=-1, ends=1):
    """Let `deputy` stand in from `starts` to `ends`, in hours from now."""
    now = timezone.now()
    return Delegation.objects.create(
        person=person,
        deputy=deputy,
        starts_at=now + timedelta(hours=starts),
        ends_at=now + timedelta(hours=ends),
    )
