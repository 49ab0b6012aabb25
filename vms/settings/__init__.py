"""What people set of a machine beside its size, and where it stands in a definition. Not for: changing it."""

from vms.settings.abilities import ground_of
from vms.settings.model import Choices, Defined, Ground, Setting
from vms.settings.table import SETTINGS, Changed, differences, patch_of, values, waiting

__all__ = [
    "SETTINGS",
    "Changed",
    "Choices",
    "Defined",
    "Ground",
    "Setting",
    "differences",
    "ground_of",
    "patch_of",
    "values",
    "waiting",
]
