"""The request form. Not for: rules about requests, which the service keeps."""

import uuid
from functools import partial
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from networks.models import Network
from portal.accounts.models import Project
from portal.core.templatetags.gatehouse import gib
from portal.core.web.forms import ExplainedRadio
from vms.cards import size_label
from vms.models import CatalogueItem, Flavour
from vms.offers import Offer, offer
from vms.services import GIB, Wish
from vms.virtualization import HELP, Devices, Wanted


class RequestForm(forms.Form):
    """One screen: what, where, how long, why; cloud-init below."""

    token = forms.UUIDField(widget=forms.HiddenInput)
    project = forms.ModelChoiceField(Project.objects.none(), label=_("Project"), empty_label=None)
    name = forms.CharField(
        label=_("Name"), max_length=63, help_text=_("Also the host name: small letters, digits, hyphens.")
    )
    flavour = forms.ModelChoiceField(Flavour.objects.none(), label=_("Size"), empty_label=None)
    network = forms.ModelChoiceField(Network.objects.none(), label=_("Network"), empty_label=None)
    disk = forms.IntegerField(label=_("Disk in GiB"), required=False)
    devices = forms.ChoiceField(label=_("Devices"), required=False, widget=ExplainedRadio)
    accelerator = forms.ChoiceField(label=_("Processor"), required=False, widget=ExplainedRadio)
    lease_days = forms.IntegerField(label=_("Lease in days"), min_value=1)
    why = forms.CharField(label=_("What is it for?"), max_length=500)
    user = forms.CharField(label=_("Login user"), max_length=32)
    ssh_keys = forms.CharField(
        label=_("SSH public keys"),
        required=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text=_("One a line, such as the content of id_ed25519.pub."),
    )
    packages = forms.CharField(
        label=_("Packages"), required=False, max_length=2000, help_text=_("Debian packages to install.")
    )
    user_data = forms.CharField(
        label=_("Own user-data"),
        required=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text=_("A #cloud-config document, checked against cloud-init's schema."),
    )

    def __init__(self, data: Any = None, *, item: CatalogueItem, projects: Any) -> None:
        initial = {
            "token": uuid.uuid4(),
            "lease_days": item.lease_days,
            "user": item.image.login_user,
            "flavour": item.flavours.first(),
            "network": item.networks.first(),
            "devices": item.default_devices,
            "accelerator": item.default_accelerator,
        }
        super().__init__(data, initial=initial)
        self.item = item
        self.fields["project"].queryset = projects  # type: ignore[attr-defined]
        self.fields["flavour"].queryset = item.flavours.all()  # type: ignore[attr-defined]
        self.fields["flavour"].label_from_instance = partial(size_label, item)  # type: ignore[attr-defined]
        self.fields["network"].queryset = item.networks.all()  # type: ignore[attr-defined]
        self._limit_disk(item)
        self._limit_virtualization(offer(item))
        if not item.image.cloud_init:
            for name in ("packages", "user_data"):
                del self.fields[name]

    def _limit_disk(self, item: CatalogueItem) -> None:
        if item.disk_most is None:
            del self.fields["disk"]
            return
        least, most = max(item.disk_least or 0, item.image.virtual_size), item.disk_most
        field = self.fields["disk"]
        field.help_text = _("Empty: what the size has. %(least)s to %(most)s.") % {
            "least": gib(least),
            "most": gib(most),
        }

    def _limit_virtualization(self, offered: Offer) -> None:
        """Offer only what a host was proven to give, each with what it means; a single way is no choice."""
        for name, choices, values in (
            ("devices", Devices, offered.devices),
            ("accelerator", Wanted, offered.accelerators),
        ):
            if len(values) < 2:
                del self.fields[name]
                continue
            field = self.fields[name]
            field.choices = [(value, choices(value).label) for value in values]  # type: ignore[attr-defined]
            field.widget.explained = {value: HELP[choices(value)] for value in values}  # type: ignore[attr-defined]

    def clean_disk(self) -> int | None:
        """Return bytes, None for what the size has."""
        gibs = self.cleaned_data["disk"]
        return None if gibs is None else gibs * GIB

    def wish(self) -> Wish:
        """Return what was asked, as the service takes it."""
        values = {
            name: value for name, value in self.cleaned_data.items() if name not in {"token", "project"}
        }
        return Wish(item=self.item, **values)
