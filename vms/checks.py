"""What may be asked for, value by value, so that a form can say each refusal at its field while one types.

Not for: quotas, names that are taken and policies, which change from moment to moment.
"""

import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from django.utils.translation import gettext as _

from portal.core.templatetags.gatehouse import gib
from vms import cloud, direct_boot, fitting, offers, profiles
from vms.models import CatalogueItem
from vms.unattended import takes_user

Values = Mapping[str, Any]
MOST_AT_ONCE = 50


def refusals(item: CatalogueItem, values: Values) -> dict[str, str]:
    """Return a sentence for each of `values` that stands in the way of asking for `item`.

    The names are those of `Wish`; what `values` does not hold is not looked at. `item` itself is the
    refusal called "item".
    """
    found = {}
    if not item.offered:
        found["item"] = _("%(item)s is not offered any more.") % {"item": item.name}
    elif item.image.deprecated_at is not None:
        found["item"] = offers.refusal(item)
    elif reason := offers.no_size(item):
        found["item"] = reason
    elif boards := [profiles.refusal(item, board) for board in profiles.profiles_of(item.image)]:
        # Where no board can be had there is nothing to choose.
        found["item"] = boards[0] if all(boards) else _no_disk(item)
    for field, check in _CHECKS.items():
        # With an item that is gone for good nothing else matters.
        if not found.get("item") and values.get(field) is not None and (refusal := check(item, values)):
            found[field] = refusal
    return {field: refusal for field, refusal in found.items() if refusal}


def _no_disk(item: CatalogueItem) -> str:
    """Return why the installer of `item` finds no disk with any of its devices, '' when it finds one."""
    reasons = [profiles.no_drivers(item, devices) for devices in item.device_models]
    return reasons[0] if reasons and all(reasons) else ""


def least_disk(item: CatalogueItem) -> int:
    """Return the bytes that a chosen disk has at least; the image must fit."""
    return max(item.disk_least or 0, item.image.least_disk, 1)


def _project(item: CatalogueItem, values: Values) -> str:
    project = values["project"]
    if not (item.every_project or item.projects.filter(pk=project.pk).exists()):
        return _("%(item)s is not offered to %(project)s.") % {"item": item.name, "project": project}
    if not fitting.shared_with(item.image, project):
        return _("%(item)s is made from an image that %(project)s may not use.") % {
            "item": item.name,
            "project": project,
        }
    return ""


def _name(item: CatalogueItem, values: Values) -> str:
    if cloud.HOSTNAME.fullmatch(values["name"]):
        return ""
    return _("A name has 1 to 63 small letters, digits and hyphens, and no hyphen at either end.")


def _count(item: CatalogueItem, values: Values) -> str:
    count, name = values["count"], values.get("name") or ""
    if not 1 <= count <= MOST_AT_ONCE:
        return _("Ask for 1 to %(most)d machines at once.") % {"most": MOST_AT_ONCE}
    if count > 1 and len(f"{name}-{count}") > 63:
        return _("The names would be longer than 63 characters; choose a shorter one.")
    return ""


def _flavour(item: CatalogueItem, values: Values) -> str:
    flavour = values["flavour"]
    names = {"item": item.name, "size": flavour.name}
    if not item.flavours.filter(pk=flavour.pk).exists():
        return _("%(item)s does not come in the size %(size)s.") % names
    if flavour.memory < item.image.min_memory:
        least = {"least": gib(item.image.min_memory, 2)}
        return _("%(item)s needs more memory than %(size)s has: %(least)s.") % (names | least)
    if item.disk_most is None and flavour.disk < item.image.least_disk:
        least = {"least": gib(item.image.least_disk, 2)}
        return _("%(item)s needs a larger disk than %(size)s has: %(least)s.") % (names | least)
    return ""


def _disk(item: CatalogueItem, values: Values) -> str:
    disk, flavour = values["disk"], values.get("flavour")
    if disk < max(item.image.least_disk, 1):
        return _("The disk has at least %(least)s, so that the image fits.") % {
            "least": gib(item.image.least_disk, 3)
        }
    if flavour is not None and disk == flavour.disk:
        return ""
    if item.disk_most is None:
        return _("The disk of %(item)s is the size's own and cannot be chosen.") % {"item": item.name}
    if not least_disk(item) <= disk <= item.disk_most:
        return _("The disk of %(item)s is %(least)s to %(most)s.") % {
            "item": item.name,
            "least": gib(least_disk(item), 3),
            "most": gib(item.disk_most, 3),
        }
    return _("A disk is whole sectors of 512 bytes.") if disk % 512 else ""


def _network(item: CatalogueItem, values: Values) -> str:
    if item.networks.filter(pk=values["network"].pk).exists():
        return ""
    return _("%(item)s is not offered on the network %(network)s.") % {
        "item": item.name,
        "network": values["network"],
    }


def _lease(item: CatalogueItem, values: Values) -> str:
    if 1 <= values["lease_days"] <= item.longest_lease_days:
        return ""
    return _("The lease is 1 to %(most)d days.") % {"most": item.longest_lease_days}


def _why(item: CatalogueItem, values: Values) -> str:
    return no_purpose(values["why"])


def no_purpose(words: str) -> str:
    """Return why `words` do not tell people what a machine is for, '' when they do."""
    if not words.strip():
        return _("Say in a few words what the machine is for.")
    return unreadable(words)


def unreadable(words: str) -> str:
    """Return why people could not read `words`, '' when they can."""
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in words):
        return _("This holds a character that cannot be shown; write it in plain words.")
    return ""


def _user(item: CatalogueItem, values: Values) -> str:
    if values["user"] == "default":
        return _("cloud-init means the image's own user by the name default; choose another.")
    template = values.get("template")
    if not values["user"]:
        # By hand, the installer asks whom it lets in.
        by_hand = item.image.needs_installer and template is None
        return "" if by_hand else _("Say whom the machine lets in.")
    if template is not None and not takes_user(template.format, values["user"]):
        words = _(
            "Debian's installer keeps the name %(user)s for itself, and would stop to ask; choose another."
        )
        return words % {"user": values["user"]}
    if cloud.LOGIN.fullmatch(values["user"]):
        return ""
    return _("A user's name has small letters, digits, _ and -, and starts with a letter.")


def _template(item: CatalogueItem, values: Values) -> str:
    if values["template"].format not in direct_boot.formats(item.image):
        return _("The installer of %(item)s does not read %(template)s.") % {
            "item": item.name,
            "template": values["template"].name,
        }
    # A form has those that were ticked apart.
    if not (values.get("ssh_keys") or "").strip() and not values.get("own_keys"):
        return _("Give at least one SSH key: an installation by template sets no password, so you need it.")
    return ""


def _devices(item: CatalogueItem, values: Values) -> str:
    reason = offers.refusal(item, devices=values["devices"])
    reason = reason or fitting.too_many(item.image, values["devices"] or item.default_devices)
    return reason or profiles.no_drivers(item, values["devices"])


def _profile(item: CatalogueItem, values: Values) -> str:
    profile, known = values["profile"], profiles.profiles_of(item.image)
    if not profile:
        profile = known[0]
    if profile not in known:
        return _("%(item)s does not come with this board.") % {"item": item.name}
    return profiles.refusal(item, profile, values.get("accelerator") or "")


def _accelerator(item: CatalogueItem, values: Values) -> str:
    return offers.refusal(item, accelerator=values["accelerator"])


def _user_data(item: CatalogueItem, values: Values) -> str:
    check = partial(cloud.check_user_data, login=values.get("user") or "")
    return _by_cloud("user_data", check)(item, values)


def _by_cloud(field: str, check: Callable[[str], Any]) -> Callable[[CatalogueItem, Values], str]:
    def ask(item: CatalogueItem, values: Values) -> str:
        try:
            check(values[field])
        except cloud.Invalid as error:
            return str(error)
        return ""

    return ask


_CHECKS: Mapping[str, Callable[[CatalogueItem, Values], str]] = {
    "project": _project,
    "name": _name,
    "count": _count,
    "flavour": _flavour,
    "disk": _disk,
    "network": _network,
    "devices": _devices,
    "profile": _profile,
    "accelerator": _accelerator,
    "lease_days": _lease,
    "why": _why,
    "user": _user,
    "ssh_keys": _by_cloud("ssh_keys", cloud.check_ssh_keys),
    "packages": _by_cloud("packages", cloud.check_packages),
    "user_data": _user_data,
    "template": _template,
}
