"""The end of leases: warn, switch off, put into the bin. Not for: extending them, nor deleting for good.

Everything here is begun by the scheduler. Several of them may run at once: each machine is taken in a
transaction of its own, and looked at again once its row is locked.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import CharField, Exists, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Cast, Concat
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from portal.accounts import notices
from portal.audit import services as audit
from portal.core.errors import Denied
from portal.core.web.middleware import zone_of
from portal.hosts.models import Health
from portal.live.publish import publish
from portal.operations.models import Operation
from portal.operations.states import UNFINISHED, State
from vms import power
from vms.models import Observed, Status, VirtualMachine

#: Before a lease ends, when its owner is told.
WARN_DAYS = (14, 7, 1)
#: After the end, while the machine is off and waits for an extension.
GRACE_DAYS = 7
#: What a guest gets to shut down by itself, and an observation to tell of it, before it is forced off.
PATIENCE = timedelta(minutes=5)
#: After something failed, before it is tried again; each failure is a notice to the owner.
TRY_AGAIN = timedelta(hours=6)
#: Machines that one round takes of each kind; the next round takes the others.
BATCH = 100
#: How often a guest is asked to shut down, where the host could not pass that on.
ASKED = 2

LEASE = "machine.lease"
NOTICE = notices.Kind(LEASE, gettext_lazy("the lease of a machine of mine ends soon, or has ended"))
_ASK, _FORCE = "vm.shutdown", "vm.destroy"


def nearest(left: timedelta) -> int | None:
    """Return the nearest of WARN_DAYS that does not lie ahead with `left` to go, None when all of them do."""
    return min((days for days in WARN_DAYS if left <= timedelta(days=days)), default=None)


def keep() -> None:
    """Warn of leases that end soon, and do what follows from those that ended. Idempotent."""
    warn()
    end()
    switch_off()
    put_into_bin()


def warn() -> int:
    """Tell the owners of machines whose lease ends soon, once each of WARN_DAYS; return how many."""
    now = timezone.now()
    due = Q()
    for days in WARN_DAYS:
        untold = Q(lease_warned=None) | Q(lease_warned__gt=days)
        due |= untold & Q(lease_until__lte=now + timedelta(days=days))

    def tell(machine: VirtualMachine) -> None:
        left = machine.lease_until - now
        machine.lease_warned = nearest(left)
        machine.save(update_fields=["lease_warned"])
        days = -(-left // timedelta(days=1))
        words = {"name": machine.name, "days": days}
        text = ngettext(
            "The lease of %(name)s ends in %(days)d day.",
            "The lease of %(name)s ends in %(days)d days.",
            days,
        )
        detail = _(
            "It ends on %(end)s. Then the machine is switched off, and %(grace)d days later it goes into the "
            "bin. If you still need it, ask for an extension on its page."
        )
        _tell(machine, text % words, detail, machine.lease_until)

    return _each(_active().filter(due, lease_until__gt=now), tell)


def end() -> int:
    """Note and tell that leases ended, from when on the days of grace count; return how many."""
    now = timezone.now()

    def note(machine: VirtualMachine) -> None:
        machine.lease_bin_at = now + timedelta(days=GRACE_DAYS)
        machine.save(update_fields=["lease_bin_at"])
        dates = {"lease_until": machine.lease_until.isoformat(), "bin_at": machine.lease_bin_at.isoformat()}
        audit.record(actor="scheduler", verb="machine.lease_ended", target=machine, after=dates)
        detail = _(
            "The machine is switched off and cannot be started until an extension is approved. Without one "
            "it goes into the bin on %(end)s."
        )
        text = _("The lease of %(name)s ended.") % {"name": machine.name}
        _tell(machine, text, detail, machine.lease_bin_at)

    return _each(_active().filter(lease_until__lte=now, lease_bin_at=None), note)


def switch_off() -> int:
    """Ask guests whose lease ended to shut down, and force off those that did not; return how many."""
    now = timezone.now()
    told_before = {"lease_bin_at__lte": now + timedelta(days=GRACE_DAYS) - PATIENCE}
    on = Q(observed_state__in=(Observed.RUNNING, Observed.PAUSED))
    on |= Q(observed_state=Observed.SHUTTING_DOWN, **told_before)
    asked = Q(kind=_ASK, finished_at__gt=now - PATIENCE)
    forced = Q(kind=_FORCE, finished_at__gt=now - TRY_AGAIN)
    # What was done before the end has nothing to do with it.
    lately = (asked | forced | _failed(_ASK, now)) & Q(created_at__gte=OuterRef("lease_until"))

    def begin(machine: VirtualMachine) -> None:
        power.begin_by_itself(machine, _way_off(machine))

    return _each(_over(now, lately).filter(on), begin)


def put_into_bin() -> int:
    """Put machines whose days of grace are over into the bin; return how many are on their way."""
    now = timezone.now()

    def begin(machine: VirtualMachine) -> None:
        power.begin_by_itself(machine, "bin")
        text = _("%(name)s goes into the bin: its lease ended and was not extended.")
        detail = _(
            "It can be taken out of the bin until %(end)s, and its lease be extended then. After that it is "
            "deleted for good, with its disks."
        )
        _tell(machine, text % {"name": machine.name}, detail, now + timedelta(days=power.BIN_DAYS))

    return _each(_over(now, _failed("vm.bin", now)).filter(lease_bin_at__lte=now), begin)


def _way_off(machine: VirtualMachine) -> str:
    """Return the verb that switches the machine off now: a guest is asked first, if it can hear that."""
    asked = Operation.objects.filter(subject=machine.topic, kind=_ASK, created_at__gte=machine.lease_until)
    states = list(asked.values_list("state", flat=True))
    heard = State.SUCCEEDED in states or len(states) >= ASKED
    return "destroy" if heard or machine.observed_state != Observed.RUNNING else "shutdown"


def _active() -> QuerySet[VirtualMachine]:
    """Return the machines that are neither being built nor in the bin, first those whose lease ends first."""
    return VirtualMachine.objects.filter(status=Status.ACTIVE).order_by("lease_until", "pk")


def _over(now: datetime, lately: Q) -> QuerySet[VirtualMachine]:
    """Return machines whose lease ended and on which something can be done now.

    Not those behind a host that does not answer, nor those with work under way or, of late, as `lately` says.
    """
    work = Operation.objects.filter(
        Q(state__in=UNFINISHED) | lately,
        subject=Concat(Value("vms.machine:"), Cast(OuterRef("pk"), CharField())),
    )
    over = {"lease_until__lte": now, "lease_bin_at__isnull": False, "host__observed_health": Health.UP}
    return _active().filter(~Exists(work), **over)


def _failed(kind: str, now: datetime) -> Q:
    """Return the condition on work that failed too short a time ago to be tried again."""
    return Q(kind=kind, state=State.FAILED, finished_at__gt=now - TRY_AGAIN)


def _each(found: QuerySet[VirtualMachine], act: Callable[[VirtualMachine], None]) -> int:
    """Let `act` have each machine of `found`, locked, and return how many it took.

    One that refuses keeps nobody else.
    """
    taken = 0
    for pk in list(found.values_list("pk", flat=True)[:BATCH]):
        with suppress(Denied), transaction.atomic():
            VirtualMachine.objects.select_for_update().filter(pk=pk).first()
            # Asked anew behind the lock: another scheduler, or an extension, may have been first.
            current = found.filter(pk=pk).first()
            if current is not None:
                act(current)
                taken += 1
    return taken


def _tell(machine: VirtualMachine, text: str, detail: str, at: datetime) -> None:
    """Tell the owner, with `at` in the zone of their own, and the pages that show the machine."""
    local = timezone.localtime(at, zone_of(machine.owner, {}))
    when = f"{date_format(local, 'j M Y H:i')} {local.tzname()}"
    notices.notify(
        people=[machine.owner],
        kind=LEASE,
        text=text,
        detail=detail % {"end": when, "grace": GRACE_DAYS},
        link=reverse("vms:detail", args=[machine.pk]),
        about=machine.topic,
    )
    publish(machine.topic)
