"""How forms are drawn, and the form that wants the name typed."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.forms.renderers import TemplatesSetting
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy


class Renderer(TemplatesSetting):
    """Draws every form with the shared partials."""

    form_template_name = "partials/form.html"
    field_template_name = "partials/field.html"


class ExplainedRadio(forms.RadioSelect):
    """One of a few ways, each with a sentence on what it means (`explained`, by value)."""

    template_name = "partials/explained.html"
    explained: Mapping[str, Any] = {}

    def create_option(self, name: str, value: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Add the sentence to what the template draws."""
        option: dict[str, Any] = super().create_option(name, value, *args, **kwargs)
        return option | {"explained": self.explained.get(str(value), "")}


class ExplainedCheckboxes(ExplainedRadio, forms.CheckboxSelectMultiple):
    """Some of a few ways, each with a sentence on what it means (`explained`, by value)."""

    input_type = "checkbox"
    allow_multiple_selected = True


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
