"""What keeps an image from being deleted. Rooms above say what of theirs is made from it."""

from collections.abc import Callable

from portal.hosts.models import Image

#: What of a room uses an image, as a sentence that says what; '' for nothing.
Uses = Callable[[Image], str]
_rooms: list[Uses] = []


def register(uses: Uses) -> None:
    """Let a room say what of its own is made from an image."""
    _rooms.append(uses)


def uses_of(image: Image) -> list[str]:
    """Return who uses `image`, in sentences; none when nobody does."""
    return [sentence for uses in _rooms if (sentence := uses(image))]
