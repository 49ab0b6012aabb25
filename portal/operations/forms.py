"""Forms of who decides and of who talks. Not for: rules, which the services keep."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from portal.core.web.forms import GibField
from portal.operations import words
from portal.operations.discussion import LONGEST
from portal.operations.models import Operation


class DecideForm(forms.Form):
    """Approve, or reject with a reason, exactly what was seen."""

    spec_hash = forms.CharField(widget=forms.HiddenInput)
    reason = forms.CharField(
        label=_("Reason"),
        required=False,
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 1, "placeholder": _("Reason, needed to reject")}),
    )

    def __init__(self, data: Any = None, *, operation: Operation, approved: bool = True) -> None:
        # Many of them stand on one page, each with ids of its own.
        super().__init__(
            data, initial={"spec_hash": operation.spec_hash}, auto_id=f"id_{operation.pk}_%s"
        )
        self.approved = approved

    def clean_reason(self) -> str:
        """Raise ValidationError when a rejection does not say why."""
        reason: str = self.cleaned_data["reason"].strip()
        if not self.approved and not reason:
            raise forms.ValidationError(_("Say why, so that who asked can ask better."))
        return reason


class LowerForm(forms.Form):
    """Smaller sizes for exactly what was seen; a field that is left alone stays."""

    spec_hash = forms.CharField(widget=forms.HiddenInput)

    def __init__(self, data: Any = None, *, operation: Operation) -> None:
        super().__init__(
            data, initial={"spec_hash": operation.spec_hash}, auto_id=f"id_{operation.pk}_lower_%s"
        )
        sizes: Mapping[str, int] = operation.frozen["sizes"]
        for name in (name for name in words.SIZES if name in sizes):
            self.fields[name] = _size_field(name, sizes[name])
        self.fields["note"] = forms.CharField(
            label=_("Note to who asked"), required=False, max_length=1000, widget=forms.TextInput
        )

    def sizes(self) -> dict[str, int]:
        """Return the sizes that were changed, in the units of the request."""
        changed = {name for name in words.SIZES if name in self.changed_data}
        values = {name: self.cleaned_data[name] for name in changed}
        if "lease" in values:
            values["lease"] *= words.DAY
        return values


def _size_field(name: str, value: int) -> forms.Field:
    if name in {"memory", "disk"}:
        label = _("Memory in GiB") if name == "memory" else _("Disk in GiB")
        return GibField(label=label, initial=value)
    if name == "lease":
        return forms.IntegerField(label=_("Lease in days"), initial=value // words.DAY)
    return forms.IntegerField(label=words.size_label(name), initial=value)


class CommentForm(forms.Form):
    """Plain text about a request."""

    text = forms.CharField(
        label=_("Comment"),
        max_length=LONGEST,
        widget=forms.Textarea(attrs={"rows": 2, "placeholder": _("Ask, answer, propose")}),
    )
