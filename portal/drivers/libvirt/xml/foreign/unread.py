"""What of a domain waits for its next start in elements that no field reads (`Understood.kept`).

Compared are the elements right in <domain>, and how many devices there are of each kind that no field knows.
What libvirt fills in by itself at a start is left out, as far as it can be told from what people set: better
nothing is said than something that is not so. Not for: what fields read.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from portal.drivers.errors import InvalidSpec
from portal.drivers.libvirt.xml.foreign.document import Element, Understood, parse, serialise

#: Letters of an element that are told, of as many elements as these at most: it may be anything.
MOST_LETTERS, MOST_ELEMENTS = 300, 50
_PLACE = re.compile(r"/domain/(?P<element>[^/@\[\]()]+)(?:\[\d+\])?(?P<rest>(?:/.*)?)", re.DOTALL)
_NUMBER = re.compile(r"\[\d+\]")
#: Elements that are looked into, also where nothing of one is read.
_PARTS = frozenset({"cpu", "os", "features", "clock", "devices"})
#: Others' notes, and the order in which processors came.
_NEVER = frozenset({"metadata", "vcpus"})
#: What libvirt chooses itself where a definition asks for a kind of it.
_CHOSEN = re.compile(r"/domain/(os/(firmware|loader|nvram|varstore)|features/gic|clock/@adjustment)\b")
#: Told to take what there is, libvirt writes down each part of that.
_EXPANDED = re.compile(r"""<hyperv\s[^>]*?mode=["'](?P<mode>passthrough|host-model)["']""")

Kept = Sequence[Mapping[str, str]]


def waiting(running: Kept, persistent: Kept) -> dict[str, list[str]]:
    """Return what differs, by the element's name: as it runs, and as it will; '' for none.

    Of devices (`devices/NAME`) it is how many there are. Never raises; texts are hostile, and cut.
    """
    runs, waits = (_elements(side) for side in (running, persistent))
    names = [name for name in {**runs, **waits} if runs.get(name) != waits.get(name)]
    some = names[:MOST_ELEMENTS]
    return {name[:100]: [_cut(side.get(name, "")) for side in (runs, waits)] for name in some}


def _cut(text: str) -> str:
    shown = "".join(letter for letter in text if letter.isprintable())
    return shown if len(shown) <= MOST_LETTERS else f"{shown[:MOST_LETTERS]}…"


def _elements(kept: Kept) -> dict[str, str]:
    """Return what people set in elements that no field reads, by their names, in one line each."""
    found, devices = defaultdict[str, list[str]](list), defaultdict[str, int](int)
    for item in _parted(kept):
        place = _PLACE.fullmatch(item["at"])
        if place is None:
            continue
        element, rest = place["element"], _NUMBER.sub("", place["rest"])
        if element == "devices":
            if "xml" in item and re.fullmatch(r"/[^/@()]+", rest):
                devices[rest[1:]] += 1
        elif not _is_left_out(element, rest):
            found[element].extend(_told(element, rest, item))
    told = {name: " ".join(texts) for name, texts in found.items() if texts}
    # There is a <memory> in both places.
    return told | {f"devices/{name}": str(count) for name, count in devices.items()}


def _parted(kept: Kept) -> Iterator[Mapping[str, str]]:
    """Yield what is kept, and of an element that is looked into what is in it."""
    for item in kept:
        place = _PLACE.fullmatch(item["at"])
        if place is None or place["rest"] or place["element"] not in _PARTS or "xml" not in item:
            yield item
            continue
        with suppress(InvalidSpec):
            root = parse(item["xml"].encode(), place["element"])
            noted = Understood()
            noted.element(root)
            yield from ({**inner, "at": f"/domain{inner['at']}"} for inner in noted.kept(root))


def _is_left_out(element: str, rest: str) -> bool:
    if element == "cpu":
        # A start makes of it what the host's processor is.
        return not rest.startswith("/numa")
    return element in _NEVER or _CHOSEN.match(f"/domain/{element}{rest}") is not None


def _told(element: str, rest: str, item: Mapping[str, str]) -> Iterator[str]:
    if "xml" not in item:
        yield f"{rest.lstrip('/')}={item.get('value', '')}"
        return
    text = item["xml"]
    if element in _CLEANED and not rest:
        try:
            text = _CLEANED[element](parse(text.encode(), element))
        except InvalidSpec:
            return
    if expanded := _EXPANDED.match(text):
        text = f"<hyperv mode='{expanded['mode']}'/>"
    if text:
        yield re.sub(r">\s+<", "><", text.strip())


def _resource(root: Element) -> str:
    """Leave out the partition that every domain is in."""
    plain = [(child.tag, (child.text or "").strip()) for child in root] == [("partition", "/machine")]
    return "" if plain else serialise(root)


def _label(root: Element) -> str:
    """Leave out labels that the security driver draws, and say of others what is not drawn."""
    if root.get("type") in (None, "dynamic", "none") and root.find("baselabel") is None:
        return ""
    return _without(root, ("imagelabel",) if root.get("type") == "static" else ("imagelabel", "label"))


def _without(root: Element, names: Sequence[str]) -> str:
    for child in [child for name in names for child in root.iter(name)]:
        child.getparent().remove(child)
    return serialise(root)


def _tuning(root: Element) -> str:
    for child in [*root.iter("cachetune"), *root.iter("memorytune")]:
        child.attrib.pop("id", None)
    return serialise(root)


#: Elements of which libvirt fills in a part.
_CLEANED = {
    "resource": _resource,
    "seclabel": _label,
    "cputune": _tuning,
    "launchSecurity": lambda root: _without(root, ("cbitpos", "reducedPhysBits")),
    "genid": lambda _root: "<genid/>",
}
