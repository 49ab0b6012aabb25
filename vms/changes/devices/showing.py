"""What pages showed of devices: nobody changes what they did not see. Not for: settings, and sizes.

The words here are those of cards and disks; drives for CDs and limits have `differences` of their own.
"""

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from networks.models import Network
from portal.core.stale import Snapshot, check_seen
from portal.operations.words import Difference

_LABELS = {
    "bus": gettext_lazy("Bus"),
    "link": gettext_lazy("Link"),
    "model": gettext_lazy("Model"),
    "network": gettext_lazy("Network"),
}
_WORDS = {"up": gettext_lazy("Up"), "down": gettext_lazy("Down")}


def check(name: str, seen: Snapshot | None, now: Snapshot) -> None:
    """Raise Changed unless what is called `name` is as a page showed it; `seen` is None where none did.

    Only what is in `now` is compared, so that a change of something else stops nobody.
    """
    if seen is not None:
        check_seen(name, seen, now)


def differences(before: Snapshot, after: Snapshot) -> list[Difference]:
    """Return in words what somebody changed of a card or a disk."""
    return [
        Difference(str(_LABELS[key]), _in_words(key, before.get(key)), _in_words(key, value))
        for key, value in after.items()
    ]


def _in_words(key: str, value: str | None) -> str:
    if not value:
        return ""
    if key == "network":
        title = Network.objects.filter(name=value).values_list("title", flat=True).first()
        return title or _("one that is gone")
    return str(_WORDS.get(value, value))
