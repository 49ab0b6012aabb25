"""The request form. Not for: rules about requests, which the service keeps."""

import uuid
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from networks.models import Network
from portal.accounts.models import Project
from vms.models import CatalogueItem, Flavour
from vms.services import Wish


class RequestForm(forms.Form):
    """One screen: what, where, how long, why; cloud-init below."""

    token = forms.UUIDField(widget=forms.HiddenInput)
    project = forms.ModelChoiceField(Project.objects.none(), label=_("Project"), empty_label=None)
    name = forms.CharField(
        label=_("Name"), max_length=63, help_text=_("Also the host name: small letters, digits, hyphens.")
    )
    flavour = forms.ModelChoiceField(Flavour.objects.none(), label=_("Size"), empty_label=None)
    network = forms.ModelChoiceField(Network.objects.none(), label=_("Network"), empty_label=None)
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
        }
        super().__init__(data, initial=initial)
        self.item = item
        self.fields["project"].queryset = projects  # type: ignore[attr-defined]
        self.fields["flavour"].queryset = item.flavours.all()  # type: ignore[attr-defined]
        self.fields["network"].queryset = item.networks.all()  # type: ignore[attr-defined]
        if not item.image.cloud_init:
            for name in ("packages", "user_data"):
                del self.fields[name]

    def wish(self) -> Wish:
        """Return what was asked, as the service takes it."""
        values = {
            name: value for name, value in self.cleaned_data.items() if name not in {"token", "project"}
        }
        return Wish(item=self.item, **values)
