"""Policies as admins add, change and delete them."""


import pytest
from django.db import transaction

from portal.audit.models import AuditEntry
from portal.core.errors import Denied
from portal.operations.models import Policy
from portal.operations.policies import services as policies
from portal.operations.policies.rules import Level, Rule, Who
from portal.operations.policies.store import rule_of
from tests.conftest import GIB
from tests.operations.policies.conftest import named

pytestmark = [pytest.mark.database, pytest.mark.django_db]


def test_policies_are_for_admins_of_every_project(cast, policy):
    kept = policy("kept")
    changes = [
        lambda: policies.add_policy(actor=cast.admin, rule=Rule(name="new")),
        lambda: policies.change_policy(actor=cast.admin, policy=kept, rule=Rule(name="new")),
        lambda: policies.switch_policy(actor=cast.admin, policy=kept, enabled=False),
        lambda: policies.move_policy(actor=cast.admin, policy=kept, up=True),
        lambda: policies.delete_policy(actor=cast.admin, policy=kept, confirm_name="kept"),
    ]
    for change in changes:
        with pytest.raises(Denied, match="Only an admin of every project"):
            change()
    assert Policy.objects.get().name == "kept"


def test_what_is_stored_is_what_was_said_and_the_trail_holds_before_and_after(cast, chief, policy):
    full = Rule(
        name="full",
        description="words",
        kinds=("test.files",),
        items=("Debian 12", "Tiny"),
        projects=(cast.project.pk,),
        people=(cast.requester.pk,),
        ranges={"vcpu": (1, None), "cost": (None, 5000), "memory": (GIB, 2 * GIB)},
        levels=(Level(), named(cast.auditor, cast.operator, needed=2)),
        expires_days=9,
    )
    plain = policy("plain")
    changed = policies.change_policy(actor=chief, policy=plain, rule=full)
    assert rule_of(Policy.objects.get(pk=changed.pk)).demand() == full.demand()
    entry = AuditEntry.objects.get(verb="policy.changed")
    assert entry.before["name"] == "plain" and entry.before["ranges"] == {}
    assert entry.after["levels"][1] == {"who": "people", "needed": 2, "people": ["auditor", "operator"]}
    assert entry.after["projects"] == ["example"]
    policies.change_policy(actor=chief, policy=plain, rule=full)
    assert AuditEntry.objects.filter(verb="policy.changed").count() == 1


@pytest.mark.parametrize(
    "values, field",
    [
        ({"name": "taken"}, "name"),
        ({"kinds": ("vm.start",)}, "kinds"),
        ({"projects": (10**9,)}, "projects"),
        ({"people": (10**9,)}, "people"),
        ({"levels": (Level(Who.PEOPLE, 1, (10**9,)),)}, "levels"),
        ({"items": ("x" * 81,)}, "items"),
    ],
)
def test_what_cannot_be_stored_is_said_at_its_field(chief, policy, values, field):
    policy("taken")
    with pytest.raises(Denied) as denied:
        policies.add_policy(actor=chief, rule=Rule(**{"name": "new", **values}))
    assert denied.value.field == field
    assert Policy.objects.count() == 1


def test_deleting_asks_for_the_name(chief, policy):
    kept = policy("kept")
    with pytest.raises(Denied, match="name exactly"):
        policies.delete_policy(actor=chief, policy=kept, confirm_name="Kept")
    policies.delete_policy(actor=chief, policy=kept, confirm_name="kept")
    with pytest.raises(Denied, match="is gone"):
        policies.switch_policy(actor=chief, policy=kept, enabled=False)


def test_policies_follow_an_item_that_is_renamed(chief, policy):
    policy("one", items=("Old", "Other"))
    with transaction.atomic():
        assert policies.follow_item(actor=chief, before="Old", after="New") == 1
    assert rule_of(Policy.objects.get()).items == ("New", "Other")
    assert AuditEntry.objects.get(verb="policy.changed").after["items"] == ["New", "Other"]
