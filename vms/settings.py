"""What people set of a machine beside its size, and where it stands in a definition. Not for: changing it.

Definitions are those of `portal.drivers.inspection`: values by name, and changes as patches of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.core.errors import Denied

Defined = Mapping[str, Any]
Choices = Sequence[tuple[str, Any]]
#: Characters; libvirt has no limit of its own.
LONGEST = 2000


def _nothing_fixed(_defined: Defined) -> str:
    return ""


@dataclass(frozen=True)
class Setting:
    """One value that people set: how it is read from a definition, and what change makes it another."""

    name: str
    label: Any
    read: Callable[[Defined], str]
    patch: Callable[[Defined, str], dict[str, Any]]
    #: What it can be; None for free text.
    choices: Callable[[Defined], Choices] | None = None
    #: Why it cannot be set here, '' when it can.
    fixed: Callable[[Defined], str] = _nothing_fixed
    #: Whether the guest sees it: then it is so from its next start on.
    at_next_start: bool = True

    def in_words(self, value: str) -> str:
        """Return a value as people read it."""
        words = dict(self.choices({})) if self.choices else {}
        return str(words.get(value, value))


def _devices(defined: Defined, kind: str) -> list[Any]:
    return list(defined.get("devices", {}).get(kind, ()))


# Boot

_PLACES: Choices = [
    ("hd", gettext_lazy("Disk")),
    ("cdrom", gettext_lazy("CD")),
    ("network", gettext_lazy("Network")),
]


def _boot(defined: Defined) -> list[str]:
    return [place.get("dev", "") for place in defined.get("os", {}).get("boot", ())]


def _read_boot(defined: Defined) -> str:
    return next(iter(_boot(defined)), "")


def _patch_boot(defined: Defined, value: str) -> dict[str, Any]:
    order = [value, *(place for place in _boot(defined) if place != value)]
    return {"os": {"boot": [{"dev": place} for place in order]}}


def _boot_places(defined: Defined) -> Choices:
    """Return what the machine has to start from; everything that there is when nobody says which machine."""
    there = {"cdrom" if disk.get("device") == "cdrom" else "hd" for disk in _devices(defined, "disks")}
    if _devices(defined, "interfaces"):
        there.add("network")
    return [(name, label) for name, label in _PLACES if name in there or not defined]


def _boot_fixed(defined: Defined) -> str:
    if defined.get("os", {}).get("kernel"):
        return _("The machine starts from a kernel of its host.")
    kinds = ("disks", "interfaces", "host_devices")
    if any("boot_order" in device for kind in kinds for device in _devices(defined, kind)):
        return _("The order is set at each device of the machine.")
    return "" if _read_boot(defined) else _("The order is set in a way that is kept as it is.")


# Clock and watchdog

_CLOCKS: Choices = [
    ("utc", gettext_lazy("UTC, as Linux expects")),
    ("localtime", gettext_lazy("The host's local time, as Windows expects")),
]


def _read_clock(defined: Defined) -> str:
    return str(defined.get("clock", {}).get("offset", "utc"))


def _clock_fixed(defined: Defined) -> str:
    if _read_clock(defined) in dict(_CLOCKS):
        return ""
    return _("The clock is set in a way that is kept as it is: %(way)s.") % {"way": _read_clock(defined)}


#: Not `none`, which is an action of libvirt's: a watchdog that does nothing.
NO_WATCHDOG = "absent"
_ACTIONS: Choices = [
    (NO_WATCHDOG, gettext_lazy("No watchdog")),
    ("reset", gettext_lazy("Reset the machine")),
    ("poweroff", gettext_lazy("Force the machine off")),
    ("pause", gettext_lazy("Pause the machine")),
]
#: The one in a q35 machine's chips, which libvirt puts back from 9.1 on (formatdomain.html).
_BUILT_IN = "itco"


def _actions(defined: Defined) -> list[str]:
    # An action that is not named is this one (formatdomain.html).
    return [str(dog.get("action", "reset")) for dog in _devices(defined, "watchdogs")]


def _read_watchdog(defined: Defined) -> str:
    return next(iter(_actions(defined)), NO_WATCHDOG)


def _patch_watchdog(defined: Defined, value: str) -> dict[str, Any]:
    there = len(_devices(defined, "watchdogs"))
    if value == NO_WATCHDOG:
        return {"devices": {"watchdogs": [None] * there}}
    dogs = [{"action": value}] * there or [{"model": "i6300esb", "action": value}]
    return {"devices": {"watchdogs": dogs}}


def _watchdog_choices(defined: Defined) -> Choices:
    built_in = any(dog.get("model") == _BUILT_IN for dog in _devices(defined, "watchdogs"))
    return _ACTIONS[1:] if built_in else _ACTIONS


def _watchdog_fixed(defined: Defined) -> str:
    if len(set(_actions(defined))) > 1 or _read_watchdog(defined) not in dict(_ACTIONS):
        return _("The watchdog is set in a way that is kept as it is.")
    return ""


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "description",
        gettext_lazy("Description"),
        lambda defined: str(defined.get("description", "")),
        lambda _defined, value: {"description": value or None},
        at_next_start=False,
    ),
    Setting("boot", gettext_lazy("Starts from"), _read_boot, _patch_boot, _boot_places, _boot_fixed),
    Setting(
        "clock",
        gettext_lazy("Clock"),
        _read_clock,
        lambda _defined, value: {"clock": {"offset": value}},
        lambda _defined: _CLOCKS,
        _clock_fixed,
    ),
    Setting(
        "watchdog",
        gettext_lazy("When the guest hangs"),
        _read_watchdog,
        _patch_watchdog,
        _watchdog_choices,
        _watchdog_fixed,
    ),
)


def values(defined: Defined) -> dict[str, str]:
    """Return every setting of a definition."""
    return {setting.name: setting.read(defined) for setting in SETTINGS}


@dataclass(frozen=True)
class Changed:
    """A setting that differs, in words."""

    label: str
    before: str
    after: str


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[Changed]:
    """Return what differs between two answers of `values`."""
    return [
        Changed(str(setting.label), *(setting.in_words(side[setting.name]) for side in (before, after)))
        for setting in SETTINGS
        if setting.name in before and before[setting.name] != after[setting.name]
    ]


def waiting(running: Defined, persistent: Defined) -> list[Changed]:
    """Return what a machine that runs gets at its next start alone."""
    starting = [setting for setting in SETTINGS if setting.at_next_start]
    runs, waits = ({one.name: one.read(side) for one in starting} for side in (running, persistent))
    return differences(runs, waits)


def patch_of(defined: Defined, wanted: Mapping[str, str]) -> dict[str, Any]:
    """Return the change that makes the settings what is `wanted`; empty when they are so already.

    Raises Denied, with the setting as its field, for a value that it cannot have.
    """
    patch: dict[str, Any] = {}
    for setting in SETTINGS:
        value = wanted.get(setting.name)
        if value is None or value == setting.read(defined):
            continue
        _check(setting, defined, value)
        patch |= setting.patch(defined, value)
    return patch


def _check(setting: Setting, defined: Defined, value: str) -> None:
    if reason := setting.fixed(defined):
        raise Denied(reason, field=setting.name)
    if setting.choices is not None and value not in dict(setting.choices(defined)):
        raise Denied(_("The machine cannot be set to that."), field=setting.name)
    if setting.choices is None and len(value) > LONGEST:
        raise Denied(_("At most %(most)d characters.") % {"most": LONGEST}, field=setting.name)
    if any(ord(sign) < 32 and sign not in "\t\n" for sign in value):
        raise Denied(_("Control characters cannot stand here."), field=setting.name)
