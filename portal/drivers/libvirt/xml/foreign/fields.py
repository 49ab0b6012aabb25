"""How single values are read from a definition and written to it. Not for: which; each kind has a table.

A field reads a value below an element and notes what it understood. What is absent, or what it cannot make
sense of, reads as None and is noted as nothing: it is kept as it stands. No field raises for any document.

Written is what reads as another value than the wanted, and nothing else is touched: what the table does not
understand stays beside it, as do the units and spellings of values that are right already.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lxml import etree

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt.xml.foreign.conversions import on_off, scale, whole
from portal.drivers.libvirt.xml.foreign.document import Element, Understood, is_element
from portal.drivers.libvirt.xml.foreign.placing import append, prune, take_away


class Field(ABC):
    """One value of an element; `path` leads to it from there."""

    path: str

    @abstractmethod
    def read(self, element: Element, understood: Understood) -> Any:
        """Return the value and note what it was read from; None, and note nothing, where there is none."""

    def put(self, element: Element, value: Any) -> None:
        """Make `value` what is read here, None for nothing; what reads so already is not touched.

        Raises InvalidSpec for a value that would read otherwise; the document is of no use then.
        """
        settled, present = _settled(value), self.read(element, Understood())
        if present in (value, settled):
            return
        try:
            _check_single(element, self.way)
            self._write(element, value)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InvalidSpec(f"{value!r} cannot be written: {error}") from error
        if self.read(element, Understood()) != settled:
            raise InvalidSpec(f"{value!r} would not be read as it is")

    @property
    def way(self) -> str:
        """What must be there once at most to write below it: of a text its parents, whose first counts."""
        return self.path.rpartition("/")[0]

    @abstractmethod
    def _write(self, element: Element, value: Any) -> None:
        """Write a value that differs from what is there; None takes away what is there."""


Fields = Mapping[str, Field]


def read_all(fields: Fields, element: Element, understood: Understood) -> dict[str, Any]:
    """Return the values of `fields` that are there, in their order."""
    values = {name: field.read(element, understood) for name, field in fields.items()}
    return {name: value for name, value in values.items() if value is not None}


def _settled(value: Any) -> Any:
    """Return what is read when `value` was written: without what is None."""
    if isinstance(value, Mapping):
        inner = {name: _settled(part) for name, part in value.items()}
        return {name: part for name, part in inner.items() if part is not None} or None
    if isinstance(value, list):
        places = [part for part in value if part is not None]
        return [_settled(part) or {} if isinstance(part, Mapping) else part for part in places] or None
    return value


def put_all(fields: Fields, element: Element, values: Mapping[str, Any]) -> None:
    """Make `values` what `read_all` returns: what they do not name is taken away. Raises InvalidSpec."""
    if stray := set(values) - set(fields):
        raise InvalidSpec(f"nobody knows {', '.join(sorted(stray))}")
    for name, field in fields.items():
        try:
            field.put(element, values.get(name))
        except InvalidSpec as error:
            raise InvalidSpec(f"{name}: {error}") from error


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


def _make(element: Element, path: str) -> Element:
    """Return the first element at `path`, after it was made where there is none."""
    for step in filter(None, path.split("/")):
        below = next((child for child in element if child.tag == step), None)
        element = append(element, step) if below is None else below
    return element


def _check_single(element: Element, path: str) -> None:
    """Raise ValueError when anything on the way to `path` is there twice.

    libvirt takes what stands in all of them together, or some of it from the first: of what is written into
    one it would make something else.
    """
    for step in filter(None, path.split("/")):
        alike = [child for child in element if child.tag == step]
        if len(alike) > 1:
            raise ValueError(f"there are {len(alike)} <{step}>, which must be made one first")
        if not alike:
            return
        element = alike[0]


def _words(value: Any) -> str:
    """Return a value as libvirt reads it. Raises TypeError for what is no single value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | str):
        return str(value)
    raise TypeError("it is no single value")


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

    @property
    def way(self) -> str:
        return self.path

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

    def _write(self, element: Element, value: Any) -> None:
        if value is not None:
            words = ("on" if value else "off") if self.convert is on_off else _words(value)
            _make(element, self.path).set(self.name, words)
            return
        way = _reach(element, self.path) or []
        del (way[-1] if way else element).attrib[self.name]
        prune(way)


@dataclass(frozen=True)
class Text(Field):
    """The text of the element at `path`; one that has attributes alone says nothing."""

    path: str
    convert: Callable[[str], Any] = str

    def read(self, element: Element, understood: Understood) -> Any:
        way = _reach(element, self.path)
        owner = (way[-1] if way else element) if way is not None else None
        text = _string(owner) if owner is not None else None
        if owner is None or text is None or (not text and owner.attrib):
            return None
        try:
            value = self.convert(text)
        except ValueError:
            return None
        understood.element(*(way or ()))
        understood.text(owner)
        return value

    def _write(self, element: Element, value: Any) -> None:
        if value is None:
            way = _reach(element, self.path) or []
            _say(way[-1] if way else element, None)
            prune(way)
        else:
            _say(_make(element, self.path), _words(value))


def _say(element: Element, text: str | None) -> None:
    """Make `text` all that an element says; comments in it stay."""
    element.text = text
    for child in list(element):
        child.tail = None
        if child.tag is etree.Entity:
            take_away(child)


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

    def _write(self, element: Element, value: Any) -> None:
        if value is None:
            way = _reach(element, self.path) or []
            _say(way[-1], None)
            way[-1].attrib.pop("unit", None)
            prune(way)
            return
        if value < 0:
            raise ValueError("no size is below 0")
        unit = "bytes" if value % 1024 else self.default
        owner = _make(element, self.path)
        _say(owner, str(value // scale(unit)))
        if unit != self.default or "unit" in owner.attrib:
            owner.set("unit", unit)


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

    def _write(self, element: Element, value: Any) -> None:
        if value is None:
            take_away((_reach(element, self.path) or [])[-1])
        else:
            _make(element, self.path)


@dataclass(frozen=True)
class One(Field):
    """The values of `fields` in the first element at `path`."""

    path: str
    fields: Fields

    @property
    def way(self) -> str:
        return self.path

    def read(self, element: Element, understood: Understood) -> Any:
        way = _reach(element, self.path)
        if not way:
            return None
        values = read_all(self.fields, way[-1], understood)
        if values:
            understood.element(*way)
        return values or None

    def _write(self, element: Element, value: Any) -> None:
        """Write the values; None takes the element away with all that is in it."""
        if value is None:
            take_away((_reach(element, self.path) or [])[-1])
        else:
            put_all(self.fields, _make(element, self.path), value)


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

    def _write(self, element: Element, value: Any) -> None:
        """Write the n-th values to the n-th element, and what is beyond to new ones.

        None in a place takes that element away, with all that is in it: the others keep what is theirs. None
        in place of the list takes all of them away.
        """
        parents, _slash, tag = self.path.rpartition("/")
        parent = _make(element, parents)
        present = [child for child in parent if child.tag == tag]
        wanted = [None] * len(present) if value is None else list(value)
        if len(wanted) < len(present):
            raise ValueError(f"there are {len(present)}, and None is said for each that goes")
        last = present[-1:]
        for number, values in enumerate(wanted):
            if values is None:
                continue
            if number >= len(present):
                last = [append(parent, tag, last)]
            put_all(self.fields, present[number] if number < len(present) else last[0], values)
        # Not before: new ones stand behind the last of those that were there.
        for child, values in zip(present, wanted, strict=False):
            if values is None:
                take_away(child)


@dataclass(frozen=True)
class Names(Field):
    """The names of the bare elements in the element at `path`: those without attributes and content."""

    path: str

    @property
    def way(self) -> str:
        return self.path

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

    def _write(self, element: Element, value: Any) -> None:
        wanted, present = list(value or ()), self.read(element, Understood()) or []
        parent = _make(element, self.path)
        for child in list(parent):
            if child.tag in present and child.tag not in wanted and not (len(child) or child.attrib):
                take_away(child)
        for name in wanted:
            if name not in present:
                append(parent, name)
        prune([parent])
