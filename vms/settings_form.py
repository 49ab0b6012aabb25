"""What people type on a machine's page of settings. Not for: what may be set, which the service keeps."""

from typing import Any

from django import forms
from django.utils.translation import gettext as _

from portal.core.web.forms import SeenForm
from vms import settings
from vms.models import Definition
from vms.pending import Pending
from vms.settings.order import ORDER, names

#: Devices that are put in their order by lists of the places.
MOST_LISTED = 20


class SettingsForm(SeenForm):
    """The settings of a machine that can be set; those that cannot are `fixed`, with the reason."""

    salt = "vms.settings.seen"
    #: Where a refusal of a setting is shown that has several fields.
    FIELDS = {ORDER.name: "order-0"}

    def __init__(self, data: Any = None, *, found: Definition) -> None:
        self.defined = found.observed_persistent or {}
        ground = settings.ground_of(self.defined, found.host.readiness)
        now = settings.values(self.defined)
        super().__init__(data, initial=now)
        self.fixed: list[tuple[Any, str, str]] = []
        self._places: list[tuple[str, str]] = []
        for setting in settings.SETTINGS:
            value = now[setting.name]
            if reason := setting.fixed(ground):
                self.fixed.append((setting.label, setting.in_words(value), reason))
            elif setting is ORDER:
                self._add_places(value)
            else:
                when = _when(setting, found.observed_running)
                self.fields[setting.name] = _field(setting, ground, value, when)
        if not self.is_bound:
            self.look_at(found)

    def _add_places(self, value: str) -> None:
        """Add a field for each device, with its place among the others."""
        there = names(self.defined)
        order = {name: str(place) for place, name in enumerate(value.split(), start=1)}
        for at, (name, words) in enumerate(there):
            field = _place_field(words, len(there))
            field.initial = order.get(name, "")
            field.help_text = f"{ORDER.hint} {_when(ORDER)}" if at == len(there) - 1 else ""
            self.fields[f"{ORDER.name}-{at}"] = field
            self._places.append((f"{ORDER.name}-{at}", name))

    def clean(self) -> dict[str, Any]:
        """Look that no two devices have one place."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        seen: set[str] = set()
        for field, _name in self._places:
            place = cleaned.get(field, "")
            if place and place in seen:
                self.add_error(field, _("Another device has this place already."))
            seen.add(place)
        return cleaned

    def look_at(self, found: Definition) -> None:
        """Be about this definition from now on."""
        values = settings.values(found.observed_persistent or {})
        self.show({"digest": found.observed_digest, "values": values})

    @property
    def seen_digest(self) -> str:
        """Return the digest of the definition that was on the page, '' for none."""
        return str(self.cleaned_data["seen"].get("digest", ""))

    @property
    def seen_values(self) -> dict[str, str]:
        """Return the settings that were on the page."""
        return dict(self.cleaned_data["seen"].get("values", {}))

    def values(self) -> dict[str, str]:
        """Return what was typed, by the setting's name; browsers end lines with two characters."""
        places = dict(self._places)
        typed = {
            name: value.replace("\r\n", "\n")
            for name, value in self.cleaned_data.items()
            if name != "seen" and name not in places
        }
        if places:
            numbers = [(self.cleaned_data[field], name) for field, name in self._places]
            ranked = sorted((int(number), name) for number, name in numbers if number)
            typed[ORDER.name] = " ".join(name for _rank, name in ranked)
        return typed


class BackForm(SeenForm):
    """What waits, as it was on the page: settings are set back to nothing else."""

    salt = "vms.settings.back"

    def look_at(self, found: Definition, waits: Pending) -> None:
        """Be about this definition, and what of it waits."""
        self.show({"digest": found.observed_digest, "back": waits.back})

    @property
    def seen_digest(self) -> str:
        """Return the digest of the definition that was on the page, '' for none."""
        return str(self.cleaned_data["seen"].get("digest", ""))

    @property
    def seen_values(self) -> list[list[str]]:
        """Return to what its settings were to be set back."""
        return list(self.cleaned_data["seen"].get("back", []))


def _when(setting: settings.Setting, running: settings.Defined | None = None) -> str:
    """Say from when on a setting counts, of a machine that is `running` so, None for one that is off."""
    if running and (device := setting.plugged):
        return str(device.goes if device.of(running) else device.comes)
    return _("Counts from the next start.") if setting.at_next_start else _("Counts at once.")


def _place_field(label: str, most: int) -> forms.Field:
    """Return a field for a place among `most`: of many, a list to choose from at each would be too long."""
    if most > MOST_LISTED:
        return forms.IntegerField(label=label, min_value=1, max_value=most, required=False)
    numbers = [("", _("Not tried")), *((str(n), str(n)) for n in range(1, most + 1))]
    return forms.ChoiceField(label=label, choices=numbers, required=False)


def _field(setting: settings.Setting, ground: settings.Ground, value: str, when: str) -> forms.Field:
    told = " ".join(filter(None, [str(setting.hint), setting.lacks(ground), when]))
    if setting.choices is None:
        box = forms.Textarea(attrs={"rows": 3})
        # Not stripped: what was there already would be another text than before.
        return forms.CharField(label=setting.label, required=False, strip=False, widget=box, help_text=told)
    choices = list(setting.choices(ground))
    if value not in dict(choices):
        choices = [(value, setting.in_words(value)), *choices]
    return forms.ChoiceField(label=setting.label, choices=choices, help_text=told)
