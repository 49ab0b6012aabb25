"""What is demanded of one request: freeze it when it is asked, count the levels, let it expire.

Not for: who may decide, which `deciders` knows, nor moving the request on, which the services do.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from portal.operations.models import Decision, Operation
from portal.operations.policies import deciders, enough, store
from portal.operations.policies.judging import Verdict, forecast_level
from portal.operations.policies.models import Demand, DemandLevel
from portal.operations.states import State
from portal.operations.transitions import StaleAttempt, move

#: Requests that one run lets expire; the next run takes the others.
BATCH = 500


def freeze(operation: Operation, verdict: Verdict) -> Demand:
    """Keep what `verdict` demands of `operation`, in the place of what was demanded before.

    Joins the transaction. Idempotent.
    """
    Demand.objects.filter(operation=operation).delete()
    days = verdict.expires_days
    demand = Demand.objects.create(
        operation=operation,
        policy=verdict.policy,
        policy_name=verdict.rule.name if verdict.rule else "",
        policy_digest=verdict.rule.digest() if verdict.rule else "",
        auto=verdict.auto,
        machines=verdict.case.measures["machines"],
        expires_at=timezone.now() + timedelta(days=days) if days else None,
    )
    store.write_levels(DemandLevel, {"demand": demand}, verdict.levels)
    # Else a caller that looked before would go on with what was demanded then.
    operation.demand = demand
    return demand


def advance(operation: Operation) -> bool:
    """Count one more approval of the open level; tell whether it was the last that is needed.

    Joins the caller's transaction, which holds the lock on the request and writes the decision.
    """
    demand = operation.demand
    open_level = demand.levels.get(number=demand.level)
    approvals = operation.decisions.filter(deciders.counting(), level=demand.level).count() + 1
    if approvals < open_level.needed:
        return False
    if not demand.levels.filter(number__gt=demand.level).exists():
        return True
    demand.level += 1
    demand.save(update_fields=["level"])
    return False


def expire_due() -> int:
    """Let undecided requests past their time expire; return how many. Idempotent.

    What they held of quotas is given back. One that somebody decides on at the same moment is left.
    """
    due = Operation.objects.filter(
        state=State.AWAITING_APPROVAL, demand__expires_at__lte=timezone.now()
    ).order_by("pk")
    expired = 0
    for operation in due[:BATCH]:
        try:
            move(operation, State.EXPIRED, actor="scheduler")
        except StaleAttempt:
            continue
        expired += 1
    return expired


def changed_since(demand: Demand) -> str:
    """Return what became of the policy after the request was asked, '' when it still says the same."""
    if not demand.policy_name:
        return ""
    policy = demand.policy
    name = {"name": demand.policy_name}
    if policy is None:
        return _("The policy %(name)s was deleted meanwhile. What it demanded of this request stays.") % name
    rule = store.rule_of(policy)
    if not policy.enabled:
        return _("The policy %(name)s was switched off meanwhile. What it demanded stays.") % name
    if rule.digest() != demand.policy_digest:
        return _("The policy %(name)s was changed meanwhile. What it demanded then stays.") % name
    return ""


def summary(operation: Operation) -> dict[str, Any]:
    """Return what a page says about the consent `operation` needs or got; {} for one that needs none."""
    demand = Demand.objects.filter(operation=operation).select_related("policy").first()
    if demand is None:
        return {}
    waits = operation.state == State.AWAITING_APPROVAL
    decisions = list(operation.decisions.select_related("approver", "on_behalf_of").order_by("pk"))
    never = deciders.served(operation) | {operation.requester_id}
    levels = _levels(operation, demand, decisions, waits, never)
    return {
        "operation": operation,
        "policy": demand.policy_name,
        "changed": changed_since(demand) if waits else "",
        "alone": demand.auto and not demand.note,
        "note": demand.note,
        "levels": levels,
        "clash": _clash(operation, levels, never),
        "outdated": [item for item in decisions if item.approved and not _counts(item, operation)],
        "rejected": [item for item in decisions if not item.approved],
        "expires_at": demand.expires_at if waits else None,
        "waits": waits,
    }


def _counts(decision: Decision, operation: Operation) -> bool:
    return decision.approved and decision.revision >= operation.asked_revision


def _clash(operation: Operation, levels: list[dict[str, Any]], never: set[int]) -> str:
    """Say which of the levels that are open or to come lack different people."""
    left = {shown["number"]: shown["left"] for shown in levels if shown["left"] is not None}
    return enough.clash(left, operation.project_id, never)


def _levels(
    operation: Operation, demand: Demand, decisions: list[Decision], waits: bool, never: set[int]
) -> list[dict[str, Any]]:
    """Return each level with who agreed, and while somebody waits who but `never` could still decide."""
    counting = [item for item in decisions if _counts(item, operation)]
    found = []
    for row in demand.levels.prefetch_related("people"):
        agreed = [item for item in counting if item.level == row.number]
        done = len(agreed) >= row.needed
        could = left = None
        if waits and not done:
            level = store.level_of(row)
            could = forecast_level(level, operation.project, never, agreed=len(agreed))
            left = replace(level, needed=level.needed - len(agreed))
        found.append(
            {
                "number": row.number,
                "title": row.get_who_display(),
                "needed": row.needed,
                "agreed": agreed,
                "done": done,
                "open": waits and row.number == demand.level,
                "could": could,
                "left": left,
            }
        )
    return found
