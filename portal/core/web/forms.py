"""How forms are drawn, and the form that wants the name typed."""

from typing import Any

from django import forms
from django.forms.renderers import TemplatesSetting
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy


class Renderer(TemplatesSetting):
    """Draws every form with the shared partials."""

    form_template_name = "partials/form.html"
    field_template_name = "partials/field.html"


class ConfirmForm(forms.Form):
    """Asks for the name of what will be lost to be typed."""

    confirm_name = forms.CharField(
        label=gettext_lazy("Name"),
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}
        ),
    )

    def __init__(self, *args: Any, name: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name
        self.fields["confirm_name"].label = _("Type %(name)s to confirm") % {"name": name}

    def clean_confirm_name(self) -> str:
        """Raise ValidationError unless exactly the name was typed."""
        typed: str = self.cleaned_data["confirm_name"]
        if typed != self.name:
            raise forms.ValidationError(_("This is not the name. Nothing was done."))
        return typed
