"""Try a policy on past requests: which it would have matched, and spoken for. Changes nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portal.accounts.models import Project, User
from portal.operations.models import Operation
from portal.operations.policies import enough
from portal.operations.policies.judging import verdict_on
from portal.operations.policies.models import Policy
from portal.operations.policies.rules import Case, Effect, Rule, case_of
from portal.operations.policies.store import speaking_order
from portal.operations.spec import RequestSpec

#: Past requests that a trial looks at.
PAST = 200
#: Of those that match, the newest that the page lists.
SHOWN = 10
#: Of those that could never be approved, how many it lists.
STUCK = 3


@dataclass(frozen=True)
class Trial:
    """What a policy would have meant for the newest `looked` requests."""

    looked: int
    #: How many its conditions match, and of those for how many no earlier policy speaks.
    matched: int
    spoken: int
    examples: Sequence[Operation]
    #: Whose requests could never be approved as things are, and why: project, person or '', sentence.
    stuck: Sequence[tuple[str, str, str]] = ()

    @property
    def shown_stuck(self) -> Sequence[tuple[str, str, str]]:
        """Those that the page lists."""
        return self.stuck[:STUCK]

    @property
    def more_stuck(self) -> int:
        """How many more than the page lists."""
        return max(0, len(self.stuck) - STUCK)


def past_cases() -> list[tuple[Operation, Case]]:
    """Return the newest requests as policies saw them when they were asked. One query."""
    found = Operation.objects.filter(demand__isnull=False, project__isnull=False)
    cases = []
    for operation in found.select_related("demand", "requester", "project").order_by("-pk")[:PAST]:
        frozen = json.loads(operation.spec)
        spec = RequestSpec(kind=frozen["kind"], sizes=frozen["sizes"], pinned=frozen["pinned"])
        case = case_of(
            spec,
            project=operation.project_id or 0,
            person=operation.requester_id,
            machines=operation.demand.machines,
        )
        cases.append((operation, case))
    return cases


def try_out(rule: Rule, *, policy: Policy | None = None) -> Trial:
    """Return what `rule` would have meant in the place of `policy`, or asked last as a new one."""
    cases = past_cases()
    order = list(speaking_order())
    stand_in = policy or Policy(name=rule.name)
    if policy is None:
        earlier = order
    else:
        before = (policy.position, policy.pk)
        earlier = [(other, said) for other, said in order if (other.position, other.pk) < before]
    mine = [*earlier, (stand_in, rule)]
    matched = [operation for operation, case in cases if rule.matches(case)]
    spoken = [case for _operation, case in cases if verdict_on(case, mine).policy is stand_in]
    stuck = _stuck(rule, [(case.project, case.person) for case in spoken])
    return Trial(len(cases), len(matched), len(spoken), matched[:SHOWN], stuck)


def _stuck(rule: Rule, past: Sequence[tuple[int, int]]) -> list[tuple[str, str, str]]:
    """Return where too few different people could decide: for anybody, or for who asked in the past.

    A constant number of queries.
    """
    if rule.effect != Effect.LEVELS:
        return []
    projects = Project.objects.filter(pk__in=rule.projects) if rule.projects else Project.objects.all()
    titles = dict(projects.order_by("name").values_list("pk", "name"))
    people = User.objects.filter(pk__in={*rule.people, *(person for _project, person in past)})
    names = dict(people.values_list("pk", "username"))
    able = enough.Deciders(enough.numbered(rule.levels), titles)
    found = []
    for project, title in titles.items():
        anybody = None if rule.people else able.too_few(project, ())
        if anybody is not None:
            found.append((title, "", str(anybody)))
            continue
        asking = {*rule.people, *(person for where, person in past if where == project)}
        for person in sorted(asking, key=lambda key: names.get(key, "")):
            if (alone := able.too_few(project, {person})) is not None:
                found.append((title, names.get(person, ""), str(alone)))
    return found


def speaks_for() -> tuple[Mapping[int | None, int], int]:
    """Return for how many past requests each policy would speak now, None for no policy, and of how many."""
    cases, order = past_cases(), speaking_order()
    counts: dict[int | None, int] = {}
    for _operation, case in cases:
        policy = verdict_on(case, order).policy
        key = policy.pk if policy else None
        counts[key] = counts.get(key, 0) + 1
    return counts, len(cases)
