"""Database triggers that refuse to change the trail. Applied by a migration; applying again is harmless."""

from typing import Any

#: Tables of the trail and their unique columns.
UNIQUE = {"audit_auditentry": ("id",), "audit_auditseal": ("id", "entry_id", "previous")}
TABLES = tuple(UNIQUE)
REFUSAL = "the audit trail cannot be changed"


def install(apps: Any, schema_editor: Any) -> None:
    """Create the triggers on SQLite or PostgreSQL. SQLite drops them when a migration rebuilds a table:
    any later migration that alters these tables must end with this operation again."""
    vendor = schema_editor.connection.vendor
    if vendor == "postgresql":
        schema_editor.execute(
            "CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
            params=None,
        )
    for table in TABLES:
        remove_from(schema_editor, table)
        if vendor == "postgresql":
            schema_editor.execute(
                f"CREATE TRIGGER {table}_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
                params=None,
            )
            continue
        for event in ("UPDATE", "DELETE"):
            schema_editor.execute(
                f"CREATE TRIGGER {table}_keep_{event.lower()} BEFORE {event} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
                params=None,
            )
        # INSERT OR REPLACE deletes the rows in its way, and SQLite fires no DELETE trigger for those.
        taken = " OR ".join(f"{column} = NEW.{column}" for column in UNIQUE[table])
        in_the_way = f"EXISTS (SELECT 1 FROM {table} WHERE {taken})"  # noqa: S608 (names of this module)
        schema_editor.execute(
            f"CREATE TRIGGER {table}_keep_insert BEFORE INSERT ON {table} WHEN {in_the_way} "
            f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
            params=None,
        )


def remove_from(schema_editor: Any, table: str) -> None:
    """Drop the triggers of `table`, if there are any."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(f"DROP TRIGGER IF EXISTS {table}_keep ON {table}", params=None)
        return
    for event in ("update", "delete", "insert"):
        schema_editor.execute(f"DROP TRIGGER IF EXISTS {table}_keep_{event}", params=None)


def remove(apps: Any, schema_editor: Any) -> None:
    """Undo `install`."""
    for table in TABLES:
        remove_from(schema_editor, table)
