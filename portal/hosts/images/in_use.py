"""What keeps an image from being deleted. Rooms above say what of theirs is made from it."""

from collections.abc import Callable

from django.utils.translation import ngettext

from portal.hosts.models import Image, Volume

#: Volumes that are named in a sentence; the rest is counted.
NAMED = 5
#: What of a room uses an image, as a sentence that says what; '' for nothing.
Uses = Callable[[Image], str]
_rooms: list[Uses] = []


def register(uses: Uses) -> None:
    """Let a room say what of its own is made from an image."""
    _rooms.append(uses)


def uses_of(image: Image) -> list[str]:
    """Return who uses `image`, in sentences; none when nobody does."""
    return [sentence for uses in _rooms if (sentence := uses(image))]


def stood_on(image: Image) -> list[str]:
    """Return in a sentence which volumes stand on `image`, as hosts told last; none when no one does.

    Whoever deletes it asks the hosts again: what they told may be old, and taking an import back leaves
    what is used.
    """
    copies = image.attachments.values_list("pool__host", "path")
    places = {(host, one) for host, path in copies for one in (path, *image.further_names(path))}
    rows = Volume.objects.filter(
        pool__host__in={host for host, _path in places}, observed_backing__in={path for _host, path in places}
    )
    told = rows.order_by("name").values_list("pool__host", "observed_backing", "name")
    names = [name for host, backing, name in told if (host, backing) in places]
    if not names:
        return []
    words = ngettext(
        "A volume stands on it: %(names)s. Delete that first; if it is gone, look into its pool.",
        "%(count)d volumes stand on it: %(names)s. Delete them first; if they are gone, look into the pools.",
        len(names),
    )
    listed = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    return [words % {"count": len(names), "names": listed}]
