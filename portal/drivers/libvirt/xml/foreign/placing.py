"""Put elements into a document and take them out, so that the rest stays as it stands."""

from collections.abc import Sequence

from portal.drivers.libvirt.xml.foreign.document import Element


def append(parent: Element, tag: str, after: Sequence[Element] = ()) -> Element:
    """Make an element in `parent`, behind the last of `after` or at the end, indented like its siblings."""
    made = parent.makeelement(tag)
    last = after[-1] if after else (parent[-1] if len(parent) else None)
    if last is None:
        parent.append(made)
        return made
    indent, tail = parent.text or "", last.tail or ""
    last.addnext(made)
    if not indent.strip() and not tail.strip():
        last.tail, made.tail = indent or None, tail or None
    return made


def take_away(element: Element) -> None:
    """Remove an element; words that somebody wrote around it stay."""
    parent, before = element.getparent(), element.getprevious()
    words, tail = (parent.text if before is None else before.tail) or "", element.tail or ""
    if words.strip() or tail.strip():
        words += tail
    elif element.getnext() is None:
        # Behind the last stands the indentation of the parent's end, of which an empty parent needs none.
        words = "" if before is None else tail
    if before is None:
        parent.text = words or None
    else:
        before.tail = words or None
    parent.remove(element)


def prune(way: Sequence[Element]) -> None:
    """Take away the elements of a path that say nothing any more, from the last up."""
    for element in reversed(way):
        if len(element) or element.attrib or (element.text or "").strip():
            return
        take_away(element)
