"""How a machine's disks are written: through the host's memory or not, and what becomes of what is deleted.

One value for all disks of a machine. Not for: how fast a disk may be, which is changed at once.
"""

from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.drivers.types import DomainFeature
from vms.hypervisors import why_not
from vms.settings.model import Choices, Defined, Ground, Setting, devices, word_of

#: Its disks are not written alike.
MIXED = "mixed"
DEFAULT = "default"
ON, OFF = "on", "off"
#: What QEMU opens a disk with that asks the kernel itself, past the host's memory.
_PAST_MEMORY = frozenset({"none", "directsync"})

_MIXED_WORD = (MIXED, gettext_lazy("Not the same for all disks"))
_CACHES: Choices = [
    (DEFAULT, gettext_lazy("As the host does it (writeback)")),
    ("writeback", gettext_lazy("Through the host's memory (writeback)")),
    ("none", gettext_lazy("Past the host's memory (none)")),
    ("writethrough", gettext_lazy("Read through the host's memory, each write waits (writethrough)")),
    ("directsync", gettext_lazy("Past the host's memory, each write waits (directsync)")),
    ("unsafe", gettext_lazy("Never waiting for the disk (unsafe)")),
]
_TRIMS: Choices = [
    (ON, gettext_lazy("Given back to the pool")),
    (OFF, gettext_lazy("Kept")),
]


def _disks(defined: Defined) -> list[tuple[int, Any]]:
    """Return the place among all drives, and the values, of each disk that is written."""
    every = enumerate(devices(defined, "disks"))
    return [(at, one) for at, one in every if one.get("device", "disk") == "disk" and "readonly" not in one]


def _driver(disk: Any) -> Any:
    return disk.get("driver") or {}


def _common(defined: Defined, value_of: Callable[[Any], str], none: str) -> str:
    """Return what `value_of` says of all disks' drivers, MIXED when that differs, `none` without any."""
    found = {value_of(_driver(disk)) for _at, disk in _disks(defined)}
    return found.pop() if len(found) == 1 else MIXED if found else none


def patch_drivers(ground: Ground, change_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return the change that makes to each disk's driver what `change_of` says of its device name."""
    every: list[Any] = [{} for _one in ground.devices("disks")]
    for at, disk in _disks(ground.defined):
        if change := change_of(target_of(disk)):
            every[at] = {"driver": change}
    return {"devices": {"disks": every}}


def drivers(defined: Defined) -> dict[str, Any]:
    """Return the driver of each disk that is written, by the disk's device name."""
    return {target: _driver(disk) for _at, disk in _disks(defined) if (target := target_of(disk))}


def target_of(disk: Any) -> str:
    """Return a disk's device name in the guest, '' where it is not understood."""
    return str((disk.get("target") or {}).get("dev", ""))


def _fixed(ground: Ground, feature: DomainFeature) -> str:
    if reason := why_not(ground.defined, feature):
        return reason
    return "" if _disks(ground.defined) else _("The machine has no disks.")


def _read_cache(defined: Defined) -> str:
    return _common(defined, lambda driver: str(driver.get("cache", DEFAULT)), DEFAULT)


def _patch_cache(ground: Ground, value: str) -> dict[str, Any]:
    return patch_drivers(ground, lambda _disk: {"cache": None if value == DEFAULT else value})


def _is_native(ground: Ground) -> bool:
    return any(_driver(disk).get("io") == "native" for _at, disk in _disks(ground.defined))


def _cache_choices(ground: Ground) -> Choices:
    return [one for one in _CACHES if one[0] in _PAST_MEMORY or not _is_native(ground)]


def _cache_lacks(ground: Ground) -> str:
    if _is_native(ground):
        return _("The kernel itself reads a disk of it (io native), which is past the host's memory alone.")
    return ""


def _read_trim(defined: Defined) -> str:
    return _common(defined, lambda driver: ON if driver.get("discard") == "unmap" else OFF, OFF)


def _patch_trim(ground: Ground, value: str) -> dict[str, Any]:
    return patch_drivers(ground, lambda _disk: {"discard": "unmap" if value == ON else "ignore"})


CACHE = Setting(
    "cache",
    gettext_lazy("Cache of the disks"),
    _read_cache,
    _patch_cache,
    _cache_choices,
    lambda ground: _fixed(ground, DomainFeature.CACHE),
    _cache_lacks,
    word=word_of([*_CACHES, _MIXED_WORD]),
    hint=gettext_lazy(
        "Writeback is fast and takes memory of the host; what the guest flushed is safe, and what it did "
        "not flush is lost when the host loses power. None is steadier and leaves the host its memory, but "
        "what is read again is read from the disk again; the pool's file system must allow it. Where each "
        "write waits, nothing that was written is lost, also of a guest that never flushes, and writing is "
        "much slower. Unsafe is the fastest, and a loss of power can leave a disk that nobody can read: only "
        "for what can be made again."
    ),
)
TRIM = Setting(
    "trim",
    gettext_lazy("What the guest trims"),
    _read_trim,
    _patch_trim,
    lambda _ground: _TRIMS,
    lambda ground: _fixed(ground, DomainFeature.TRIM),
    word=word_of([*_TRIMS, _MIXED_WORD]),
    hint=gettext_lazy(
        "What a guest deletes still takes room until it trims its disks (fstrim does). Given back, the file "
        "gets smaller; that costs some writing, scatters a qcow2 file, and what was deleted cannot be "
        "brought back. Kept, the file only grows, and no write waits for room that others took meanwhile."
    ),
)
