"""How single values are read from a definition. Not for: which; the tables of each kind say that.

A field reads a value below an element and notes what it understood. What is absent, or what it cannot make
sense of, reads as None and is noted as nothing: it is kept as it stands. No field raises for any document.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from portal.drivers.libvirt.xml.foreign.document import Element, Understood, is_element

#: virScaleInteger in libvirt: a letter or `KiB` counts in 1024, `KB` in 1000; case does not matter.
_LETTERS = "kmgtpe"
_ROOF = (1 << 64) - 1


class Field(ABC):
    """One value of an element."""

    @abstractmethod
    def read(self, element: Element, understood: Understood) -> Any:
        """Return the value and note what it was read from; None, and note nothing, where there is none."""


Fields = Mapping[str, Field]


def read_all(fields: Fields, element: Element, understood: Understood) -> dict[str, Any]:
    """Return the values of `fields` that are there, in their order."""
    values = {name: field.read(element, understood) for name, field in fields.items()}
    return {name: value for name, value in values.items() if value is not None}


def whole(text: str) -> int:
    """Return a whole number as libvirt counts. Raises ValueError."""
    if not text.strip().isascii():
        raise ValueError(text)
    number = int(text.strip().replace("_", "x"))
    if abs(number) > _ROOF:
        raise ValueError(text)
    return number


def yes_no(text: str) -> bool:
    """Return the truth of yes, no, on or off. Raises ValueError."""
    if text not in {"yes", "no", "on", "off"}:
        raise ValueError(text)
    return text in {"yes", "on"}


def scale(unit: str) -> int:
    """Return the bytes of a unit. Raises ValueError for one that libvirt does not know."""
    name = unit.lower()
    if name in {"b", "byte", "bytes"}:
        return 1
    power = _LETTERS.find(name[:1]) + 1 if name else 0
    if not power or name[1:] not in {"", "ib", "b"}:
        raise ValueError(unit)
    return int((1000 if name[1:] == "b" else 1024) ** power)


def _reach(element: Element, path: str) -> list[Element] | None:
    """Return the elements from below `element` to the first at `path`, None when there is none."""
    found = []
    for step in filter(None, path.split("/")):
        below = next((child for child in element if child.tag == step), None)
        if below is None:
            return None
        found.append(below)
        element = below
    return found


def _string(element: Element) -> str | None:
    """Return an element's text as libvirt reads it (XPath's string()), None for one with elements in it."""
    if any(is_element(child) for child in element):
        return None
    return str(element.xpath("string()"))


@dataclass(frozen=True)
class Attr(Field):
    """An attribute of the element at `path`, '' for the element itself."""

    path: str
    name: str
    convert: Callable[[str], Any] = str

    def read(self, element: Element, understood: Understood) -> Any:
        way = _reach(element, self.path)
        if way is None:
            return None
        owner = way[-1] if way else element
        text = owner.get(self.name)
        if text is None:
            return None
        try:
            value = self.convert(text)
        except ValueError:
            return None
        understood.element(*way)
        understood.attribute(owner, self.name)
        return value


@dataclass(frozen=True)
class Text(Field):
    """The text of the element at `path`."""

    path: str
    convert: Callable[[str], Any] = str

    def read(self, element: Element, understood: Understood) -> Any:
        way = _reach(element, self.path)
        owner = (way[-1] if way else element) if way is not None else None
        text = _string(owner) if owner is not None else None
        if owner is None or text is None:
            return None
        try:
            value = self.convert(text)
        except ValueError:
            return None
        understood.element(*(way or ()))
        understood.text(owner)
        return value


@dataclass(frozen=True)
class Size(Field):
    """The text of the element at `path` in bytes, by its attribute `unit`, else in `default`."""

    path: str
    default: str = "KiB"

    def read(self, element: Element, understood: Understood) -> Any:
        way = _reach(element, self.path)
        if not way:
            return None
        owner, text = way[-1], _string(way[-1])
        try:
            size = whole(text or "") * scale(owner.get("unit", self.default))
        except ValueError:
            return None
        understood.element(*way)
        understood.text(owner)
        if "unit" in owner.attrib:
            understood.attribute(owner, "unit")
        return size


@dataclass(frozen=True)
class Present(Field):
    """Whether there is an element at `path`; True or nothing."""

    path: str

    def read(self, element: Element, understood: Understood) -> Any:
        way = _reach(element, self.path)
        if not way:
            return None
        understood.element(*way)
        return True


@dataclass(frozen=True)
class One(Field):
    """The values of `fields` in the first element at `path`."""

    path: str
    fields: Fields

    def read(self, element: Element, understood: Understood) -> Any:
        way = _reach(element, self.path)
        if not way:
            return None
        values = read_all(self.fields, way[-1], understood)
        if values:
            understood.element(*way)
        return values or None


@dataclass(frozen=True)
class Many(Field):
    """The values of `fields` in every element at `path`, a list in their order.

    One of which nothing is understood has an empty place in it, so that the n-th is the n-th.
    """

    path: str
    fields: Fields

    def read(self, element: Element, understood: Understood) -> Any:
        parents, _slash, tag = self.path.rpartition("/")
        way = _reach(element, parents)
        if way is None:
            return None
        found = []
        for child in (way or [element])[-1]:
            if child.tag == tag:
                values = read_all(self.fields, child, understood)
                if values:
                    understood.element(*way, child)
                found.append(values)
        return found or None


@dataclass(frozen=True)
class Names(Field):
    """The names of the bare elements in the element at `path`: those without attributes and content."""

    path: str

    def read(self, element: Element, understood: Understood) -> Any:
        way = _reach(element, self.path)
        if not way:
            return None
        bare = [
            child
            for child in way[-1]
            if is_element(child) and not (len(child) or child.attrib or (child.text or "").strip())
            and not child.tag.startswith("{")
        ]  # fmt: skip
        if bare:
            understood.element(*way, *bare)
        return [child.tag for child in bare] or None
