"""Numbers that come from browsers. Not for: what people type into forms, whose fields say what is wrong."""

#: With more digits than these it fits no column, and both databases answer with an error.
MOST_DIGITS = 18


def number_of(text: str | None) -> int | None:
    """Return the number whose digits `text` is, None for anything else and for one that fits no column."""
    return int(text) if text and len(text) <= MOST_DIGITS and text.isascii() and text.isdigit() else None
