"""What a machine's hypervisor cannot do, in words. Not for: which it is; its definition says so."""

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from portal.drivers.types import DomainFeature, lacks
from vms.models import Definition

#: Names of products.
_NAMES = {"xen": "Xen", "lxc": "LXC"}
_HOT = frozenset({DomainFeature.CHANGE_CARD_HOT, DomainFeature.GROW_DISK_HOT})
_OWN = frozenset({DomainFeature.OWN_DISKS, DomainFeature.OWN_CARDS})


def why_not(defined: Mapping[str, Any] | None, feature: DomainFeature) -> str:
    """Return why a machine that is defined so cannot have a feature, '' when it can or nobody knows."""
    kind = (defined or {}).get("type", "")
    if not lacks(kind, feature):
        return ""
    name = {"hypervisor": _NAMES.get(kind, kind)}
    if feature in _OWN:
        return _("The devices that the portal makes are for QEMU, and %(hypervisor)s has others.") % name
    if feature in _HOT:
        return _("%(hypervisor)s cannot do this while the machine runs. Switch the machine off first.") % name
    return _("libvirt cannot do this with machines of %(hypervisor)s.") % name


def why_not_seen(found: Definition | None, feature: DomainFeature) -> str:
    """Return why a machine cannot have a feature; `found` is what `noted.of` returns.

    What it lacks only while it runs, it lacks when it was seen to run.
    """
    if found is None:
        return ""
    sides = () if feature in _HOT else (found.observed_persistent,)
    return next(filter(None, (why_not(side, feature) for side in (*sides, found.observed_running))), "")
