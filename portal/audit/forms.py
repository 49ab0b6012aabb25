"""What the trail is filtered by: one form for the page and for every download of it."""

from typing import Any

from django import forms
from django.core.cache import cache
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _

from portal.audit.models import AuditEntry

#: How long the verbs and types offered may lag behind the trail, in seconds.
FACETS_AGE = 60


def _instant(label: Any) -> forms.DateTimeField:
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
    return forms.DateTimeField(label=label, required=False, widget=widget)


def _text(label: Any, length: int) -> forms.CharField:
    return forms.CharField(label=label, required=False, max_length=length)


def _known(column: str) -> list[str]:
    """Return what stands in `column`, at most a minute old."""
    key = f"audit.facets.{column}"
    known: list[str] | None = cache.get(key)
    if known is None:
        found = AuditEntry.objects.order_by(column).values_list(column, flat=True).distinct()[:500]
        known = list(found)
        cache.set(key, known, FACETS_AGE)
    return known


class FilterForm(forms.Form):
    """Filters of the address; instants are in the reader's zone."""

    q = _text(_("Text"), 100)
    actor = _text(_("Who"), 150)
    verb = _text(_("Did what"), 64)
    type = _text(_("To what kind of thing"), 64)
    since = _instant(_("From"))
    until = _instant(_("Until"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["q"].widget = forms.TextInput(
            attrs={"type": "search", "placeholder": _t("Name or id of what was changed")}
        )
        for name, column in (("verb", "verb"), ("type", "target_type")):
            chosen = self.data.get(name, "")
            offered = sorted({*_known(column), chosen} - {""})
            choices = [("", _t("Anything")), *((value, value) for value in offered)]
            self.fields[name].widget = forms.Select(choices=choices)

    def clean(self) -> dict[str, Any]:
        """Refuse a period that ends before it begins."""
        values = super().clean() or {}
        since, until = values.get("since"), values.get("until")
        if since and until and until <= since:
            self.add_error("until", _t("This is not after the beginning of the period."))
        return values

    def condition(self) -> Q:
        """Return what the valid filters ask for."""
        values = self.cleaned_data
        exact = {"actor": "actor_name", "verb": "verb", "type": "target_type"}
        asked = {column: values[name] for name, column in exact.items() if values[name]}
        if values["since"]:
            asked["at__gte"] = values["since"]
        if values["until"]:
            asked["at__lt"] = values["until"]
        text = values["q"]
        found = Q(target_name__icontains=text) | Q(target_id=text) | Q(actor_name__icontains=text)
        return Q(**asked) & found if text else Q(**asked)

    def words(self) -> list[str]:
        """Say the valid filters in sentences, instants in the reader's zone."""
        values = self.cleaned_data
        said = {
            "q": _t("Names or ids with “%s”"),
            "actor": _t("Done by %s"),
            "verb": _t("Verb %s"),
            "type": _t("Things of the kind %s"),
        }
        sentences = [words % values[name] for name, words in said.items() if values[name]]
        for name, words in (("since", _t("From %s")), ("until", _t("Before %s"))):
            if values[name]:
                sentences.append(words % f"{timezone.localtime(values[name]):%Y-%m-%d %H:%M %Z}")
        return sentences

    def filled(self) -> list[tuple[str, str]]:
        """Return the filters as they were sent, for the hidden fields of a download."""
        return [(name, self.data[name]) for name in self.fields if self.data.get(name)]
