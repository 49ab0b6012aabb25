"""Nobody fetches around `restrict()`: by the models' managers, and by reading what pages are made of."""

import ast

import pytest
from django.apps import apps
from django.conf import settings

from portal.accounts.backends import ACTIONS
from portal.core.querysets import RestrictedQuerySet
from tests.permissions.world import make_world

#: Modules that answer people: pages, sockets' panels, and pieces of page.
ANSWERING = ("views.py", "install_views.py", "own.py", "live.py", "panels.py", "consumer.py")
OURS = ("portal.", "networks", "vms")
#: Models that no page fetches by themselves: reached only through a row that was fetched by right.
THROUGH_ANOTHER = {
    "accounts.MailChoice": "one's own alone: notices.mail_choices()",
    "accounts.Notice": "one's own alone: notices.of()",
    "accounts.SshPublicKey": "one's own alone: public_keys.of()",
    "accounts.User": "people belong to no project: services.people_for() asks for the admin's role",
    "audit.AuditSeal": "the chain behind the trail, shown with entries alone",
    "hosts.BegunVolume": "what a worker notes for the next one, never shown",
    "hosts.ImageAttachment": "through its image or pool",
    "hosts.MadeBefore": "what is written down for a pool that may come back, never shown",
    "hosts.PoolAttachment": "through its host",
    "networks.Port": "through its network or machine",
    "operations.Comment": "through its operation",
    "operations.Counter": "through its scope",
    "operations.DefaultLimit": "what an admin says for many; the counters hold it",
    "operations.Decision": "through its operation",
    "operations.RequestRevision": "through its operation",
    "operations.Demand": "through its operation",
    "operations.DemandLevel": "through its operation",
    "operations.PolicyChoice": "through its policy",
    "operations.PolicyLevel": "through its policy",
    "operations.PolicyRange": "through its policy",
    "operations.Reservation": "through its operation",
    "operations.StepRecord": "through its operation",
    "vms.ConsoleTicket": "redeemed by its secret, never shown",
    "vms.Disk": "through its machine",
}
#: Fetches without restrict() in those modules: module and what is fetched -> why it is right.
UNRESTRICTED = {
    ("portal/accounts/own.py", "User.objects.get"): "one's own account",
    ("portal/accounts/views.py", "Membership.objects.filter"): "members of a project fetched by right",
    ("portal/accounts/views.py", "Invitation.objects.open"): "invitations of a project fetched by right",
    ("portal/audit/views.py", "AuditEntry.objects.allowed"): "is the restriction; 404 otherwise",
    ("portal/audit/views.py", "AuditEntry.objects.all"): "after allowed(), which spares a subquery",
    ("portal/live/consumer.py", "get_user_model().objects.filter"): "who is signed in",
    ("portal/hosts/storage/views.py", "PoolAttachment.objects.filter"): "of hosts fetched by right",
    ("portal/hosts/live.py", "Counter.objects.filter"): "counters of hosts fetched by right",
}


def ours():
    return [model for model in apps.get_models() if model.__module__.startswith(OURS)]


def test_every_model_that_people_see_has_rows_restricted_by_right():
    """Red when a model's `objects` is no RestrictedQuerySet."""
    plain = [m for m in ours() if not isinstance(m._default_manager.all(), RestrictedQuerySet)]
    assert {model._meta.label for model in plain} == set(THROUGH_ANOTHER)


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_an_admin_everywhere_is_granted_every_row_and_nobody_none(action):
    """Red when a model has neither a project, nor a way to one, nor `estate`: nobody would see it ever."""
    world = make_world()
    for model in ours():
        if model._meta.label in THROUGH_ANOTHER:
            continue
        granted = model.objects.restrict(world.people["admin_everywhere"], action)
        assert granted.count() == model.objects.count(), model
        assert not model.objects.restrict(world.people["nobody"], action).exists(), model


def fetches(tree):
    """Yield (line, text) for each `X.objects.method(...)`, where method is not restrict."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Attribute):
            continue
        if node.value.attr in {"objects", "_default_manager", "_base_manager"} and node.attr != "restrict":
            yield node.lineno, ast.unparse(node)


def test_pages_fetch_by_right_alone():
    """Red when a view says Model.objects.get(pk=pk)."""
    found = set()
    for room in ("portal", "networks", "vms"):
        for name in ANSWERING:
            for path in sorted((settings.BASE_DIR / room).rglob(name)):
                where = str(path.relative_to(settings.BASE_DIR))
                found |= {(where, what) for _line, what in fetches(ast.parse(path.read_text()))}
    assert found == set(UNRESTRICTED)
