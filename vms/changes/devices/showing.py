"""What pages showed of one device: nobody changes what they did not see. Not for: CDs, limits, settings."""

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from networks.models import Network
from portal.core.stale import Changed, Snapshot, check_seen
from portal.operations.words import Difference

_LABELS = {
    "bus": gettext_lazy("Bus"),
    "link": gettext_lazy("Link"),
    "model": gettext_lazy("Model"),
    "network": gettext_lazy("Network"),
}
_WORDS = {"up": gettext_lazy("Up"), "down": gettext_lazy("Down")}


def check(name: str, seen: Snapshot | None, now: Snapshot) -> None:
    """Raise Changed unless the device called `name` is as a page showed it; `seen` is None where none did.

    Only what is in `now` is compared, so that a change of something else stops nobody.
    """
    if seen is not None:
        check_seen(name, seen, now)


def differences(changed: Changed) -> list[Difference]:
    """Return in words what somebody changed."""
    return [
        Difference(str(_LABELS[key]), _in_words(key, before), _in_words(key, after))
        for key, before, after in changed.changes
    ]


def _in_words(key: str, value: str | None) -> str:
    if not value:
        return ""
    if key == "network":
        title = Network.objects.filter(name=value).values_list("title", flat=True).first()
        return title or _("one that is gone")
    return str(_WORDS.get(value, value))
