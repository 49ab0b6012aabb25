"""Two definitions of a domain device by device, and which elements differ that no page of a machine sets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vms.changes.devices.nics import mac_of
from vms.hostdevice_keys import Told, keys_of
from vms.settings.disks import target_of
from vms.settings.hardware import AGENT
from vms.settings.model import Defined, devices

_VALUES = ("features", "on_poweroff", "on_reboot", "on_crash")
_PARTS: Mapping[str, tuple[str, ...]] = {
    "os": ("kernel", "initrd", "cmdline", "init", "boot_menu"),
    "clock": ("timezone", "timers"),
}
#: What is compared of devices that the portal understands and has no page for; the rest libvirt fills in.
_DEVICES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "filesystem": ("filesystems", ("type", "source", "target", "readonly")),
    "graphics": ("graphics", ("type", "keymap")),
    "serial": ("serials", ("type",)),
    "console": ("consoles", ("type",)),
    "input": ("inputs", ("type", "bus")),
    "sound": ("sounds", ("model",)),
    "rng": ("rngs", ("model", "backend", "source")),
    # There is a <memory> outside of <devices> too.
    "devices/memory": ("memories", ("model", "path")),
}


def _by(kind: str, key: Callable[[Any], str], defined: Defined) -> dict[str, Any]:
    """Return the devices of a kind by what tells them apart; the first where two have the same."""
    found: dict[str, Any] = {}
    for device in devices(defined, kind):
        if name := key(device):
            found.setdefault(name, device)
    return found


def pairs(
    kind: str, key: Callable[[Any], str], running: Defined, persistent: Defined
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the devices of a kind as (name, running, persistent), None where a side has none."""
    runs, waits = (_by(kind, key, side) for side in (running, persistent))
    for name in {**runs, **waits}:
        yield name, runs.get(name), waits.get(name)


def differing(running: Defined, persistent: Defined, told: Sequence[Told]) -> Iterator[str]:
    """Yield the elements that differ and that the rows say nothing of, by libvirt's names."""
    runs, waits = (_elements(side, told) for side in (running, persistent))
    yield from (element for element in runs if runs[element] != waits[element])
    for target, one, other in pairs("disks", target_of, running, persistent):
        if one and other and _bare(one) != _bare(other):
            yield f"disk {target}"
    for mac, one, other in pairs("interfaces", mac_of, running, persistent):
        if one and other and one.get("filter") != other.get("filter"):
            yield f"interface {mac}"


def _elements(defined: Defined, told: Sequence[Told]) -> dict[str, Any]:
    """Return what is compared of each element."""
    channels = [one.get("target") or {} for one in devices(defined, "channels")]
    return {
        **{name: defined.get(name) for name in _VALUES},
        **{part: _some(defined.get(part) or {}, wanted) for part, wanted in _PARTS.items()},
        **{
            element: [_some(one, wanted) for one in devices(defined, kind)]
            for element, (kind, wanted) in _DEVICES.items()
        },
        "maxMemory": [defined.get(name) for name in ("memory_ceiling_bytes", "memory_slots")],
        "channel": [one.get("name") for one in channels if one.get("name") != AGENT],
        "memballoon": (defined.get("devices") or {}).get("balloon"),
        "hostdev": keys_of(defined, told).count(""),
    }


def _bare(disk: Any) -> dict[str, Any]:
    return _some(disk, ("readonly", "shareable", "serial"))


def _some(values: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    return {name: values.get(name) for name in wanted}
