"""Change a request while it waits: its requester edits it, who may decide lowers it.

Not for: deciding, nor for what may be asked, which the kind's own service checks before it comes here.
"""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.audit import services as audit
from portal.core.errors import Denied
from portal.live.publish import publish
from portal.operations import ledger, notifying, services
from portal.operations.models import Operation, RequestRevision
from portal.operations.policies import consent
from portal.operations.registry import Asking, kind_of, lock_subject, may_ask
from portal.operations.spec import RequestSpec
from portal.operations.states import State

Change = RequestRevision.Change


@transaction.atomic
def edit(
    *, actor: Any, operation: Operation, spec_hash: str, spec: RequestSpec, title: str = ""
) -> Operation:
    """Replace one's own waiting request, whose hash one saw, by `spec`; whoever approved it must look again.

    Its quota is held anew. Raises Denied, and then nothing is changed: for somebody else's request, one
    that changed or was decided on meanwhile, and when the quota is too small. Idempotent: the same `spec`
    again makes no new revision.
    """
    if refusal := edit_forbidden(actor, operation):
        raise Denied(refusal)
    if spec.kind != operation.kind:
        raise Denied(_("A request cannot become one of another kind."))
    current = _waiting(operation, spec_hash)
    # A policy may approve the edit at once, in this transaction.
    lock_subject(current)
    if spec.hash() == current.spec_hash:
        return current
    _replace(
        current,
        spec,
        author=actor,
        change=Change.EDITED,
        title=Operation.cut(title or current.title),
        asked_revision=current.revision + 1,
    )
    # What is asked for now may be another policy's, and other people's, to decide.
    consent.ask(current, actor=actor, amounts=_asking(current).amounts(current, spec.sizes))
    return current


def edit_forbidden(actor: Any, operation: Operation) -> str:
    """Return why `actor` cannot edit `operation` now, '' when they can."""
    if operation.requester_id != actor.pk:
        return _("Only who asked can edit a request.")
    if not may_ask(actor, operation.kind, operation.project):
        return _("You may not ask for anything in %(project)s.") % {"project": operation.project}
    return _already(operation)


@transaction.atomic
def lower(
    *, actor: Any, operation: Operation, spec_hash: str, sizes: Mapping[str, int], note: str = ""
) -> Operation:
    """Make a waiting request, whose hash one saw, smaller; who approved it already agreed to more.

    `sizes` are the new ones; what is not named stays. Raises Denied for a person who may not decide on it
    now, a size that is larger or that the request does not have, and a request that could not be built.
    """
    current = _lower(actor, operation, spec_hash, sizes, note)
    notifying.lowered(current, by=actor, note=note)
    return current


def _lower(
    actor: Any, operation: Operation, spec_hash: str, sizes: Mapping[str, int], note: str
) -> Operation:
    """Lower without a word to the requester: who approves in the same moment tells both at once."""
    current = _waiting(operation, spec_hash)
    # Once it is locked: an approval of this moment may have opened the next level, which others decide on.
    services.check_decider(actor, current)
    before = current.frozen
    lowered = _lowered(before, sizes)
    _asking(current).check_lowered(lowered.as_dict())
    _replace(current, lowered, author=actor, change=Change.LOWERED, note=note.strip())
    ledger.shrink(current, _asking(current).amounts(current, lowered.sizes))
    return current


@transaction.atomic
def lower_and_approve(
    *, actor: Any, operation: Operation, spec_hash: str, sizes: Mapping[str, int], reason: str = ""
) -> Operation:
    """Lower a request and approve what is left of it: both, or neither. Raises Denied as both do."""
    # The operation first, as everywhere, then the others: two approvers must not wait for each other.
    current = Operation.objects.select_for_update().get(pk=operation.pk)
    ledger.lock_ahead(current)
    current = _lower(actor, current, spec_hash, sizes, reason)
    return services.decide(
        actor=actor, operation=current, spec_hash=current.spec_hash, approved=True, reason=reason
    )


def _waiting(operation: Operation, spec_hash: str) -> Operation:
    """Return the request as it is now, locked. Raises Denied when it is not the one that was seen."""
    current = Operation.objects.select_for_update().get(pk=operation.pk)
    if decided := _already(current):
        raise Denied(decided)
    if current.spec_hash != spec_hash:
        raise Denied(_("The request changed since you opened it; look at it again."))
    return current


def _already(operation: Operation) -> str:
    if operation.state == State.AWAITING_APPROVAL:
        return ""
    return _("This request is already %(state)s.") % {"state": State(operation.state).label.lower()}


def _asking(operation: Operation) -> Asking:
    asking = kind_of(operation.kind).asking
    if asking is None:
        raise Denied(_("Requests of this kind cannot be changed; withdraw it and ask again."))
    return asking


def _lowered(frozen: Mapping[str, Any], sizes: Mapping[str, int]) -> RequestSpec:
    """Return the request with `sizes`. Raises Denied unless it is smaller somewhere and larger nowhere."""
    old = RequestSpec(kind=frozen["kind"], sizes=frozen["sizes"], pinned=frozen["pinned"])
    for name, value in sizes.items():
        if name not in old.sizes:
            raise Denied(_("The request has no size called %(name)s.") % {"name": name})
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise Denied(_("This must be more than nothing."), field=name)
        if value > old.sizes[name]:
            raise Denied(_("This is more than was asked for; only less can be given."), field=name)
    new = RequestSpec(kind=old.kind, sizes={**old.sizes, **sizes}, pinned=old.pinned)
    if not old.covers(new):
        raise Denied(_("The lowered request is not covered by what was asked."))
    if new.hash() == old.hash():
        raise Denied(_("Nothing was lowered."))
    return new


def _replace(
    current: Operation, spec: RequestSpec, *, author: Any, change: Change, note: str = "", **fields: Any
) -> None:
    """Write the new revision, unless somebody else moved or changed the request since it was read."""
    before = {"revision": current.revision, "spec": current.frozen}
    changes = {
        "spec": spec.text(),
        "spec_hash": spec.hash(),
        "revision": current.revision + 1,
        **fields,
    }
    replaced = Operation.objects.filter(
        pk=current.pk,
        state=State.AWAITING_APPROVAL,
        revision=current.revision,
        spec_hash=current.spec_hash,
    ).update(**changes)
    if not replaced:
        raise Denied(_("Somebody else changed or decided on this request at the same moment."))
    # The first revision needs no row until there is a second one.
    RequestRevision.objects.get_or_create(
        operation=current,
        number=current.revision,
        defaults={
            "change": Change.ASKED,
            "author_id": current.requester_id,
            "spec": current.spec,
            "spec_hash": current.spec_hash,
            "at": current.created_at,
        },
    )
    for name, value in changes.items():
        setattr(current, name, value)
    RequestRevision.objects.create(
        operation=current,
        number=current.revision,
        change=change,
        author=author,
        spec=current.spec,
        spec_hash=current.spec_hash,
        note=note,
        at=timezone.now(),
    )
    audit.record(
        actor=author,
        verb=f"operation.{change}",
        target=current,
        before=before,
        after={"revision": current.revision, "spec": spec.as_dict(), "spec_hash": current.spec_hash},
    )
    publish(current.topic)
