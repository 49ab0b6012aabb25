"""Name a deputy for the time that one is away, and end that. Not for: what a deputy may, see `deciders`."""

from datetime import date, datetime, time, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from portal.accounts.backends import may
from portal.accounts.context import abilities
from portal.accounts.models import User
from portal.audit import services as audit
from portal.core.errors import Denied
from portal.operations import notifying
from portal.operations.policies.models import Delegation, DemandLevel, PolicyLevel

LONGEST = 366  # days


def nothing_to_hand_over(person: Any) -> str:
    """Return why `person` needs no deputy, '' when they decide on something."""
    if abilities(person)["approve"]:
        return ""
    if any(model.objects.filter(people=person.pk).exists() for model in (PolicyLevel, DemandLevel)):
        return ""
    return _("You decide on no requests, so there is nothing to hand over.")


@transaction.atomic
def delegate(*, actor: Any, deputy: User, first: date, last: date) -> Delegation:
    """Let `deputy` decide for `actor` from the start of `first` to the end of `last`, in the reader's zone.

    Nobody has two deputies at a time, and a deputy's own deputy decides nothing for `actor`. Raises Denied.
    """
    if reason := nothing_to_hand_over(actor):
        raise Denied(reason)
    if deputy.pk == actor.pk:
        raise Denied(_("You cannot stand in for yourself."), field="deputy")
    if not deputy.is_active:
        raise Denied(_("%(person)s is deactivated and cannot decide.") % {"person": deputy}, field="deputy")
    if last < first:
        raise Denied(_("The last day is before the first."), field="last")
    if last < timezone.localdate():
        raise Denied(_("This time is over already."), field="last")
    if (last - first).days >= LONGEST:
        raise Denied(_("A deputy is named for at most %d days.") % LONGEST, field="last")
    starts_at, ends_at = _midnight(first), _midnight(last + timedelta(days=1))
    # Two forms at once must not make two deputies.
    User.objects.select_for_update(no_key=True).get(pk=actor.pk)
    other = Delegation.objects.filter(person=actor, starts_at__lt=ends_at, ends_at__gt=starts_at).first()
    if other is not None:
        name = {"deputy": other.deputy}
        raise Denied(_("%(deputy)s stands in for you at that time already; end that first.") % name)
    made = Delegation.objects.create(person=actor, deputy=deputy, starts_at=starts_at, ends_at=ends_at)
    audit.record(actor=actor, verb="delegation.made", target=made, after=_snapshot(made))
    text = _("You stand in for %(who)s: decide in their name while they are away.")
    notifying.deputy(made, by=actor, text=text)
    return made


@transaction.atomic
def end_delegation(*, actor: Any, delegation: Delegation) -> None:
    """Let the deputy decide no more from now on. Idempotent. Raises Denied for somebody else's."""
    if delegation.person_id != actor.pk and not may(actor, "administer", None):
        raise Denied(_("Only who is away, or an admin of every project, can end this."))
    current = Delegation.objects.select_for_update().get(pk=delegation.pk)
    now = timezone.now()
    if current.ends_at <= now:
        return
    before = _snapshot(current)
    current.starts_at = min(current.starts_at, now)
    current.ends_at = now
    current.save(update_fields=["starts_at", "ends_at"])
    audit.record(
        actor=actor, verb="delegation.ended", target=current, before=before, after=_snapshot(current)
    )
    notifying.deputy(current, by=actor, text=_("You stand in for %(who)s no longer."))


def open_delegations(person: Any) -> Any:
    """Return what runs or will run, of `person` or for them, the next first."""
    found = Delegation.objects.restrict(person, "view").filter(ends_at__gt=timezone.now())
    return found.select_related("person", "deputy").order_by("starts_at", "pk")


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def _snapshot(delegation: Delegation) -> dict[str, str]:
    return {
        "person": delegation.person.get_username(),
        "deputy": delegation.deputy.get_username(),
        "from": delegation.starts_at.isoformat(),
        "until": delegation.ends_at.isoformat(),
    }
