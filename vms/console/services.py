"""Who may open which console, and what is on record about it. Not for: the bytes."""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.audit import services as audit
from portal.core.errors import Denied
from portal.hosts.models import Health
from vms.console.models import ConsoleSession, ConsoleTicket, Kind
from vms.models import Observed, Status, VirtualMachine

LIFETIME = timedelta(seconds=30)

#: Code of a refusal or an end -> what people are told. A code that is not here is told as `failed`.
SENTENCES: Mapping[str, Any] = {
    "off": _("The machine is switched off. Start it, then connect again."),
    "paused": _("The machine is paused. Resume it, then connect again."),
    "unknown": _("It is not known yet whether the machine runs. Wait a moment, then connect again."),
    "not_active": _("The machine is being built or was deleted; it has no console now."),
    "host_stale": _("The machine's host does not answer. The console comes back when the host does."),
    "call_timeout": _("The machine's host did not answer in time. Try again in a moment."),
    "host_unreachable": _("The machine's host cannot be reached. Try again in a moment."),
    "host_key_changed": _("The machine's host shows another key than the confirmed one. Tell your operator."),
    "host_key_unconfirmed": _("Nobody confirmed the key of the machine's host yet. Tell your operator."),
    "name_unknown": _("The name of the machine's host leads to no address. Tell your operator."),
    "no_identity": _("The portal cannot read its own SSH key. Tell your operator."),
    "key_refused": _("The machine's host does not let the portal in any more. Tell your operator."),
    "libvirt_absent": _("The machine's host is up, but libvirt does not run there. Try again in a moment."),
    "libvirt_refused": _("The machine's host does not let the portal use libvirt. Tell your operator."),
    "host_removed": _("The machine's host does not belong to the portal any more. Tell your operator."),
    "host_lost": _("The connection to the machine's host broke. Connect again."),
    "domain_not_found": _("The host does not know this machine any more. Tell your operator."),
    "invalid_state": _("The machine is switched off. Start it, then connect again."),
    "not_supported": _("This host does not offer this console. Try the other one."),
    "screen_refused": _(
        "The host does not show screens to the portal's user there. Use the serial console, and tell your "
        "operator that the user must be in the group that QEMU runs as."
    ),
    "saved": _("The machine is suspended to disk. Start it: it goes on where it was. Then connect again."),
    "ticket": _("The permission to open this console was used already or is too old. Connect again."),
    "right_gone": _("You may not use this machine any more, so its console was closed."),
    "signed_out": _("You are signed out. Sign in again to open the console."),
    "unchecked": _(
        "The portal could not look whether you are still signed in, so the console was closed. Connect again."
    ),
    "replaced": _("Somebody opened this serial console after you; only one can be open at a time."),
    "stuck": _("The machine takes no more input, so the console was closed. Connect again."),
    "busy": _("Too many consoles are open now. Close one and connect again."),
    "stopping": _("The portal's console service is stopping. Connect again in a moment."),
    "broker_away": _(
        "The portal's console service does not run. Try again in a moment, or tell your operator."
    ),
    "broker_lost": _("The portal's console service broke off. Connect again."),
    "closed": _("The host closed the console. Connect again."),
    "left": _("The console was closed."),
    "failed": _("The console broke off. Connect again."),
}
_BY_STATE = {
    Observed.PAUSED: "paused",
    Observed.SAVED: "saved",
    Observed.UNKNOWN: "unknown",
    Observed.MISSING: "domain_not_found",
}


def sentence(code: str) -> str:
    """Return what people are told for `code`."""
    return str(SENTENCES.get(code, SENTENCES["failed"]))


def obstacle(machine: VirtualMachine) -> str:
    """Return the code of what keeps the machine's consoles shut as far as the portal knows, or ''."""
    if machine.status != Status.ACTIVE:
        return "not_active"
    if machine.host.observed_health == Health.STALE:
        return "host_stale"
    if machine.observed_state in (Observed.RUNNING, Observed.SHUTTING_DOWN):
        return ""
    return _BY_STATE.get(Observed(machine.observed_state), "off")


def hash_of(secret: str) -> str:
    """Return what is kept of a ticket's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def issue_ticket(*, actor: Any, machine: VirtualMachine, kind: str) -> str:
    """Return a new ticket's secret: good once, for 30 s, for this person, machine and kind.

    Forgets the person's expired tickets. Raises Denied where the console could not be opened anyway.
    """
    if kind not in Kind.values:
        raise Denied(gettext("There is no such console."))
    if not VirtualMachine.objects.restrict(actor, "use").filter(pk=machine.pk).exists():
        raise Denied(gettext("You may not use this machine."))
    if code := obstacle(machine):
        raise Denied(sentence(code))
    secret = secrets.token_urlsafe(32)
    with transaction.atomic():
        ConsoleTicket.objects.filter(user=actor, expires_at__lt=Now()).delete()
        ConsoleTicket.objects.create(
            secret_hash=hash_of(secret),
            user=actor,
            machine=machine,
            kind=kind,
            expires_at=timezone.now() + LIFETIME,
        )
    return secret


def redeem_ticket(secret: str, user_id: int, machine_id: int, kind: str) -> bool:
    """Use up a ticket; tell whether it was good. Racing callers: exactly one gets True."""
    # Every condition in the one UPDATE: looking first and writing later would let two in.
    good = ConsoleTicket.objects.filter(
        secret_hash=hash_of(secret),
        user_id=user_id,
        machine_id=machine_id,
        kind=kind,
        used_at=None,
        expires_at__gt=Now(),
    )
    return good.update(used_at=Now()) == 1


def standing(user_id: int, machine_id: int) -> str:
    """Return the code of why this person may not hold a console of the machine now, '' when they may.

    Looks at rights and the host's health, not at the machine's power, which the console itself notices.
    """
    user = get_user_model().objects.filter(pk=user_id, is_active=True).first()
    machines = VirtualMachine.objects.restrict(user, "use").select_related("host")
    machine = machines.filter(pk=machine_id).first()
    if machine is None:
        return "right_gone"
    code = obstacle(machine)
    return code if code in ("not_active", "host_stale") else ""


def begin_session(*, user_id: int, machine_id: int, kind: str, broker: str) -> ConsoleSession:
    """Put on record that a console was opened."""
    with transaction.atomic():
        session = ConsoleSession.objects.create(
            user_id=user_id, machine_id=machine_id, kind=kind, broker=broker
        )
        audit.record(actor=session.user, verb="console.opened", target=session.machine, after={"kind": kind})
    return session


def end_session(session_id: int, *, reason: str, typed: int | None, shown: int | None) -> None:
    """Put on record that a console was closed; None for bytes that nobody counted. Idempotent."""
    now = timezone.now()
    with transaction.atomic():
        changed = ConsoleSession.objects.filter(pk=session_id, closed_at=None).update(
            closed_at=now, reason=reason, bytes_typed=typed or 0, bytes_shown=shown or 0
        )
        session = ConsoleSession.objects.select_related("user", "machine").filter(pk=session_id).first()
        if not changed or session is None:
            return
        audit.record(
            actor=session.user,
            verb="console.closed",
            target=session.machine,
            after={
                "kind": session.kind,
                "reason": reason,
                "seconds": round((now - session.opened_at).total_seconds(), 1),
                "bytes_typed": typed,
                "bytes_shown": shown,
            },
        )


def settle_sessions(broker: str) -> int:
    """Close on record what `broker` had open when it was killed; return how many. Idempotent."""
    left = list(ConsoleSession.objects.filter(broker=broker, closed_at=None).values_list("pk", flat=True))
    for session_id in left:
        end_session(session_id, reason="broker_lost", typed=None, shown=None)
    return len(left)
