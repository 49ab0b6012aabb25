"""From a request to consent: what happens when it is asked, and each time somebody agrees or refuses.

Not for: checking the form or the verb `request`, which the callers did.
"""

from typing import Any

from django.db import transaction
from django.utils import translation
from django.utils.translation import gettext as _

from portal.audit import services as audit
from portal.core.errors import Denied
from portal.live.publish import publish
from portal.operations import ledger, notifying
from portal.operations.dispatch import ARRIVALS
from portal.operations.models import Decision, Operation
from portal.operations.placing import place
from portal.operations.policies import deciders, demands
from portal.operations.policies.judging import Verdict, judge_in_turn
from portal.operations.policies.models import Demand
from portal.operations.registry import may_ask
from portal.operations.spec import RequestSpec
from portal.operations.states import State
from portal.operations.transitions import StaleAttempt, move


def ask(operation: Operation, *, actor: Any, amounts: ledger.Amounts) -> Demand:
    """Let the policies speak about `operation` as it is asked now, and hold its quota, exactly `amounts`.

    Called in the transaction that makes the request, and again in the one in which its requester asks for
    something else; the approvals of before must then lie below `asked_revision`. A policy that approves
    by itself places and queues it here; without room it waits for people, with the reason kept. Raises
    Denied when the quota is too small, with the policy's sentence when it refuses, and ValueError for a
    request of no project.
    """
    if operation.project is None:
        raise ValueError(f"{operation} belongs to no project")
    spec = RequestSpec(**{name: operation.frozen[name] for name in ("kind", "sizes", "pinned")})
    verdict = judge_in_turn(
        spec, project=operation.project, person=operation.requester, besides=operation
    )
    if verdict.refusal:
        raise Denied(verdict.refusal)
    if verdict.auto:
        ledger.lock_ahead(operation, amounts)
    (ledger.hold if operation.revision == 1 else ledger.rehold)(operation, amounts)
    demand = demands.freeze(operation, verdict)
    audit.record(actor=actor, verb="operation.judged", target=operation, after=_demanded(verdict))
    if verdict.auto:
        _approve_by_policy(operation, demand)
    notifying.waits(operation, by=actor)
    publish(operation.topic, ARRIVALS)
    return demand


def _demanded(verdict: Verdict) -> dict[str, Any]:
    return {
        "policy": verdict.rule.name if verdict.rule else "",
        "auto": verdict.auto,
        "levels": [
            {"who": level.who, "needed": level.needed, "people": list(level.people)}
            for level in verdict.levels
        ],
        "expires_days": verdict.expires_days,
    }


def _approve_by_policy(operation: Operation, demand: Demand) -> None:
    """Queue what a policy approves by itself, or leave it to people when there is no room for it."""
    try:
        # The refusal is kept, and so is in English, whoever asks.
        with translation.override("en"), transaction.atomic():
            move(operation, State.QUEUED, actor=f"policy {demand.policy_name}"[:150])
            place(operation)
    except Denied as denied:
        # The instance says what the rolled back part had set.
        operation.refresh_from_db(fields=["state", "identifiers", "lane", "subject"])
        demand.note = denied.reason
        demand.save(update_fields=["note"])
        audit.record(
            actor=f"policy {demand.policy_name}"[:150],
            verb="operation.left_to_people",
            target=operation,
            after={"reason": denied.reason},
        )


def check_decider(actor: Any, operation: Operation) -> None:
    """Raise Denied, saying why, unless `actor` may decide on `operation` now."""
    if deciders.in_whose_name(actor, operation) is None:
        raise Denied(deciders.why_not(actor, operation))


def decide(
    *, actor: Any, operation: Operation, spec_hash: str, approved: bool, reason: str = ""
) -> Operation:
    """Approve or reject exactly the request whose hash the approver saw.

    An approval serves the level that is open; the last one of the last level lets the kind choose a place
    and hold its capacity. Who may not in their own name decides for a person whose deputy they are. Raises
    Denied when the open level does not ask for the actor, who is the requester, or decided already; when
    the request changed or expired meanwhile, when another was first, or when capacity is short.
    """
    if not approved and not reason.strip():
        raise Denied(_("A rejection needs a reason."))
    with transaction.atomic():
        # Two approvers of one level take turns, so that the second sees what the first did. Alone: what
        # PostgreSQL joined to it would be as it was before the second had to wait.
        current = Operation.objects.select_for_update().get(pk=operation.pk)
        person = deciders.in_whose_name(actor, current)
        if person is None:
            raise Denied(deciders.why_not(actor, current))
        if current.spec_hash != spec_hash:
            raise Denied(_("The request changed since you opened it; look at it again."))
        decision = Decision(
            operation=current,
            approver=actor,
            on_behalf_of_id=None if person == actor.pk else person,
            level=current.demand.level,
            revision=current.revision,
            spec_hash=spec_hash,
            approved=approved,
            reason=reason,
        )
        _carry_on(current, decision)
        decision.save()
        _record(current, decision)
        _tell(current, decision)
        publish(current.topic, ARRIVALS)
    return current


def _carry_on(operation: Operation, decision: Decision) -> None:
    """Move the request as far as `decision` brings it. Raises Denied."""
    if decision.approved and not may_ask(
        operation.requester, operation.kind, operation.project
    ):
        words = _(
            "%(who)s may not ask for this any more: the account is not active, or its role in the project "
            "is gone. Reject the request, or give the role back first."
        )
        raise Denied(words % {"who": operation.requester})
    last = decision.approved and demands.advance(operation)
    if decision.approved and not last:
        return
    try:
        move(operation, State.QUEUED if last else State.REJECTED, actor=decision.approver)
    except StaleAttempt as stale:
        raise Denied(_("Somebody else decided on this request at the same moment.")) from stale
    if last:
        place(operation)


def _tell(operation: Operation, decision: Decision) -> None:
    """Tell the requester, and whoever the request comes to now on its next level."""
    notifying.decided(
        operation, by=decision.approver, approved=decision.approved, reason=decision.reason
    )
    if operation.demand.level != decision.level:
        notifying.waits(operation, by=decision.approver)


def _record(operation: Operation, decision: Decision) -> None:
    audit.record(
        actor=decision.approver,
        verb="operation.approved" if decision.approved else "operation.refused",
        target=operation,
        after={
            "level": decision.level,
            "revision": decision.revision,
            "spec_hash": decision.spec_hash,
            "on_behalf_of": str(decision.on_behalf_of or ""),
            "reason": decision.reason,
        },
    )
