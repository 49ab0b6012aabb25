"""Operation kinds: what rooms above register, so that the runner need not import them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portal.operations.models import Operation
    from portal.operations.states import State


class StepFailed(Exception):
    """A step cannot be done; what was done before it is undone.

    `code` selects the sentence for people, `raw` is for operators, and `retryable` says that the same step
    may succeed a little later (a host that comes back). `away` says that the host is known to be gone:
    nothing can be done or taken back there until it returns.
    """

    def __init__(self, code: str, raw: str = "", *, retryable: bool = False, away: bool = False) -> None:
        super().__init__(raw or code)
        self.code = code
        self.raw = raw
        self.retryable = retryable
        self.away = away


@dataclass(frozen=True)
class StepContext:
    """What a step may know: the frozen request and the names fixed before anything was created.

    A step that waits calls `check` between looks: it raises StaleAttempt once somebody else has the
    operation, and CancelAsked once it is to be taken back.
    """

    spec: Mapping[str, Any]
    identifiers: Mapping[str, Any]
    check: Callable[[], None]


class Step(ABC):
    """One thing done on a host, and how to take it back.

    A worker may die at any instant, so both are idempotent: `do` finds and keeps what an earlier attempt
    made under the same identifiers, `undo` accepts that nothing is there.
    """

    name: str
    #: What people read while it runs.
    title: str

    @abstractmethod
    def do(self, context: StepContext) -> None:
        """Do it. Raises StepFailed."""

    @abstractmethod
    def undo(self, context: StepContext) -> None:
        """Take it back. Raises StepFailed when it cannot now; the reaper comes back to it."""


def _nothing_to_place(operation: "Operation") -> None:
    """Accept an operation whose place is known already."""


def _nothing_to_settle(operation: "Operation", state: "State") -> None:
    """Accept the end of an operation that leaves no row behind."""


@dataclass(frozen=True)
class Kind:
    """A kind of operation.

    `steps` in the order in which they are done. `place` runs in the transaction of the final approval: it
    chooses the host, holds its capacity, sets `operation.lane` and `operation.identifiers`, and raises
    Denied when there is no room. `settle` runs in the transaction that ends the operation and moves the
    life-cycle of what it was about. `waits_for_host`: when the host goes away it is lost until the host
    returns and then goes on, instead of failing. `cancellable`: it may be taken back while it runs.
    """

    name: str
    title: str
    steps: Sequence[Step]
    place: Callable[["Operation"], None] = _nothing_to_place
    settle: Callable[["Operation", "State"], None] = _nothing_to_settle
    waits_for_host: bool = True
    cancellable: bool = False


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
