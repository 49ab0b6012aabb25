"""How the elements of a document stand in its text, prefixes and all. Not for: reading values.

lxml tells all namespaces that count for an element, so that to ask at each takes as long as there are
elements times namespaces. Here the text is gone through once.
"""

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

#: In what libxml2 writes, where no `<` or `>` stands in a value or a text.
_TOKEN = re.compile(r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|<[^>]*?(/?)>", re.DOTALL)
_ATTRIBUTE = re.compile(r"\s([^\s=]+)=(\"[^\"]*\"|'[^']*')")
_NAME = re.compile(r"<([^\s/>]+)")


class Written:
    """An element in the text of its document."""

    def __init__(self, document: "_Document", number: int, parent: "Written | None" = None) -> None:
        self._document = document
        self._number = number
        self._parent = parent

    @property
    def _tag(self) -> str:
        return self._document.text[self._document.starts[self._number] : self._document.opened[self._number]]

    def children(self) -> Iterator["Written"]:
        """Yield the elements in it, in their order."""
        number, document = self._number + 1, self._document
        while number < document.beyond[self._number]:
            yield Written(document, number, self)
            number = document.beyond[number]

    def name(self) -> str:
        """Return its name with its prefix."""
        return _name(self._tag)

    def attributes(self, count: int) -> list[str]:
        """Return the names of its `count` attributes with their prefixes, in their order.

        They stand behind what it declares; not every `xmlns:...` is a declaration (`xmlns:a:b`).
        """
        names = [name for name, _value in _attributes(self._tag)]
        return names[len(names) - count :]

    def alone(self) -> str:
        """Return its text, with those of the namespaces declared around it that it uses."""
        document, start = self._document, self._document.starts[self._number]
        text = document.text[start : document.ends[self._number]]
        behind = len("<") + len(self.name())
        around = [
            f" {'xmlns:' if prefix else 'xmlns'}{prefix}={value}"
            for prefix in self._foreign_prefixes()
            if (value := self._declared_around(prefix)) and value != '""'
        ]
        return text[:behind] + "".join(around) + text[behind:]

    def _foreign_prefixes(self) -> list[str]:
        """Return the prefixes, '' for none, that are used in here and declared nowhere in here."""
        document = self._document
        found: dict[str, None] = {}
        #: How often each is declared where the loop stands, and what was declared where, to be taken back.
        counts: dict[str, int] = {}
        inside: list[tuple[int, list[str]]] = []
        for number in range(self._number, document.beyond[self._number]):
            while inside and inside[-1][0] <= number:
                for gone in inside.pop()[1]:
                    counts[gone] -= 1
            tag = document.text[document.starts[number] : document.opened[number]]
            names = [name for name, _value in _attributes(tag)]
            declared = [prefix for name in names if (prefix := _declared(name)) is not None]
            for own in declared:
                counts[own] = counts.get(own, 0) + 1
            inside.append((document.beyond[number], declared))
            used = [prefix for name in names if (prefix := _prefix(name))]
            found |= {prefix: None for prefix in (_prefix(_name(tag)), *used) if not counts.get(prefix)}
        return [prefix for prefix in found if prefix not in {"xml", "xmlns"}]

    def _declared_around(self, prefix: str) -> str:
        """Return the value that declares a prefix around here, in its quotes; '' for none."""
        outer = self._parent
        while outer is not None:
            if prefix in (there := outer._declares()):
                return there[prefix]
            outer = outer._parent
        return ""

    def _declares(self) -> dict[str, str]:
        """Return what it declares itself: the value of each prefix."""
        known = self._document.declares
        if self._number not in known:
            pairs = [(_declared(name), value) for name, value in _attributes(self._tag)]
            known[self._number] = {prefix: value for prefix, value in pairs if prefix is not None}
        return known[self._number]


def written(root: Any) -> Written:
    """Return how the root of a document stands in its text."""
    return Written(_Document(etree.tostring(root, encoding="unicode", with_tail=False)), 0)


class _Document:
    """The text of a document, and where in it each element starts, is opened and ends, in their order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts: list[int] = []
        self.opened: list[int] = []
        self.ends: list[int] = []
        #: The number of the first element behind each.
        self.beyond: list[int] = []
        self.declares: dict[int, dict[str, str]] = {}
        within: list[int] = []
        for token in _TOKEN.finditer(text):
            kind = text[token.start() + 1]
            if kind in "!?":
                continue
            if kind != "/":
                within.append(len(self.starts))
                self.starts.append(token.start())
                self.opened.append(token.end())
                self.ends.append(0)
                self.beyond.append(0)
            if kind == "/" or token[1]:
                number = within.pop()
                self.ends[number], self.beyond[number] = token.end(), len(self.starts)


def _attributes(tag: str) -> Iterator[tuple[str, str]]:
    return ((found[1], found[2]) for found in _ATTRIBUTE.finditer(tag))


def _name(tag: str) -> str:
    found = _NAME.match(tag)
    return found[1] if found else ""


def _prefix(name: str) -> str:
    prefix, colon, _rest = name.partition(":")
    return prefix if colon else ""


def _declared(name: str) -> str | None:
    """Return the prefix that an attribute of this name declares, '' for the default, None for none."""
    if name == "xmlns":
        return ""
    return (name.removeprefix("xmlns:") or None) if name.startswith("xmlns:") else None
