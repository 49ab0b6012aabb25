"""A policy in words, for lists and the request's page. Not for: JSON, which the trail holds."""

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext as _

from portal.core.templatetags.gatehouse import duration
from portal.operations.ledger import amount_text
from portal.operations.policies.models import Policy
from portal.operations.policies.rules import Effect, Measure, Who
from portal.operations.policies.store import rule_of
from portal.operations.registry import asked_kinds


def conditions(policy: Policy) -> list[tuple[str, str]]:
    """Return each condition as what and value; none for a policy that matches every request.

    Reads what `store.with_parts` fetched.
    """
    rule = rule_of(policy)
    titles = {kind.name: str(kind.title) for kind in asked_kinds()}
    found = [
        (_("Kind"), _any([titles.get(name, name) for name in rule.kinds])),
        (_("Item"), _any(rule.items)),
        (_("Project"), _any(sorted(map(str, policy.projects.all())))),
        (_("Asked by"), _any(sorted(map(str, policy.people.all())))),
    ]
    for measure in Measure:
        if measure in rule.ranges:
            found.append((str(measure.label), _range(measure, *rule.ranges[measure])))
    return [(what, value) for what, value in found if value]


def outcome(policy: Policy) -> list[str]:
    """Return what the policy demands, a line a level."""
    if policy.effect == Effect.AUTO:
        return [_("Approved at once; nobody is asked")]
    if policy.effect == Effect.REFUSE:
        return [_("Refused: %s") % policy.refusal]
    lines = []
    for level in policy.levels.all():
        who = str(Who(level.who).label)
        if level.who == Who.PEOPLE:
            who = _any(sorted(map(str, level.people.all())))
        lines.append(f"{level.needed} × {who}" if level.needed > 1 else who)
    return lines


def _any(values: Sequence[Any]) -> str:
    return _(" or ").join(map(str, values))


def _range(measure: Measure, least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        if least == most:
            return amount(measure, least)
        return _("%(least)s to %(most)s") % {"least": amount(measure, least), "most": amount(measure, most)}
    if least is not None:
        return _("at least %s") % amount(measure, least)
    return _("at most %s") % amount(measure, most or 0)


def amount(measure: str, value: int) -> str:
    """Return a bound with its unit, as people read it."""
    if measure == Measure.LEASE:
        return duration(value)
    if measure == Measure.COST:
        return f"{value / 100:,.2f}"
    return amount_text(measure, value)
