"""Say anew what is in an image and who may use it. Not for: what follows for items (`vms.catalogue`)."""

import copy
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from portal.audit import services as audit
from portal.core.errors import Denied
from portal.core.stale import Snapshot, check_seen
from portal.core.templatetags.gatehouse import gib
from portal.hosts.images.values import FIELDS, Description, check_described, check_memory, check_version
from portal.hosts.models import Image
from portal.hosts.services import check_estate


def describe_image(
    *, actor: Any, image: Image, values: Description, seen: Snapshot, given_back: Collection[str] = ()
) -> None:
    """Say what an image is from now on; what was edited so, no builder's list overrules. Idempotent.

    Of what is `given_back` the list's own value counts, now and at whatever it says later. Machines and
    requests keep what they froze. `seen` is the `snapshot` that the actor saw. Raises Denied, with the field,
    and Changed when somebody else was faster.
    """
    check_estate(actor, "administer", _("change images"))
    with transaction.atomic():
        current = locked(image)
        before = snapshot(current)
        check_seen(current.title, seen, before)
        values = as_listed(current, values, given_back)
        check(current, values)
        described = as_described(current, values)
        current.projects.set([] if values.every_project else values.projects)
        after = snapshot(described)
        changed = {name for name in FIELDS if before[name] != after[name]}
        if changed or given_back:
            described.edited = sorted(changed.union(current.edited) - set(given_back))
            described.save(update_fields=["edited", *(name for name in FIELDS if name != "projects")])
            if given_back:
                before, after = before | {"edited": current.edited}, after | {"edited": described.edited}
            audit.record(actor=actor, verb="image.described", target=current, before=before, after=after)


def returnable(image: Image) -> list[str]:
    """Return what people said of an image that its builder's list says something of too."""
    return [name for name in FIELDS if name in image.edited and name in image.listed]


def as_listed(image: Image, values: Description, names: Collection[str]) -> Description:
    """Return `values` with what the builder's list says of `names`. Raises Denied for what is not edited."""
    if not set(names) <= set(returnable(image)):
        words = _("The image builder's list has one of the values already, or says nothing of it.")
        raise Denied(words, field="given_back")
    said: dict[str, Any] = {name: image.listed[name] for name in names}
    if "device_models" in said:
        said["device_models"] = tuple(said["device_models"])
    return replace(values, **said)


def as_described(image: Image, values: Description) -> Image:
    """Return the image as it would be, not saved; its projects are still those that it has."""
    described = copy.copy(image)
    for name in FIELDS:
        if name != "projects":
            value = getattr(values, name)
            setattr(described, name, list(value) if isinstance(value, tuple) else value)
    for name in ("title", "description"):
        setattr(described, name, getattr(described, name).strip())
    return described


def check(image: Image, values: Description) -> None:
    """Raise Denied, with the field, for the first value that is not taken."""
    check_memory(values.min_memory)
    check_described(values)
    if values.version != image.version:
        check_version(image.kind, image.name, values.version)
    least = values.min_disk
    if least and least != image.min_disk and not image.needs_installer and least < image.virtual_size:
        words = _("The image itself has %(least)s, and a disk made from it no less. Leave it empty for that.")
        raise Denied(words % {"least": gib(image.virtual_size, 2)}, field="min_disk")


def snapshot(image: Image) -> dict[str, Any]:
    """Return what is said of an image, as the trail and the page's form keep it; one query."""
    said = {name: getattr(image, name) for name in FIELDS if name != "projects"}
    names = sorted(image.projects.values_list("name", flat=True))
    return said | {"device_models": sorted(image.device_models), "projects": names}


def locked(image: Image) -> Image:
    """Return the image as it is now, its row locked until the transaction ends. Raises Denied."""
    current: Image | None = Image.objects.select_for_update().filter(pk=image.pk).first()
    if current is None:
        raise Denied(_("%(image)s was deleted meanwhile.") % {"image": image})
    return current
