"""Pieces of page that the server keeps up to date in open browsers; rooms above register theirs.

It is here and not with the registries of `portal.operations` because the socket's consumer, which asks it,
lives in this room below.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from portal.core.numbers import number_of


@dataclass(frozen=True)
class Panel:
    """A partial that a page shows as `data-live="<name>:<id>"`.

    `render(user, ids)` returns the HTML by id, of those that `user` may see and that are still there; it
    asks the database a constant number of times. `topics(id)` are the bells that concern one of them.
    """

    name: str
    render: Callable[[Any, Sequence[str]], dict[str, str]]
    topics: Callable[[str], Sequence[str]]


_panels: dict[str, Panel] = {}


def register(panel: Panel) -> None:
    """Make `panel` known. Raises ValueError for a name that is taken."""
    if panel.name in _panels:
        raise ValueError(f"the live panel {panel.name} is registered already")
    _panels[panel.name] = panel


def row_keys(ids: Sequence[str]) -> list[int]:
    """Return the ids that can be a row's key: they come from browsers, and a longer number fits no column."""
    return [number for identity in ids if (number := number_of(identity)) is not None]


def find(name: str) -> Panel | None:
    """Return the panel called `name`, None when there is none: names come from browsers."""
    return _panels.get(name)
