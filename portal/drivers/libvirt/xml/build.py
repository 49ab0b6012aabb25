"""Small helpers over ElementTree; not for knowledge of any element."""

from xml.etree import ElementTree as ET

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as defused

from portal.drivers.errors import InvalidSpec


def child(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    """Append an element and return it; a trailing underscore in an attribute is dropped."""
    element = ET.SubElement(parent, tag, {k.rstrip("_"): v for k, v in attributes.items()})
    element.text = text
    return element


def serialise(element: ET.Element) -> str:
    """Return indented XML text."""
    ET.indent(element)
    return ET.tostring(element, encoding="unicode")


def parse(text: str) -> ET.Element:
    """Return the root of a host's XML. Raises InvalidSpec for a DOCTYPE or broken XML."""
    # libvirt never sends a DOCTYPE; without one there are no entities to expand.
    try:
        root: ET.Element = defused.fromstring(text, forbid_dtd=True)
        return root
    except (ET.ParseError, DefusedXmlException) as error:
        raise InvalidSpec(str(error)) from error


def need(parent: ET.Element, path: str) -> ET.Element:
    """Return the element at a path. Raises InvalidSpec when the XML lacks it."""
    found = parent.find(path)
    if found is None:
        raise InvalidSpec(f"<{parent.tag}> lacks {path}")
    return found


def text_at(parent: ET.Element, path: str) -> str:
    """Return the text at a path, empty when it has none. Raises InvalidSpec."""
    return need(parent, path).text or ""
