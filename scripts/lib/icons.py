"""Put the icons named in icons.txt into one SVG file of symbols: `icons.py SOURCE TARGET`.

SOURCE is the folder icons/ of the package @tabler/icons. A name that ends in -filled is taken from filled/.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree

from defusedxml.ElementTree import parse

SVG = "http://www.w3.org/2000/svg"
PAINT = ("fill", "stroke", "stroke-width", "stroke-linecap", "stroke-linejoin")


def source_of(folder: Path, name: str) -> Path:
    """Return the file of the icon `name`. Raises SystemExit for a name that the package does not hold."""
    filled = folder / "filled" / f"{name.removesuffix('-filled')}.svg"
    path = filled if name.endswith("-filled") else folder / "outline" / f"{name}.svg"
    if not path.exists():
        raise SystemExit(f"scripts/lib/icons.txt names {name}, which @tabler/icons does not hold.")
    return path


def symbol(folder: Path, name: str) -> ElementTree.Element:
    """Return the icon as a <symbol> that carries its paint: pages need not know outline from filled."""
    drawing = parse(source_of(folder, name)).getroot()
    made = ElementTree.Element(
        f"{{{SVG}}}symbol", {"id": name, "viewBox": drawing.get("viewBox", "0 0 24 24")}
    )
    paint = {key: drawing.get(key, "") for key in PAINT if drawing.get(key)}
    # The page decides how thick a line is.
    paint.pop("stroke-width", None)
    group = ElementTree.SubElement(made, f"{{{SVG}}}g", paint)
    group.extend(list(drawing))
    return made


def main() -> None:
    """Write TARGET from SOURCE and the list beside this file."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    ElementTree.register_namespace("", SVG)
    sprite = ElementTree.Element(f"{{{SVG}}}svg")
    for name in Path(__file__).with_name("icons.txt").read_text().split():
        sprite.append(symbol(folder, name))
    target.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(sprite).write(target, encoding="utf-8", xml_declaration=True)


if __name__ == "__main__":
    main()
