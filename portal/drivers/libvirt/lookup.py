"""Find what was defined before by name and UUID; not for calls that change anything."""

from collections.abc import Iterable
from typing import Any

from portal.drivers.errors import AlreadyExists


def find_same(objects: Iterable[Any], name: str, uuid: str, kind: str) -> Any | None:
    """Return the object with that name and UUID, None when both are free.

    Raises AlreadyExists when only one of the two is taken by another object.
    """
    for candidate in objects:
        found = (candidate.name(), candidate.UUIDString())
        if found == (name, uuid):
            return candidate
        if name == found[0] or uuid == found[1]:
            raise AlreadyExists(f"{kind} {found[0]} has uuid {found[1]}")
    return None
