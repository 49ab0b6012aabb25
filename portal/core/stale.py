"""Refuse a change by who did not see what it changes. Not for: how a page carries that (`SeenForm`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _

from portal.core.errors import Denied

Snapshot = Mapping[str, Any]


class Changed(Denied):
    """Somebody else changed the same thing meanwhile; `changes` are (value, as it was seen, as it is)."""

    def __init__(self, name: str, changes: Sequence[tuple[str, Any, Any]]) -> None:
        super().__init__(
            _("Somebody changed %(name)s since you opened it. Nothing of yours was saved.") % {"name": name}
        )
        self.changes = changes

    @property
    def before(self) -> Snapshot:
        """Return what differs, as it was seen."""
        return {key: was for key, was, _now in self.changes}

    @property
    def after(self) -> Snapshot:
        """Return what differs, as it is."""
        return {key: now for key, _was, now in self.changes}


def check_seen(name: str, seen: Snapshot, now: Snapshot) -> None:
    """Raise Changed unless the values are those that the actor saw; call it with the row locked."""
    changes = [(key, seen.get(key), value) for key, value in now.items() if seen.get(key) != value]
    if changes:
        raise Changed(name, changes)
