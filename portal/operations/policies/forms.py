"""The forms of policies and of deputies. Not for: what can be meant, which the rules and services say."""

from collections.abc import Iterator
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.accounts.models import Project, User
from portal.core.web.forms import ExplainedCheckboxes, ExplainedRadio, RowsField
from portal.operations.policies.models import Policy
from portal.operations.policies.rules import (
    LARGEST,
    LONGEST_EXPIRY,
    MOST_LEVELS,
    MOST_NEEDED,
    Effect,
    Level,
    Measure,
    Rule,
    Who,
)
from portal.operations.policies.store import rule_of
from portal.operations.registry import asked_kinds

#: Measure -> how many of its smallest units the form's unit is, and the unit's word.
UNITS: dict[str, tuple[int, Any]] = {
    Measure.VCPU: (1, ""),
    Measure.MEMORY: (1 << 30, "GiB"),
    Measure.DISK: (1 << 30, "GiB"),
    Measure.MACHINES: (1, ""),
    Measure.COST: (100, ""),
    Measure.LEASE: (86_400, gettext_lazy("days")),
}
_WHOLE = {Measure.VCPU, Measure.MACHINES}
_BOUNDS = ("least", "most")
#: What rules and services call otherwise than the form.
FIELDS = {**{measure.value: f"least_{measure}" for measure in Measure}, "levels": "who_1"}


class PeopleField(forms.CharField):
    """People by their user names or mail addresses, separated by commas or lines."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"})
        super().__init__(**{"required": False, "max_length": 4000, "widget": widget, **kwargs})

    def clean(self, value: Any) -> tuple[int, ...]:
        """Return their keys. Raises ValidationError naming whoever is not here."""
        typed = [name for name in super().clean(value).replace(",", " ").split() if name]
        found, unknown = [], []
        for name in dict.fromkeys(typed):
            person = User.objects.filter(username=name).first()
            person = person or User.objects.exclude(email="").filter(email__iexact=name).first()
            if person is None:
                unknown.append(name)
            else:
                found.append(person.pk)
        if unknown:
            raise forms.ValidationError(_("Nobody here is called %s.") % ", ".join(unknown))
        return tuple(dict.fromkeys(found))


def names_of(people: tuple[int, ...]) -> str:
    """Return the user names of `people` as `PeopleField` takes them."""
    found = User.objects.filter(pk__in=people).order_by("username")
    return ", ".join(found.values_list("username", flat=True))


class EffectRadio(ExplainedRadio):
    """What becomes of a request, with what that means."""

    explained = {
        Effect.LEVELS: gettext_lazy("The levels below, one after another."),
        Effect.AUTO: gettext_lazy("It is built at once where there is room; without room people decide."),
        Effect.REFUSE: gettext_lazy("Nothing is asked; who asks reads why."),
    }


class PolicyForm(forms.Form):
    """Everything that a policy says, on one page."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=80)
    description = forms.CharField(
        label=gettext_lazy("What it is for"),
        required=False,
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    kinds = forms.MultipleChoiceField(
        label=gettext_lazy("Kind of request"), required=False, widget=ExplainedCheckboxes
    )
    items = forms.MultipleChoiceField(
        label=gettext_lazy("Catalogue item"), required=False, widget=ExplainedCheckboxes
    )
    projects = RowsField(
        Project.objects.none(),
        label=gettext_lazy("Project"),
        required=False,
        widget=ExplainedCheckboxes,
    )
    people = PeopleField(
        label=gettext_lazy("Asked by"), help_text=gettext_lazy("User names, separated by commas.")
    )
    effect = forms.ChoiceField(
        label=gettext_lazy("What becomes of the request"),
        choices=Effect.choices,
        initial=Effect.LEVELS,
        widget=EffectRadio,
    )
    refusal = forms.CharField(
        label=gettext_lazy("Why it is refused"),
        required=False,
        max_length=300,
        help_text=gettext_lazy("Only where it is refused: the person who asks reads this sentence."),
    )
    expires_days = forms.IntegerField(
        label=gettext_lazy("Expires after days"),
        required=False,
        min_value=1,
        max_value=LONGEST_EXPIRY,
        help_text=gettext_lazy("A request that nobody decided on by then ends. Empty: it waits for ever."),
    )

    def __init__(self, data: Any = None, *, policy: Policy | None = None) -> None:
        self.policy = policy
        super().__init__(data, initial=_initial(rule_of(policy)) if policy else None)
        kept = rule_of(policy) if policy else Rule(name="")
        kinds = asked_kinds()
        titles = {name: name for name in kept.kinds} | {kind.name: str(kind.title) for kind in kinds}
        items = dict.fromkeys(item for kind in kinds for item in kind.items())
        items |= dict.fromkeys(kept.items)
        choices = {"kinds": titles.items(), "items": [(item, item) for item in items]}
        for name, values in choices.items():
            self.fields[name].choices = list(values)  # type: ignore[attr-defined]
        projects = Project.objects.order_by("name")
        self.fields["projects"].queryset = projects  # type: ignore[attr-defined]
        for measure in Measure:
            for bound in _BOUNDS:
                self.fields[f"{bound}_{measure}"] = _bound_field(measure, bound)
        for number in range(1, MOST_LEVELS + 1):
            self._add_level(number)

    def _add_level(self, number: int) -> None:
        first = number == 1
        choices = [*Who.choices] if first else [("", _("No further level")), *Who.choices]
        self.fields[f"who_{number}"] = forms.ChoiceField(
            label=_("Who decides"), choices=choices, required=False, initial=choices[0][0]
        )
        self.fields[f"needed_{number}"] = forms.IntegerField(
            label=_("How many"), min_value=1, max_value=MOST_NEEDED, initial=1, required=False
        )
        self.fields[f"people_{number}"] = PeopleField(
            label=_("Named people"), help_text=_("Only where named people decide.")
        )

    # For the template, which draws rows

    def ranges(self) -> Iterator[dict[str, Any]]:
        """Yield each measure with its two fields, for a row of the page."""
        for measure in Measure:
            yield {
                "label": measure.label,
                "unit": UNITS[measure][1],
                "least": self[f"least_{measure}"],
                "most": self[f"most_{measure}"],
            }

    def levels(self) -> Iterator[dict[str, Any]]:
        """Yield the fields of each level, for a row of the page."""
        for number in range(1, MOST_LEVELS + 1):
            names = {"who": f"who_{number}", "needed": f"needed_{number}", "people": f"people_{number}"}
            yield {"number": number} | {key: self[name] for key, name in names.items()}

    def clean(self) -> dict[str, Any]:
        """Say what cannot be meant at the field where it was typed."""
        data = super().clean() or {}
        for name, sentence in self.rule().problems():
            field = FIELDS.get(name, name)
            # What is no value at all was said already.
            if field not in self.errors:
                self.add_error(field, sentence)
        return data

    def rule(self) -> Rule:
        """Return what was typed as a rule; what was refused at its field is left out."""
        data: dict[str, Any] = {name: "" if field.required else None for name, field in self.fields.items()}
        data |= self.cleaned_data
        ranges = {}
        for measure in Measure:
            least, most = (_stored(measure, data.get(f"{bound}_{measure}")) for bound in _BOUNDS)
            if least is not None or most is not None:
                ranges[measure.value] = (least, most)
        levels = [
            Level(data[f"who_{number}"], data.get(f"needed_{number}") or 1, _named(data, number))
            for number in range(1, MOST_LEVELS + 1)
            if data.get(f"who_{number}")
        ]
        return Rule(
            name=data["name"].strip(),
            description=data["description"] or "",
            enabled=self.policy.enabled if self.policy else True,
            kinds=tuple(sorted(data["kinds"] or ())),
            items=tuple(sorted(data["items"] or ())),
            projects=tuple(sorted(project.pk for project in data["projects"] or ())),
            people=tuple(sorted(data["people"] or ())),
            ranges=ranges,
            effect=data["effect"],
            levels=tuple(levels) if data["effect"] == Effect.LEVELS else (),
            refusal=(data["refusal"] or "").strip(),
            expires_days=data["expires_days"],
        )


def _named(data: dict[str, Any], number: int) -> tuple[int, ...]:
    people = data[f"people_{number}"] if data[f"who_{number}"] == Who.PEOPLE else ()
    return tuple(sorted(people or ()))


def _bound_field(measure: Measure, bound: str) -> forms.Field:
    label = _("At least") if bound == "least" else _("At most")
    factor, unit = UNITS[measure]
    words = " ".join(str(part) for part in (measure.label, label.lower(), unit) if part)
    if measure in _WHOLE:
        field: forms.Field = forms.IntegerField(min_value=0, max_value=100_000, required=False, label=label)
    else:
        most = LARGEST // factor
        field = forms.DecimalField(
            min_value=0, max_value=most, max_digits=15, decimal_places=2, required=False, label=label
        )
    field.widget.attrs |= {"aria-label": words, "step": "1" if measure in _WHOLE else "any"}
    return field


def _stored(measure: Measure, value: Any) -> int | None:
    return None if value is None else round(value * UNITS[measure][0])


def _shown(measure: str, value: int | None) -> str:
    """Return a stored bound in the form's unit, without trailing zeros."""
    if value is None:
        return ""
    return f"{value / UNITS[measure][0]:.2f}".rstrip("0").rstrip(".")


def _initial(rule: Rule) -> dict[str, Any]:
    """Return what the form shows for `rule`."""
    found: dict[str, Any] = {
        "name": rule.name,
        "description": rule.description,
        "kinds": list(rule.kinds),
        "items": list(rule.items),
        "projects": list(rule.projects),
        "people": names_of(rule.people),
        "effect": rule.effect,
        "refusal": rule.refusal,
        "expires_days": rule.expires_days,
    }
    for measure, bounds in rule.ranges.items():
        for bound, value in zip(_BOUNDS, bounds, strict=True):
            found[f"{bound}_{measure}"] = _shown(measure, value)
    for number, level in enumerate(rule.levels, 1):
        found[f"who_{number}"] = level.who
        found[f"needed_{number}"] = level.needed
        found[f"people_{number}"] = names_of(level.people)
    return found


class DelegationForm(forms.Form):
    """Who stands in, and when."""

    deputy = forms.CharField(
        label=gettext_lazy("Who stands in for you"),
        max_length=254,
        help_text=gettext_lazy("The user name or mail address of somebody here."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    first = forms.DateField(
        label=gettext_lazy("First day"), widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
    )
    last = forms.DateField(
        label=gettext_lazy("Last day"), widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
    )

    def __init__(self, data: Any = None) -> None:
        super().__init__(data, initial={"first": timezone.localdate()})

    def clean_deputy(self) -> User:
        """Return the person. Raises ValidationError when nobody is called so."""
        keys = PeopleField().clean(self.cleaned_data["deputy"])
        if len(keys) != 1:
            raise forms.ValidationError(_("Name exactly one person."))
        return User.objects.get(pk=keys[0])
