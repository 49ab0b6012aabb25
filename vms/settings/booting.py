"""Where a machine starts from, its clock, its watchdog and what people say of it."""

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.drivers.types import DomainFeature
from vms.hypervisors import why_not
from vms.settings.model import Choices, Defined, Ground, Plugged, Setting, devices, word_of

# Boot

_PLACES: Choices = [
    ("hd", gettext_lazy("Disk")),
    ("cdrom", gettext_lazy("CD")),
    ("network", gettext_lazy("Network")),
]


def boot_places(defined: Defined) -> list[str]:
    """Return the kinds of devices that a definition starts from, in their order."""
    return [place.get("dev", "") for place in defined.get("os", {}).get("boot", ())]


def boot_words(defined: Defined) -> str:
    """Return those as people read them."""
    return ", ".join(str(dict(_PLACES).get(place, place)) for place in boot_places(defined))


def _read_boot(defined: Defined) -> str:
    return next(iter(boot_places(defined)), "")


def _patch_boot(ground: Ground, value: str) -> dict[str, Any]:
    order = [value, *(place for place in boot_places(ground.defined) if place != value)]
    return {"os": {"boot": [{"dev": place} for place in order]}}


def _boot_places(ground: Ground) -> Choices:
    """Return what the machine has to start from."""
    there = {"cdrom" if disk.get("device") == "cdrom" else "hd" for disk in ground.devices("disks")}
    if ground.devices("interfaces"):
        there.add("network")
    return [(name, label) for name, label in _PLACES if name in there]


def _boot_fixed(ground: Ground) -> str:
    defined = ground.defined
    if defined.get("os", {}).get("kernel"):
        return _("The machine starts from a kernel of its host.")
    kinds = ("disks", "interfaces", "host_devices")
    if any("boot_order" in device for kind in kinds for device in devices(defined, kind)):
        return _("The order is set at each device of the machine.")
    return "" if _read_boot(defined) else _("The order is set in a way that is kept as it is.")


# Clock and watchdog

_CLOCKS: Choices = [
    ("utc", gettext_lazy("UTC, as Linux expects")),
    ("localtime", gettext_lazy("The host's local time, as Windows expects")),
]


def _read_clock(defined: Defined) -> str:
    return str(defined.get("clock", {}).get("offset", "utc"))


def _clock_fixed(ground: Ground) -> str:
    way = _read_clock(ground.defined)
    if way in dict(_CLOCKS):
        return ""
    return _("The clock is set in a way that is kept as it is: %(way)s.") % {"way": way}


#: Not `none`, which is an action of libvirt's: a watchdog that does nothing.
NO_WATCHDOG = "absent"
_ACTIONS: Choices = [
    (NO_WATCHDOG, gettext_lazy("No watchdog")),
    ("reset", gettext_lazy("Reset the machine")),
    ("poweroff", gettext_lazy("Force the machine off")),
    ("pause", gettext_lazy("Pause the machine")),
]
#: The one that the portal gives, and the only one that libvirt plugs into what runs.
_PLUGGED = "i6300esb"
#: The one in a q35 machine's chips, which libvirt puts back from 9.1 on (formatdomain.html).
_BUILT_IN = "itco"


def _actions(defined: Defined) -> list[str]:
    # An action that is not named is this one (formatdomain.html).
    return [str(dog.get("action", "reset")) for dog in devices(defined, "watchdogs")]


def _read_watchdog(defined: Defined) -> str:
    return next(iter(_actions(defined)), NO_WATCHDOG)


def _patch_watchdog(ground: Ground, value: str) -> dict[str, Any]:
    there = len(ground.devices("watchdogs"))
    if value == NO_WATCHDOG:
        return {"devices": {"watchdogs": [None] * there}}
    dogs = [{"action": value}] * there or [{"model": _PLUGGED, "action": value}]
    return {"devices": {"watchdogs": dogs}}


def _watchdog_choices(ground: Ground) -> Choices:
    built_in = any(dog.get("model") == _BUILT_IN for dog in ground.devices("watchdogs"))
    return _ACTIONS[1:] if built_in else _ACTIONS


def _watchdog_fixed(ground: Ground) -> str:
    defined = ground.defined
    if reason := why_not(defined, DomainFeature.WATCHDOG):
        return reason
    if len(set(_actions(defined))) > 1 or _read_watchdog(defined) not in dict(_ACTIONS):
        return _("The watchdog is set in a way that is kept as it is.")
    return ""


DESCRIPTION = Setting(
    "description",
    gettext_lazy("Description"),
    lambda defined: str(defined.get("description", "")),
    lambda _ground, value: {"description": value or None},
    at_next_start=False,
)
BOOT = Setting(
    "boot",
    gettext_lazy("Starts from"),
    _read_boot,
    _patch_boot,
    _boot_places,
    _boot_fixed,
    word=word_of(_PLACES),
)
CLOCK = Setting(
    "clock",
    gettext_lazy("Clock"),
    _read_clock,
    lambda _ground, value: {"clock": {"offset": value}},
    lambda _ground: _CLOCKS,
    _clock_fixed,
    word=word_of(_CLOCKS),
)
WATCHDOG = Setting(
    "watchdog",
    gettext_lazy("When the guest hangs"),
    _read_watchdog,
    _patch_watchdog,
    _watchdog_choices,
    _watchdog_fixed,
    word=word_of(_ACTIONS),
    plugged=Plugged(
        "watchdogs",
        lambda dog: bool(dog.get("model") == _PLUGGED),
        comes=gettext_lazy(
            "The machine is on: a watchdog comes at once if there is a free slot, else with the next start."
        ),
        goes=gettext_lazy(
            "The machine is on: the watchdog goes at once if the guest lets it go, else with the next start. "
            "Another action counts from the next start."
        ),
    ),
)
