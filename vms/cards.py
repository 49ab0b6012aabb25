"""What a requester reads of an item before asking. Not for: whether it may be asked for (`vms.services`)."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.utils.translation import gettext as _

from portal.core.templatetags.gatehouse import gib
from vms import fitting
from vms.models import CatalogueItem, Flavour
from vms.offers import Offer, offers
from vms.services import cost_new
from vms.virtualization import Devices


@dataclass(frozen=True)
class Size:
    """A size of an item, and what a machine of it costs a month."""

    flavour: Flavour
    cost: Decimal

    @property
    def memory(self) -> str:
        """The memory in words."""
        return memory_of(self.flavour)


@dataclass(frozen=True)
class Card:
    """An item as people see it; with a `hint` beside an obstacle."""

    item: CatalogueItem
    offer: Offer
    sizes: list[Size]
    tags: list[str]
    hint: str


def cards(items: Iterable[CatalogueItem]) -> list[Card]:
    """Return the cards of `items`, fetched with image, flavours and networks; one query."""
    items = list(items)
    known = offers(items)
    return [_card(item, known[item.pk]) for item in items]


def _card(item: CatalogueItem, offer: Offer) -> Card:
    flavours = list(item.flavours.all())
    # Of what is closed for want of one, people see what there was.
    given = [flavour for flavour in flavours if fitting.fits(item, flavour, item.image)] or flavours
    sizes = [Size(flavour, cost_new(item, flavour)) for flavour in given]
    waits = offer.obstacle and not offer.closed
    hint = _("You may ask for it; it is built as soon as a host can.") if waits else ""
    return Card(item, offer, sizes, list(_tags(item, offer)), hint)


def _tags(item: CatalogueItem, offer: Offer) -> Iterable[str]:
    yield _("up to %(days)d days") % {"days": item.longest_lease_days}
    if item.disk_most is not None:
        least = max(item.disk_least or 0, item.image.least_disk)
        yield _("disk %(least)s to %(most)s") % {"least": gib(least), "most": gib(item.disk_most)}
    for name in offer.devices:
        yield str(Devices(name).label)
    for network in item.networks.all():
        yield network.title


def memory_of(size: Any) -> str:
    """Return the memory of a size in words, with the ceiling where there is one."""
    if size.ceiling is None:
        return gib(size.memory, 2)
    return _("%(memory)s to %(ceiling)s") % {"memory": gib(size.memory, 2), "ceiling": gib(size.ceiling, 2)}


def size_label(item: CatalogueItem, size: Any) -> str:
    """Return a size in one line, with what a machine of it costs."""
    return _("%(name)s: %(vcpus)d vCPU, %(memory)s memory, %(disk)s disk, %(cost)s a month") % {
        "name": size.name,
        "vcpus": size.vcpus,
        "memory": memory_of(size),
        "disk": gib(size.disk, 2),
        "cost": cost_new(item, size),
    }
