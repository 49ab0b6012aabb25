"""What is made from an image, for who wants to delete it. Not for: the deletion, which hosts know."""

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.core.canonical import canonical_json
from portal.hosts.models import Image
from portal.operations.models import Operation
from portal.operations.states import UNFINISHED, State
from vms.models import VirtualMachine

#: Names that are told; the rest is a number.
TOLD = 5


def used_by(image: Image) -> str:
    """Return which items, machines and requests need `image`, in sentences; '' for none."""
    found = [_items(image), _machines(image), _drives(image), _waiting(image)]
    return " ".join(sentence for sentence in found if sentence)


def _items(image: Image) -> str:
    names = list(image.items.order_by("name").values_list("name", flat=True))
    return _("It is the image of %(items)s in the catalogue.") % {"items": _told(names)} if names else ""


def _machines(image: Image) -> str:
    names = list(image.machines.order_by("name").values_list("name", flat=True))
    return _("The disks of %(machines)s stand on it.") % {"machines": _told(names)} if names else ""


def _drives(image: Image) -> str:
    """Return which machines began with it as their CD of drivers."""
    began = f'"drivers":{{"sha256":{canonical_json(image.sha256)}'
    found = VirtualMachine.objects.filter(built_by__spec__contains=began).order_by("name")
    names = list(found.values_list("name", flat=True))
    return _("It is the CD of drivers of %(machines)s.") % {"machines": _told(names)} if names else ""


def _waiting(image: Image) -> str:
    pinned = f'"sha256":{canonical_json(image.sha256)}'
    states = [State.AWAITING_APPROVAL, *UNFINISHED]
    count = Operation.objects.filter(state__in=states, spec__contains=pinned, kind__startswith="vm.").count()
    if not count:
        return ""
    words = ngettext(
        "%(count)d request for a machine from it is not finished.",
        "%(count)d requests for machines from it are not finished.",
        count,
    )
    return words % {"count": count}


def _told(names: list[str]) -> str:
    more = len(names) - TOLD
    listed = ", ".join(names[:TOLD])
    return _("%(names)s and %(more)d more") % {"names": listed, "more": more} if more > 0 else listed
