"""Define an object once by name and UUID; not for anything else that changes a host."""

from collections.abc import Callable
from typing import Any

import libvirt

from portal.drivers.errors import AlreadyExists

_ABSENT = {
    libvirt.VIR_ERR_NO_DOMAIN,
    libvirt.VIR_ERR_NO_NETWORK,
    libvirt.VIR_ERR_NO_STORAGE_POOL,
}
Lookup = Callable[[str], Any]


def _find(lookup: Lookup, key: str) -> Any | None:
    try:
        return lookup(key)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _ABSENT:
            return None
        raise


def _find_same(by_uuid: Lookup, by_name: Lookup, name: str, uuid: str) -> Any | None:
    """Return the object with that name and UUID, None when both are free. Raises AlreadyExists."""
    for found in (_find(by_uuid, uuid), _find(by_name, name)):
        if found is None:
            continue
        other = (found.name(), found.UUIDString())
        if other == (name, uuid):
            return found
        raise AlreadyExists(f"{other[0]} has uuid {other[1]}")
    return None


def define_once(by_uuid: Lookup, by_name: Lookup, name: str, uuid: str, define: Callable[[], Any]) -> Any:
    """Return the object with that name and UUID, made by `define` unless it is there.

    Costs two look-ups however many objects the host has. Two racing callers end with one object.
    Raises AlreadyExists when name or UUID belongs to another object.
    """
    found = _find_same(by_uuid, by_name, name, uuid)
    if found is not None:
        return found
    try:
        return define()
    except libvirt.libvirtError:
        # libvirt has no error of its own for «someone else was faster»: look again.
        found = _find_same(by_uuid, by_name, name, uuid)
        if found is None:
            raise
        return found
