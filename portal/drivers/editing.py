"""One change of a domain's definition, and whether it was heeded. Not for: asking a host."""

from collections.abc import Mapping
from typing import Any

from portal.drivers.errors import ChangeIgnored, DefinitionChanged, InvalidSpec
from portal.drivers.inspection import Kind, changed, differences, inspect

#: What makes a domain this one: another name is a renaming, another UUID another domain.
FIXED = frozenset({"name", "uuid", "type"})


class Edit:
    """A change (see `portal.drivers.inspection.changed`) of the definition `present`.

    Raises InvalidSpec for one that cannot be.
    """

    def __init__(self, present: str, change: Mapping[str, Any]) -> None:
        if fixed := FIXED & set(change):
            raise InvalidSpec(f"{', '.join(sorted(fixed))} cannot be changed")
        self.wanted = changed(Kind.DOMAIN, present.encode(), change)
        self._before, self._after = _understood(present), _understood(self.wanted)

    @property
    def is_done(self) -> bool:
        """Tell whether the definition is so already."""
        return self._before == self._after

    def check_seen(self, digest: str, seen: str) -> None:
        """Raise DefinitionChanged unless the definition, of this `digest`, is the one that was seen."""
        if digest != seen:
            raise DefinitionChanged(f"it has the digest {digest}, not {seen}")

    def check_heeded(self, made: str) -> None:
        """Raise ChangeIgnored when a value of the definition `made` of it is as before.

        A hypervisor may write a value in its own way (`q35` becomes `pc-q35-7.2`); one that it does not know
        it leaves out, and says nothing.
        """
        found = _in_places(_understood(made), self._after)
        for difference in differences(self._before, self._after):
            if _at(found, difference.at) == difference.before:
                place = ".".join(map(str, difference.at))
                raise ChangeIgnored(f"{place} stayed {difference.before!r} and is not {difference.after!r}")


def _understood(text: str) -> dict[str, Any]:
    return inspect(Kind.DOMAIN, text.encode()).understood


def _in_places(found: dict[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was made with its disks in the places of `wanted`: libvirt sorts them by bus and name."""
    made, names = _disks(found), list(_disks(wanted))
    if not names or len(made) != len(found["devices"]["disks"]) or set(made) != set(names):
        return found
    return {**found, "devices": {**found["devices"], "disks": [made[name] for name in names]}}


def _disks(values: Mapping[str, Any]) -> dict[str, Any]:
    disks = values.get("devices", {}).get("disks", ())
    return {((disk or {}).get("target") or {}).get("dev", ""): disk for disk in disks}


def _at(values: Any, path: tuple[str | int, ...]) -> Any:
    """Return the value at a place, None where there is none."""
    for step in path:
        if isinstance(step, str):
            values = values.get(step) if isinstance(values, Mapping) else None
        else:
            values = values[step] if isinstance(values, list) and step < len(values) else None
    return values
