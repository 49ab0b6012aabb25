"""The trail cannot be changed, its chain shows what was, and a rolled-back change leaves no entry."""

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from portal.accounts.models import Project
from portal.audit import tasks, triggers
from portal.audit.models import AuditEntry, AuditSeal
from portal.audit.services import chain_head, record, seal_pending, verify

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


def rows_of(table):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} ORDER BY id")
        return [column[0] for column in cursor.description], cursor.fetchall()


#: Ways to write over a row by an INSERT, with the database that knows them.
OVERWRITING = (
    ("sqlite", "INSERT OR REPLACE INTO {table} ({columns}) VALUES ({values})"),
    ("sqlite", "REPLACE INTO {table} ({columns}) VALUES ({values})"),
    (
        "sqlite postgresql",
        "INSERT INTO {table} ({columns}) VALUES ({values}) "
        "ON CONFLICT ({unique}) DO UPDATE SET id = EXCLUDED.id",
    ),
)


@pytest.mark.parametrize(
    ("table", "unique"), [(table, column) for table in triggers.TABLES for column in triggers.UNIQUE[table]]
)
def test_nothing_is_written_over_by_an_insert(sealed, table, unique):
    """Red on SQLite when no trigger looks at INSERT, or one column is missing in UNIQUE's look; on PostgreSQL
    when UPDATE is left out of its trigger."""
    columns, before = rows_of(table)
    # Another row in everything but the one column that stands in the way.
    other = {"id": 900, "entry_id": 900, "previous": "other", "verb": "nothing", "seal": "other"}
    row = [
        old if name == unique else other.get(name, old) for name, old in zip(columns, before[1], strict=True)
    ]
    tried = [statement for vendors, statement in OVERWRITING if connection.vendor in vendors.split()]
    assert tried
    for statement in tried:
        names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join(["%s"] * len(columns))
        sql = statement.format(table=table, columns=names, values=marks, unique=unique)
        refused = pytest.raises(DatabaseError, match=triggers.REFUSAL)
        with refused, transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql, row)
    assert rows_of(table)[1] == before


def test_every_unique_column_of_the_trail_is_looked_at():
    """Red when a model of the trail gets a unique column and UNIQUE does not."""
    for model in (AuditEntry, AuditSeal):
        unique = {field.column for field in model._meta.fields if field.unique}
        assert unique == set(triggers.UNIQUE[model._meta.db_table])
        assert not model._meta.unique_together and not model._meta.total_unique_constraints


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


def test_a_kept_seal_shows_that_the_end_was_cut_off(sealed, capsys):
    """Red when --head is not looked for: what is left of a chain without its end holds."""
    head = chain_head().seal
    call_command("audit", "verify", head=head)
    assert head in capsys.readouterr().out
    last = "(SELECT max(entry_id) FROM audit_auditseal)"
    without_triggers(f"DELETE FROM audit_auditentry WHERE id = {last}")
    without_triggers("DELETE FROM audit_auditseal WHERE id = (SELECT max(id) FROM audit_auditseal)")
    call_command("audit", "verify")
    with pytest.raises(CommandError, match="does not hold: 1 faults"):
        call_command("audit", "verify", head=f" {head.upper()}\n")
    assert f"The seal {head} is not in the chain" in capsys.readouterr().err


def test_a_rolled_back_change_leaves_no_entry(sealed):
    with pytest.raises(RuntimeError, match="stop"), transaction.atomic():
        record(actor="test", verb="project.changed", target=sealed)
        raise RuntimeError("stop")
    assert AuditEntry.objects.count() == 3


def test_record_outside_a_transaction_is_refused(trail_that_can_be_flushed):
    project = Project.objects.create(name="example")
    with pytest.raises(RuntimeError, match="inside the transaction"):
        record(actor="test", verb="project.changed", target=project)
