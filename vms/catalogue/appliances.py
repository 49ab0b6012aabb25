"""What is known of the machine that an image comes from, for who asks or makes items. Not for: imports."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.core.templatetags.gatehouse import gib
from portal.hosts.models import Image
from vms.catalogue.values import GIB, MIB
from vms.models import Flavour

STEP = 64 * MIB


def facts(image: Image) -> list[tuple[str, str]]:
    """Return what is known of its machine, each with its label; nothing for what came otherwise."""
    told = image.told
    if not told:
        return []
    system = told["system"] or told["os"]
    found = [
        (_("Name"), told["name"]),
        (_("vCPUs"), str(told["vcpus"]) if told["vcpus"] else ""),
        (_("Memory"), gib(told["memory"], 2) if told["memory"] else ""),
        (_("Disk"), _disk(image)),
        (_("Content"), _("data alone: no machine starts from it") if told.get("data") else ""),
        (_("Firmware"), _firmware(told)),
        (_("TPM"), _("yes") if told.get("tpm") else ""),
        (_("Chipset"), told.get("chipset", "")),
        (_("Disk on"), told.get("bus", "")),
        (_("Network card"), _card(told)),
        (_("System"), system),
        (_("Networks"), ", ".join(told["networks"])),
        (_("Disks that begin empty"), str(told.get("blank") or "")),
    ]
    return [(label, words) for label, words in found if words]


def _firmware(told: Mapping[str, Any]) -> str:
    if not told["uefi"]:
        return _("BIOS")
    return _("UEFI with Secure Boot") if told.get("secure_boot") else _("UEFI")


def _card(told: Mapping[str, Any]) -> str:
    model, count = told.get("card", ""), told.get("cards", 0)
    if count < 2:
        return str(model)
    words = {"count": count, "model": model}
    return _("%(count)d, the first %(model)s") % words if model else str(count)


def had(image: Image) -> str:
    """Return in a sentence what size its machine had, '' where nobody knows."""
    told = image.told
    if not told or not (told["vcpus"] and told["memory"]):
        return ""
    words = {"vcpus": told["vcpus"], "memory": gib(told["memory"], 2)}
    return _("The machine that its image comes from had %(vcpus)d vCPU and %(memory)s of memory.") % words


def further(image: Image) -> str:
    """Return in a sentence which disks a machine gets beside that of its size, '' for none."""
    if not image.further:
        return ""
    sizes = ", ".join(gib(disk["capacity"], 2) for disk in image.further)
    words = ngettext(
        "Beside the disk of the size it gets one further disk of the image, which counts too: %(sizes)s.",
        "Beside the disk of the size it gets %(count)d further disks of the image, which count too: "
        "%(sizes)s.",
        len(image.further),
    )
    return words % {"count": len(image.further), "sizes": sizes}


def proposed(image: Image, sizes: Sequence[Flavour]) -> Flavour | None:
    """Return which of `sizes` a request begins with: the smallest that holds its machine, if one does."""
    if not image.told:
        return None
    least = _least(image)
    holding = [size for size in sizes if size.vcpus >= least["vcpus"] and size.memory >= least["memory"]]
    return min(holding, key=lambda size: (size.vcpus, size.memory, size.disk), default=None)


def _disk(image: Image) -> str:
    words = gib(image.virtual_size, 2)
    if "disk" not in image.told:
        return words
    told = {"number": image.told["disk"], "disks": image.told["disks"], "size": words}
    return _("%(size)s, number %(number)d of %(disks)d") % told


def fitting(image: Image | None, sizes: QuerySet[Flavour]) -> list[Flavour]:
    """Return the sizes that hold its machine; none where nobody knows that."""
    if image is None or not image.told:
        return []
    least = _least(image)
    found = sizes.filter(vcpus__gte=least["vcpus"], memory__gte=least["memory"], disk__gte=least["disk"])
    return list(found)


def _least(image: Image) -> dict[str, int]:
    told = image.told
    return {
        "vcpus": max(told["vcpus"], 1),
        "memory": max(told["memory"], image.min_memory),
        "disk": image.least_disk,
    }


def hint(image: Image | None, sizes: QuerySet[Flavour]) -> str:
    """Say that no size holds its machine, '' when one does or nobody knows that."""
    if image is None or not image.told or fitting(image, sizes):
        return ""
    least = _least(image)
    words = {name: gib(least[name], 2) for name in ("memory", "disk")} | {"vcpus": str(least["vcpus"])}
    return _(
        "Its machine had %(vcpus)s vCPU, %(memory)s of memory and %(disk)s of disk. No size has that."
    ) % words


def size_of(image: Image | None) -> dict[str, Any]:
    """Return what a size for it begins with, by the names of the form's fields."""
    if image is None or not image.told:
        return {}
    least, told = _least(image), image.told
    named = {"name": told["name"][:50], "vcpus": least["vcpus"]}
    return named | {key: _in_gib(least[key]) for key in ("memory", "disk")}


def _in_gib(value: int) -> Decimal:
    """Return at least `value` bytes in GiB, with no more digits than the form takes."""
    return Decimal(-(-value // STEP)) * STEP / GIB
