"""Say what the portal understands of a definition and what it keeps untouched, and change the former.

Not for: hosts; nothing here asks one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any

from portal.drivers.libvirt.xml.foreign.document import LONGEST, Understood, parse, serialise
from portal.drivers.libvirt.xml.foreign.domain import DOMAIN
from portal.drivers.libvirt.xml.foreign.fields import put_all, read_all
from portal.drivers.libvirt.xml.foreign.network import NETWORK
from portal.drivers.libvirt.xml.foreign.volume import VOLUME

__all__ = [
    "LONGEST",
    "Difference",
    "Inspection",
    "Kind",
    "agrees",
    "changed",
    "differences",
    "inspect",
    "outcome",
    "reverse",
]


class Kind(StrEnum):
    """What a definition defines: the name of its root element."""

    DOMAIN = "domain"
    NETWORK = "network"
    VOLUME = "volume"


_TABLES = {Kind.DOMAIN: DOMAIN, Kind.NETWORK: NETWORK, Kind.VOLUME: VOLUME}


@dataclass(frozen=True, slots=True)
class Inspection:
    """`understood`: values by name, sizes in bytes. `kept`: what else is there, see `Understood.kept`."""

    understood: dict[str, Any]
    kept: list[dict[str, str]]


def inspect(kind: Kind, content: bytes) -> Inspection:
    """Read a definition of libvirt's. Raises InvalidSpec for what is none of that kind."""
    root = parse(content, kind)
    noted = Understood()
    noted.element(root)
    return Inspection(read_all(_TABLES[kind], root, noted), noted.kept(root))


def changed(kind: Kind, content: bytes, change: Mapping[str, Any]) -> str:
    """Return a definition with `change` made to what is understood of it; all else stays as it stands.

    `change` is a JSON merge patch (RFC 7396) of `Inspection.understood`: a value replaces, None takes away,
    and what is not named stays. Unlike there, a list of objects is merged place by place: `{}` leaves the
    n-th as it is, None takes it away with all that is in it, and what is beyond the last is new.
    Raises InvalidSpec for a value that would not be read as it was written, and for a name that nobody knows.
    """
    root = parse(content, kind)
    table = _TABLES[kind]
    put_all(table, root, _merged(read_all(table, root, Understood()), change))
    return serialise(root)


def _merged(present: Any, change: Any) -> Any:
    if isinstance(change, Mapping):
        present = present if isinstance(present, Mapping) else {}
        return {**present, **{name: _merged(present.get(name), part) for name, part in change.items()}}
    if isinstance(change, list) and not any(isinstance(part, str) for part in change):
        there: list[Any] = present if isinstance(present, list) else []
        pairs: Iterator[tuple[Any, Any]] = zip_longest(there, change, fillvalue={})
        return [_merged(part, wish) for part, wish in pairs]
    return change


def reverse(before: Any, change: Any) -> Any:
    """Return the change that takes `change` back, where `before` are the values that it was made to.

    Of something that was taken away only what was understood comes back.
    """
    if isinstance(change, Mapping) and isinstance(before, Mapping):
        return {name: reverse(before.get(name), part) for name, part in change.items()}
    if isinstance(change, list) and isinstance(before, list):
        pairs: Iterator[tuple[Any, Any]] = zip_longest(before, change, fillvalue={})
        return [reverse(part, wish) if part else None for part, wish in pairs]
    return before


def outcome(before: Any, change: Any) -> Any:
    """Return what the values that `change` names are once it is made to `before`; lists are whole."""
    if isinstance(change, Mapping):
        before = before if isinstance(before, Mapping) else {}
        return {name: outcome(before.get(name), part) for name, part in change.items()}
    after = _merged(before, change)
    return [part for part in after if part is not None] if isinstance(after, list) else after


def agrees(found: Any, wanted: Any) -> bool:
    """Tell whether values are as `outcome` said that they will be; what it does not name may be anything.

    A change of a list cannot tell by itself that it was made: it counts places, which are others then.
    """
    if isinstance(wanted, Mapping):
        found = found if isinstance(found, Mapping) else {}
        return all(agrees(found.get(name), part) for name, part in wanted.items())
    if isinstance(wanted, list):
        found = found if isinstance(found, list) else []
        return len(found) == len(wanted) and all(map(agrees, found, wanted))
    return bool(found == wanted)


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that differs: `at` is its place, names and numbers from the outside in; None is absent."""

    at: tuple[str | int, ...]
    before: Any
    after: Any


def differences(before: Any, after: Any, at: tuple[str | int, ...] = ()) -> Iterator[Difference]:
    """Yield what differs between two values of `Inspection.understood`, in their order, leaf by leaf."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in {**before, **after}:
            yield from differences(before.get(name), after.get(name), (*at, name))
    elif isinstance(before, list) and isinstance(after, list):
        for number, (first, second) in enumerate(zip_longest(before, after)):
            yield from differences(first, second, (*at, number))
    elif before != after:
        yield Difference(at, before, after)
