"""Which definitions a watch reads next, and what it tells of them. Not for: hosts' other news.

Nobody says each time that a definition changed, and reading all of a large host's at once costs it seconds.
So those that were touched are read first, then those that nobody read yet, then those read longest ago.
"""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from portal.drivers.inspection import Kind, inspect
from portal.drivers.libvirt.xml.foreign.unread import waiting
from portal.drivers.types import DomainDefinition

#: Read in a round at most, and of those that were read before. Few: whoever writes them down writes nothing
#: else meanwhile, and what happens on the host waits.
MOST, AGAIN = 10, 3


@dataclass(frozen=True, slots=True)
class DefinitionSeen:
    """A domain's definition as it is understood (`portal.drivers.inspection`), told by a host.

    `persistent` is None for a domain that is only while it runs, `running` for one that is off. `kept` counts
    what the persistent one holds beyond that.
    """

    digest: str
    persistent: dict[str, Any] | None
    running: dict[str, Any] | None
    kept: int
    #: Whether the domain starts with its host.
    autostart: bool = False
    #: What differs between the two beyond what is understood: by element, as it runs and as it will.
    unread: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, definition: DomainDefinition) -> "DefinitionSeen":
        """Read what a host printed. Raises InvalidSpec."""
        defined, runs = (
            inspect(Kind.DOMAIN, text.encode()) if text else None
            for text in (definition.persistent, definition.running)
        )
        return cls(
            digest=definition.digest,
            persistent=defined.understood if defined else None,
            running=runs.understood if runs else None,
            kept=len(defined.kept) if defined else 0,
            autostart=definition.autostart,
            unread=waiting(runs.kept, defined.kept) if runs and defined else {},
        )


class Rounds:
    """Chooses what is read. Safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: When each domain's definition was read, 0 for never.
        self._read: dict[str, float] = {}
        self._touched: dict[str, None] = {}

    def listed(self, uuids: Collection[str]) -> None:
        """Take these for all domains that are there."""
        with self._lock:
            self._read = {uuid: self._read.get(uuid, 0.0) for uuid in uuids}
            self._touched = {uuid: None for uuid in self._touched if uuid in self._read}

    def touched(self, uuid: str) -> None:
        """Read this one's soon."""
        with self._lock:
            self._touched[uuid] = None

    def next(self) -> list[str]:
        """Return whose definitions to read now; they count as read."""
        with self._lock:
            oldest = sorted(self._read, key=self._read.__getitem__)
            new = [uuid for uuid in oldest if not self._read[uuid]]
            again = oldest[len(new) : len(new) + AGAIN]
            chosen = list(dict.fromkeys([*self._touched, *new, *again]))[:MOST]
            for uuid in chosen:
                self._touched.pop(uuid, None)
                self._read[uuid] = time.monotonic()
            return chosen
