"""What a setting is. Not for: which there are.

Definitions are those of `portal.drivers.inspection`: values by name, and changes as patches of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Defined = Mapping[str, Any]
Choices = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Ground:
    """What a machine is defined as, and what its host's emulator can give such a domain.

    `able` holds the values of `portal.drivers.types.DomainAbilities`, empty while nobody knows them, and
    beside them `machines`: every machine type of the host.
    """

    defined: Defined
    able: Mapping[str, Any] = field(default_factory=dict)

    def devices(self, kind: str) -> list[Any]:
        """Return the machine's devices of a kind."""
        return devices(self.defined, kind)

    def can(self, name: str) -> tuple[str, ...]:
        """Return what the emulator offers of a kind, nothing while nobody knows."""
        return tuple(self.able.get(name, ()))


def devices(defined: Defined, kind: str) -> list[Any]:
    """Return the devices of a kind in a definition; one of which nothing is understood is empty."""
    return [device or {} for device in defined.get("devices", {}).get(kind, ())]


def nothing(_ground: Ground) -> str:
    """Say nothing."""
    return ""


def nothing_against(_ground: Ground, _value: str) -> str:
    """Say nothing against a value."""
    return ""


def as_it_is(value: str) -> str:
    """Return a value that is its own word."""
    return value


def word_of(choices: Choices) -> Callable[[str], Any]:
    """Return what tells a value's word from `choices`."""
    return lambda value: dict(choices).get(value, value)


@dataclass(frozen=True)
class Plugged:
    """A device of a kind that a setting gives and takes, also while the machine runs (`vms.hotplug`).

    `own` tells which of the kind are its own. `comes` and `goes` say of a machine that runs what counts when.
    """

    kind: str
    own: Callable[[Any], bool]
    comes: Any
    goes: Any

    def of(self, defined: Defined) -> list[Any]:
        """Return the devices of a definition that are its own."""
        return [device for device in devices(defined, self.kind) if self.own(device)]


@dataclass(frozen=True)
class Setting:
    """One value that people set: how it is read from a definition, and what change makes it another."""

    name: str
    label: Any
    read: Callable[[Defined], str]
    patch: Callable[[Ground, str], dict[str, Any]]
    #: What it can be; None for free text.
    choices: Callable[[Ground], Choices] | None = None
    #: Why it cannot be set here, '' when it can.
    fixed: Callable[[Ground], str] = nothing
    #: What else it could be were the host or the machine another, and why it cannot.
    lacks: Callable[[Ground], str] = nothing
    word: Callable[[str], Any] = as_it_is
    #: Why a value cannot be, '' when it can; of free text and what has no choices.
    refuses: Callable[[Ground, str], str] = nothing_against
    #: What cannot be set in the same change.
    excludes: tuple[str, ...] = ()
    #: What somebody should know before they set it.
    hint: Any = ""
    #: Whether the guest sees it: then it is so from its next start on.
    at_next_start: bool = True
    #: The device that it gives and takes at once.
    plugged: Plugged | None = None

    def in_words(self, value: str) -> str:
        """Return a value as people read it."""
        return str(self.word(value))
