"""How forms are drawn, and the form that wants the name typed."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar

from django import forms
from django.core import signing
from django.forms.renderers import TemplatesSetting
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.core.numbers import number_of


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


class RowsField(forms.ModelMultipleChoiceField):
    """Rows by their keys; a number that no row can have is no choice, and no error of the database."""

    def clean(self, value: Any) -> Any:
        """Return the rows. Raises ValidationError."""
        for key in value if isinstance(value, list | tuple) else ():
            if number_of(str(key)) is None:
                words = {"value": str(key)[:20]}
                raise forms.ValidationError(
                    self.error_messages["invalid_choice"], code="invalid_choice", params=words
                )
        return super().clean(value)


GIB, MIB = 1 << 30, 1 << 20


class GibField(forms.DecimalField):
    """A size that people type in GiB and code knows in bytes; a broken number is rounded up to whole MiB.

    `initial` is in bytes too. Not for limits: zero, negative and enormous sizes pass, for the service to
    refuse in its own words.
    """

    #: Beyond it a number is only ever a slip, and its digits would fill the memory.
    MOST = 10**9
    #: Bytes of what is typed, and to how many a broken number is rounded up.
    UNIT, WHOLE = GIB, MIB

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Those of its base count digits of a decimal, which this value is no more.
        self.validators = []
        self.widget.attrs.setdefault("inputmode", "decimal")

    def to_python(self, value: Any) -> Any:
        """Return whole bytes. Raises ValidationError for what is no number."""
        typed = super().to_python(value)
        if typed is None or not typed.is_finite():
            return typed
        if abs(typed) > self.MOST:
            return (1 if typed > 0 else -1) * self.MOST * self.UNIT
        exact = typed * self.UNIT
        return int(exact) if exact == int(exact) else math.ceil(exact / self.WHOLE) * self.WHOLE

    def validate(self, value: Any) -> None:
        forms.Field.validate(self, value)
        if value is not None and not isinstance(value, int):
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid")

    def prepare_value(self, value: Any) -> Any:
        """Return bytes in the unit without trailing zeros; what was typed stays as it is."""
        if isinstance(value, int):
            return f"{Decimal(value) / self.UNIT:f}"
        return value

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(data) != initial)
        except forms.ValidationError:
            return True


class MibField(GibField):
    """As GibField, in MiB; a broken number is rounded up to whole bytes."""

    UNIT, WHOLE = MIB, 1


class MibOfKibField(GibField):
    """As GibField, in MiB, of what code knows in KiB; a broken number is rounded up to whole KiB."""

    UNIT, WHOLE = MIB // 1024, 1


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


class SeenForm(forms.Form):
    """Carries the values that were on the page, signed, so that nobody overwrites what they never saw."""

    salt: ClassVar[str]
    seen = forms.CharField(widget=forms.HiddenInput, required=False)

    def show(self, snapshot: Any) -> None:
        """Post `snapshot` with the form from now on, also when it is shown again."""
        self.initial["seen"] = signing.dumps(snapshot, salt=self.salt)
        if self.is_bound:
            posted: Any = self.data
            self.data = posted.copy()
            self.data["seen"] = self.initial["seen"]  # type: ignore[index]

    def clean_seen(self) -> Any:
        """Return the snapshot; one that nobody signed counts as nothing seen."""
        try:
            return signing.loads(self.cleaned_data["seen"], salt=self.salt)
        except signing.BadSignature:
            return {}
