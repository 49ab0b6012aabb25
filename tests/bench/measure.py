"""Rows and the little statistics they need. Not for: measuring anything."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure: it holds when `value` is at most `limit`. `note` says over how many samples and how."""

    name: str
    value: float
    unit: str
    limit: float
    note: str = ""

    @property
    def holds(self) -> bool:
        return self.value <= self.limit

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"value": round(self.value, 3)}


#: A group shares one set-up: it yields its rows as they are measured.
Group = Callable[[], Iterator[Row]]


def median(samples: Sequence[float]) -> float:
    """Return the middle of `samples`."""
    return statistics.median(samples)


def p95(samples: Sequence[float]) -> float:
    """Return the smallest sample that 95 of 100 do not exceed (nearest rank; no interpolation)."""
    ordered = sorted(samples)
    return ordered[math.ceil(0.95 * len(ordered)) - 1]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as people read them."""
    width = max((len(row.name) for row in rows), default=0)
    lines = [f"{'row':{width}}  {'value':>9}  {'limit':>7}  unit   holds  how"]
    for row in rows:
        word = "yes" if row.holds else "NO"
        lines.append(
            f"{row.name:{width}}  {row.value:9.2f}  {row.limit:7g}  {row.unit:5}  {word:5}  {row.note}"
        )
    return "\n".join(lines)
