"""What the emulator of a machine's host can give it, and why it cannot. Not for: asking a host."""

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from vms.settings.model import Defined, Ground

#: By how a machine type's name begins: the board that hosts are asked about.
_BOARDS = {"pc-q35": "q35", "q35": "q35", "pc-i440fx": "pc", "pc": "pc", "virt": "virt"}


def board_of(defined: Defined) -> str:
    """Return the board of a machine: `q35` of `pc-q35-7.2`."""
    machine = str(defined.get("os", {}).get("machine", ""))
    begin = next((begin for begin in _BOARDS if machine == begin or machine.startswith(f"{begin}-")), "")
    return _BOARDS.get(begin, machine)


def ground_of(defined: Defined, readiness: Mapping[str, Any]) -> Ground:
    """Return the ground of a machine's settings, by what its host said when it was reached last."""
    wanted = (defined.get("type"), defined.get("os", {}).get("architecture"), board_of(defined))
    for able in readiness.get("abilities", ()):
        if (able["type"], able["arch"], able["board"]) == wanted:
            return Ground(defined, {**able, "machines": readiness.get("machine_types", ())})
    return Ground(defined)


def unknown(ground: Ground) -> str:
    """Say that nobody knows what the host can give the machine, '' when somebody does."""
    if ground.able:
        return ""
    return _("The host has not told what it can give such a machine; an admin proves it again.")


def is_emulated(ground: Ground) -> bool:
    """Tell whether a program carries out each instruction."""
    return bool(ground.defined.get("type") == "qemu")
