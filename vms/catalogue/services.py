"""Add, change, retire, order and delete items and sizes. Not for: requests, which keep what they froze.

Each is for who administers every project, and each leaves what it was before and after in the trail.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.db import IntegrityError, models, transaction
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.audit import services as audit
from portal.core.canonical import canonical_json
from portal.core.errors import Denied
from portal.core.stale import Snapshot, check_seen
from portal.hosts.models import Image
from portal.operations.models import Operation
from portal.operations.policies import services as policies
from vms.catalogue.values import (
    ItemValues,
    Refused,
    SizeValues,
    check_item,
    check_size,
    item_snapshot,
    size_snapshot,
)
from vms.models import CatalogueItem, Flavour, VirtualMachine
from vms.services import BUILDS, DEPLOY

#: Fields of ItemValues that are rows of other tables.
MANY = ("flavours", "networks", "projects")


def _check_right(actor: Any) -> None:
    if not may(actor, "administer", None):
        raise Denied(_("Only an admin of every project changes the catalogue."))


def add_item(*, actor: Any, values: ItemValues) -> CatalogueItem:
    """Offer something new, at the end of the catalogue. Raises Denied, Refused for values that are wrong."""
    _check_right(actor)
    try:
        with transaction.atomic():
            check_item(values)
            last = CatalogueItem.objects.aggregate(last=models.Max("position"))["last"] or 0
            item = CatalogueItem(position=last + 1)
            _write(item, values)
            audit.record(actor=actor, verb="catalogue.added", target=item, after=item_snapshot(item))
    except IntegrityError as error:
        raise _taken(values.name) from error
    return item


def change_item(*, actor: Any, item: CatalogueItem, values: ItemValues, seen: Snapshot) -> CatalogueItem:
    """Give an item other values, unless it is no longer what the actor saw. Idempotent.

    Requests that wait, and machines, keep what they froze. Raises Denied, Refused for values that are wrong,
    Changed when somebody else was faster.
    """
    _check_right(actor)
    try:
        with transaction.atomic():
            current = _locked(item)
            before = item_snapshot(current)
            check_seen(current.name, seen, before)
            check_item(values, current)
            named = current.name
            _write(current, values)
            if current.name != named:
                policies.follow_item(actor=actor, before=named, after=current.name)
            _record(actor, "catalogue.changed", current, before, item_snapshot(current))
    except IntegrityError as error:
        raise _taken(values.name) from error
    return current


def use_version(*, actor: Any, image: Image, items: Sequence[int]) -> None:
    """Let items of other versions of `image`, by their keys, be made from it: all or none. Idempotent.

    Requests that wait, and machines, keep the version that they froze. Raises Denied, also for an item that
    the image does not go with.
    """
    _check_right(actor)
    older = CatalogueItem.objects.filter(image__name=image.name, image__kind=image.kind)
    with transaction.atomic():
        for item in older.filter(pk__in=items).exclude(image=image).order_by("pk"):
            current = _locked(item)
            before, values = item_snapshot(current), replace(_values_of(current), image=image)
            try:
                check_item(values, current)
            except Refused as refused:
                told = {"item": current, "reason": refused.reason}
                raise Denied(_("%(item)s stays with its version. %(reason)s") % told) from refused
            current.image = image
            current.save(update_fields=["image"])
            _record(actor, "catalogue.changed", current, before, item_snapshot(current))


def _values_of(item: CatalogueItem) -> ItemValues:
    values: dict[str, Any] = {
        field.name: getattr(item, field.name) for field in dataclasses.fields(ItemValues)
    }
    return ItemValues(**values | {name: list(values[name].all()) for name in MANY})


def _write(item: CatalogueItem, values: ItemValues) -> None:
    for field in dataclasses.fields(values):
        if field.name not in MANY:
            value = getattr(values, field.name)
            setattr(item, field.name, list(value) if isinstance(value, tuple) else value)
    item.description = item.description.strip()
    item.save()
    for name in MANY:
        getattr(item, name).set(getattr(values, name))
    if item.every_project:
        item.projects.clear()


def _locked(item: CatalogueItem) -> CatalogueItem:
    """Return the item as it is now, held against other changes until the transaction ends."""
    # Without its image: a join is of the moment before the lock, and the item may have another one now.
    current: CatalogueItem | None = CatalogueItem.objects.select_for_update().filter(pk=item.pk).first()
    if current is None:
        raise Denied(_("%(item)s was deleted meanwhile.") % {"item": item})
    return current


def _record(actor: Any, verb: str, target: Any, before: Snapshot, after: Snapshot) -> None:
    if before != after:
        audit.record(actor=actor, verb=verb, target=target, before=before, after=after)


def _taken(name: str) -> Refused:
    return Refused([("name", _("The name %(name)s is taken.") % {"name": name})])


def offer_item(*, actor: Any, item: CatalogueItem, offered: bool) -> None:
    """Retire an item, or offer it again; what was made from it stays. Idempotent. Raises Denied."""
    _check_right(actor)
    with transaction.atomic():
        current = _locked(item)
        if current.offered == offered:
            return
        current.offered = offered
        current.save(update_fields=["offered"])
        verb = "catalogue.offered" if offered else "catalogue.retired"
        before, after = {"offered": not offered}, {"offered": offered}
        audit.record(actor=actor, verb=verb, target=current, before=before, after=after)


def move_item(*, actor: Any, item: CatalogueItem, up: bool) -> None:
    """Let an item change places with the one above or below it; at the end it stays. Raises Denied."""
    _check_right(actor)
    with transaction.atomic():
        # Sorted here: PostgreSQL sorts before it waits for the lock, by places that have changed since.
        items = list(CatalogueItem.objects.select_for_update().order_by("pk"))
        items.sort(key=lambda item: (item.position, item.name))
        place = next((rank for rank, other in enumerate(items) if other.pk == item.pk), None)
        if place is None:
            raise Denied(_("%(item)s was deleted meanwhile.") % {"item": item})
        other = place - 1 if up else place + 1
        if not 0 <= other < len(items):
            return
        items[place], items[other] = items[other], items[place]
        for position, moved in enumerate(items, 1):
            moved.position = position
        CatalogueItem.objects.bulk_update(items, ["position"])
        audit.record(
            actor=actor,
            verb="catalogue.moved",
            target=item,
            before={"position": place + 1},
            after={"position": other + 1},
        )


def uses_of(item: CatalogueItem) -> int:
    """Count the requests and machines that were made from an item, also under its earlier names."""
    # The frozen request is canonical JSON: a person's text cannot hold these quotes unescaped.
    by_key = models.Q(spec__contains=f'"item_id":{item.pk},')
    by_name = models.Q(spec__contains=f'"item":{canonical_json(item.name)},')
    asked = Operation.objects.filter(by_key | by_name, kind__in=[*BUILDS, DEPLOY]).count()
    made = VirtualMachine.objects.filter(item_name=item.name).exclude(built_by__kind__in=BUILDS).count()
    return asked + made


def delete_item(*, actor: Any, item: CatalogueItem, confirm_name: str) -> None:
    """Delete an item that nobody ever asked for. Raises Denied: one that was used is retired instead."""
    _check_right(actor)
    with transaction.atomic():
        current = _locked(item)
        if confirm_name != current.name:
            raise Denied(_("This is not the name. Nothing was done."))
        if uses := uses_of(current):
            raise Denied(
                _("%(item)s was asked for %(times)d times. Retire it instead: then the trail stays readable.")
                % {"item": current, "times": uses}
            )
        before = item_snapshot(current)
        audit.record(actor=actor, verb="catalogue.deleted", target=current, before=before)
        current.delete()


def add_size(*, actor: Any, values: SizeValues) -> Flavour:
    """Make a size that items can come in. Raises Denied, Refused for values that are wrong."""
    _check_right(actor)
    try:
        with transaction.atomic():
            check_size(values)
            size = Flavour.objects.create(**dataclasses.asdict(values))
            audit.record(actor=actor, verb="size.added", target=size, after=size_snapshot(size))
    except IntegrityError as error:
        raise _taken(values.name) from error
    return size


def change_size(*, actor: Any, size: Flavour, values: SizeValues, seen: Snapshot) -> Flavour:
    """Give a size other values for what is asked from now on. Idempotent. Raises as `change_item`."""
    _check_right(actor)
    try:
        with transaction.atomic():
            current = Flavour.objects.select_for_update().filter(pk=size.pk).first()
            if current is None:
                raise Denied(_("%(size)s was deleted meanwhile.") % {"size": size})
            before = size_snapshot(current)
            check_seen(current.name, seen, before)
            check_size(values, current)
            for name, value in dataclasses.asdict(values).items():
                setattr(current, name, value)
            current.save()
            _record(actor, "size.changed", current, before, size_snapshot(current))
    except IntegrityError as error:
        raise _taken(values.name) from error
    return current


def delete_size(*, actor: Any, size: Flavour) -> None:
    """Delete a size that no item comes in. Idempotent. Raises Denied."""
    _check_right(actor)
    with transaction.atomic():
        current = Flavour.objects.select_for_update().filter(pk=size.pk).first()
        if current is None:
            return
        names = ", ".join(current.items.values_list("name", flat=True))
        if names:
            raise Denied(_("%(size)s is a size of %(items)s.") % {"size": current, "items": names})
        audit.record(actor=actor, verb="size.deleted", target=current, before=size_snapshot(current))
        current.delete()
