"""What people set of a machine beside its size, and where it stands in a definition. Not for: changing it."""

from vms.settings.abilities import ground_of
from vms.settings.model import Choices, Defined, Ground, Setting
from vms.settings.table import SETTINGS, Changed, check, differences, merged, patch_of, values

__all__ = [
    "SETTINGS",
    "Changed",
    "Choices",
    "Defined",
    "Ground",
    "Setting",
    "check",
    "differences",
    "ground_of",
    "merged",
    "patch_of",
    "values",
]
