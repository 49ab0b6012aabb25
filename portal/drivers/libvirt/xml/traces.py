"""What a domain may have on its host beside its definition: a firmware's memory, a TPM's state.

libvirt takes both away with the definition, as long as that still names a firmware and a TPM. A change notes
in the domain's metadata what it leaves behind, in the one write that makes it, so that nobody dies between.
"""

from collections.abc import Iterator
from typing import Any

from portal.drivers.inspection import Kind, changed, inspect
from portal.drivers.libvirt.xml.foreign.domain import TRACES
from portal.drivers.types import FRESH, LEFT


def _noted(text: str) -> dict[str, Any]:
    # Most domains have none, and need no second reading.
    if TRACES not in text:
        return {}
    return dict(inspect(Kind.DOMAIN, text.encode()).understood.get("traces", {}))


def is_fresh(text: str) -> bool:
    """Tell whether the firmware must forget what another one kept, at the next start."""
    return _noted(text).get("firmware") == FRESH


def started(text: str) -> str:
    """Return the definition of a domain whose firmware has forgotten."""
    return changed(Kind.DOMAIN, text.encode(), {"traces": {"firmware": None}})


def naming_what_is_left(text: str) -> Iterator[str]:
    """Yield definitions that name again what libvirt is to take away with them, if anything is left.

    Each names what those before it do, so that the last one that a host takes is the best.
    """
    found = _noted(text)
    if found.get("firmware") == LEFT:
        text = changed(Kind.DOMAIN, text.encode(), {"os": {"firmware": "efi"}})
        yield text
    if found.get("tpm") == LEFT:
        tpm = {"model": "tpm-tis", "backend": "emulator", "version": "2.0"}
        yield changed(Kind.DOMAIN, text.encode(), {"devices": {"tpms": [tpm]}})
