"""Pieces of page that a higher room puts on a page of a lower one. Not for: live updates.

It is here and not with the registries of `portal.operations` because `portal.accounts`, whose pages have such
places, lies below that room.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest


@dataclass(frozen=True)
class PagePanel:
    """A piece for the place `slot`, such as `hosts.detail`.

    `render(request, subject)` returns safe HTML of a template, of what the reader may see; empty for nothing.
    """

    slot: str
    render: Callable[[HttpRequest, Any], str]


_panels: list[PagePanel] = []


def register(panel: PagePanel) -> None:
    """Show `panel` in its slot from now on, after those that are there."""
    _panels.append(panel)


def pieces(slot: str, request: HttpRequest, subject: Any) -> Sequence[str]:
    """Return the pieces for `slot` about `subject`, in the order of registration."""
    return [piece for panel in _panels if panel.slot == slot and (piece := panel.render(request, subject))]
