"""What the texts of a definition say, as libvirt takes them. Not for: where they stand (`fields`)."""

#: virScaleInteger in libvirt: a letter or `KiB` counts in 1024, `KB` in 1000; case does not matter.
_LETTERS = "kmgtpe"
_ROOF = (1 << 64) - 1


def whole(text: str) -> int:
    """Return a whole number as libvirt counts. Raises ValueError."""
    if not text.strip().isascii():
        raise ValueError(text)
    number = int(text.strip().replace("_", "x"))
    if abs(number) > _ROOF:
        raise ValueError(text)
    return number


def yes_no(text: str) -> bool:
    """Return the truth of yes or no: libvirt takes `on` for neither. Raises ValueError."""
    return _truth(text, "yes", "no")


def on_off(text: str) -> bool:
    """Return the truth of on or off: libvirt takes `yes` for neither. Raises ValueError."""
    return _truth(text, "on", "off")


def _truth(text: str, true: str, false: str) -> bool:
    if text not in {true, false}:
        raise ValueError(text)
    return text == true


def scale(unit: str) -> int:
    """Return the bytes of a unit. Raises ValueError for one that libvirt does not know."""
    name = unit.lower()
    if name in {"b", "byte", "bytes"}:
        return 1
    power = _LETTERS.find(name[:1]) + 1 if name else 0
    if not power or name[1:] not in {"", "ib", "b"}:
        raise ValueError(unit)
    return int((1000 if name[1:] == "b" else 1024) ** power)
