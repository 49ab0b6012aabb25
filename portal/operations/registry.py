"""Operation kinds: what rooms above register, so that the runner need not import them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class StepFailed(Exception):
    """A step cannot be done; what was done before it is undone. `code` selects the sentence for people."""

    def __init__(self, code: str, raw: str = "") -> None:
        super().__init__(raw or code)
        self.code = code
        self.raw = raw


@dataclass(frozen=True)
class StepContext:
    """What a step may know: the frozen request and the names fixed before anything was created."""

    spec: Mapping[str, Any]
    identifiers: Mapping[str, Any]


class Step(ABC):
    """One thing done on a host, and how to take it back.

    A worker may die at any instant, so both are idempotent: `do` finds and keeps what an earlier attempt
    made under the same identifiers, `undo` accepts that nothing is there.
    """

    name: str

    @abstractmethod
    def do(self, context: StepContext) -> None:
        """Do it. Raises StepFailed."""

    @abstractmethod
    def undo(self, context: StepContext) -> None:
        """Take it back. Raises StepFailed when it cannot now; the reaper comes back to it."""


@dataclass(frozen=True)
class Kind:
    """A kind of operation: its steps, in the order in which they are done."""

    name: str
    steps: Sequence[Step]


_kinds: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Make `kind` known. Raises ValueError for a name that is taken or a step name that comes twice."""
    if kind.name in _kinds:
        raise ValueError(f"the operation kind {kind.name} is registered already")
    if len({step.name for step in kind.steps}) != len(kind.steps):
        raise ValueError(f"{kind.name} has two steps of one name")
    _kinds[kind.name] = kind


def kind_of(name: str) -> Kind:
    """Return the kind called `name`. Raises KeyError."""
    return _kinds[name]
