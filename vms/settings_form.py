"""What people type on a machine's page of settings. Not for: what may be set, which the service keeps."""

from typing import Any

from django import forms

from portal.core.web.forms import SeenForm
from vms import settings
from vms.models import Definition


class SettingsForm(SeenForm):
    """The settings of a machine that can be set; those that cannot are `fixed`, with the reason."""

    salt = "vms.settings.seen"

    def __init__(self, data: Any = None, *, found: Definition) -> None:
        self.defined = found.observed_persistent or {}
        ground = settings.Ground(self.defined)
        now = settings.values(self.defined)
        super().__init__(data, initial=now)
        self.fixed: list[tuple[Any, str, str]] = []
        for setting in settings.SETTINGS:
            value = now[setting.name]
            if reason := setting.fixed(ground):
                self.fixed.append((setting.label, setting.in_words(value), reason))
            else:
                self.fields[setting.name] = _field(setting, ground, value)
        if not self.is_bound:
            self.look_at(found)

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
        typed = {name: value for name, value in self.cleaned_data.items() if name != "seen"}
        return {name: value.replace("\r\n", "\n") for name, value in typed.items()}


def _field(setting: settings.Setting, ground: settings.Ground, value: str) -> forms.Field:
    if setting.choices is None:
        box = forms.Textarea(attrs={"rows": 3})
        # Not stripped: what was there already would be another text than before.
        return forms.CharField(label=setting.label, required=False, strip=False, widget=box)
    choices = list(setting.choices(ground))
    if value not in dict(choices):
        choices = [(value, setting.in_words(value)), *choices]
    return forms.ChoiceField(label=setting.label, choices=choices)
