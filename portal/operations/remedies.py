"""Pages on which people mend what made an operation fail, by its error's code. Not for: the sentences."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Remedy:
    """Where `may` lets somebody mend it: a link called `label` to `url`."""

    label: Any
    url: Callable[[], str]
    may: Callable[[Any], bool]


_remedies: dict[str, Remedy] = {}


def register(code: str, remedy: Remedy) -> None:
    """Let a room say where its errors of that code are mended."""
    _remedies[code] = remedy


def remedy_for(user: Any, code: str) -> dict[str, Any] | None:
    """Return the link for `user`, None where there is none or they may not."""
    found = _remedies.get(code)
    if found is None or not found.may(user):
        return None
    return {"label": found.label, "url": found.url()}
