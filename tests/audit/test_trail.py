"""The trail cannot be changed, its chain shows what was, and a rolled-back change leaves no entry."""

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction

from portal.accounts.models import Project
from portal.audit import triggers
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


def test_an_untouched_chain_holds(sealed):
    assert list(verify()) == []
    assert seal_pending() == 0
    call_command("audit", "verify")


@pytest.mark.parametrize(
    "statement, sentence",
    [
        ("UPDATE audit_auditentry SET verb = 'nothing' WHERE id = (SELECT max(id) FROM audit_auditentry)",
         "was changed after"),
        ("DELETE FROM audit_auditentry WHERE id = (SELECT min(id) FROM audit_auditentry)", "was removed"),
        ("DELETE FROM audit_auditseal WHERE id = (SELECT min(id) FROM audit_auditseal)", "does not continue"),
        ("UPDATE audit_auditseal SET seal = 'x' WHERE id = (SELECT max(id) FROM audit_auditseal)",
         "was changed"),
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
