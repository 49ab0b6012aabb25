"""Tell people what becomes of requests and operations. Not for: how, which `accounts.notices` knows.

Every call joins the transaction of the change that it tells of.
"""

from collections.abc import Iterable
from typing import Any

from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.accounts import notices
from portal.accounts.models import User
from portal.operations.messages import sentence
from portal.operations.models import Comment, Delegation, Operation, RequestRevision
from portal.operations.policies.deciders import concerned
from portal.operations.registry import kind_of
from portal.operations.states import State

WAITS, DECIDED, COMMENTED, ENDED = "request.waits", "request.decided", "request.comment", "operation.ended"
DEPUTY = "delegation.made"
KINDS = (
    notices.Kind(WAITS, gettext_lazy("a request waits for my decision")),
    notices.Kind(DECIDED, gettext_lazy("my request is approved, lowered, rejected or expires")),
    notices.Kind(DEPUTY, gettext_lazy("somebody names me their deputy, or ends that")),
    notices.Kind(COMMENTED, gettext_lazy("somebody comments on a request that I take part in")),
    notices.Kind(ENDED, gettext_lazy("what I asked for is done, or failed")),
)


def waits(operation: Operation, *, by: Any = None) -> None:
    """Tell those who can decide now that `operation` waits for them, once each time it comes to somebody."""
    if operation.state != State.AWAITING_APPROVAL:
        return
    # Whom it waited for until now, it may not wait for any more.
    settled(operation)
    _tell(
        operation,
        concerned(operation),
        kind=WAITS,
        by=by,
        text=_("%(who)s asks: %(what)s") % {"who": operation.requester, "what": operation},
        detail=str(operation.frozen["pinned"].get("why", "")),
    )


def settled(operation: Operation) -> None:
    """Take back that `operation` waits for anybody."""
    notices.take_back(kind=WAITS, about=operation.topic)


def decided(operation: Operation, *, by: Any, approved: bool, reason: str = "") -> None:
    """Tell the requester that `operation` was approved or rejected, for good or on one level."""
    if operation.state == State.AWAITING_APPROVAL:
        # It still waits for others of the level, but not for who decided.
        notices.take_back(kind=WAITS, about=operation.topic, person=by)
    lowered = operation.revisions.filter(
        number=operation.revision, change=RequestRevision.Change.LOWERED, author=by
    )
    # The first revision is what was asked.
    if approved and operation.revision > 1 and lowered.exists():
        text = _("%(who)s lowered and approved: %(what)s")
        if operation.state == State.AWAITING_APPROVAL:
            text = _("%(who)s lowered and approved, others decide next: %(what)s")
    elif operation.state == State.AWAITING_APPROVAL:
        text = _("%(who)s approved, others decide next: %(what)s")
    else:
        text = _("%(who)s approved: %(what)s") if approved else _("%(who)s rejected: %(what)s")
    text %= {"who": by, "what": operation}
    _tell(operation, [operation.requester], kind=DECIDED, by=by, text=text, detail=reason)


def lowered(operation: Operation, *, by: Any, note: str = "") -> None:
    """Tell the requester that `operation` was made smaller."""
    text = _("%(who)s lowered: %(what)s") % {"who": by, "what": operation}
    _tell(operation, [operation.requester], kind=DECIDED, by=by, text=text, detail=note)


def deputy(delegation: Delegation, *, by: Any, text: str) -> None:
    """Tell the deputy that somebody named them, or ended that."""
    notices.notify(
        people=[delegation.deputy],
        kind=DEPUTY,
        by=by,
        text=text % {"who": delegation.person},
        link=reverse("operations:deputies"),
        about=f"operations.delegation:{delegation.pk}",
    )


def commented(comment: Comment) -> None:
    """Tell the others who take part in the discussion: who asked, who decided, who commented before."""
    operation = comment.operation
    part = Q(pk=operation.requester_id) | Q(
        pk__in=operation.decisions.values("approver")
    ) | Q(pk__in=Comment.objects.filter(operation=operation).values("author"))
    _tell(
        operation,
        User.objects.filter(part, is_active=True).distinct(),
        kind=COMMENTED,
        by=comment.author,
        text=_("%(who)s commented on: %(what)s") % {"who": comment.author, "what": operation},
        detail=comment.text,
    )


def moved(operation: Operation, to: State, *, by: Any) -> None:
    """Tell the requester what became of `operation`, which comes to `to` now."""
    if operation.state == State.AWAITING_APPROVAL:
        settled(operation)
    kind, what = kind_of(operation.kind), {"what": operation}
    if to == State.EXPIRED:
        detail = _("Nobody decided in time. Ask again if you still need it.")
        _own(operation, DECIDED, _("Expired: %(what)s") % what, detail)
    elif to == State.SUCCEEDED and kind.announce:
        name = operation.frozen["pinned"].get("name", operation)
        _own(operation, ENDED, kind.announce % {"name": name}, link=kind.page(operation))
    elif to == State.FAILED:
        failed = operation.steps.exclude(error_code="").order_by("index").last()
        detail = sentence(failed.error_code, failed.error_raw) if failed else ""
        _own(operation, ENDED, _("Failed: %(what)s") % what, detail)
    elif to == State.CANCELLING:
        text = _("%(who)s takes back: %(what)s") % {"who": by, "what": operation}
        _own(operation, ENDED, text, by=by)
    elif to == State.CANCELLED and operation.state == State.QUEUED:
        _own(operation, ENDED, _("%(who)s cancelled: %(what)s") % {"who": by, "what": operation}, by=by)


def _own(
    operation: Operation, kind: str, text: str, detail: str = "", *, link: str = "", by: Any = None
) -> None:
    _tell(operation, [operation.requester], kind=kind, text=text, detail=detail, link=link, by=by)


def _tell(operation: Operation, people: Iterable[User], *, kind: str, link: str = "", **more: Any) -> None:
    notices.notify(
        people=people,
        kind=kind,
        link=link or reverse("operations:detail", args=[operation.pk]),
        about=operation.topic,
        **more,
    )
