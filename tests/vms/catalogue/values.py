"""An item's values as the form would post them; for the tests of this folder."""

import dataclasses

from vms.catalogue.values import ItemValues

MANY = {"flavours", "networks", "projects"}


def values_of(item, **changes):
    """What the item is now, with `changes`."""
    names = [field.name for field in dataclasses.fields(ItemValues)]
    now = {name: list(getattr(item, name).all()) if name in MANY else getattr(item, name) for name in names}
    return ItemValues(**now | changes)
