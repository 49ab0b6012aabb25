"""Try a policy on past requests: which it would have matched, and spoken for. Changes nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portal.operations.models import Operation
from portal.operations.policies.judging import verdict_on
from portal.operations.policies.models import Policy
from portal.operations.policies.rules import Case, Rule, case_of
from portal.operations.policies.store import speaking_order
from portal.operations.spec import RequestSpec

#: Past requests that a trial looks at.
PAST = 200
#: Of those that match, the newest that the page lists.
SHOWN = 10


@dataclass(frozen=True)
class Trial:
    """What a policy would have meant for the newest `looked` requests."""

    looked: int
    #: How many its conditions match, and of those for how many no earlier policy speaks.
    matched: int
    spoken: int
    examples: Sequence[Operation]


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
    return Trial(len(cases), len(matched), len(spoken), matched[:SHOWN])


def speaks_for() -> tuple[Mapping[int | None, int], int]:
    """Return for how many past requests each policy would speak now, None for no policy, and of how many."""
    cases, order = past_cases(), speaking_order()
    counts: dict[int | None, int] = {}
    for _operation, case in cases:
        policy = verdict_on(case, order).policy
        key = policy.pk if policy else None
        counts[key] = counts.get(key, 0) + 1
    return counts, len(cases)
