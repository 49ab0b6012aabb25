"""Take from counters, give back, turn promised into used. Every call joins the caller's transaction.

Taking is one conditional UPDATE, never SUM-then-insert: the database serialises it on SQLite and
PostgreSQL alike. Counters are always touched in order of their key, so that two takers cannot deadlock.
"""

from collections.abc import Collection, Mapping

from django.db import transaction
from django.db.models import F

from portal.core.errors import Denied
from portal.operations.models import Counter, Operation, Reservation

Amounts = Mapping[tuple[str, str], int]


def hold(operation: Operation, amounts: Amounts) -> None:
    """Hold `amounts` ({(scope, resource): amount}) for `operation`, all or nothing.

    A scope and resource without a counter are unlimited. Raises Denied naming the first counter that is
    too small, and ValueError for an amount under one. Not idempotent: a second hold violates a constraint.
    """
    with transaction.atomic():
        counters = {(counter.scope, counter.resource): counter for counter in _counters(amounts)}
        for key, counter in counters.items():
            amount = amounts[key]
            if amount < 1:
                raise ValueError(f"cannot hold {amount} of {key}")
            taken = Counter.objects.filter(
                pk=counter.pk, limit__gte=F("held") + F("used") + amount
            ).update(held=F("held") + amount)
            if not taken:
                counter.refresh_from_db()
                raise Denied(shortage(counter, amount))
            Reservation.objects.create(operation=operation, counter=counter, amount=amount)


def release(operation: Operation) -> None:
    """Give back what `operation` still holds. Idempotent; what is in use stays in use."""
    _settle(operation, Reservation.Stage.RELEASED)


def use(operation: Operation) -> None:
    """Turn what `operation` holds into used. Idempotent."""
    _settle(operation, Reservation.Stage.USED)


def give_back(operation: Operation, *, keep: Collection[str] = ()) -> None:
    """Free what `operation` has in use, but for the resources in `keep`. Idempotent."""
    with transaction.atomic():
        used = operation.reservations.filter(stage=Reservation.Stage.USED).order_by("counter_id")
        for reservation in used.exclude(counter__resource__in=keep):
            if _step(reservation, Reservation.Stage.RELEASED):
                Counter.objects.filter(pk=reservation.counter_id).update(used=F("used") - reservation.amount)


def take_again(operation: Operation) -> None:
    """Take again what `give_back` freed, all or nothing. Idempotent. Raises Denied when there is no room."""
    with transaction.atomic():
        freed = operation.reservations.filter(stage=Reservation.Stage.RELEASED).order_by("counter_id")
        for reservation in freed.select_related("counter"):
            if not _step(reservation, Reservation.Stage.USED):
                continue
            amount = reservation.amount
            taken = Counter.objects.filter(
                pk=reservation.counter_id, limit__gte=F("held") + F("used") + amount
            ).update(used=F("used") + amount)
            if not taken:
                raise Denied(shortage(reservation.counter, amount))


def _step(reservation: Reservation, stage: str) -> bool:
    """Move a reservation on, unless another did."""
    return bool(
        Reservation.objects.filter(pk=reservation.pk, stage=reservation.stage).update(stage=stage)
    )


def shortage(counter: Counter, amount: int) -> str:
    """Return the sentence that says how far `amount` is beyond what `counter` has left."""
    resource, where = Counter.Resource(counter.resource), counter.title or counter.scope
    left = amount_text(resource, max(0, counter.limit - counter.held - counter.used))
    return (
        f"There is not enough {resource.label.lower()} left for {where}: {amount_text(resource, amount)} "
        f"asked, {left} of {amount_text(resource, counter.limit)} left."
    )


def amount_text(resource: str, amount: int) -> str:
    """Return an amount with its unit: GiB or MiB for memory and disk, a plain number otherwise."""
    if resource in {Counter.Resource.MEMORY, Counter.Resource.DISK}:
        if 0 < amount < 1 << 30:
            return f"{round(amount / (1 << 20)):,} MiB"
        return f"{amount / (1 << 30):,.1f}".removesuffix(".0") + " GiB"
    return str(amount)


def _counters(amounts: Amounts) -> list[Counter]:
    scopes = {scope for scope, _ in amounts}
    found = Counter.objects.filter(scope__in=scopes).order_by("pk")
    return [counter for counter in found if (counter.scope, counter.resource) in amounts]


def _settle(operation: Operation, stage: Reservation.Stage) -> None:
    with transaction.atomic():
        held = operation.reservations.filter(stage=Reservation.Stage.HELD).order_by("counter_id")
        for reservation in held:
            if not _step(reservation, stage):
                continue
            changes = {"held": F("held") - reservation.amount}
            if stage == Reservation.Stage.USED:
                changes["used"] = F("used") + reservation.amount
            Counter.objects.filter(pk=reservation.counter_id).update(**changes)
