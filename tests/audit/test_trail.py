"""The trail cannot be changed, its chain shows what was, and a rolled-back change leaves no entry."""

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from portal.accounts.models import Project
from portal.audit import tasks, triggers
from portal.audit.models import AuditEntry, AuditSeal
from portal.audit.services import record, seal_pending, verify

pytestmark = pytest.mark.database


@pytest.fixture
def sealed(db):
    project = Project.objects.create(name="<&\"' example")
    with transaction.atomic():
        for number in range(3):
            record(actor="test", verb="project.changed", target=project, after={"number": number})
    assert seal_pending() == 3
    return project


def without_triggers(statement):
    """Do what someone with the database's own password could do."""

    class Editor:
        connection = connection

        def execute(self, sql, params):
            with connection.cursor() as cursor:
                cursor.execute(sql, params)

    triggers.remove(None, Editor())
    Editor().execute(statement, None)
    triggers.install(None, Editor())


@pytest.mark.parametrize("model", [AuditEntry, AuditSeal])
def test_update_and_delete_are_refused(sealed, model):
    """Red when migration 0002 installs no trigger."""
    field = "verb" if model is AuditEntry else "seal"
    with pytest.raises(DatabaseError, match="cannot be changed"), transaction.atomic():
        model.objects.update(**{field: "x"})
    with pytest.raises(DatabaseError, match="cannot be changed"), transaction.atomic():
        model.objects.all()._raw_delete("default")
    assert model.objects.count() == 3


@pytest.mark.parametrize("table", triggers.TABLES)
def test_a_table_is_not_emptied_at_once(sealed, table):
    """SQLite truncates by DELETE. Red on PostgreSQL when its trigger leaves TRUNCATE out."""
    postgresql = connection.vendor == "postgresql"
    statement = f"TRUNCATE {table} CASCADE" if postgresql else f"DELETE FROM {table}"
    refused = pytest.raises(DatabaseError, match=triggers.REFUSAL)
    with refused, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE" if postgresql else "SELECT 1")
        cursor.execute(statement)
    assert (AuditEntry.objects.count(), AuditSeal.objects.count()) == (3, 3)


def test_an_untouched_chain_holds(sealed):
    assert list(verify()) == []
    assert seal_pending() == 0
    call_command("audit", "verify")


def test_what_waited_long_is_sealed_by_the_look_at_everything(sealed):
    """Red when seal() looks at everything, or seal_all() at what is young alone."""
    AuditEntry.objects.create(at=timezone.now() - timedelta(hours=2), verb="project.changed")
    tasks.seal()
    assert AuditSeal.objects.count() == 3
    tasks.seal_all()
    assert AuditSeal.objects.count() == 4 and list(verify()) == []


def test_where_nothing_waits_nothing_is_locked(sealed, django_assert_num_queries):
    """Red when seal_pending opens its transaction before it looks."""
    with django_assert_num_queries(1):
        assert seal_pending(within=timedelta(hours=1)) == 0


@pytest.mark.parametrize(
    "statement, sentence",
    [
        (
            "UPDATE audit_auditentry SET verb = 'nothing' WHERE id = (SELECT max(id) FROM audit_auditentry)",
            "was changed after",
        ),
        ("DELETE FROM audit_auditentry WHERE id = (SELECT min(id) FROM audit_auditentry)", "was removed"),
        ("DELETE FROM audit_auditseal WHERE id = (SELECT min(id) FROM audit_auditseal)", "does not continue"),
        (
            "UPDATE audit_auditseal SET seal = 'x' WHERE id = (SELECT max(id) FROM audit_auditseal)",
            "was changed",
        ),
    ],
)
def test_verify_finds_what_was_done_behind_the_triggers(sealed, statement, sentence):
    without_triggers(statement)
    assert any(sentence in fault for fault in verify())
    with pytest.raises(CommandError):
        call_command("audit", "verify")


def test_a_rolled_back_change_leaves_no_entry(sealed):
    with pytest.raises(RuntimeError, match="stop"), transaction.atomic():
        record(actor="test", verb="project.changed", target=sealed)
        raise RuntimeError("stop")
    assert AuditEntry.objects.count() == 3


def test_record_outside_a_transaction_is_refused(trail_that_can_be_flushed):
    project = Project.objects.create(name="example")
    with pytest.raises(RuntimeError, match="inside the transaction"):
        record(actor="test", verb="project.changed", target=project)
