"""Talk about a request, on its own page. Not for: decisions, which have a reason of their own."""

from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.audit import services as audit
from portal.core.errors import Denied
from portal.live.publish import publish
from portal.operations import notifying, services
from portal.operations.models import Comment, Operation

#: Characters of one comment.
LONGEST = 4000


def silence(actor: Any, operation: Operation) -> str:
    """Return why `actor` may not comment on `operation`, '' when they may."""
    concerned = operation.requester_id == actor.pk
    if concerned or any(may(actor, action, operation.project) for action in ("operate", "approve")):
        return ""
    try:
        services.check_decider(actor, operation)
    except Denied:
        return _("Only who asked, who decides and operators may comment here.")
    return ""


@transaction.atomic
def comment(*, actor: Any, operation: Operation, text: str) -> Comment:
    """Add plain text to the discussion of `operation`, also after its end. Raises Denied. Not idempotent."""
    if refusal := silence(actor, operation):
        raise Denied(refusal)
    said = text.replace("\r\n", "\n").strip()
    if not said:
        raise Denied(_("Write something first."), field="text")
    if len(said) > LONGEST:
        raise Denied(
            _("A comment has at most %(count)d characters; this one has %(length)d.")
            % {"count": LONGEST, "length": len(said)},
            field="text",
        )
    if "\0" in said:
        raise Denied(_("Null characters cannot be kept; remove them."), field="text")
    made = Comment.objects.create(operation=operation, author=actor, text=said)
    audit.record(
        actor=actor, verb="operation.commented", target=operation, after={"comment": made.pk, "text": said}
    )
    notifying.commented(made)
    publish(operation.topic)
    return made
