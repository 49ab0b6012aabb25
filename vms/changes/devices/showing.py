"""What pages showed of devices: nobody changes what they did not see. Not for: settings, and sizes.

The words here are those of cards and disks; drives for CDs and limits have `differences` of their own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from networks.models import Network
from portal.core.stale import Changed, Snapshot, check_seen
from portal.core.templatetags.gatehouse import gib
from portal.operations.words import Difference

_LABELS = {
    "bus": gettext_lazy("Bus"),
    "last": gettext_lazy("The machine's last card"),
    "link": gettext_lazy("Link"),
    "model": gettext_lazy("Model"),
    "network": gettext_lazy("Network"),
    "pool": gettext_lazy("Pool"),
    "size": gettext_lazy("Size"),
    "volume": gettext_lazy("Volume"),
}
_WORDS = {
    "up": gettext_lazy("Up"),
    "down": gettext_lazy("Down"),
    "yes": gettext_lazy("yes"),
    "no": gettext_lazy("no"),
}


def check(name: str, seen: Snapshot | None, now: Snapshot) -> None:
    """Raise Changed unless what is called `name` is as a page showed it; `seen` is None where none did.

    Only what is in `now` is compared, so that a change of something else stops nobody.
    """
    if seen is not None:
        check_seen(name, seen, now)


def check_same(name: str, seen: Snapshot | None, there: Snapshot) -> None:
    """Raise Changed when some of what is `there` came or went since a page showed it, by its names."""
    others = there.keys() ^ (seen or {}).keys()
    check(name, seen, {one: there.get(one) for one in others})


def differences(before: Snapshot, after: Snapshot) -> list[Difference]:
    """Return in words what somebody changed of a card or a disk."""
    return [
        Difference(str(_LABELS[key]), _in_words(key, before.get(key)), _in_words(key, value))
        for key, value in after.items()
    ]


@contextmanager
def note(
    changes: list[Difference],
    in_words: Callable[[Snapshot, Snapshot], list[Difference]] = differences,
) -> Iterator[None]:
    """Add in words to `changes` what somebody changed meanwhile, of a refusal for that, which goes on."""
    try:
        yield
    except Changed as changed:
        changes += in_words(changed.before, changed.after)
        raise


def _in_words(key: str, value: Any) -> str:
    if not value:
        return ""
    if key == "size":
        return gib(value, 3)
    if key == "network":
        title = Network.objects.filter(name=value).values_list("title", flat=True).first()
        return title or _("one that is gone")
    return str(_WORDS.get(value, value))
