"""Live pieces of operations, and what their page shows."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.live.panels import Panel, register, row_keys
from portal.operations import batches, inbox, revisions, services, words
from portal.operations.dispatch import ARRIVALS
from portal.operations.messages import sentence
from portal.operations.models import Operation, StepRecord, batch_topic
from portal.operations.policies import deciders
from portal.operations.policies.demands import summary
from portal.operations.registry import kind_of, may_ask
from portal.operations.remedies import remedy_for
from portal.operations.states import FINAL, WORKING, State

Stage = StepRecord.Stage
_TONE_OF_STAGE = {Stage.INTENDED: "busy", Stage.DONE: "good", Stage.UNDONE: "off"}


def progress(operation: Operation, user: Any = None) -> dict[str, Any]:
    """Return the steps of `operation` with how far it is in percent and how long it took in seconds.

    `user` is who looks: they are led to where they may mend what made it fail.
    """
    records = {record.name: record for record in operation.steps.all()}
    steps, done, error, code = [], 0.0, "", ""
    planned = kind_of(operation.kind).steps
    for step in planned:
        record = records.get(step.name)
        done += _share(record)
        if record and record.error_code:
            code = record.error_code
            error = sentence(code, record.error_raw)
        steps.append(
            {
                "title": step.title,
                "tone": _TONE_OF_STAGE[Stage(record.stage)] if record else "unknown",
                "word": record.get_stage_display() if record else "",
                "raw": record.error_raw if record else "",
                "record": record,
                "percent": record.percent if record and record.stage == Stage.INTENDED else None,
                "remark": sentence(record.remark) if record else "",
            }
        )
    begun = min((record.started_at for record in records.values() if record.started_at), default=None)
    end = operation.finished_at or timezone.now()
    return {
        "operation": operation,
        "tone": operation.tone,
        "steps": steps,
        "percent": round(100 * done / len(planned)) if planned else 100,
        "elapsed": end - begun if begun else None,
        "error": error,
        "remedy": remedy_for(user, code),
        "moving": operation.state in WORKING or operation.state == State.QUEUED,
        "over": operation.state in FINAL,
        "left": [step["title"] for step in steps if step["tone"] in {"busy", "good"}]
        if operation.state in {State.UNDOING, State.CANCELLING, State.LOST}
        else [],
        "lost": _lost(operation),
        "together": batches.batch_of(operation),
        "leads_to": kind_of(operation.kind).page(operation),
    }


def together(user: Any, batch: Any) -> batches.Overview | None:
    """Return how far those operations of a batch are that `user` may see, None where they see none."""
    found = list(visible(user).filter(batch=batch).order_by("pk").prefetch_related("steps"))
    return batches.overview(batch, found) if found else None


def _together(user: Any, ids: Sequence[str]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for identity in ids:
        with suppress(ValueError):
            if overview := together(user, uuid.UUID(identity)):
                context = {"overview": overview}
                shown[identity] = render_to_string("operations/together_rows.html", context)
    return shown


def _share(record: StepRecord | None) -> float:
    """Return how much of a step is done, from 0 to 1."""
    if record is None or record.stage == Stage.UNDONE:
        return 0
    return 1 if record.stage == Stage.DONE else (record.percent or 0) / 100


def _lost(operation: Operation) -> str:
    """Say what becomes of an operation whose host is away, '' for any other."""
    if operation.state != State.LOST:
        return ""
    if operation.lost_from == State.RUNNING:
        return _("The host is away. The work goes on by itself when it is back; what was promised is kept.")
    return _("The host is away. What is left there is taken back by itself when it is back.")


def visible(user: Any) -> Any:
    """Return the operations that `user` may see, with what pages show of them."""
    return Operation.objects.restrict(user, "view").select_related("project", "requester")


def asked(operation: Operation) -> dict[str, Any]:
    """Return what was asked and what each revision changed."""
    revisions = list(operation.revisions.select_related("author"))
    return {
        "operation": operation,
        "facts": words.facts(operation.frozen),
        "history": words.history(revisions),
    }


def comments(operation: Operation) -> dict[str, Any]:
    """Return what was said about `operation`, oldest first."""
    return {"operation": operation, "comments": operation.comments.select_related("author")}


def actions(user: Any, operation: Operation) -> list[dict[str, Any]]:
    """Return what `user` may do with `operation`, with why it cannot be done now."""
    found: list[dict[str, Any]] = []
    mine = operation.requester_id == user.pk
    asking = kind_of(operation.kind).asking
    if asking is not None and mine:
        denied = revisions.edit_forbidden(user, operation)
        url = asking.edit_url(operation)
        found.append({"label": _("Edit"), "icon": "pencil", "url": url, "denied": denied})
    if asking is not None and may_ask(user, operation.kind, operation.project):
        url = asking.copy_url(operation)
        found.append({"label": _("Copy"), "icon": "copy", "url": url, "denied": ""})
    if asking is not None and mine:
        url = reverse("operations:withdraw", args=[operation.pk])
        denied = services.why_not_withdraw(operation)
        label = _("Withdraw")
        found.append({"label": label, "icon": "trash", "url": url, "denied": denied, "post": True})
    queued = operation.state == State.QUEUED
    # Of what waits for a worker, to withdraw and to cancel are one thing to its requester.
    withdrawn = queued and asking is not None and mine
    if not withdrawn and not services.why_not_cancel(user, operation):
        url = reverse("operations:cancel", args=[operation.pk])
        label = _("Cancel") if queued else _("Cancel and take back what was made")
        found.append({"label": label, "icon": "arrow-back-up", "url": url, "denied": "", "post": True})
    return found


def arrived(user: Any, newest: int) -> dict[str, int]:
    """Return how many requests came to `user` after the one with the key `newest`."""
    waiting = deciders.waiting_for(user).filter(pk__gt=newest)
    return {"newest": newest, "arrived": waiting.count()}


def card_context(card: inbox.Card) -> dict[str, Any]:
    """Return what a card's templates need."""
    return {
        "card": card,
        "tone": card.operation.tone,
        "why_label": words.why_label(),
    }


def _render(user: Any, ids: Sequence[str]) -> dict[str, str]:
    found = Operation.objects.restrict(user, "view").filter(pk__in=row_keys(ids)).prefetch_related("steps")
    return {
        str(item.pk): render_to_string("operations/progress.html", {"progress": progress(item, user)})
        for item in found
    }


def _render_consent(user: Any, ids: Sequence[str]) -> dict[str, str]:
    found = Operation.objects.restrict(user, "view").filter(pk__in=row_keys(ids), demand__isnull=False)
    return {
        str(item.pk): render_to_string("operations/consent.html", {"consent": summary(item)})
        for item in found.select_related("project", "requester")
    }


Context = Callable[[Any, Operation], dict[str, Any]]
Render = Callable[[Any, Sequence[str]], dict[str, str]]


def _each(template: str, context: Context) -> Render:
    """Return how a panel about one operation is rendered; pages show one at a time."""

    def render(user: Any, ids: Sequence[str]) -> dict[str, str]:
        found = visible(user).filter(pk__in=row_keys(ids))
        return {str(item.pk): render_to_string(template, context(user, item)) for item in found}

    return render


def _cards(template: str) -> Render:
    """Return how a panel is rendered whose id is a request's key and the revision that the page shows."""

    def render(user: Any, ids: Sequence[str]) -> dict[str, str]:
        asked = {identity: _revision(identity) for identity in ids}
        shown = dict(asked.values())
        found = visible(user).filter(pk__in=shown)
        cards = {card.operation.pk: card for card in inbox.cards(user, list(found), shown=shown)}
        return {
            identity: render_to_string(template, card_context(cards[pk]))
            for identity, (pk, _revision_shown) in asked.items()
            if pk in cards
        }

    return render


def _revision(identity: str) -> tuple[int, int]:
    """Return the key and the revision of '12-3', 0 for what is none: it comes from browsers."""
    key, _dash, revision = identity.partition("-")
    return sum(row_keys([key])), sum(row_keys([revision]))


def _arrivals(user: Any, ids: Sequence[str]) -> dict[str, str]:
    found = {str(newest): arrived(user, newest) for newest in row_keys(ids)[:1]}
    return {
        identity: render_to_string("operations/arrivals.html", context)
        for identity, context in found.items()
    }


def _topic(identity: str) -> list[str]:
    return [f"operations.operation:{identity.partition('-')[0]}"]


def _awaited(user: Any, ids: Sequence[str]) -> dict[str, str]:
    html = render_to_string("operations/awaited.html", {"waiting": deciders.waiting_for(user).count()})
    return {identity: html for identity in ids[:1]}


def register_panels() -> None:
    """Make the panels known to the live socket."""
    register(Panel("operations.consent", _render_consent, _topic))
    register(Panel("operations.progress", _render, _topic))
    register(Panel("operations.together", _together, lambda identity: [batch_topic(identity)]))
    each: dict[str, tuple[str, Context]] = {
        "operations.asked": ("asked", lambda _user, item: asked(item)),
        "operations.discussion": ("comments", lambda _user, item: comments(item)),
        "operations.actions": (
            "actions",
            lambda user, item: {"operation": item, "actions": actions(user, item)},
        ),
    }
    for name, (template, context) in each.items():
        register(Panel(name, _each(f"operations/{template}.html", context), _topic))
    register(Panel("operations.waiting", _cards("operations/waiting.html"), _topic))
    register(Panel("operations.deciding", _cards("operations/deciding_card.html"), _topic))
    register(Panel("operations.arrivals", _arrivals, lambda _identity: [ARRIVALS]))
    register(Panel("operations.awaited", _awaited, lambda _identity: [ARRIVALS]))
