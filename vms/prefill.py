"""Fill the request form in like an earlier request, with only what is still offered.

Not for: checking it, which happens when it is sent.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from portal.core.templatetags.gatehouse import gib
from portal.operations.models import Operation
from vms import profiles, virtualization
from vms.models import CatalogueItem, InstallTemplate
from vms.services import DAY, name_is_taken, share_of


@dataclass
class Filled:
    """The item to ask for, None when it is gone; the form's values; and what is different, in sentences."""

    item: CatalogueItem | None
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def like(operation: Operation) -> Filled:
    """Return the form's values for another request like `operation`."""
    spec = operation.frozen
    pinned, sizes = spec["pinned"], share_of(spec["sizes"])
    # It may be called otherwise meanwhile; requests of before that note have its name alone.
    which = {"pk": pinned["item_id"]} if "item_id" in pinned else {"name": pinned["item"]}
    item = CatalogueItem.objects.filter(offered=True, **which).select_related("image").first()
    if item is None:
        return Filled(None, notes=[_("%(item)s is not offered any more.") % {"item": pinned["item"]}])
    cloud = pinned["cloud"]
    filled = Filled(
        item,
        {
            "project": operation.project_id,
            "name": pinned.get("stem", pinned["name"]),
            "count": spec["sizes"].get("machines", 1),
            "why": pinned["why"],
            "user": cloud["user"],
            "ssh_keys": "\n".join(cloud["ssh_keys"]),
            "packages": " ".join(cloud["packages"]),
            "user_data": cloud["user_data"],
        },
    )
    _sizes(filled, item, pinned, sizes)
    _template(filled, pinned)
    wanted, devices = virtualization.pinned(spec)
    filled.values |= {"accelerator": wanted, "devices": devices, "profile": profiles.pinned(spec)}
    _network(filled, item, pinned)
    if item.image.sha256 != pinned["image"]["sha256"]:
        filled.notes.append(
            _("%(item)s is made from a newer image now: %(image)s.")
            % {"item": item.name, "image": item.image.title}
        )
    return filled


def _sizes(filled: Filled, item: CatalogueItem, pinned: dict[str, Any], sizes: dict[str, int]) -> None:
    flavour = item.flavours.filter(name=pinned["flavour"]).first()
    if flavour is None:
        filled.notes.append(
            _("The size %(size)s is not offered any more; choose another.") % {"size": pinned["flavour"]}
        )
    else:
        filled.values["flavour"] = flavour.pk
        if (flavour.vcpus, flavour.memory_counted) != (sizes["vcpu"], sizes["memory"]):
            filled.notes.append(
                _("%(size)s has %(vcpus)d vCPU and %(memory)s; the request had %(was)d vCPU and %(then)s.")
                % {
                    "size": flavour.name,
                    "vcpus": flavour.vcpus,
                    "memory": gib(flavour.memory_counted),
                    "was": sizes["vcpu"],
                    "then": gib(sizes["memory"]),
                }
            )
    disk = sizes["disk"] - sum(pinned.get("further", ()))
    if item.disk_most is not None and (flavour is None or disk != flavour.disk):
        filled.values["disk"] = disk
    elif flavour is not None and disk != flavour.disk:
        filled.notes.append(
            _("The disk is %(now)s now, as the size says; it was %(then)s.")
            % {"now": gib(flavour.disk), "then": gib(disk)}
        )
    days = sizes["lease"] // DAY
    filled.values["lease_days"] = min(days, item.longest_lease_days)
    if days > item.longest_lease_days:
        filled.notes.append(
            _("The longest lease is %(now)d days now; it was %(then)d.")
            % {"now": item.longest_lease_days, "then": days}
        )


def _template(filled: Filled, pinned: dict[str, Any]) -> None:
    answers = pinned.get("install", {}).get("answers")
    if answers is None:
        return
    template = InstallTemplate.objects.filter(name=answers["template"]).first()
    if template is None:
        filled.notes.append(
            _("The template %(template)s is gone; choose another.") % {"template": answers["template"]}
        )
        return
    filled.values["template"] = template.pk


def _network(filled: Filled, item: CatalogueItem, pinned: dict[str, Any]) -> None:
    network = item.networks.filter(uuid=pinned["network"]["uuid"]).first()
    if network is not None:
        filled.values["network"] = network.pk
        return
    filled.notes.append(
        _("The network %(network)s is not offered any more; choose another.")
        % {"network": pinned["network"]["name"]}
    )


def free_name(name: str) -> str:
    """Return `name`, or the next by its number that nobody has: web-2 after web. Empty after 99 more."""
    stem, number = name, 1
    if counted := re.fullmatch(r"(.*[^-0-9]-?)(\d{1,6})", name):
        stem, number = counted[1], int(counted[2])
    elif name_is_taken(name):
        stem = f"{name}-"
    if not name_is_taken(name):
        return name
    for following in range(number + 1, number + 100):
        candidate = f"{stem}{following}"
        if len(candidate) <= 63 and not name_is_taken(candidate):
            return candidate
    return ""
