"""What people say of a machine that they adopt. Not for: what may be said, which the service keeps."""

import re
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.accounts.models import Project, User
from vms.adoption.services import LONGEST_LEASE
from vms.models import Definition
from vms.prefill import free_name

_PLAIN = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}
#: Days that are proposed, as the catalogue's items do.
LEASE = 90


def proposed_name(definition: Definition) -> str:
    """Return the domain's name made into a machine's that nobody has yet; '' when there is none near it."""
    plain = re.sub(r"[^a-z0-9]+", "-", definition.observed_name.lower())[:60].strip("-")
    return free_name(plain or f"machine-{str(definition.uuid)[:8]}")


class AdoptForm(forms.Form):
    """Where an adopted machine belongs and what it is called."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=63,
        help_text=gettext_lazy("Small letters, digits, hyphens. The domain keeps its own name on the host."),
        widget=forms.TextInput(attrs=_PLAIN),
    )
    project = forms.ModelChoiceField(
        Project.objects.none(), label=gettext_lazy("Project"), empty_label=gettext_lazy("Choose")
    )
    owner = forms.CharField(
        label=gettext_lazy("Owner"),
        max_length=254,
        help_text=gettext_lazy("User name or mail address of somebody with a role in the project."),
        widget=forms.TextInput(attrs=_PLAIN),
    )
    lease_days = forms.IntegerField(
        label=gettext_lazy("Lease in days"), min_value=1, max_value=LONGEST_LEASE, initial=LEASE
    )

    def __init__(self, data: Any = None, *, actor: Any, definition: Definition) -> None:
        initial = {"name": proposed_name(definition), "owner": actor.get_username()}
        super().__init__(data, initial=initial)
        projects = Project.objects.restrict(actor, "operate").order_by("name")
        self.fields["project"].queryset = projects  # type: ignore[attr-defined]

    def clean_owner(self) -> User:
        """Return the person. Raises ValidationError when nobody is called so."""
        typed = self.cleaned_data["owner"]
        people = User.objects.filter(is_active=True)
        person = people.filter(username=typed).first()
        person = person or people.exclude(email="").filter(email__iexact=typed).first()
        if person is None:
            raise forms.ValidationError(_("Nobody here has this name."))
        return person
