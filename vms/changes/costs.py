"""What a machine that exists costs a month, by the catalogue's prices of today. Not for: new machines."""

from collections.abc import Mapping
from decimal import Decimal

from django.db.models import Q, Sum

from vms.models import CatalogueItem, Flavour, VirtualMachine
from vms.services import cost_month


def cost_of(machine: VirtualMachine, sizes: Mapping[str, int]) -> Decimal | None:
    """Return what the cheapest size that is as large costs a month, None where nobody gave a price.

    With a `disk` among the sizes, what of it is beyond the size's own costs too.
    """
    item = CatalogueItem.objects.filter(name=machine.item_name).first()
    enough = Q(memory__gte=sizes["memory"]) | Q(ceiling__gte=sizes["memory"])
    large = Flavour.objects.filter(enough, vcpus__gte=sizes["vcpu"])
    if item is None:
        return None
    costs = (cost_month(item, size, sizes.get("disk")) for size in large.filter(items=item))
    return min(costs, default=None)


def after(machine: VirtualMachine, now: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, str]:
    """Return what a request pins of the machine's cost once it has `sizes` in place of `now`.

    {} where nobody gave a price. All of its disks count, as those of a new machine do.
    """
    there = machine.disks.aggregate(total=Sum("capacity"))["total"] or 0
    changed = {
        "vcpu": sizes.get("vcpu", machine.vcpus),
        "memory": sizes.get("memory", machine.memory),
        "disk": there + sizes.get("disk", 0) - now.get("disk", 0),
    }
    cost = cost_of(machine, changed)
    return {} if cost is None else {"cost_month": str(cost)}
