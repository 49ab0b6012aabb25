"""The trail as CSV and as JSON lines, streamed in batches so that a million entries need no memory.

JSON lines, version 1 ("gatehouse.audit/1"). UTF-8, one JSON object a line:

- The first line: `format`, `made_at`, `made_by`, `filters` (sentences, empty for everything) and `head`, the
  last seal of the whole chain at that moment.
- Each further line is one entry, oldest first: `id`, `entry` (at, actor_id, actor_name, verb, target_type,
  target_id, target_name, before, after), `entry_hash`, and of its seal `seal_number`, `previous`, `seal`;
  these four are null for an entry that was not sealed at that moment.

To verify it without the portal, with canonical(x) = JSON with sorted keys, no spaces, and only ASCII
(everything else as \\uXXXX):

1. entry_hash = SHA-256 of canonical(entry).
2. seal = SHA-256 of canonical({"entry_hash": entry_hash, "entry_id": id, "previous": previous}).
3. Sorted by seal_number, each `previous` is the `seal` before it; the first one is 64 zeros. Where
   filters left entries out, this holds for neighbours of the chain only; without filters for all, and the
   last is `head`.

Keep `head` somewhere else: whoever rewrites the whole chain cannot make it end in that seal again.
"""

import csv
import json
from collections.abc import Iterator
from typing import Any

from django.utils import timezone

from portal.audit.models import AuditEntry, AuditSeal
from portal.audit.services import Head, entry_content
from portal.core.canonical import canonical_json

FORMAT = "gatehouse.audit/1"
COLUMNS = ("id", "at", "actor_id", "actor_name", "verb", "target_type", "target_id", "target_name")
#: What makes a spreadsheet take a cell for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class _Echo:
    """A file for csv.writer that hands back what is written."""

    def write(self, text: str) -> str:
        return text


def safe_cell(value: Any) -> str:
    """Return `value` as text that no spreadsheet runs as a formula: a leading apostrophe stops it."""
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _seals(batch: list[AuditEntry], head: Head) -> dict[int, AuditSeal]:
    """Return the seals up to `head`: what the sealer appends while the file is written is not in it."""
    found = AuditSeal.objects.filter(entry_id__in=[entry.pk for entry in batch], pk__lte=head.number)
    return {seal.entry_id: seal for seal in found}


def csv_lines(entries: Any, *, head: Head) -> Iterator[str]:
    """Yield the entries as CSV, a batch at a time; times in UTC, before and after as JSON."""
    writer = csv.writer(_Echo())
    # The mark tells Excel that this is UTF-8.
    yield "\ufeff" + writer.writerow([*COLUMNS, "before", "after", "seal"])
    for batch in entries.batches():
        seals = _seals(batch, head)
        yield "".join(writer.writerow(_cells(entry, seals.get(entry.pk))) for entry in batch)


def _cells(entry: AuditEntry, seal: AuditSeal | None) -> list[str]:
    content = entry_content(entry)
    plain = [entry.pk if name == "id" else content[name] for name in COLUMNS]
    states = ["" if state is None else canonical_json(state) for state in (entry.before, entry.after)]
    return [safe_cell(value) for value in (*plain, *states, seal.seal if seal else "")]


def json_lines(entries: Any, *, made_by: str, filters: list[str], head: Head) -> Iterator[str]:
    """Yield the entries in the format that this module describes, a batch at a time."""
    first = {"format": FORMAT, "made_at": timezone.now().isoformat(), "made_by": made_by}
    yield json.dumps(first | {"filters": filters, "head": head.seal}) + "\n"
    for batch in entries.batches():
        seals = _seals(batch, head)
        yield "".join(json.dumps(_line(entry, seals.get(entry.pk))) + "\n" for entry in batch)


def _line(entry: AuditEntry, seal: AuditSeal | None) -> dict[str, Any]:
    return {
        "id": entry.pk,
        "entry": entry_content(entry),
        "entry_hash": seal.entry_hash if seal else None,
        "seal_number": seal.pk if seal else None,
        "previous": seal.previous if seal else None,
        "seal": seal.seal if seal else None,
    }
