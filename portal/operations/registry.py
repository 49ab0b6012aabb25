"""Operation kinds: what rooms above register, so that the runner need not import them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from portal.accounts.backends import may

if TYPE_CHECKING:
    from portal.operations.models import Operation
    from portal.operations.states import State


class StepFailed(Exception):
    """A step cannot be done; what was done before it is undone.

    `code` selects the sentence for people, `raw` is for operators, and `retryable` says that the same step
    may succeed a little later (a host that comes back). `away` says that the host is known to be gone:
    nothing can be done or taken back there until it returns. Of `raw` whatever no database keeps is replaced.
    """

    def __init__(self, code: str, raw: str = "", *, retryable: bool = False, away: bool = False) -> None:
        # Some of it comes from files and servers of strangers.
        raw = raw.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
        super().__init__(raw or code)
        self.code = code
        self.raw = raw
        self.retryable = retryable
        self.away = away


def _nobody_looks(percent: int) -> None:
    """Tell nobody how far a step is."""


@dataclass(frozen=True)
class StepContext:
    """What a step may know: the frozen request and the names fixed before anything was created.

    A step that waits calls `check` between looks: it raises StaleAttempt once somebody else has the
    operation, and CancelAsked once it is to be taken back. One that knows how far it is tells `progress`, in
    percent.
    """

    spec: Mapping[str, Any]
    identifiers: Mapping[str, Any]
    check: Callable[[], None]
    progress: Callable[[int], None] = _nobody_looks


class Step(ABC):
    """One thing done on a host, and how to take it back.

    A worker may die at any instant, so both are idempotent: `do` finds and keeps what an earlier attempt
    made under the same identifiers, `undo` accepts that nothing is there.
    """

    name: str
    #: What people read while it runs.
    title: str

    @abstractmethod
    def do(self, context: StepContext) -> str | None:
        """Do it. Raises StepFailed. May return the code of a sentence that tells people what came of it."""

    @abstractmethod
    def undo(self, context: StepContext) -> None:
        """Take it back. Raises StepFailed when it cannot now; the reaper comes back to it."""


@dataclass(frozen=True)
class QuotaLeft:
    """What a counter has left once a request has what it asks: texts with units, and the rest as a share."""

    title: str
    resource: str
    left: str
    limit: str
    #: How much of the limit is taken after it, in percent; more than 100 when it does not fit.
    percent: int


@dataclass(frozen=True)
class Outlook:
    """What a request would mean now. Looking changes nothing; asking and approving decide."""

    #: Where it would land; empty when no host has room now.
    place: str = ""
    cost_month: str = ""
    quotas: Sequence[QuotaLeft] = ()
    #: More about it there, as label and value.
    facts: Sequence[tuple[str, str]] = ()
    #: What stands in the way of approving it now, in sentences.
    warnings: Sequence[str] = ()
    #: By resource, the sentence that says which quota is too small to ask for it at all.
    shortages: Mapping[str, str] = field(default_factory=dict)

    @property
    def tightest(self) -> Sequence[QuotaLeft]:
        """Of each resource the quota that is closest to its limit, in their order."""
        found: dict[str, QuotaLeft] = {}
        for quota in self.quotas:
            if quota.resource not in found or quota.percent > found[quota.resource].percent:
                found[quota.resource] = quota
        return list(found.values())


class Asking(ABC):
    """How a kind's requests are dealt with before they are carried out. The room that owns the kind knows.

    `verbs`: who holds one of them in a project may ask for it there.
    """

    verbs: Sequence[str] = ("request",)

    @abstractmethod
    def amounts(self, operation: "Operation", sizes: Mapping[str, int]) -> Mapping[tuple[str, str], int]:
        """Return what a request of `sizes` takes from the quotas of its project and its requester."""

    @abstractmethod
    def check_lowered(self, spec: Mapping[str, Any]) -> None:
        """Raise Denied, with the size as its field, when the lowered request could not be built."""

    @abstractmethod
    def outlooks(self, operations: Sequence["Operation"]) -> Mapping[int, Outlook]:
        """Return the what-if of each waiting operation, by its key, in a constant number of queries."""

    @abstractmethod
    def edit_url(self, operation: "Operation") -> str:
        """Return the address of the page that edits a waiting request."""

    @abstractmethod
    def copy_url(self, operation: "Operation") -> str:
        """Return the address of the form that is filled in like this request."""


def _nothing_to_place(operation: "Operation") -> None:
    """Accept an operation whose place is known already."""


def _nothing_listed() -> Sequence[str]:
    """Return no names: what is asked for comes from no catalogue."""
    return ()


def _nothing_owned(person: Any) -> int:
    """Count nothing: this kind makes nothing that a person has."""
    return 0


def _nothing_to_settle(operation: "Operation", state: "State") -> None:
    """Accept the end of an operation that leaves no row behind."""


def _no_page(operation: "Operation") -> str:
    """Leave it at the page of the operation itself."""
    return ""


@dataclass(frozen=True)
class Kind:
    """A kind of operation.

    `steps` in the order in which they are done. `place` runs in the transaction of the final approval: it
    chooses the host, holds its capacity, sets `operation.lane` and `operation.identifiers`, and raises
    Denied when there is no room. `settle` runs in the transaction that ends the operation and moves the
    life-cycle of what it was about. `waits_for_host`: when the host goes away it is lost until the host
    returns and then goes on, instead of failing. `cancellable`: it may be taken back while it runs.
    `asking` is there for what waits for an approval first. `announce` tells the requester that it is
    done, with `%(name)s` in it; empty for what they see at once. `page` is where people go from there,
    and from the operation's page, '' for nowhere. For the policies, `items` names what the catalogue
    offers of it, and `owned` counts what a person has of it. `judged_as` names the kind that policies
    take it for. `parts`: its `place` begins operations of their own, which carry its token as their
    batch. `slow`: it copies disks or memory, of which few at a time are made on a host, so that quick
    work always finds a worker.
    """

    name: str
    title: str
    steps: Sequence[Step]
    place: Callable[["Operation"], None] = _nothing_to_place
    settle: Callable[["Operation", "State"], None] = _nothing_to_settle
    waits_for_host: bool = True
    cancellable: bool = False
    asking: Asking | None = None
    announce: Any = ""
    page: Callable[["Operation"], str] = _no_page
    items: Callable[[], Sequence[str]] = _nothing_listed
    owned: Callable[[Any], int] = _nothing_owned
    judged_as: str = ""
    parts: bool = False
    slow: bool = False


#: Locks what an operation works on, or what a request is about, and returns the keys of the operations
#: whose reservations count that.
Lock = Callable[["Operation"], Sequence[int]]

_kinds: dict[str, Kind] = {}
_locks: list[Lock] = []


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


def register_lock(lock: Lock) -> None:
    """Let a room lock what operations are about; `lock` accepts operations of every kind."""
    _locks.append(lock)


def lock_subject(operation: "Operation") -> list[int]:
    """Lock what `operation` is about until the transaction ends; return the keys of those that count it.

    After the operation's own row, before any counter: so does everybody, or two could wait for each other.
    """
    return [key for lock in _locks for key in lock(operation)]


def may_ask(person: Any, kind: str, project: Any) -> bool:
    """Tell whether `person` may ask for something of the kind called `kind` in `project` now."""
    asking = _kinds[kind].asking if kind in _kinds else None
    return any(may(person, verb, project) for verb in (asking.verbs if asking else Asking.verbs))


def judged_kind(name: str) -> str:
    """Return the kind that policies take the kind called `name` for."""
    return (_kinds[name].judged_as if name in _kinds else "") or name


def slow_kinds() -> list[str]:
    """Return the names of the kinds that are slow."""
    return [kind.name for kind in _kinds.values() if kind.slow]


def asked_kinds() -> list[Kind]:
    """Return the kinds that people ask for and policies tell apart, in the order of registration."""
    return [kind for kind in _kinds.values() if kind.asking is not None and not kind.judged_as]
