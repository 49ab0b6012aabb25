"""The frozen request: what was asked, pinned so that an approval can be bound to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from portal.core.canonical import canonical_json, digest

VERSION = 1


@dataclass(frozen=True)
class RequestSpec:
    """A request as canonical, versioned JSON.

    `sizes` are positive integers that a lowering may only make smaller (vcpu, memory and disk in bytes,
    lease in seconds). `pinned` is everything else (image digest, network, user-data), never a mutable
    catalogue id. Raises ValueError for a size that is no positive integer.
    """

    kind: str
    sizes: Mapping[str, int]
    pinned: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name, value in self.sizes.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number above zero")

    def as_dict(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "kind": self.kind,
            "sizes": dict(self.sizes),
            "pinned": dict(self.pinned),
        }

    def text(self) -> str:
        return canonical_json(self.as_dict())

    def hash(self) -> str:
        return digest(self.as_dict())

    def covers(self, other: "RequestSpec") -> bool:
        """Tell whether `other` is this request, nowhere larger and otherwise the same."""
        return (
            self.kind == other.kind
            and canonical_json(dict(self.pinned)) == canonical_json(dict(other.pinned))
            and self.sizes.keys() == other.sizes.keys()
            and all(other.sizes[name] <= value for name, value in self.sizes.items())
        )
