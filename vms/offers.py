"""What items can be asked with, by what hosts were proven to give. Not for: choosing a host."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _

from portal.core.templatetags.gatehouse import gib
from portal.hosts.models import GIVEN_BY, Health, Image, ImageAttachment
from vms import fitting
from vms.models import CatalogueItem
from vms.virtualization import Devices, Wanted


@dataclass(frozen=True)
class Offer:
    """How an item can be asked for, and why no host would build it now (empty when one would).

    `closed` when asking would be refused, whatever is chosen.
    """

    devices: list[str]
    accelerators: list[str]
    obstacle: str
    closed: bool


def refusal(item: CatalogueItem, devices: str = "", accelerator: str = "") -> str:
    """Return why `item` cannot be asked to run so, empty when it can; empty choices are its defaults."""
    if item.image.deprecated_at is not None:
        reason = item.image.deprecated_reason
        return _("Nothing new is made from %(image)s: %(reason)s") % {"image": item.image, "reason": reason}
    if not item.image.source and not item.image.attachments.exists():
        return _replaced(item)
    devices = devices or item.default_devices
    accelerator = accelerator or item.default_accelerator
    if devices not in _device_models(item):
        label = Devices(devices).label if devices in Devices.values else devices
        return _("%(item)s does not come with %(devices)s.") % {"item": item, "devices": label}
    if accelerator not in item.accelerators:
        label = Wanted(accelerator).label if accelerator in Wanted.values else accelerator
        return _("%(item)s does not come with the choice %(choice)s.") % {"item": item, "choice": label}
    return ""


def no_size(item: CatalogueItem) -> str:
    """Return that no size of `item` holds what its image needs, '' when one does or it has none."""
    sizes, image = list(item.flavours.all()), item.image
    if not sizes or any(fitting.fits(item, size, image) for size in sizes):
        return ""
    told = {"item": item.name, "memory": gib(image.min_memory, 2), "disk": gib(image.least_disk, 2)}
    words = _(
        "No size of %(item)s is large enough for its image by now: it needs %(memory)s of memory and a disk "
        "of %(disk)s."
    )
    return words % told


def asked_for_by(user: Any) -> QuerySet[CatalogueItem]:
    """Return the items on offer that `user` may ask for in some project, with an image that it may use."""
    found = CatalogueItem.objects.restrict(user, "request").filter(offered=True)
    return found.filter(image__in=Image.objects.restrict(user, "request").values("pk"))


def _replaced(item: CatalogueItem) -> str:
    return _("A newer build replaced %(image)s, and no host has it any more.") % {"image": item.image}


def offers(items: Iterable[CatalogueItem]) -> dict[int, Offer]:
    """Return the offer of each of `items` by its key, fetched with image and flavours; one query."""
    items = list(items)
    columns = ("image", "pool__host__accelerator", "pool__host__observed_health", "pool__host__maintenance")
    hosts: dict[int, list[tuple[str, bool]]] = {item.image_id: [] for item in items}
    found = ImageAttachment.objects.filter(image__in=hosts).values_list(*columns)
    for image, proof, health, maintenance in found:
        hosts[image].append((proof, health == Health.UP and not maintenance))
    return {item.pk: _offer(item, hosts[item.image_id]) for item in items}


def offer(item: CatalogueItem) -> Offer:
    """Return the offer of one item; two queries."""
    return offers([item])[item.pk]


def _offer(item: CatalogueItem, hosts: list[tuple[str, bool]]) -> Offer:
    proofs = {proof for proof, _ready in hosts if proof in GIVEN_BY}
    accelerators = [wanted for wanted in item.accelerators if _given(wanted, proofs)]
    ready = {proof for proof, free in hosts if proof in GIVEN_BY and free}
    gone = not hosts and not item.image.source
    obstacle = refusal(item) if item.image.deprecated_at else _replaced(item) if gone else no_size(item)
    closed = bool(obstacle)
    if not obstacle and not hosts:
        obstacle = _("Its image is on no host yet.")
    if not obstacle and not accelerators:
        obstacle = _("No host was proven to run it as it is offered.")
    if not obstacle and not any(_given(wanted, ready) for wanted in item.accelerators):
        obstacle = _("The hosts that could run it are down or in maintenance just now.")
    return Offer(_device_models(item), accelerators, obstacle, closed)


def _device_models(item: CatalogueItem) -> list[str]:
    return [name for name in item.device_models if name in item.image.device_models]


def _given(wanted: str, proofs: set[Any]) -> bool:
    if wanted == Wanted.BEST:
        return bool(proofs)
    return any(proof in proofs for proof in GIVEN_BY[wanted])  # type: ignore[index]
