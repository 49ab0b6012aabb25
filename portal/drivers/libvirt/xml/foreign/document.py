"""A foreign definition as a whole, and the record of what of it was understood.

lxml, because it is libxml2, with which libvirt reads: the same documents are taken, and comments, prefixes,
CDATA and the order of everything survive. The standard library's parser loses prefixes and comments.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from lxml import etree

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt.xml.foreign.written import Written, written

#: Bytes; virsh reads no longer file, and libvirt's wire takes no string of more than 4 MiB.
LONGEST = 10 * 1024**2
#: An element of lxml, which brings no types.
Element: TypeAlias = Any


def parse(content: bytes, root: str) -> Element:
    """Return the root of a definition, whose local name is `root`, with everything that it holds.

    Nothing is fetched and no entity is expanded. Raises InvalidSpec for what is no XML, too long or deep
    (libxml2's own limits), or something else than a `root`. Of those limits libxml2 has one from 2.11 on,
    and so not every libvirt: entities that would come to more than five times the document. lxml lets go of
    it only together with the others, and in attributes entities are expanded whatever one says.
    """
    if len(content) > LONGEST:
        raise InvalidSpec(f"the definition is longer than {LONGEST // 1024**2} MiB")
    try:
        found = _parsed(content)
    except etree.XMLSyntaxError as error:
        raise InvalidSpec(f"this is no well-formed XML: {error.msg}") from error
    except ValueError as error:
        raise InvalidSpec(str(error)) from error
    if found is None or _split(found.tag)[1] != root:
        raise InvalidSpec(f"this is no <{root}>")
    return found


def _parsed(content: bytes) -> Element:
    """Return the root, as libvirt finds it: a string of C, so up to a NUL, and UTF-8 whatever it says itself.

    What libvirt could not read so is read by its own word, or by its first bytes. libvirt refuses an encoding
    of which its C library never heard; here it makes no difference.
    """
    text = content.partition(b"\0")[0]
    try:
        return _read(text, "utf-8")
    except etree.XMLSyntaxError:
        if text == content and _is_utf8(text):
            raise
    return _read(content, None)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read(content: bytes, encoding: str | None, *, lenient: bool = False) -> Element:
    """Return the root. libvirt refuses what is not well-formed, and takes an undeclared prefix, say."""
    parser = etree.XMLParser(
        encoding=encoding,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        strip_cdata=False,
        recover=lenient,
    )
    try:
        return etree.fromstring(content, parser)
    except etree.XMLSyntaxError:
        # The parser's own log: that of the error tells of other documents too.
        if lenient or any(entry.level >= etree.ErrorLevels.FATAL for entry in parser.error_log):
            raise
    return _read(content, encoding, lenient=True)


def _split(tag: str) -> tuple[str, str]:
    """Return the namespace, '' for none, and the rest of a name as lxml writes it: `{namespace}name`.

    Not etree.QName, which raises for a prefix that nobody declared.
    """
    space, _brace, name = tag.rpartition("}")
    return space[1:], name


def serialise(root: Element) -> str:
    """Return the document of `root` as text, what stands before and after it too."""
    return etree.tostring(root.getroottree(), encoding="unicode")


def is_element(node: Element) -> bool:
    """Tell an element from a comment, a processing instruction or a reference to an entity."""
    return isinstance(node.tag, str)


class Understood:
    """Which elements, attributes and texts were understood. What was not is `kept`."""

    def __init__(self) -> None:
        self._elements: set[Element] = set()
        self._attributes: set[tuple[Element, str]] = set()
        self._texts: set[Element] = set()

    def element(self, *path: Element) -> None:
        """Note elements as understood, but for their attributes, text and children."""
        self._elements.update(path)

    def attribute(self, element: Element, name: str) -> None:
        """Note an attribute as understood."""
        self._attributes.add((element, name))

    def text(self, element: Element) -> None:
        """Note an element's text as understood."""
        self._texts.add(element)

    def kept(self, root: Element) -> list[dict[str, str]]:
        """Return what was not understood, in the order of the document.

        Each is `{"at": path, "value": text}` for an attribute, a text or a comment of something that was
        understood, and `{"at": path, "xml": text}` for an element of which nothing was. Paths are XPath, with
        the prefixes of the document.
        """
        before, after = reversed(list(root.itersiblings(preceding=True))), root.itersiblings()
        found = [_whole("", node, 0, None) for node in before]
        whole = written(root)
        found += self._kept(root, f"/{whole.name()}", whole)
        return found + [_whole("", node, 0, None) for node in after]

    def _kept(self, element: Element, at: str, whole: Written) -> Iterator[dict[str, str]]:
        # As deep as the tables of what is understood, whatever the document is.
        # Not `attrib`, which looks for each value from the first attribute on.
        values = element.xpath("@*")
        for value, with_prefix in zip(values, whole.attributes(len(values)), strict=True):
            if (element, value.attrname) not in self._attributes:
                yield {"at": f"{at}/@{with_prefix}", "value": str(value)}
        if element not in self._texts:
            yield from _text(at, element.text)
        children = whole.children()
        for child, number in _numbered(element):
            text = next(children) if is_element(child) else None
            if text and child in self._elements:
                yield from self._kept(child, _at(at, child, number, text), text)
            else:
                yield _whole(at, child, number, text)
            if element not in self._texts:
                yield from _text(at, child.tail)


def _text(at: str, text: str | None) -> Iterator[dict[str, str]]:
    if text and text.strip():
        yield {"at": f"{at}/text()", "value": text.strip()}


def _numbered(element: Element) -> Iterator[tuple[Element, int]]:
    """Yield the nodes in `element`, each with its number among its like, 0 for the only one."""
    nodes: Sequence[Element] = list(element)
    total: dict[Any, int] = {}
    for node in nodes:
        total[node.tag] = total.get(node.tag, 0) + 1
    seen: dict[Any, int] = {}
    for node in nodes:
        seen[node.tag] = seen.get(node.tag, 0) + 1
        yield node, seen[node.tag] if total[node.tag] > 1 else 0


_KINDS = {etree.Comment: "comment()", etree.PI: "processing-instruction()"}


def _at(parent: str, node: Element, number: int, text: Written | None) -> str:
    name = text.name() if text else _KINDS.get(node.tag, "node()")
    return f"{parent}/{name}[{number}]" if number else f"{parent}/{name}"


def _whole(parent: str, node: Element, number: int, text: Written | None) -> dict[str, str]:
    at = _at(parent, node, number, text)
    if text:
        return {"at": at, "xml": text.alone()}
    if node.tag is etree.Comment:
        return {"at": at, "value": (node.text or "").strip()}
    return {"at": at, "xml": _instruction(node) if node.tag is etree.PI else node.text}


def _instruction(node: Element) -> str:
    return f"<?{node.target} {node.text}?>" if node.text else f"<?{node.target}?>"
