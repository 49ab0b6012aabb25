"""What an item and a size may be, and how they read in the trail. Not for: writing them."""

import dataclasses
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from django.utils.translation import gettext as _

from networks.models import Network
from portal.accounts.models import Project
from portal.core.errors import Denied
from portal.core.templatetags.gatehouse import gib
from portal.hosts.models import Image
from vms.fitting import misfits
from vms.models import CatalogueItem, Flavour
from vms.virtualization import Devices, Wanted

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
#: Beyond these somebody typed a wrong unit.
MOST_VCPUS, MOST_MEMORY, MOST_DISK = 512, 16 * TIB, 64 * TIB
LEAST_MEMORY, LEAST_DISK = 32 * MIB, 16 * MIB
MOST_DAYS = 3650
MOST_COST = Decimal(1_000_000)
#: What an item may be drawn with; each stands in scripts/lib/icons.txt.
ICONS = (
    "server", "server-2", "bolt", "brand-debian", "brand-docker", "box", "cloud", "code", "container", "cpu",
    "database", "device-desktop", "device-laptop", "disc", "gauge", "globe", "key", "network", "package",
    "rocket", "router", "shield", "template", "terminal-2", "tool", "users-group",
)  # fmt: skip
Problem = tuple[str, str]


class Refused(Denied):
    """Values that cannot be kept; `problems` are (field, sentence)."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(" ".join(sentence for _field, sentence in problems))
        self.problems = problems


@dataclasses.dataclass(frozen=True)
class ItemValues:
    """An item as somebody wants it; sizes in bytes, costs in the portal's currency a month."""

    name: str
    description: str
    icon: str
    image: Image
    flavours: Sequence[Flavour]
    networks: Sequence[Network]
    lease_days: int
    longest_lease_days: int
    cost_month: Decimal = Decimal(0)
    cost_month_gib: Decimal = Decimal(0)
    disk_least: int | None = None
    disk_most: int | None = None
    linked_clone: bool = True
    device_models: Sequence[str] = (Devices.PARAVIRTUAL.value,)
    default_devices: str = Devices.PARAVIRTUAL.value
    accelerators: Sequence[str] = (Wanted.BEST.value,)
    default_accelerator: str = Wanted.BEST.value
    every_project: bool = True
    projects: Sequence[Project] = ()


@dataclasses.dataclass(frozen=True)
class SizeValues:
    """A size as somebody wants it; bytes."""

    name: str
    vcpus: int
    memory: int
    disk: int
    cost_month: Decimal = Decimal(0)
    #: Up to which the memory can be changed while a machine runs; None for the same.
    ceiling: int | None = None


def check_item(values: ItemValues, before: CatalogueItem | None = None) -> None:
    """Raise Refused with everything that is wrong with `values`; `before` is the item that they replace."""
    problems = [
        *_about(values, before),
        *_image(values, before),
        *_sizes(values),
        *_lease(values),
        *_cost("cost_month", values.cost_month),
        *_cost("cost_month_gib", values.cost_month_gib),
        *_disk(values),
        *_running(values),
    ]
    if not values.every_project and not values.projects:
        problems.append(("projects", _("Choose at least one project, or offer it to every project.")))
    if problems:
        raise Refused(problems)


def _about(values: ItemValues, before: CatalogueItem | None) -> Iterator[Problem]:
    yield from _name(values.name, 80, _others(CatalogueItem, before))
    if not 1 <= len(values.description.strip()) <= 2000:
        yield "description", _("Describe it in 1 to 2000 letters: people choose by it.")
    if values.icon not in ICONS:
        yield "icon", _("Choose one of the pictures.")


def _others(model: Any, before: Any) -> Any:
    return model.objects.exclude(pk=before.pk) if before else model.objects.all()


def _name(name: str, longest: int, others: Any) -> Iterator[Problem]:
    if not 1 <= len(name.strip()) <= longest or not name.isprintable() or name != name.strip():
        yield "name", _("A name has 1 to %(longest)d letters, without spaces at its ends.") % {
            "longest": longest
        }
    elif others.filter(name__iexact=name).exists():
        yield "name", _("The name %(name)s is taken.") % {"name": name}


def _image(values: ItemValues, before: CatalogueItem | None) -> Iterator[Problem]:
    kept = before is not None and before.image_id == values.image.pk
    if values.image.deprecated_at is not None and not kept:
        yield "image", _("Nothing new is made from this image: %(reason)s") % {
            "reason": values.image.deprecated_reason
        }
    if not values.image.every_project:
        yield from _shared(values)


def _shared(values: ItemValues) -> Iterator[Problem]:
    """Yield why an item of an image that is not everybody's cannot be offered so."""
    theirs = {project.name for project in values.image.projects.all()}
    told = {"image": values.image.label, "projects": ", ".join(sorted(theirs))}
    if values.every_project:
        yield "every_project", _("%(image)s is only for the people of %(projects)s.") % told
    elif {project.name for project in values.projects} - theirs:
        yield "projects", _("%(image)s is only for the people of %(projects)s.") % told


def _sizes(values: ItemValues) -> Iterator[Problem]:
    if not values.flavours:
        yield "flavours", _("Choose at least one size.")
    for flavour in values.flavours:
        for sentence in misfits(flavour, values.image):
            yield "flavours", sentence
    if not values.networks:
        yield "networks", _("Choose at least one network.")


def _lease(values: ItemValues) -> Iterator[Problem]:
    if not 1 <= values.longest_lease_days <= MOST_DAYS:
        yield "longest_lease_days", _("The longest lease is 1 to %(most)d days.") % {"most": MOST_DAYS}
    elif not 1 <= values.lease_days <= values.longest_lease_days:
        yield "lease_days", _("The default lease is 1 day up to the longest lease.")


def _cost(field: str, cost: Decimal) -> Iterator[Problem]:
    if not 0 <= cost <= MOST_COST or cost != cost.quantize(Decimal("0.01")):
        yield field, _("A cost is 0 to 1,000,000 with at most two decimals.")


def _disk(values: ItemValues) -> Iterator[Problem]:
    least, most = values.disk_least, values.disk_most
    if most is None:
        if least is not None:
            yield "disk_most", _("Say how large the disk may be, or leave both empty.")
        return
    smallest = values.image.least_disk
    if not smallest <= most <= MOST_DISK:
        yield "disk_most", _("The largest disk is %(least)s (the image's) to %(most)s.") % {
            "least": gib(smallest, 2),
            "most": gib(MOST_DISK),
        }
    elif least is not None and not 0 < least <= most:
        yield "disk_least", _("The smallest disk is above 0 and not above the largest.")


def _running(values: ItemValues) -> Iterator[Problem]:
    lacking = [name for name in values.device_models if name not in values.image.device_models]
    if not values.device_models:
        yield "device_models", _("Choose at least one kind of devices.")
    for name in lacking:
        yield "device_models", _("%(image)s has no drivers for %(devices)s.") % {
            "image": values.image.title,
            "devices": Devices(name).label if name in Devices.values else name,
        }
    if values.default_devices not in values.device_models:
        yield "default_devices", _("The default must be one of the kinds that may be asked for.")
    if not values.accelerators or not set(values.accelerators) <= set(Wanted.values):
        yield "accelerators", _("Choose at least one way to run it.")
    elif values.default_accelerator not in values.accelerators:
        yield "default_accelerator", _("The default must be one of the ways that may be asked for.")


def check_size(values: SizeValues, before: Flavour | None = None) -> None:
    """Raise Refused with everything that is wrong with a size, also for items that come in it already."""
    problems = [
        *_name(values.name, 50, _others(Flavour, before)),
        *_cost("cost_month", values.cost_month),
        *_amounts(values),
    ]
    if before is not None and not problems:
        for item in before.items.select_related("image"):
            for sentence in misfits(values, item.image):
                field = "disk" if values.disk < item.image.least_disk else "memory"
                problems.append((field, f"{item.name}: {sentence}"))
    if problems:
        raise Refused(problems)


def _amounts(values: SizeValues) -> Iterator[Problem]:
    if not 1 <= values.vcpus <= MOST_VCPUS:
        yield "vcpus", _("A machine has 1 to %(most)d vCPUs.") % {"most": MOST_VCPUS}
    amounts = [
        ("memory", values.memory, LEAST_MEMORY, MOST_MEMORY),
        ("disk", values.disk, LEAST_DISK, MOST_DISK),
    ]
    if values.ceiling is not None:
        amounts.append(("ceiling", values.ceiling, LEAST_MEMORY, MOST_MEMORY))
        if values.ceiling <= values.memory:
            yield "ceiling", _("The ceiling is more than the memory. Leave it empty, and it is the same.")
    for field, value, least, most in amounts:
        if not least <= value <= most or value % MIB:
            yield field, _("It is %(least)s to %(most)s, in whole MiB.") % {
                "least": gib(least, 3),
                "most": gib(most),
            }


def item_snapshot(item: CatalogueItem) -> dict[str, Any]:
    """Return every value of an item in words, for the trail and for comparing; four queries."""
    return {
        "name": item.name,
        "description": item.description,
        "icon": item.icon,
        "image": f"{item.image.label} ({item.image.sha256[:12]})",
        "sizes": sorted(item.flavours.values_list("name", flat=True)),
        "networks": sorted(item.networks.values_list("name", flat=True)),
        "lease_days": item.lease_days,
        "longest_lease_days": item.longest_lease_days,
        "cost_month": f"{item.cost_month:.2f}",
        "cost_month_gib": f"{item.cost_month_gib:.2f}",
        "disk_least": item.disk_least,
        "disk_most": item.disk_most,
        "linked_clone": item.linked_clone,
        "device_models": list(item.device_models),
        "default_devices": str(item.default_devices),
        "accelerators": list(item.accelerators),
        "default_accelerator": str(item.default_accelerator),
        "every_project": item.every_project,
        "projects": sorted(item.projects.values_list("name", flat=True)),
        "offered": item.offered,
    }


def size_snapshot(size: Flavour) -> dict[str, Any]:
    """Return every value of a size, for the trail and for comparing."""
    return {
        "name": size.name,
        "vcpus": size.vcpus,
        "memory": size.memory,
        "ceiling": size.ceiling,
        "disk": size.disk,
        "cost_month": f"{size.cost_month:.2f}",
    }
