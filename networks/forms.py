"""Forms of the networks pages. Not for: rules about networks, which the services keep."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from networks.models import Network
from networks.services import Wanted
from portal.core.web.forms import ExplainedRadio


class KindRadio(ExplainedRadio):
    """The kinds, each with what it means."""

    explained = {
        Network.Kind.NAT: _("Machines reach the outside by their host, and people reach them by ssh -J."),
        Network.Kind.ISOLATED: _(
            "Machines of one host reach each other and that host, nothing else; people reach them by ssh -J."
        ),
        Network.Kind.BRIDGE: _("A bridge that hosts have already. Machines are on the LAN."),
        Network.Kind.USER: _("Inside each machine's emulator; needs nothing of hosts. Slower, and one way."),
    }


class NetworkForm(forms.Form):
    """A network to add."""

    title = forms.CharField(label=_("Title"), max_length=100, help_text=_("What people choose by."))
    name = forms.CharField(
        label=_("Name"),
        max_length=40,
        help_text=_("Small letters, digits, hyphens; hosts call it gatehouse-NAME."),
    )
    kind = forms.ChoiceField(
        label=_("Kind"), choices=Network.Kind.choices, initial=Network.Kind.NAT, widget=KindRadio
    )
    subnet = forms.CharField(
        label=_("Subnet"),
        max_length=18,
        required=False,
        help_text=_("Behind NAT and isolated: such as 192.168.150.0/24. The first address is the gateway's."),
    )
    dhcp_start = forms.CharField(
        label=_("First address for machines"),
        max_length=15,
        required=False,
        help_text=_("Empty: all but the gateway's."),
    )
    dhcp_end = forms.CharField(label=_("Last address for machines"), max_length=15, required=False)
    bridge = forms.CharField(
        label=_("Bridge"),
        max_length=15,
        required=False,
        help_text=_("On the LAN: its name on the hosts, such as br0. Else a name is found by itself."),
    )

    def wanted(self) -> Wanted:
        """Return what was described, as the service takes it."""
        values: dict[str, Any] = {name: value.strip() for name, value in self.cleaned_data.items()}
        return Wanted(**values)


class TitleForm(forms.Form):
    """What people read."""

    title = forms.CharField(label=_("Title"), max_length=100)
