"""Every setting beside a machine's size, and how several of them are changed at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from django.utils.translation import gettext as _

from portal.core.errors import Denied
from vms.settings import board, booting, disks, hardware, order, processor
from vms.settings.model import Defined, Ground, Setting

#: Characters; libvirt has no limit of its own.
LONGEST = 2000
#: What no XML can hold beside control characters.
_NO_XML = "\ufffe\uffff"

SETTINGS: tuple[Setting, ...] = (
    booting.DESCRIPTION,
    booting.BOOT,
    order.ORDER,
    board.FIRMWARE,
    board.MACHINE,
    board.TPM,
    processor.CPU,
    processor.TOPOLOGY,
    disks.CACHE,
    disks.TRIM,
    hardware.VIDEO,
    hardware.AGENT_CHANNEL,
    booting.CLOCK,
    booting.WATCHDOG,
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


def patch_of(ground: Ground, wanted: Mapping[str, str]) -> dict[str, Any]:
    """Return the change that makes the settings what is `wanted`; empty when they are so already.

    Raises Denied, with the setting as its field, for a value that it cannot have.
    """
    now = values(ground.defined)
    differ = [one for one in SETTINGS if wanted.get(one.name, now[one.name]) != now[one.name]]
    patch: dict[str, Any] = {}
    for setting in differ:
        value = wanted[setting.name]
        check(setting, ground, value)
        if others := [other for other in differ if other.name in setting.excludes]:
            words = _("Change this or “%(other)s”, not both at once.")
            raise Denied(words % {"other": others[0].label}, field=setting.name)
        patch = merged(patch, setting.patch(ground, value))
    return patch


def merged(patch: Any, other: Any) -> Any:
    """Return two changes as one: they share names and the places of a list, and never a value.

    A place that one of them takes away is named by that one alone.
    """
    if _is_places(patch) and _is_places(other):
        pairs: Iterator[tuple[Any, Any]] = zip_longest(patch, other, fillvalue={})
        return [merged(first, second) for first, second in pairs]
    if not isinstance(patch, Mapping) or not isinstance(other, Mapping):
        return other
    return {**patch, **{name: merged(patch.get(name), part) for name, part in other.items()}}


def _is_places(part: Any) -> bool:
    return isinstance(part, list) and all(isinstance(one, Mapping) for one in part)


def check(setting: Setting, ground: Ground, value: str) -> None:
    """Raise Denied, with the setting as its field, for a value that it cannot have."""
    if reason := setting.fixed(ground):
        raise Denied(reason, field=setting.name)
    if setting.choices is not None and value not in dict(setting.choices(ground)):
        raise Denied(_("The machine cannot be set to that."), field=setting.name)
    if reason := setting.refuses(ground, value):
        raise Denied(reason, field=setting.name)
    if setting.choices is None and len(value) > LONGEST:
        raise Denied(_("At most %(most)d characters.") % {"most": LONGEST}, field=setting.name)
    if any((ord(sign) < 32 and sign not in "\t\n") or sign in _NO_XML for sign in value):
        raise Denied(_("Control characters cannot stand here."), field=setting.name)
