"""The trail for people: what an entry changed, and the text of the report. Not for: laying it out (paper)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.db.models import Count
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.audit.models import AuditEntry
from portal.audit.services import Verification
from portal.core.canonical import canonical_json

#: Entries in one report: beyond this nobody reads, and laying it out keeps a processor busy for minutes.
ENTRIES_LIMIT = 2_000
#: Lines of one entry in the report; the page and the JSON lines hold all.
CHANGES_LIMIT = 12


@dataclass(frozen=True)
class Change:
    """One value that an entry speaks of; None where it was not there."""

    path: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> str:
        """'same', 'added', 'removed' or 'changed'."""
        if self.before == self.after:
            return "same"
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each value below `value` with its path; lists stay whole, since a position is no name."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif value is not None or path:
        yield path, value if isinstance(value, str) and value else canonical_json(value)


def difference(entry: AuditEntry) -> list[Change]:
    """Return what changed value by value, those that differ first."""
    before, after = dict(_leaves(entry.before)), dict(_leaves(entry.after))
    paths = dict.fromkeys([*before, *after])
    changes = [Change(path, before.get(path), after.get(path)) for path in paths]
    return sorted(changes, key=lambda change: change.kind == "same")


def _totals(entries: Any, column: str) -> list[dict[str, Any]]:
    counted = entries.order_by().values(column).annotate(number=Count("pk")).order_by("-number", column)
    return [{"name": row[column], "number": row["number"]} for row in counted[:12]]


def report_html(entries: Any, *, actor: Any, filters: list[str], verification: Verification) -> str:
    """Render the report of the restricted and filtered `entries`, the newest ENTRIES_LIMIT of them."""
    number = entries.count()
    shown = [
        {"entry": entry, "changes": list(islice(_told(entry), CHANGES_LIMIT))}
        for entry in entries.order_by("-pk")[:ENTRIES_LIMIT]
    ]
    context = {
        "rows": shown,
        "number": number,
        "limit": ENTRIES_LIMIT if number > ENTRIES_LIMIT else None,
        "first": entries.order_by("pk").values_list("at", flat=True).first(),
        "last": entries.order_by("-pk").values_list("at", flat=True).first(),
        "verbs": _totals(entries, "verb"),
        "actors": _totals(entries, "actor_name"),
        "actor": actor,
        "made_at": timezone.now(),
        "filters": filters or [_("Everything in the trail")],
        "verification": verification,
    }
    return render_to_string("audit/report.html", context)


def _told(entry: AuditEntry) -> Iterator[Change]:
    return (change for change in difference(entry) if change.kind != "same")
