"""Forms of the hosts pages."""

from django import forms
from django.core.validators import RegexValidator
from django.utils.translation import gettext_lazy as _

from portal.core.errors import Denied
from portal.hosts.addresses import check_jump, check_pool_path, check_uri


class HostForm(forms.Form):
    """A host to enrol."""

    name = forms.CharField(
        label=_("Name"),
        max_length=64,
        validators=[
            RegexValidator(r"^[a-z0-9][a-z0-9.-]*\Z", _("Lower-case letters, digits, dots and hyphens only."))
        ],
        help_text=_("What people call it, such as rack-1."),
    )
    uri = forms.CharField(
        label=_("Address"),
        max_length=255,
        initial="qemu:///system",
        help_text=_(
            "qemu:///system is this machine; qemu+ssh://user@host/system is another one. "
            "Of Xen it begins with xen."
        ),
    )
    pool_path = forms.CharField(
        label=_("Folder for disks"),
        max_length=255,
        initial="/var/lib/gatehouse",
        help_text=_("On the host. It is made if it is not there; use a folder of its own."),
    )

    def clean_uri(self) -> str:
        """Raise ValidationError for an address that is no plain one."""
        try:
            return check_uri(self.cleaned_data["uri"])
        except Denied as denied:
            raise forms.ValidationError(denied.reason) from denied

    def clean_pool_path(self) -> str:
        """Raise ValidationError for a folder that is no plain one."""
        try:
            return check_pool_path(self.cleaned_data["pool_path"])
        except Denied as denied:
            raise forms.ValidationError(denied.reason) from denied


class JumpForm(forms.Form):
    """Where people come to by ssh before they jump to a machine."""

    jump = forms.CharField(
        label=_("Reached by ssh as"),
        max_length=255,
        required=False,
        help_text=_("[user@]name[:port]. Empty: the host's own name. People need an account there."),
    )

    def clean_jump(self) -> str:
        """Raise ValidationError for what ssh would not take."""
        try:
            return check_jump(self.cleaned_data["jump"])
        except Denied as denied:
            raise forms.ValidationError(denied.reason) from denied


class MaintenanceForm(forms.Form):
    """Why a host takes no new machines."""

    reason = forms.CharField(label=_("Why"), max_length=200)
