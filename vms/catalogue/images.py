"""What rooms below ask of images: what is made from one, and its pages. Not for: deleting, which hosts do."""

from collections.abc import Sequence

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from portal.accounts.backends import may
from portal.core.canonical import canonical_json
from portal.hosts.models import Image, Upload
from portal.operations.models import Operation
from portal.operations.remedies import Remedy
from portal.operations.states import UNFINISHED, State
from vms.adoption.found import drives
from vms.models import Definition, VirtualMachine

#: Where an admin allows the network that an import was refused for.
ALLOWED_NETWORKS = Remedy(
    label=gettext_lazy("See which networks are allowed, and allow another"),
    url=lambda: reverse("vms:import_networks"),
    may=lambda user: may(user, "administer", None),
)
#: Names that are told; the rest is a number.
TOLD = 5


def page_of_upload(upload: Upload) -> str:
    """Return the address of the page of a file that becomes an image."""
    return reverse("vms:upload", args=[upload.pk])


def used_by(image: Image) -> str:
    """Return which items, machines and requests need `image`, in sentences; '' for none."""
    found = [_items(image), _machines(image), _inserted(image), _began_with(image), _waiting(image)]
    return " ".join(sentence for sentence in found if sentence)


def _items(image: Image) -> str:
    names = list(image.items.order_by("name").values_list("name", flat=True))
    return _("It is the image of %(items)s in the catalogue.") % {"items": listed(names)} if names else ""


def _machines(image: Image) -> str:
    names = list(image.machines.order_by("name").values_list("name", flat=True))
    if not names:
        return ""
    if image.needs_installer:
        return _("%(machines)s began with it as their installer.") % {"machines": listed(names)}
    return _("The disks of %(machines)s stand on it.") % {"machines": listed(names)}


def _inserted(image: Image) -> str:
    """Return in which machines' drives it is, as their hosts told last, or is about to be; '' for none."""
    if image.kind != Image.Kind.ISO:
        return ""
    places = set(image.attachments.values_list("pool__host", "path"))
    rows = Definition.objects.filter(host__in={host for host, _path in places})
    told = rows.values_list("host", "uuid", "observed_persistent", "observed_running")
    uuids = {
        own
        for host, own, *sides in told
        if any((host, drive.where) in places for side in sides for drive in drives(side))
    }
    found = VirtualMachine.objects.filter(uuid__in=uuids)
    names = list(found.exclude(image=image).order_by("name").values_list("name", flat=True))
    others = len(uuids) - found.count()
    if others:
        names.append(_("domains that are no machines here"))
    if not names:
        return ""
    return _("It is in the CD drive of %(machines)s; eject it there.") % {"machines": listed(names)}


def _began_with(image: Image) -> str:
    """Return which machines began with it as their CD of drivers."""
    began = f'"drivers":{{"sha256":{canonical_json(image.sha256)}'
    found = VirtualMachine.objects.filter(built_by__spec__contains=began).order_by("name")
    names = list(found.values_list("name", flat=True))
    return _("It is the CD of drivers of %(machines)s.") % {"machines": listed(names)} if names else ""


def _waiting(image: Image) -> str:
    pinned = f'"sha256":{canonical_json(image.sha256)}'
    states = [State.AWAITING_APPROVAL, *UNFINISHED]
    count = Operation.objects.filter(state__in=states, spec__contains=pinned, kind__startswith="vm.").count()
    if not count:
        return ""
    words = ngettext(
        "%(count)d request for it is not finished.",
        "%(count)d requests for it are not finished.",
        count,
    )
    return words % {"count": count}


def listed(names: Sequence[str]) -> str:
    """Return names in a sentence, of many the first ones and how many more there are."""
    more, first = len(names) - TOLD, ", ".join(names[:TOLD])
    return _("%(names)s and %(more)d more") % {"names": first, "more": more} if more > 0 else first
