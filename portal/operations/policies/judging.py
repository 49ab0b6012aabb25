"""Ask the policies about a request. Not for: keeping what they said, which `demands` does."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from portal.accounts.models import Project, User
from portal.operations.models import Operation
from portal.operations.policies import deciders, enough
from portal.operations.policies.models import Policy
from portal.operations.policies.rules import DEFAULT_LEVELS, Case, Effect, Level, Rule, Who, case_of
from portal.operations.policies.store import speaking_order
from portal.operations.registry import judged_kind, kind_of
from portal.operations.spec import RequestSpec
from portal.operations.states import State


@dataclass(frozen=True)
class Verdict:
    """What the first matching policy says about a case; without a policy, the default."""

    case: Case
    policy: Policy | None = None
    rule: Rule | None = None

    @property
    def auto(self) -> bool:
        return self.rule is not None and self.rule.effect == Effect.AUTO

    @property
    def refusal(self) -> str:
        return self.rule.refusal if self.rule is not None and self.rule.effect == Effect.REFUSE else ""

    @property
    def levels(self) -> Sequence[Level]:
        """Whose consent is needed; of a policy that approves by itself, when it cannot."""
        return self.rule.levels if self.rule and self.rule.effect == Effect.LEVELS else DEFAULT_LEVELS

    @property
    def expires_days(self) -> int | None:
        return self.rule.expires_days if self.rule else None


def judge(spec: RequestSpec, *, project: Project, person: Any, besides: Operation | None = None) -> Verdict:
    """Return what the policies say about `spec`, asked by `person` for `project` now.

    `besides` is the request itself, which does not count among the person's machines. Changes nothing and
    takes a constant number of queries.
    """
    # Of several at once, as the last of them would be seen.
    machines = machines_of(person, judged_kind(spec.kind), besides=besides) + number_of(spec.sizes) - 1
    case = case_of(spec, project=project.pk, person=person.pk, machines=machines)
    return verdict_on(case, speaking_order())


def verdict_on(case: Case, rules: Sequence[tuple[Policy, Rule]]) -> Verdict:
    """Return what the first of `rules` that matches says."""
    for policy, rule in rules:
        if rule.matches(case):
            return Verdict(case, policy, rule)
    return Verdict(case)


def judge_in_turn(
    spec: RequestSpec, *, project: Project, person: Any, besides: Operation | None = None
) -> Verdict:
    """Judge while no other request of `person` is judged, until the transaction ends.

    Else two requests at once would both be told that the other one is not there.
    """
    # Not a lock against rows that merely refer to the person.
    User.objects.select_for_update(no_key=True).get(pk=person.pk)
    return judge(spec, project=project, person=person, besides=besides)


def machines_of(person: Any, kind: str, *, besides: Operation | None = None) -> int:
    """Count what `person` has of what `kind` makes, or has asked for."""
    waiting = Operation.objects.filter(requester=person.pk, state=State.AWAITING_APPROVAL)
    if besides is not None:
        waiting = waiting.exclude(pk=besides.pk)
    asked = [one for one in waiting.only("kind", "spec") if judged_kind(one.kind) == kind]
    return kind_of(kind).owned(person) + sum(number_of(one.frozen["sizes"]) for one in asked)


def number_of(sizes: Mapping[str, int]) -> int:
    """Return how many things a request of `sizes` makes."""
    return sizes.get("machines", 1)


@dataclass(frozen=True)
class ForecastLevel:
    """Who could decide on a level: a few names, and how many there are."""

    title: str
    needed: int
    names: tuple[str, ...]
    count: int

    @property
    def more(self) -> int:
        return self.count - len(self.names)

    @property
    def short(self) -> bool:
        """Fewer can decide than must: it can never be approved as things are."""
        return self.count < self.needed


@dataclass(frozen=True)
class Forecast:
    """What a request would meet: the policy that speaks, and who would have to agree."""

    policy: str
    auto: bool
    refusal: str
    levels: tuple[ForecastLevel, ...]
    expires_days: int | None
    #: Which levels lack different people, in a sentence; '' where enough are there.
    clash: str = ""


def forecast(
    *, actor: Any, project: Project, spec: RequestSpec, besides: Operation | None = None
) -> Forecast:
    """Return what `spec` would meet if `actor` asked for it in `project` now. Changes nothing.

    `besides` is the request that it would replace.
    """
    verdict = judge(spec, project=project, person=actor, besides=besides)
    decided_by_people = not verdict.auto and not verdict.refusal
    levels = verdict.levels if decided_by_people else ()
    return Forecast(
        policy=verdict.rule.name if verdict.rule else "",
        auto=verdict.auto,
        refusal=verdict.refusal,
        levels=forecast_levels(levels, project, actor),
        expires_days=verdict.expires_days,
        clash=enough.clash(enough.numbered(levels), project.pk, {actor.pk}),
    )


def forecast_levels(levels: Sequence[Level], project: Project, requester: Any) -> tuple[ForecastLevel, ...]:
    """Return who could decide on each of `levels`; never the requester."""
    return tuple(forecast_level(level, project, {requester.pk}) for level in levels)


def forecast_level(
    level: Level, project: Project | None, never: Collection[int], *, agreed: int = 0
) -> ForecastLevel:
    """Return who could decide on `level`, on which `agreed` did already; `never` are keys of people."""
    names, count = deciders.some_names(level, project, never)
    return ForecastLevel(str(Who(level.who).label), level.needed - agreed, names, count)
