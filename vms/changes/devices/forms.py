"""What people choose and type about devices. Not for: what may be, which the services know."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from networks.models import Network
from portal.core.stale import Snapshot
from portal.core.web.forms import MibField, MibOfKibField, SeenForm
from portal.drivers.types import BANDWIDTH, LIMITS
from vms.changes.devices import bandwidth
from vms.changes.devices.limits import LABELS


class CardForm(forms.Form):
    """The network of a card."""

    network = forms.ModelChoiceField(Network.objects.none(), label=_("Network"), empty_label=None)

    def __init__(self, data: Any = None, *, networks: QuerySet[Network]) -> None:
        super().__init__(data)
        self.offer(networks)

    def offer(self, networks: QuerySet[Network]) -> None:
        """Offer these networks from now on."""
        self.fields["network"].queryset = networks  # type: ignore[attr-defined]


class ShownForm(SeenForm):
    """Carries with each button of a page of devices what that showed of them."""

    salt = "vms.changes.device"

    def __init__(self, data: Any = None, *, now: Snapshot) -> None:
        super().__init__(data)
        if not self.is_bound:
            self.show(dict(now))

    @property
    def shown(self) -> Snapshot:
        """Return what was on the page, nothing where nobody signed it."""
        return dict(self.cleaned_data["seen"]) if self.is_valid() else {}

    @classmethod
    def posted(cls, data: Any) -> Snapshot:
        """Return what was on the page of which `data` was posted."""
        return cls(data, now={}).shown


class LimitsForm(SeenForm):
    """What a disk may read and write a second; empty for no limit."""

    salt = "vms.changes.limits"
    #: What people type, by its name.
    typed: ClassVar[Mapping[str, type[forms.Field]]] = {
        name: MibField if name.endswith("bytes_sec") else forms.IntegerField for name in LIMITS
    }
    labels: ClassVar[Mapping[str, Any]] = LABELS

    def __init__(self, data: Any = None, *, now: Mapping[str, int]) -> None:
        super().__init__(data, initial={name: value or None for name, value in now.items()})
        for name, kind in self.typed.items():
            self.fields[name] = kind(label=self.labels[name], required=False)
        if not self.is_bound:
            self.show(dict(now))

    @property
    def seen_limits(self) -> dict[str, int]:
        """Return the limits that were on the page."""
        return dict(self.cleaned_data["seen"])

    @property
    def limits(self) -> dict[str, int]:
        """Return the limits that were typed, 0 for none."""
        return {name: self.cleaned_data[name] or 0 for name in self.typed}


class BandwidthForm(LimitsForm):
    """What a card may receive and send a second; empty for no limit."""

    salt = "vms.changes.bandwidth"
    typed = dict.fromkeys(BANDWIDTH, MibOfKibField)
    labels = bandwidth.LABELS
