"""The form of limits. Not for: permission, which the service checks."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from portal.operations.quotas import RESOURCES, Limits

GIB = 1 << 30
_IN_GIB = ("memory", "disk")


class QuotaForm(forms.Form):
    """A limit of each resource; an empty field is no limit."""

    vcpu = forms.IntegerField(label=_("vCPUs"), min_value=0, max_value=1_000_000, required=False)
    memory = forms.DecimalField(
        label=_("Memory in GiB"), min_value=0, max_value=1_000_000, decimal_places=2, required=False
    )
    disk = forms.DecimalField(
        label=_("Disk in GiB"), min_value=0, max_value=1_000_000, decimal_places=2, required=False
    )
    machines = forms.IntegerField(label=_("Machines"), min_value=0, max_value=1_000_000, required=False)

    def __init__(self, data: Any = None, *, limits: Limits) -> None:
        super().__init__(data, initial={name: _shown(name, limit) for name, limit in limits.items()})
        for field in self.fields.values():
            field.widget.attrs["placeholder"] = _("no limit")

    def limits(self) -> Limits:
        """Return what was typed, in the ledger's units."""
        return {name: _meant(name, self.cleaned_data) for name in RESOURCES}


def _shown(name: str, limit: int | None) -> Any:
    if limit is None or name not in _IN_GIB:
        return limit
    gib = (Decimal(limit) / GIB).quantize(Decimal("0.01"))
    return int(gib) if gib == int(gib) else gib


def _meant(name: str, cleaned: Mapping[str, Any]) -> int | None:
    value = cleaned.get(name)
    if value is None:
        return None
    return int(value * GIB) if name in _IN_GIB else int(value)
