"""Migrations of people that meet rows which an earlier version let in."""

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

from portal.accounts.models import Membership, Project, Role, User

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("trail_that_can_be_flushed")]


def migrate(name):
    executor = MigrationExecutor(connection)
    executor.migrate([("accounts", name)])
    return MigrationExecutor(connection)


@pytest.fixture
def before():
    """The tables as they were before doubles were refused; afterwards as they are now."""
    executor = migrate("0002_user_session_stamp_user_theme_user_time_zone_and_more")
    yield executor.loader.project_state(
        [("accounts", "0002_user_session_stamp_user_theme_user_time_zone_and_more")]
    ).apps
    Membership.objects.all().delete()
    # All rooms: going back took back what others built on these migrations.
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())


@pytest.mark.slow
def test_memberships_that_say_the_same_are_one_after_the_migration(before):
    """Red when the migration no longer removes doubles (on SQLite, which let them in)."""
    person = before.get_model("accounts", "User").objects.create(username="double")
    project = before.get_model("accounts", "Project").objects.create(name="example")
    memberships = before.get_model("accounts", "Membership").objects
    for place in (None, project):
        memberships.create(user=person, role="admin", project=place)
    if connection.vendor == "sqlite":  # the other database refused it even then
        memberships.create(user=person, role="admin", project=None)
    migrate("0003_one_role_once")
    held = Membership.objects.filter(user=person.pk).values_list("role", "project")
    assert sorted(held, key=str) == [("admin", project.pk), ("admin", None)]


@pytest.mark.parametrize("place", ["everywhere", "in a project"])
def test_a_role_is_held_once(place):
    """Red when either of the two constraints is left out (everywhere: on SQLite nothing else refuses)."""
    project = Project.objects.create(name="example") if place == "in a project" else None
    person = User.objects.create(username="one")
    Membership.objects.create(user=person, role=Role.ADMIN, project=project)
    with pytest.raises(IntegrityError), transaction.atomic():
        Membership.objects.create(user=person, role=Role.ADMIN, project=project)
    with pytest.raises(IntegrityError), transaction.atomic():
        Membership.objects.bulk_create([Membership(user=person, role=Role.ADMIN, project=project)])
