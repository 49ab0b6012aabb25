"""What lists of builders say of images, under what people said here. Not for: reading such a list."""

from collections.abc import Collection, Mapping
from typing import Any

from portal.hosts.images.values import FIELDS
from portal.hosts.models import Image

#: Of a newer version the older one says these too where nobody edited them: no builder knows of them.
_OURS = frozenset({"os", "uefi", "secure_boot", "tpm", "min_disk", "every_project", "projects"})
#: What each version says by itself.
_OWN = frozenset({"version"})


def make_known(
    sha256: str, told: Mapping[str, Any], typed: Collection[str] = ()
) -> tuple[Image, bool]:
    """Make an image known as `told`, but for what people said of it here; return it, and whether it is new.

    A newer version, which is of the same name and kind, begins with what people said of the one before it.
    What a person `typed` for this call counts. Joins the transaction. Idempotent by content.
    """
    told = {**told, "listed": {name: told[name] for name in FIELDS if name in told}}
    current = Image.objects.select_for_update().filter(sha256=sha256).first()
    if current is not None:
        kept = set(current.edited) - set(typed)
        values = {name: value for name, value in told.items() if name not in kept}
        return Image.objects.update_or_create(sha256=sha256, defaults=values)
    kind = told.get("kind", Image.Kind.DISK)
    # Not of one that a person handed in or made of a machine, which may be called alike.
    builds = Image.objects.filter(name=told["name"], kind=kind, uploads=None).exclude(source="")
    older = builds.order_by("-pk").first()
    if older is None:
        return Image.objects.update_or_create(sha256=sha256, defaults=told)
    inherited = (set(older.edited) | _OURS) - _OWN - set(typed)
    values = {name: getattr(older, name) for name in FIELDS if name in inherited - {"projects"}}
    values["edited"] = [name for name in older.edited if name in inherited]
    image, made = Image.objects.update_or_create(sha256=sha256, defaults={**told, **values})
    if made:
        image.projects.set(older.projects.all())
    return image, made
