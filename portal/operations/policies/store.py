"""Policies between rows and rules. Not for: who may change them, which `services` asks."""

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet

from portal.operations.policies.models import (
    AbstractLevel,
    Policy,
    PolicyChoice,
    PolicyLevel,
    PolicyRange,
)
from portal.operations.policies.rules import Effect, Level, Rule

_Of = PolicyChoice.Of


def with_parts(policies: QuerySet[Policy]) -> QuerySet[Policy]:
    """Fetch everything that `rule_of` reads with a constant number of queries."""
    return policies.prefetch_related("ranges", "choices", "projects", "people", "levels__people")


def speaking_order() -> list[tuple[Policy, Rule]]:
    """Return the policies that are on, in the order in which they are asked."""
    found = with_parts(Policy.objects.filter(enabled=True).order_by("position", "pk"))
    return [(policy, rule_of(policy)) for policy in found]


def rule_of(policy: Policy) -> Rule:
    """Return what `policy` says."""
    choices = list(policy.choices.all())
    return Rule(
        name=policy.name,
        description=policy.description,
        enabled=policy.enabled,
        kinds=tuple(sorted(choice.value for choice in choices if choice.of == _Of.KIND)),
        items=tuple(sorted(choice.value for choice in choices if choice.of == _Of.ITEM)),
        projects=tuple(sorted(project.pk for project in policy.projects.all())),
        people=tuple(sorted(person.pk for person in policy.people.all())),
        ranges={bound.measure: (bound.least, bound.most) for bound in policy.ranges.all()},
        effect=policy.effect,
        levels=tuple(level_of(level) for level in policy.levels.all()),
        refusal=policy.refusal,
        expires_days=policy.expires_days,
    )


def level_of(level: AbstractLevel) -> Level:
    """Return a stored level by value."""
    return Level(level.who, level.needed, tuple(sorted(person.pk for person in level.people.all())))


def snapshot(policy: Policy) -> dict[str, Any]:
    """Return `policy` for the trail: names instead of keys, as they are now."""
    stored = with_parts(Policy.objects.filter(pk=policy.pk)).get()
    rule = rule_of(stored)
    levels = [
        {"who": level.who, "needed": level.needed, "people": sorted(map(str, level.people.all()))}
        for level in stored.levels.all()
    ]
    return rule.demand() | {
        "name": rule.name,
        "description": rule.description,
        "enabled": rule.enabled,
        "position": stored.position,
        "projects": sorted(map(str, stored.projects.all())),
        "people": sorted(map(str, stored.people.all())),
        "levels": levels,
    }


def write(policy: Policy, rule: Rule) -> Policy:
    """Make the rows of `policy` say `rule`. Joins the transaction; the rule was checked before."""
    for name in ("name", "description", "enabled", "effect", "expires_days"):
        setattr(policy, name, getattr(rule, name))
    policy.refusal = rule.refusal if rule.effect == Effect.REFUSE else ""
    policy.save()
    policy.projects.set(rule.projects)
    policy.people.set(rule.people)
    policy.ranges.all().delete()
    PolicyRange.objects.bulk_create(
        PolicyRange(policy=policy, measure=measure, least=least, most=most)
        for measure, (least, most) in rule.ranges.items()
    )
    policy.choices.all().delete()
    named = [(_Of.KIND, rule.kinds), (_Of.ITEM, rule.items)]
    PolicyChoice.objects.bulk_create(
        PolicyChoice(policy=policy, of=of, value=value) for of, values in named for value in values
    )
    policy.levels.all().delete()
    write_levels(PolicyLevel, {"policy": policy}, rule.levels if rule.effect == Effect.LEVELS else ())
    return policy


def write_levels(model: type[Any], owner: dict[str, Any], levels: Sequence[Level]) -> None:
    """Write `levels` as rows of `model` that belong to `owner`, numbered from 1."""
    for number, level in enumerate(levels, 1):
        row = model.objects.create(**owner, number=number, who=level.who, needed=level.needed)
        if level.people:
            row.people.set(level.people)
