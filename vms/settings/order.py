"""In which order a machine tries its devices at its start. Not for: kinds of devices, as `booting` has."""

from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.drivers.types import DomainFeature
from vms import hypervisors
from vms.settings.model import Defined, Ground, Setting, devices

#: Nothing is said at the devices.
BY_PLACE = ""
_DISK, _CARD = "disk:", "card:"


def _named(defined: Defined) -> Iterator[tuple[str, int, str, Any]]:
    """Yield of each device that can be started from its kind, its place there, its name and its values."""
    for at, disk in enumerate(devices(defined, "disks")):
        if target := (disk.get("target") or {}).get("dev"):
            yield "disks", at, f"{_DISK}{target}", disk
    for at, card in enumerate(devices(defined, "interfaces")):
        if mac := card.get("mac"):
            yield "interfaces", at, f"{_CARD}{mac}", card


def names(defined: Defined) -> list[tuple[str, str]]:
    """Return what a machine can start from as (name, words), disks first."""
    found = []
    for _kind, _at, name, device in _named(defined):
        if name.startswith(_CARD):
            words = _("Network card %(mac)s") % {"mac": name.removeprefix(_CARD)}
        elif device.get("device") == "cdrom":
            words = _("CD drive %(target)s") % {"target": name.removeprefix(_DISK)}
        else:
            words = _("Disk %(target)s") % {"target": name.removeprefix(_DISK)}
        found.append((name, words))
    return found


def _read(defined: Defined) -> str:
    ranked = [(device.get("boot_order"), name) for _kind, _at, name, device in _named(defined)]
    return " ".join(name for _rank, name in sorted(one for one in ranked if one[0] is not None))


def _patch(ground: Ground, value: str) -> dict[str, Any]:
    wanted = {name: rank for rank, name in enumerate(value.split(), start=1)}
    kinds: dict[str, list[Any]] = {
        kind: [{} for _one in ground.devices(kind)] for kind in ("disks", "interfaces")
    }
    for kind, at, name, device in _named(ground.defined):
        if device.get("boot_order") != wanted.get(name):
            kinds[kind][at] = {"boot_order": wanted.get(name)}
    there = ground.defined.get("os", {}).get("boot", ())
    # libvirt takes one of the two ways alone.
    places: list[Any] = [None] * len(there) if wanted else [{"dev": "hd"}]
    return {"devices": kinds, "os": {"boot": places}}


def _fixed(ground: Ground) -> str:
    if reason := hypervisors.why_not(ground.defined, DomainFeature.BOOT_ORDER):
        return reason
    if ground.defined.get("os", {}).get("kernel"):
        return _("The machine starts from a kernel of its host.")
    if any("boot_order" in device for device in ground.devices("host_devices")):
        return _("The machine can start from a device of its host, which is kept as it is.")
    known = [name for _kind, _at, name, _device in _named(ground.defined)]
    if not known or len(set(known)) < len(known):
        return _("Its devices cannot be told apart, so they are kept as they are.")
    return ""


def why_not(ground: Ground, value: str) -> str:
    """Return why `value` is no order of the machine's devices, '' when it is one."""
    wanted, known = value.split(), [name for name, _words in names(ground.defined)]
    if not set(wanted) <= set(known):
        return _("The machine has no such device.")
    if len(set(wanted)) < len(wanted):
        return _("Each device has a place of its own.")
    return ""


def _word(value: str) -> str:
    if value == BY_PLACE:
        return _("By kind of device")
    return ", ".join(name.removeprefix(_DISK).removeprefix(_CARD) for name in value.split())


ORDER = Setting(
    "order",
    gettext_lazy("Order of the devices"),
    _read,
    _patch,
    fixed=_fixed,
    word=_word,
    refuses=why_not,
    excludes=("boot",),
    hint=gettext_lazy(
        "1 is tried first, and devices without a number are not tried. Without any number, the machine "
        "starts from the kind of device above."
    ),
)
